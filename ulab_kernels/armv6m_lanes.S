// The loop of lanes.c for Cortex-M0+. 48 multiply-accumulates take 141 cycles with three pairs of
// channels: 120 in the pairs, 16 for eight inputs, 5 for the end of the loop.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r1: weights, r3 and r4: two inputs, r7: 2^15. all += both products, high += their upper half.
.macro pair all, high
    ldmia   r1!, {r5, r6}
    muls    r5, r3, r5
    muls    r6, r4, r6
    adds    r5, r5, r6
    adds    r5, r5, r7
    add     \all, r5
    asrs    r5, r5, #16
    add     \high, r5
.endm

.macro pairs n
    pair    r8, r9
.if \n > 1
    pair    r10, r11
.endif
.if \n > 2
    pair    r12, lr
.endif
.endm

.macro start all, high
    ldmia   r1!, {r2, r3}
    mov     \all, r2
    mov     \high, r3
.endm

// Parts the halves and stores both.
.macro finish all, high
    mov     r3, \all
    mov     r4, \high
    lsls    r5, r4, #16
    subs    r3, r3, r5
    stmia   r2!, {r3, r4}
.endm

.macro four_inputs n
    ldmia   r0!, {r2}
    sxtb    r3, r2
    asrs    r2, r2, #8
    sxtb    r4, r2
    asrs    r2, r2, #8
    pairs   \n
    sxtb    r3, r2
    asrs    r4, r2, #8
    pairs   \n
.endm

// r0: x, r1: group, r2: sums, r3: {end of the group, positions, inputs}.
// On the stack: 0 group, 4 its end, 8 sums, 12 positions left, 16 inputs.
.macro run n
    save_all
    sub     sp, #20
    str     r1, [sp, #0]
    str     r2, [sp, #8]
    ldmia   r3!, {r4-r6}
    str     r4, [sp, #4]
    str     r5, [sp, #12]
    str     r6, [sp, #16]
    movs    r7, #1
    lsls    r7, r7, #15
1:  ldr     r1, [sp, #0]
    start   r8, r9
.if \n > 1
    start   r10, r11
.endif
.if \n > 2
    start   r12, lr
.endif
    ldr     r2, [sp, #16]
    lsrs    r2, r2, #3
    bcs     3f
2:  four_inputs \n
3:  four_inputs \n
    ldr     r2, [sp, #4]
    cmp     r1, r2
    bne     2b
    ldr     r2, [sp, #8]
    finish  r8, r9
.if \n > 1
    finish  r10, r11
.endif
.if \n > 2
    finish  r12, lr
.endif
    str     r2, [sp, #8]
    ldr     r2, [sp, #12]
    subs    r2, r2, #1
    str     r2, [sp, #12]
    beq     4f
    b       1b
4:
    add     sp, #20
    restore_all_and_return
.endm

ST_FUNCTION(st_lanes_run_1)
    run     1
ST_FUNCTION(st_lanes_run_2)
    run     2
ST_FUNCTION(st_lanes_run_3)
    run     3

#endif
