# Octal PSRAM, as on modules whose name ends in R8. MicroPython's heap then lies in it.
list(APPEND SDKCONFIG_DEFAULTS
    boards/sdkconfig.spiram_sx
    boards/sdkconfig.spiram_oct
)

list(APPEND MICROPY_DEF_BOARD
    MICROPY_HW_BOARD_NAME="Sparsetune ESP32-S3 with octal PSRAM"
)
