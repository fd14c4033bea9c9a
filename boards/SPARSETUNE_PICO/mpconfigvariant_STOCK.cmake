# The same board without our own code: to try the kernels as a native module.
set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest_stock.py)
set(MICROPY_SOURCE_BOARD "")
