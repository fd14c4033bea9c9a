# MicroPython's own RPI_PICO, as far as Debian's source has it: without our code, ROMFS and options.
set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest_stock.py)
set(MICROPY_SOURCE_BOARD "")
list(APPEND MICROPY_DEF_BOARD SPARSETUNE_STOCK=1)
