// The loops of update.c for Cortex-M0+: 46 cycles for two weights that stay, 25 more for one that moves, some 60 a row;
// 26 to add eight errors to the sums that biases need.
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
    ldr     r5, [sp, #MANTISSA]
    b       \back
.endm

// Where on the stack.
.equ ROWS, 0
.equ END, 4 // of the row's sums
.equ MANTISSA, 8

// Where in st_step_rows_t.
.equ RATE, 16
.equ RATE_END, 20
.equ LEARNING_RATE, 24
.equ SHIFT, 28
.equ ROW_END, 32
.equ ROW_STEP, 36
.equ CHANNELS_STEP, 40
.equ COUNTER_STEP, 44
.equ FILTER, 48
.equ GAP, 52
.equ IS_ODD, 56

// r3: st_step_rows_t, r4: scratch.
.macro advance register, at
    ldr     r4, [r3, #\at]
    add     \register, r4
.endm

// r0: st_step_rows_t. Then r0: row, r1 and r2: two sums, r3: random bits, r4: scratch, r5: mantissa, r6: random
// bits to drop, r7: shift; r8: counter, r9: what is added to it, r10 and r11: factors of the hash, r12: channels,
// minus half of the address behind the row's first two sums, lr: weights.
ST_FUNCTION(st_step_rows)
    save_all
    sub     sp, #12
    str     r0, [sp, #ROWS]
    movs    r3, r0
    ldmia   r0!, {r1, r2, r4, r5}
    movs    r0, r1
    mov     r8, r2
    mov     r12, r4
    mov     lr, r5
    ldr     r4, =0x9e3779b9
    mov     r9, r4
    ldr     r4, =0x7feb352d
    mov     r10, r4
    ldr     r4, =0x846ca68b
    mov     r11, r4
8:  ldr     r1, [r3, #RATE]
    ldr     r2, [r3, #RATE_END]
    cmp     r1, r2
    beq     9f
    ldrh    r5, [r1]
    ldr     r4, [r3, #LEARNING_RATE]
    muls    r5, r4, r5
    lsrs    r5, r5, #17
    movs    r2, #2
    ldrsh   r2, [r1, r2]
    ldr     r7, [r3, #SHIFT]
    subs    r7, r7, r2
    subs    r7, #32
    bmi     10f
    movs    r6, #14
    subs    r6, r6, r7
    bmi     7f
3:  adds    r1, r1, #4
    str     r1, [r3, #RATE]
    str     r5, [sp, #MANTISSA]
    adds    r6, r6, #2
    adds    r7, r7, #16
    advance r12, CHANNELS_STEP
    advance r8, COUNTER_STEP
    advance lr, FILTER
    advance r0, GAP
    ldr     r1, [r3, #ROW_END]
    ldr     r4, [r3, #ROW_STEP]
    adds    r1, r1, r4
    str     r1, [r3, #ROW_END]
    str     r1, [sp, #END]
    ldr     r4, [r3, #IS_ODD]
    cmp     r4, #0
    beq     1f
    subs    r1, r1, #4
    movs    r4, #0
    str     r4, [r1]
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
4:  ldr     r4, [sp, #END]
    cmp     r0, r4
    bne     1b
    ldr     r3, [sp, #ROWS]
    b       8b
9:  mov     r1, r8
    mov     r2, r12
    mov     r4, lr
    stmia   r3!, {r0-r2, r4}
    add     sp, #12
    restore_all_and_return
    .ltorg
10: movs    r7, #0 // the sums are shifted
    movs    r6, #14
    b       3b
7:  negs    r6, r6 // what is beyond MOST_SHIFT
    cmp     r6, #31
    bls     7f
    movs    r6, #31
7:  movs    r4, #0
    lsrs    r5, r6
    adcs    r5, r4 // the last bit that was shifted out rounds
    movs    r6, #0
    movs    r7, #14
    b       3b
5:  move    r1, 0, 2b
6:  move    r2, 2, 4b

.macro sum_two word, a, b
    sxth    r5, \word
    add     \a, r5
    asrs    \word, \word, #16
    add     \b, \word
.endm

// r0: errors, r1: positions, r2: bytes behind eight errors to those of the next position, r3 and r4: four
// of them, r5: scratch.
ST_FUNCTION(st_sum_rows)
    save_all
    push    {r3}
    lsls    r2, r2, #1
    subs    r2, r2, #16
    movs    r6, #0
    movs    r7, #0
    all_r6
1:  ldmia   r0!, {r3, r4}
    sum_two r3, r8, r9
    sum_two r4, r10, r11
    ldmia   r0!, {r3, r4}
    sum_two r3, r12, lr
    sum_two r4, r6, r7
    adds    r0, r0, r2
    subs    r1, r1, #1
    bne     1b
    pop     {r0}
    mov     r1, r8
    mov     r2, r9
    mov     r3, r10
    mov     r4, r11
    stmia   r0!, {r1-r4}
    mov     r1, r12
    mov     r2, lr
    movs    r3, r6
    movs    r4, r7
    stmia   r0!, {r1-r4}
    restore_all_and_return

#endif
