# The same board without our kernels and device package: to try the kernels as a native module.
set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest_stock.py)
