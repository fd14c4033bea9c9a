#ifndef SPARSETUNE_STOCK
// The Raspberry Pi Pico as a training board. Flash, 2 MB from the bottom:
//   firmware   0 ..  640 KB
//   ROMFS    640 .. 1408 KB  models: a file there is read in place, at no cost of RAM
//   littlefs 1408 .. 1920 KB checkpoints, samples, the user's scripts
//   store    1920 .. 2048 KB trained channels that have no room in RAM (modules/_boot.py)
#define MICROPY_HW_BOARD_NAME                   "Sparsetune Pico"
#define MICROPY_HW_ROMFS_BYTES                  (768 * 1024)
#define MICROPY_HW_FLASH_STORAGE_BYTES          (640 * 1024)

// Without threads the heap needs no lock, and the second core is free for the kernels.
#define MICROPY_PY_THREAD                       (0)
#else
#include "boards/RPI_PICO/mpconfigboard.h"
#endif
