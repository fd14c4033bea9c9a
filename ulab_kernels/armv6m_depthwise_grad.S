// The loop of depthwise_conv2d.c's input gradient for Cortex-M0+: 32 cycles for four channels of a
// tap, 67 for what stands around it.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r0: st_taps_job_t. Then r0: taps, r1: gradients, r2: weights, r3-r7: scratch; r8-r11: sums, r12:
// end of the taps, lr: bytes to these channels' weights; to their gradients it is twice that.
// On the stack: 0 taps, 4 row, 8 bytes to the end of the weights, 12 scale.

// A tap. op: mov for the first one, which begins the sums, else add.
.macro tap op
    ldmia   r0!, {r1, r2}
    add     r2, lr
    add     r1, lr
    add     r1, lr
    ldmia   r1!, {r3, r4}
    ldr     r5, [r2]
    sxtb    r6, r5
    sxth    r7, r3
    muls    r6, r7, r6
    \op     r8, r6
    asrs    r5, r5, #8
    sxtb    r6, r5
    asrs    r3, r3, #16
    muls    r6, r3, r6
    \op     r9, r6
    asrs    r5, r5, #8
    sxtb    r6, r5
    sxth    r7, r4
    muls    r6, r7, r6
    \op     r10, r6
    asrs    r5, r5, #8
    asrs    r4, r4, #16
    muls    r5, r4, r5
    \op     r11, r5
    cmp     r0, r12
.endm

// to = sum * the scale at [r1 + at] / 2^15, as st_mul_q15. r2, r4: scratch.
.macro scaled to, sum, at
    mov     \to, \sum
    ldrh    r2, [r1, #\at]
    asrs    r4, \to, #16
    muls    r4, r2, r4
    lsls    r4, r4, #1
    uxth    \to, \to
    muls    \to, r2, \to
    lsrs    \to, \to, #15
    adds    \to, \to, r4
.endm

ST_FUNCTION(st_sum_taps)
    save_all
    ldmia   r0!, {r3-r7}
    mov     r12, r3
    push    {r4-r7}
    movs    r3, #0
    mov     lr, r3
1:  ldr     r0, [sp, #0]
    tap     mov
    beq     3f
2:  tap     add
    bne     2b
3:  ldr     r0, [sp, #4]
    ldr     r1, [sp, #12]
    add     r1, lr
    add     r1, lr
    scaled  r3, r8, 0
    scaled  r5, r9, 2
    scaled  r6, r10, 4
    scaled  r7, r11, 6
    stmia   r0!, {r3, r5-r7}
    str     r0, [sp, #4]
    mov     r3, lr
    adds    r3, r3, #4
    mov     lr, r3
    ldr     r4, [sp, #8]
    cmp     r3, r4
    bne     1b
    add     sp, #16
    restore_all_and_return

#endif
