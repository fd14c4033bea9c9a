// The loops of fully_connected.c for Cortex-M0+: 16 multiply-accumulates in 71 cycles, and 24 in 85
// from packed weights.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// One row's four weights, each with its upper bit turned so that it is v = w + 128. All that is shifted
// out below a value is known to the sum of that below it: v0 * x0 + v1 * x1 ... = word * x0 +
// (word >> 8) * (x1 - 256 * x0) + ..., modulo 2^32. r0-r3: these factors, r4: the word, r5: scratch, r6:
// weights, r7: 0x80808080.
.macro row sum
    ldr     r4, [r6]
    eors    r4, r7
    lsrs    r5, r4, #8
    muls    r5, r1, r5
    add     \sum, r5
    lsrs    r5, r4, #16
    muls    r5, r2, r5
    add     \sum, r5
    lsrs    r5, r4, #24
    muls    r5, r3, r5
    add     \sum, r5
    muls    r4, r0, r4
    add     \sum, r4
.endm

.macro four_inputs
    mov     r4, r12
    ldmia   r4!, {r0-r3}
    mov     r12, r4
    row     r8
    add     r6, lr
    row     r9
    add     r6, lr
    row     r10
    add     r6, lr
    row     r11
    ldr     r4, [sp, #0]
    subs    r6, r6, r4
.endm

// r0: factors, int32; r1: weights; r2: inputs in number, a multiple of 4; r3: sums of four rows, added
// to. r12: factors; r8-r11: sums. Stack: 0 from the last row's word to the first one's next, 4
// end of the factors, 8 sums. lr: bytes of a row.
ST_FUNCTION(st_four_rows)
    save_all
    sub     sp, #12
    mov     r12, r0
    movs    r6, r1
    mov     lr, r2
    lsls    r5, r2, #2
    adds    r0, r0, r5
    str     r0, [sp, #4]
    subs    r5, r5, r2
    subs    r5, r5, #4
    str     r5, [sp, #0]
    str     r3, [sp, #8]
    ldmia   r3!, {r0, r1, r4, r5}
    mov     r8, r0
    mov     r9, r1
    mov     r10, r4
    mov     r11, r5
    ldr     r7, =0x80808080
    lsrs    r2, r2, #3
    bcs     2f
1:  four_inputs
2:  four_inputs
    ldr     r5, [sp, #4]
    cmp     r12, r5
    bne     1b
    ldr     r3, [sp, #8]
    mov     r0, r8
    mov     r1, r9
    mov     r4, r10
    mov     r5, r11
    stmia   r3!, {r0, r1, r4, r5}
    add     sp, #12
    restore_all_and_return
    .ltorg

// r5: four weights: two inputs of two rows. r7: mask of two of them. r2, r3: the inputs, r4: what is
// added to them.
.macro two_rows all, high
    ldmia   r1!, {r5}
    lsrs    r6, r5, #8
    ands    r6, r6, r7
    ands    r5, r5, r7
    muls    r6, r3, r6
    muls    r5, r2, r5
    adds    r5, r5, r6
    adds    r5, r5, r4
    add     \all, r5
    asrs    r5, r5, #16
    add     \high, r5
.endm

.macro two_inputs
    ldmia   r0!, {r2-r4}
    two_rows r8, r9
    two_rows r10, r11
    two_rows r12, lr
.endm

// r0: pairs of inputs, r1: weights, r2: inputs in number, a multiple of 4; r3: sums by lanes, added
// to. r8-r12, lr: sums. Stack: 0 end of the inputs, 4 sums.
ST_FUNCTION(st_six_packed)
    save_all
    lsls    r4, r2, #2
    adds    r4, r4, r2
    adds    r4, r4, r2
    adds    r2, r0, r4
    push    {r2, r3}
    ldmia   r3!, {r2, r4-r7}
    mov     r8, r2
    mov     r9, r4
    mov     r10, r5
    mov     r11, r6
    mov     r12, r7
    ldr     r4, [r3]
    mov     lr, r4
    movs    r7, #255
    lsls    r4, r7, #16
    orrs    r7, r4
1:  two_inputs
    two_inputs
    ldr     r2, [sp, #0]
    cmp     r0, r2
    bne     1b
    pop     {r2, r3}
    mov     r2, r8
    mov     r4, r9
    mov     r5, r10
    mov     r6, r11
    mov     r7, r12
    stmia   r3!, {r2, r4-r7}
    mov     r4, lr
    str     r4, [r3]
    restore_all_and_return

#endif
