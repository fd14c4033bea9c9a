# Octal PSRAM, as on modules whose name ends in R8, for what MicroPython's heap grows by.
list(APPEND SDKCONFIG_DEFAULTS
    boards/sdkconfig.spiram_sx
    boards/sdkconfig.spiram_oct
)

list(APPEND MICROPY_DEF_BOARD
    MICROPY_HW_BOARD_NAME="Sparsetune ESP32-S3 with octal PSRAM"
    SPARSETUNE_PSRAM=1
)
