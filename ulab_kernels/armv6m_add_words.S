// The loops of add_words.c for Cortex-M0+: an error takes 6.5 cycles where it is zero and one word a position,
// 7.5 with two; else 19.5 for four values, 30.5 for seven.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r0: error, r1: word, r2: scratch, r3: words, r4: errors, r5: bytes from error to error.
.macro upper shift, sum
    lsrs    r2, r1, #\shift
    muls    r2, r0, r2
    add     \sum, r2
.endm

.macro lowest sum
    muls    r1, r0, r1
    add     \sum, r1
.endm

// The error times the values of a word.
.macro four_values at
    ldr     r1, [r3, #\at]
    upper   24, r11
    upper   16, r10
    upper   8, r9
    lowest  r8
.endm

// What is above a byte in its sum is the next one's.
.macro part sum, next, scratch
    lsls    \scratch, \next, #8
    subs    \sum, \sum, \scratch
.endm

// r0 to r3: those of r8 to r11 without what is above them, and without r4.
.macro part_four scratch
    mov     r0, r8
    mov     r1, r9
    mov     r2, r10
    mov     r3, r11
    part    r0, r1, \scratch
    part    r1, r2, \scratch
    part    r2, r3, \scratch
    subs    r0, r0, r4
    subs    r1, r1, r4
    subs    r2, r2, r4
    subs    r3, r3, r4
.endm

// Where on the stack.
.equ DY, 0
.equ WORDS, 4
.equ ENTRY, 8
.equ ZERO, 12
.equ SUMS, 16
.equ TO_TOTAL, 20
.equ LEFT, 24
.equ END, 28
.equ STEP, 32

// r0: st_words_loop_t. r5: bytes from error to error, r6: scratch. bytes: of an error's code; what is odd has
// `more`.
.macro begin_loop loop, bytes, more
    save_all
    sub     sp, #36
    ldmia   r0!, {r1-r4}
    movs    r5, #\bytes
    muls    r5, r3, r5
    .if     \more
    lsrs    r3, r3, #1
    lsls    r3, r3, #1
    adds    r5, r5, r3
    .endif
    adr     r3, \loop
    adds    r3, r3, r5
    adds    r3, r3, #1
    mov     r6, sp
    stmia   r6!, {r1-r4}
    ldmia   r0!, {r1-r5}
    stmia   r6!, {r1-r5}
.endm

// To the errors and words of the next output channel.
.macro enter
    ldr     r4, [sp, #DY]
    adds    r0, r4, #2
    str     r0, [sp, #DY]
    ldr     r3, [sp, #WORDS]
    ldr     r0, [sp, #ENTRY]
    bx      r0
.endm

// r4: behind the sums, r7: total.
.macro store_total
    ldr     r0, [sp, #TO_TOTAL]
    str     r7, [r4, r0]
    adds    r4, r4, r0
    adds    r4, r4, #4
.endm

.macro next_channel label
    str     r4, [sp, #SUMS]
    ldr     r0, [sp, #LEFT]
    subs    r0, r0, #1
    str     r0, [sp, #LEFT]
    beq     8f
    b       \label
8:  add     sp, #36
    restore_all_and_return
.endm

// r6: twice r5.
.macro one_word at, odd
    .if     \odd
    ldrsh   r0, [r4, r6]
    adds    r4, r4, r6
    .else
    ldrsh   r0, [r4, r5]
    .endif
    cmp     r0, #0
    beq     9f
    four_values \at
    add     r12, r0
9:
.endm

// r8 to r11: sums, r12: sum of errors, lr: end of the words.
ST_FUNCTION(st_add_one_word)
    begin_loop 2f, 32, 1
    ldr     r0, [sp, #END]
    mov     lr, r0
1:  ldr     r5, [sp, #STEP]
    lsls    r6, r5, #1
    movs    r7, #0
    mov     r8, r7
    mov     r9, r7
    mov     r10, r7
    mov     r11, r7
    mov     r12, r7
    enter
    .balign 4
2:  one_word 0, 0
    one_word 4, 1
    one_word 8, 0
    one_word 12, 1
    adds    r3, r3, #16
    cmp     r3, lr
    bne     2b
    mov     r7, r12
    ldr     r4, [sp, #ZERO]
    muls    r4, r7, r4
    part_four r6
    ldr     r4, [sp, #SUMS]
    stmia   r4!, {r0-r3}
    store_total
    next_channel 1b

.macro two_words at
    ldrsh   r0, [r4, r5]
    adds    r4, r4, r5
    cmp     r0, #0
    beq     9f
    four_values \at
    ldr     r1, [r3, #\at + 4]
    upper   16, r6
    upper   8, lr
    lowest  r12
    adds    r7, r7, r0
9:
.endm

// r8 to r12, lr, r6: sums, r7: sum of errors.
ST_FUNCTION(st_add_two_words)
    begin_loop 2f, 52, 0
1:  ldr     r5, [sp, #STEP]
    movs    r6, #0
    movs    r7, #0
    all_r6
    enter
    .balign 4
2:  two_words 0
    two_words 8
    two_words 16
    two_words 24
    adds    r3, r3, #32
    ldr     r0, [sp, #END]
    cmp     r3, r0
    bne     2b
    ldr     r4, [sp, #ZERO]
    muls    r4, r7, r4
    mov     r0, r12
    mov     r1, lr
    part    r0, r1, r5
    part    r1, r6, r5
    subs    r0, r0, r4
    subs    r1, r1, r4
    subs    r6, r6, r4
    mov     r12, r0
    mov     lr, r1
    part_four r5
    ldr     r4, [sp, #SUMS]
    stmia   r4!, {r0-r3}
    mov     r0, r12
    mov     r1, lr
    stmia   r4!, {r0, r1, r6}
    store_total
    next_channel 1b

#endif
