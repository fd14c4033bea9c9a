// The loops of update.c for Cortex-M0+: 46 cycles for two weights that stay, 25 more for one that moves, some 60 a row;
// with a residual 106 for two that move, 27 less for one that stays; 26 to add eight errors to the sums that biases need.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// The step of \sum, and whether it is 0. Random bits: in r3.
.macro step sum
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
.endm

// r4: where the weight of a slot lies. at: of its channel, behind those of the pair.
.macro find_weight at
    lsrs    r4, r0, #1
    add     r4, r12
    ldrh    r4, [r4, #\at]
    add     r4, lr
.endm

// Takes the step from its weight.
.macro move step, at, back
    find_weight \at
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

// The step of \sum, taken from its weight and the fraction r10 bytes behind it. A weight that is next to its limits, or
// beyond, goes to \limits and comes back.
.macro step_fine sum, at, limits, back
    step    \sum
    beq     7f
    find_weight \at
    movs    r5, #0
    ldrsb   r5, [r4, r5]
    lsls    r5, r5, #8
    subs    \sum, r5, \sum
    mov     r5, r10
    ldrsb   r5, [r4, r5]
    adds    \sum, \sum, r5
    movs    r5, #128
    adds    r5, r5, \sum
    asrs    r5, r5, #8
    strb    r5, [r4]
    adds    r5, #126
    cmp     r5, #252
    bhi     \limits
\back:
    mov     r5, r10
    strb    \sum, [r4, r5]
    ldr     r5, [sp, #MANTISSA]
7:
.endm

// fine: 256 times the weight, with its fraction.
.macro limit fine, back
    movs    r5, #127
    lsls    r5, r5, #8
    cmp     \fine, #0
    bge     7f
    negs    r5, r5
    cmp     \fine, r5
    bge     \back
    b       6f
7:  cmp     \fine, r5
    ble     \back
6:  movs    \fine, r5
    asrs    r5, r5, #8
    strb    r5, [r4]
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
.equ KIND, 56
.equ FRACTIONS, 60

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
    ldr     r4, [r3, #KIND]
    cmp     r4, #0
    bne     11f
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
    step    r1
    bne     5f
2:  rev     r3, r3
    step    r2
    bne     6f
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
11: lsrs    r4, r4, #1
    bcc     7f
    subs    r1, r1, #4 // the last sum becomes 0
    movs    r2, #0
    str     r2, [r1]
7:  cmp     r4, #0
    beq     1b
    ldr     r4, [r3, #FRACTIONS]
    mov     r10, r4
    ldr     r1, [r3, #RATE] // of the next row
    subs    r1, r1, #2
    movs    r2, #0
    ldrsh   r2, [r1, r2]
    ldr     r1, [r3, #SHIFT]
    subs    r2, r2, r1
    adds    r2, #32 // what the sums are to be shifted left
    bpl     7f
    movs    r2, #0
7:  mov     r9, r2
1:  ldr     r4, =0x9e3779b9
    add     r8, r4
    ldmia   r0!, {r1, r2}
    movs    r4, r1
    orrs    r4, r2
    beq     4f
    mov     r4, r9
    lsls    r1, r4
    lsls    r2, r4
    mov     r3, r8
    lsrs    r4, r3, #16
    eors    r3, r4
    ldr     r4, =0x7feb352d
    muls    r3, r4, r3
    lsrs    r4, r3, #15
    eors    r3, r4
    mov     r4, r11
    muls    r3, r4, r3
    lsrs    r4, r3, #16
    eors    r3, r4
    step_fine r1, 0, 12f, 14
    rev     r3, r3
    step_fine r2, 2, 13f, 15
4:  ldr     r4, [sp, #END]
    cmp     r0, r4
    bne     1b
    ldr     r3, [sp, #ROWS]
    b       8b
12: limit   r1, 14b
13: limit   r2, 15b
    .ltorg

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
