// The loops of add_rows.c for Cortex-M0+: 69 cycles for two terms of eight elements whose values lie in
// aligned words, 42 of four, 97 of eight where they do not; 16 to gather a factor with its scale, 11.5 without.
//
// Of a word of four values b0 to b3, each with its upper bit turned so that it is v = b + 128, all that is
// shifted out below a value is known to the sum of that below it: with S0 = sum of d * word,
// S1 = sum of d * (word >> 8) and so on, sum of d * v0 = S0 - 256 * S1, exactly so modulo 2^32. So a
// value takes three instructions: shift, multiply, add.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// On the stack of both loops: 0-12 what the sums of a word start with, 16 bytes of a row behind,
// 20 row, 24 terms, 28 bytes of a row in blocks of eight, 32 the flags.
.macro begin
    save_all
    sub     sp, #36
    ldmia   r0!, {r1-r5}
    str     r1, [sp, #24]
    str     r2, [sp, #20]
    lsls    r3, r3, #3
    str     r3, [sp, #28]
    str     r5, [sp, #32]
    movs    r3, #0
    str     r3, [sp, #16]
.endm

// The next eight, or what is behind them.
.macro end_block
    str     r0, [sp, #20]
    ldr     r1, [sp, #16]
    adds    r1, r1, #8
    str     r1, [sp, #16]
    ldr     r2, [sp, #28]
    cmp     r1, r2
    beq     7f
    b       1b
7:
.endm

.macro end
    add     sp, #36
    restore_all_and_return
.endm

// To \adds if the row counts.
.macro choose adds
    ldr     r0, [sp, #20]
    ldr     r1, [sp, #32]
    lsrs    r1, r1, #1
    bcs     \adds
.endm

// Adds four of row r0 to the sums in r2-r5.
.macro add_four
    ldr     r1, [r0, #0]
    adds    r2, r2, r1
    ldr     r1, [r0, #4]
    adds    r3, r3, r1
    ldr     r1, [r0, #8]
    adds    r4, r4, r1
    ldr     r1, [r0, #12]
    adds    r5, r5, r1
.endm

// r0: terms, r1: 0x80808080, r2: factor, r3: row, then scratch, r4 and r5: eight values.
.macro next_term done
    ldmia   r0!, {r2, r3}
    ldr     r4, [sp, #16]
    adds    r3, r3, r4
    bmi     \done
.endm

.macro digit sum, word, shift
    lsrs    r3, \word, #\shift
    muls    r3, r2, r3
    add     \sum, r3
.endm

.macro four word, a, b, c, d
    eors    \word, r1
    digit   \b, \word, 8
    digit   \c, \word, 16
    digit   \d, \word, 24
    muls    \word, r2, \word
    add     \a, \word
.endm

.macro words
    next_term 3f
    ldmia   r3!, {r4, r5}
    four    r4, r8, r9, r10, r11
    four    r5, r12, lr, r6, r7
.endm

.macro last_words
    next_term 8f
    ldr     r4, [r3]
    four    r4, r8, r9, r10, r11
.endm

.macro four_of a, b, c, d
    mov     r2, \a
    mov     r3, \b
    mov     r4, \c
    mov     r5, \d
.endm

.macro part a, b, c, d
    four_of \a, \b, \c, \d
    lsls    r1, r3, #8
    subs    r2, r2, r1
    lsls    r1, r4, #8
    subs    r3, r3, r1
    lsls    r1, r5, #8
    subs    r4, r4, r1
.endm

ST_FUNCTION(st_add_rows_words)
    begin
    str     r4, [sp, #12]
    lsls    r3, r4, #8
    adds    r3, r3, r4
    str     r3, [sp, #8]
    lsls    r3, r3, #8
    adds    r3, r3, r4
    str     r3, [sp, #4]
    lsls    r3, r3, #8
    adds    r3, r3, r4
    str     r3, [sp, #0]
    ldr     r3, [sp, #28]
    cmp     r3, #0
    bne     1f
    b       6f
1:  mov     r0, sp
    ldmia   r0!, {r2-r5}
    mov     r8, r2
    mov     r9, r3
    mov     r10, r4
    mov     r11, r5
    mov     r12, r2
    mov     lr, r3
    movs    r6, r4
    movs    r7, r5
    ldr     r0, [sp, #24]
    ldr     r1, =0x80808080
2:  .rept 4
    words
    .endr
    b       2b
3:  choose  4f
    part    r8, r9, r10, r11
    stmia   r0!, {r2-r5}
    part    r12, lr, r6, r7
    stmia   r0!, {r2-r5}
5:  end_block
    ldr     r1, [sp, #32]
    lsrs    r1, r1, #3
    bcs     6f
9:  end
4:  part    r8, r9, r10, r11
    add_four
    stmia   r0!, {r2-r5}
    part    r12, lr, r6, r7
    add_four
    stmia   r0!, {r2-r5}
    b       5b
6:  mov     r0, sp // four more
    ldmia   r0!, {r2-r5}
    mov     r8, r2
    mov     r9, r3
    mov     r10, r4
    mov     r11, r5
    ldr     r0, [sp, #24]
    ldr     r1, =0x80808080
7:  .rept 4
    last_words
    .endr
    b       7b
8:  choose  10f
    part    r8, r9, r10, r11
    stmia   r0!, {r2-r5}
    b       9b
10: part    r8, r9, r10, r11
    add_four
    stmia   r0!, {r2-r5}
    b       9b
    .ltorg

.macro one sum, at
    ldrb    r4, [r3, #\at]
    sxtb    r4, r4
    muls    r4, r2, r4
    add     \sum, r4
.endm

.macro bytes
    next_term 3f
    one     r8, 0
    one     r9, 1
    one     r10, 2
    one     r11, 3
    one     r12, 4
    one     lr, 5
    one     r6, 6
    one     r7, 7
.endm

ST_FUNCTION(st_add_rows_bytes)
    begin
    str     r4, [sp, #0]
1:  ldr     r6, [sp, #0]
    movs    r7, r6
    all_r6
    ldr     r0, [sp, #24]
2:  bytes
    b       2b
3:  choose  4f
    four_of r8, r9, r10, r11
    stmia   r0!, {r2-r5}
    four_of r12, lr, r6, r7
    stmia   r0!, {r2-r5}
5:  end_block
    end
4:  four_of r8, r9, r10, r11
    add_four
    stmia   r0!, {r2-r5}
    four_of r12, lr, r6, r7
    add_four
    stmia   r0!, {r2-r5}
    b       5b

// r0: st_factors_t, r1: terms, r2: total. Then r0: gradients, r1: scales, r2: terms, r3: factor, r4: row,
// r5: scratch, r6: counts up to 0, r7: 2^14; r8: from row to row, r12: total, lr: where it goes.
.macro load_factors
    push    {r4-r7, lr}
    mov     r4, r8
    push    {r4}
    mov     lr, r2
    ldr     r2, [r2]
    mov     r12, r2
    movs    r2, r1
    ldmia   r0!, {r3, r5}
    ldr     r4, [r0, #0]
    ldr     r6, [r0, #8]
    mov     r8, r6
    ldr     r6, [r0, #12]
    ldr     r7, [r0, #4]
    movs    r0, r3
    movs    r1, r5
.endm

.macro store_total
    movs    r0, r2
    mov     r2, r12
    mov     r1, lr
    str     r2, [r1]
    pop     {r4}
    mov     r8, r4
    pop     {r4-r7, pc}
.endm

.macro gather_one_scaled
    ldrsh   r3, [r0, r6]
    cmp     r3, #0
    beq     9f
    ldrh    r5, [r1, r6]
    muls    r3, r5, r3
    adds    r3, r3, r7
    asrs    r3, r3, #15
    add     r12, r3
    stmia   r2!, {r3, r4}
9:  add     r4, r8
    adds    r6, r6, #2
.endm

ST_FUNCTION(st_gather_scaled)
    load_factors
    lsls    r3, r6, #1
    adds    r0, r0, r3
    adds    r1, r1, r3
    movs    r7, #1
    lsls    r7, r7, #14
    negs    r3, r3
    lsrs    r6, r6, #1
    mov     r6, r3
    bcs     2f
1:  gather_one_scaled
2:  gather_one_scaled
    bne     1b
    store_total

.macro gather_one
    ldrsh   r3, [r0, r5]
    adds    r0, r0, r7
    cmp     r3, #0
    beq     9f
    add     r12, r3
    stmia   r2!, {r3, r4}
9:  add     r4, r8
.endm

// r5: 0, r6: pairs left, r7: bytes from gradient to gradient.
ST_FUNCTION(st_gather)
    load_factors
    lsls    r7, r7, #1
    movs    r5, #0
    adds    r6, r6, #1
    lsrs    r6, r6, #1
    bcc     2f
1:  gather_one
2:  gather_one
    subs    r6, r6, #1
    bne     1b
    store_total

#endif
