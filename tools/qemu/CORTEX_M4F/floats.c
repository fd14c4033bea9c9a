// Lets the program use the core's floats, before anything else is begun.
#include <stdint.h>

void __real_uart_init(void);
void __wrap_uart_init(void);

void __wrap_uart_init(void) {
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xE000ED88; // ARMv7-M, B3.2.20
    *cpacr |= 0xFu << 20;                                             // coprocessors 10 and 11
    __asm volatile("dsb\n isb" ::: "memory");
    __real_uart_init();
}
