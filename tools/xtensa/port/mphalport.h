// What MicroPython asks of a port.
#include <errno.h>
#include <unistd.h>

#define MICROPY_INTERNAL_WFE(timeout_ms) ((void)(timeout_ms))

// As the unix port has it.
#define MP_HAL_RETRY_SYSCALL(ret, syscall, raise)                                                  \
    {                                                                                              \
        ret = syscall;                                                                             \
        if (ret == -1) {                                                                           \
            int err = errno;                                                                       \
            (void)err;                                                                             \
            raise;                                                                                 \
        }                                                                                          \
    }

void mp_hal_set_interrupt_char(int c);
