// An ESP32-S3 with 8 MB of flash as a training board. Its flash: partitions-8MiB-romfs.csv.
#ifndef MICROPY_HW_BOARD_NAME // the variant with PSRAM has a name of its own
#define MICROPY_HW_BOARD_NAME                   "Sparsetune ESP32-S3"
#endif
#define MICROPY_HW_MCU_NAME                     "ESP32S3"

// Models lie in the partition romfs: a file there is read in place, at no cost of RAM.
#define MICROPY_VFS_ROM                         (1)

// The REPL is at the native USB port and, for boards with a USB-serial chip, at UART 0 too.
#define MICROPY_HW_ENABLE_UART_REPL             (1)

// Bluetooth would take RAM from training. Wi-Fi takes some only when it is switched on.
#define MICROPY_PY_BLUETOOTH                    (0)
