# Build settings of the board; nothing in MicroPython's tree is edited or added.

set(IDF_TARGET esp32s3)

# ESP-IDF takes a partition table's name as a path from ports/esp32, unless it is absolute.
set(SPARSETUNE_PARTITIONS ${CMAKE_BINARY_DIR}/sdkconfig.partitions)
file(WRITE ${SPARSETUNE_PARTITIONS}
    "CONFIG_PARTITION_TABLE_CUSTOM_FILENAME=\"${MICROPY_BOARD_DIR}/partitions-8MiB-romfs.csv\"\n")

# The paths without a folder of ours are MicroPython's, from ports/esp32.
set(SDKCONFIG_DEFAULTS
    boards/sdkconfig.base
    boards/sdkconfig.usb
    boards/sdkconfig.240mhz
    ${MICROPY_BOARD_DIR}/sdkconfig.board
    ${SPARSETUNE_PARTITIONS}
)

set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest.py)
