// The loops of fully_connected.c for Cortex-M0+: 24 multiply-accumulates in 122 cycles, and in 85 from
// packed weights.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r5: a word of weights of one row, r0-r3: four inputs. r7: scratch.
.macro four sum
    sxtb    r7, r5
    muls    r7, r0, r7
    add     \sum, r7
    asrs    r5, r5, #8
    sxtb    r7, r5
    muls    r7, r1, r7
    add     \sum, r7
    asrs    r5, r5, #8
    sxtb    r7, r5
    muls    r7, r2, r7
    add     \sum, r7
    asrs    r5, r5, #8
    muls    r5, r3, r5
    add     \sum, r5
.endm

// One row's four weights; r6 goes on to the next row's.
.macro row sum
    ldr     r5, [r6]
    four    \sum
    ldr     r5, [sp, #0]
    adds    r6, r6, r5
.endm

.macro four_inputs
    ldmia   r4!, {r0-r3}
    row     r8
    row     r9
    row     r10
    row     r11
    row     r12
    row     lr
    ldr     r5, [sp, #4]
    subs    r6, r6, r5
.endm

// r0: inputs, int32; r1: weights; r2: inputs in number, a multiple of 4; r3: sums of six rows, added
// to. r4: inputs; r8-r12, lr: sums. Stack: 0 bytes of a row, 4 from behind the last row's word to
// the first one's next, 8 end of the inputs, 12 sums.
ST_FUNCTION(st_six_rows)
    save_all
    sub     sp, #16
    movs    r4, r0
    movs    r6, r1
    str     r2, [sp, #0]
    lsls    r5, r2, #2
    adds    r7, r5, r4
    str     r7, [sp, #8]
    adds    r5, r5, r2
    adds    r5, r5, r2
    subs    r5, r5, #4
    str     r5, [sp, #4]
    str     r3, [sp, #12]
    ldmia   r3!, {r0, r1, r2, r5, r7}
    mov     r8, r0
    mov     r9, r1
    mov     r10, r2
    mov     r11, r5
    mov     r12, r7
    ldr     r0, [r3]
    mov     lr, r0
    ldr     r5, [sp, #0]
    lsrs    r5, r5, #3
    bcs     2f
1:  four_inputs
2:  four_inputs
    ldr     r5, [sp, #8]
    cmp     r4, r5
    beq     3f
    b       1b
3:
    ldr     r3, [sp, #12]
    mov     r0, r8
    mov     r1, r9
    mov     r2, r10
    mov     r5, r11
    mov     r7, r12
    stmia   r3!, {r0, r1, r2, r5, r7}
    mov     r0, lr
    str     r0, [r3]
    add     sp, #16
    restore_all_and_return

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
