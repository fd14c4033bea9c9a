// The loop of depthwise_conv2d.c's input gradient for Cortex-M0+: 33 cycles for four channels of a tap.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r0: st_taps_job_t. Then r0: taps, r1: gradients, r2: weights, r3-r7: scratch; r8-r11: sums,
// r12: bytes to these channels' gradients, lr: to their weights.
// On the stack: 0 end of the taps, 4 taps, 8 row, 12 bytes to the end of the weights.
ST_FUNCTION(st_sum_taps)
    save_all
    ldmia   r0!, {r3-r6}
    push    {r3-r6}
    movs    r3, #0
    mov     r12, r3
    mov     lr, r3
1:  movs    r3, #0
    mov     r8, r3
    mov     r9, r3
    mov     r10, r3
    mov     r11, r3
    ldr     r0, [sp, #4]
2:  ldmia   r0!, {r1, r2}
    add     r1, r12
    add     r2, lr
    ldmia   r1!, {r3, r4}
    ldr     r5, [r2]
    sxtb    r6, r5
    sxth    r7, r3
    muls    r6, r7, r6
    add     r8, r6
    asrs    r5, r5, #8
    sxtb    r6, r5
    asrs    r3, r3, #16
    muls    r6, r3, r6
    add     r9, r6
    asrs    r5, r5, #8
    sxtb    r6, r5
    sxth    r7, r4
    muls    r6, r7, r6
    add     r10, r6
    asrs    r5, r5, #8
    asrs    r4, r4, #16
    muls    r5, r4, r5
    add     r11, r5
    ldr     r6, [sp, #0]
    cmp     r0, r6
    bne     2b
    ldr     r0, [sp, #8]
    mov     r3, r8
    mov     r4, r9
    mov     r5, r10
    mov     r6, r11
    stmia   r0!, {r3-r6}
    str     r0, [sp, #8]
    mov     r3, r12
    adds    r3, r3, #8
    mov     r12, r3
    mov     r3, lr
    adds    r3, r3, #4
    mov     lr, r3
    ldr     r4, [sp, #12]
    cmp     r3, r4
    bne     1b
    add     sp, #16
    restore_all_and_return

#endif
