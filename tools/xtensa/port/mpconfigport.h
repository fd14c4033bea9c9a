// MicroPython on QEMU's Xtensa core, with the features of an ESP32-S3's firmware that need no chip.
#include <alloca.h>
#include <stddef.h>
#include <stdint.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)

typedef intptr_t mp_int_t;
typedef uintptr_t mp_uint_t;
typedef long mp_off_t;
#define MP_SSIZE_MAX INT32_MAX

// Objects and numbers as the S3's firmware has them, so that its .mpy files are taken.
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_FLOAT)
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_EMIT_XTENSAWIN (1)
#define MICROPY_PERSISTENT_CODE_LOAD (1)
#define MICROPY_NLR_SETJMP (1)

#define MICROPY_ENABLE_COMPILER (1)
#define MICROPY_ENABLE_GC (1)
#define MICROPY_ALLOC_PATH_MAX (256)
#define MICROPY_ENABLE_FINALISER (1)
#define MICROPY_VFS (1)
#define MICROPY_READER_VFS (1)
#define MICROPY_VFS_POSIX (1)
#define MICROPY_PY_SYS_PLATFORM "qemu-xtensa"
#define MICROPY_PY_BUILTINS_INPUT (0)
#define MICROPY_PY_MATH_SPECIAL_FUNCTIONS (0)
#define MICROPY_PY_CMATH (0)

// Machine code lies in pages of its own.
void *port_alloc_code(size_t bytes);
#define MP_PLAT_ALLOC_EXEC(bytes, place, got) (*(place) = port_alloc_code(bytes), *(got) = (bytes))
#define MP_PLAT_FREE_EXEC(place, bytes) ((void)(place))
#define MICROPY_MAKE_POINTER_CALLABLE(place) ((void *)(place))

#define MICROPY_HW_BOARD_NAME "qemu-xtensa"
#define MICROPY_HW_MCU_NAME "de233_fpu"
#define MP_STATE_PORT MP_STATE_VM
