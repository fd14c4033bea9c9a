// The loops of fully_connected.c for Cortex-M0+: 24 multiply-accumulates in 104 cycles where the rows'
// words stand in the order in which they are read, in 122 where they do not.
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
.macro row in_order, sum
.if \in_order
    ldmia   r6!, {r5}
    four    \sum
.else
    ldr     r5, [r6]
    four    \sum
    ldr     r5, [sp, #0]
    adds    r6, r6, r5
.endif
.endm

.macro four_inputs in_order
    ldmia   r4!, {r0-r3}
    row     \in_order, r8
    row     \in_order, r9
    row     \in_order, r10
    row     \in_order, r11
    row     \in_order, r12
    row     \in_order, lr
.if !\in_order
    ldr     r5, [sp, #4]
    subs    r6, r6, r5
.endif
.endm

// r0: inputs, int32; r1: weights; r2: inputs in number, a multiple of 4; r3: sums of six rows, added
// to. r4: inputs; r8-r12, lr: sums. Stack: 0 bytes of a row, 4 from behind the last row's word to
// the first one's next, 8 end of the inputs, 12 sums.
.macro six_rows in_order
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
1:  four_inputs \in_order
2:  four_inputs \in_order
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
.endm

ST_FUNCTION(st_six_rows)
    six_rows 0
ST_FUNCTION(st_six_rows_in_order)
    six_rows 1

#endif
