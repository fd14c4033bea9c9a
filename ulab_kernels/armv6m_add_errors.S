// The loop of add_errors.c for Cortex-M0+: 37 cycles for a term of eight elements.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r2: factor, r1: scratch.
.macro two word, a, b
    sxth    r1, \word
    muls    r1, r2, r1
    add     \a, r1
    asrs    \word, \word, #16
    muls    \word, r2, \word
    add     \b, \word
.endm

// r0: terms, r3: row, r4 and r5: four elements.
.macro errors
    ldmia   r0!, {r2, r3}
    ldr     r1, [sp, #0]
    adds    r3, r3, r1
    bmi     3f
    ldmia   r3!, {r4, r5}
    two     r4, r8, r9
    two     r5, r10, r11
    ldmia   r3!, {r4, r5}
    two     r4, r12, lr
    two     r5, r6, r7
.endm

// r0: where it goes, r1: bytes from sum to sum.
.macro store
    str     r2, [r0]
    adds    r0, r0, r1
    str     r3, [r0]
    adds    r0, r0, r1
    str     r4, [r0]
    adds    r0, r0, r1
    str     r5, [r0]
    adds    r0, r0, r1
.endm

.macro store_more sum
    ldr     r2, [r0]
    add     r2, \sum
    str     r2, [r0]
    adds    r0, r0, r1
.endm

// On the stack: 0 bytes of a row behind, 4 terms, 8 sums, 12 blocks, 16 step, 20 add.
ST_FUNCTION(st_add_errors)
    save_all
    sub     sp, #24
    ldmia   r0!, {r1-r5}
    lsls    r4, r4, #2
    add     r0, sp, #4
    stmia   r0!, {r1-r5}
    movs    r0, #0
    str     r0, [sp, #0]
    cmp     r3, #0
    beq     6f
1:  movs    r6, #0
    movs    r7, #0
    all_r6
    ldr     r0, [sp, #4]
2:  .rept 2
    errors
    .endr
    b       2b
3:  ldr     r0, [sp, #8]
    ldr     r1, [sp, #16]
    ldr     r2, [sp, #20]
    cmp     r2, #0
    bne     4f
    mov     r2, r8
    mov     r3, r9
    mov     r4, r10
    mov     r5, r11
    store
    mov     r2, r12
    mov     r3, lr
    movs    r4, r6
    movs    r5, r7
    store
5:  str     r0, [sp, #8]
    ldr     r0, [sp, #0]
    adds    r0, r0, #16
    str     r0, [sp, #0]
    ldr     r0, [sp, #12]
    subs    r0, r0, #1
    str     r0, [sp, #12]
    bne     1b
6:  add     sp, #24
    restore_all_and_return
4:  .irp    sum, r8, r9, r10, r11, r12, lr, r6, r7
    store_more \sum
    .endr
    b       5b

#endif
