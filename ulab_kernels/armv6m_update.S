// The loop of update.c for Cortex-M0+: 44 cycles for two weights that stay, 24 more for one that moves.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// The step of \sum, and to \moves if it is not 0. Random bits: in r3.
.macro step sum, moves
    uxth    r4, \sum
    asrs    \sum, \sum, #16
    muls    \sum, r5, \sum
    muls    r4, r5, r4
    lsrs    r4, r4, #16
    adcs    \sum, r4 // the last bit that was shifted out rounds
    movs    r4, r3
    lsrs    r4, r6
    adds    \sum, \sum, r4
    asrs    \sum, r7
    bne     \moves
.endm

// Takes the step from its weight. at: of its channel, behind those of the pair.
.macro move step, at, back
    lsrs    r4, r0, #1
    add     r4, r12
    ldrh    r4, [r4, #\at]
    add     r4, lr
    movs    r5, #0
    ldrsb   r5, [r4, r5]
    subs    \step, r5, \step
    movs    r5, #127
    adds    r5, r5, \step
    cmp     r5, #254
    bls     7f
    movs    r5, #127
    asrs    \step, \step, #31
    eors    \step, r5
    movs    r5, #1
    orrs    \step, r5 // 127, or -128 and 1
7:  strb    \step, [r4]
    ldr     r5, [sp, #4]
    b       \back
.endm

// r0: st_step_row_t. Then r0: row, r1 and r2: two sums, r3: random bits, r4: scratch, r5: mantissa,
// r6: random bits to drop, r7: shift; r8: counter, r9: what is added to it, r10 and r11: factors of the
// hash, r12: channels, lr: weights. On the stack: 0 end of the row, 4 mantissa.
ST_FUNCTION(st_step_row)
    save_all
    sub     sp, #8
    ldmia   r0!, {r1, r2, r5-r7}
    str     r2, [sp, #0]
    str     r5, [sp, #4]
    ldmia   r0!, {r2-r4}
    mov     r8, r2
    mov     r9, r3
    mov     r10, r4
    ldmia   r0!, {r2-r4}
    mov     r11, r2
    mov     r12, r3
    mov     lr, r4
    movs    r0, r1
1:  add     r8, r9
    ldmia   r0!, {r1, r2}
    movs    r4, r1
    orrs    r4, r2
    beq     4f
    mov     r3, r8
    lsrs    r4, r3, #16
    eors    r3, r4
    mov     r4, r10
    muls    r3, r4, r3
    lsrs    r4, r3, #15
    eors    r3, r4
    mov     r4, r11
    muls    r3, r4, r3
    lsrs    r4, r3, #16
    eors    r3, r4
    step    r1, 5f
2:  rev     r3, r3
    step    r2, 6f
4:  ldr     r4, [sp, #0]
    cmp     r0, r4
    bne     1b
    add     sp, #8
    restore_all_and_return
5:  move    r1, 0, 2b
6:  move    r2, 2, 4b

#endif
