// An ESP32-S3 with 8 MB of flash as a training board. Its flash: partitions-8MiB-romfs.csv.
#ifndef MICROPY_HW_BOARD_NAME // the variant with PSRAM has a name of its own
#define MICROPY_HW_BOARD_NAME                   "Sparsetune ESP32-S3"
#endif
#define MICROPY_HW_MCU_NAME                     "ESP32S3"

// Models lie in the partition romfs: a file there is read in place, at no cost of RAM.
#define MICROPY_VFS_ROM                         (1)

// The REPL is at the native USB port and, for boards with a USB-serial chip, at UART 0 too.
#define MICROPY_HW_ENABLE_UART_REPL             (1)

// The heap's first part is the chip's own RAM: a run allocates its arena first, which comes to lie
// there. What the heap grows by is PSRAM, so that the rest of the chip's stays Wi-Fi's.
#ifdef SPARSETUNE_PSRAM
#include "esp_heap_caps.h"
#define MICROPY_GC_INITIAL_HEAP_SIZE            (160 * 1024)
#define MP_PLAT_ALLOC_HEAP(size) \
    heap_caps_malloc_prefer((size), 2, \
        (size) == MICROPY_GC_INITIAL_HEAP_SIZE ? MALLOC_CAP_INTERNAL | MALLOC_CAP_8BIT : MALLOC_CAP_SPIRAM, \
        MALLOC_CAP_8BIT)
#endif

// Bluetooth would take RAM from training. Wi-Fi takes some only when it is switched on.
#define MICROPY_PY_BLUETOOTH                    (0)
