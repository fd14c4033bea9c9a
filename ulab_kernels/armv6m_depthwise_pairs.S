// The loops of depthwise_pairs.c for Cortex-M0+: 13.5 cycles a word of two inputs that is put
// together, and 25 a row; 39.5 a word of two sums, and 34 a row; two parted sums 79.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// The next weight, to weights[at] and the column's sum.
.macro weight at, column
    ldrsb   r4, [r0, r1]
    adds    r0, r0, r1
    str     r4, [r2, #4 * (\at)]
    adds    r6, r6, r4
.ifnb \column
    add     \column, r4
.endif
    asrs    r5, r4, #31
    eors    r4, r5
    subs    r4, r4, r5
    adds    r7, r7, r4
.endm

// r0: weights, r1: bytes from one to the next, r2: int32 [9], r3: st_filter_t. Then r4, r5: scratch,
// r6: sum, r7: size, r12, lr: sums of the left and the right column.
ST_FUNCTION(st_load_filter)
    push    {r4-r7, lr}
    subs    r0, r0, r1
    movs    r6, #0
    movs    r7, #0
    mov     r12, r6
    mov     lr, r6
.irp row, 0, 1, 2
    weight  6 + \row, r12
    weight  3 + \row
    weight  \row, lr
.endr
    movs    r4, #128
    movs    r5, #0
1:  adds    r0, r4, r5          // the largest input is r5, and a bit more
    movs    r1, r0
    muls    r1, r7, r1
    lsrs    r1, r1, #16
    bne     2f
    movs    r5, r0
2:  lsrs    r4, r4, #1
    bne     1b
    mov     r1, r12
    mov     r2, lr
    stmia   r3!, {r1, r2, r5-r7}
    pop     {r4-r7, pc}

// Puts together r0's input of the lower half and r2's of the upper one.
.macro pack
    ldrsb   r3, [r0, r1]
    ldrsb   r4, [r0, r2]
    lsls    r4, r4, #16
    adds    r3, r3, r4
    str     r3, [r7]
    add     r7, r8
    adds    r3, r3, r5
    orrs    r6, r3
    add     r0, r9
.endm

// r0: st_pack_job_t, returns what was seen. Then r0: lower row, r1: to the channel, r2: to the
// channel in the upper row, r3, r4: scratch, r5: added for the test, r6: seen, r7: words; r8: step
// of words, r9: step of inputs, r10: end of the row, r11: its length, r12: words of the row, lr: rows
// left. On the stack: 0 rows, 4 to the channel, 8 whether a row has an odd number.
ST_FUNCTION(st_depthwise_pack)
    save_all
    ldmia   r0!, {r1-r7}
    mov     lr, r2
    mov     r9, r4
    mov     r11, r5
    mov     r8, r6
    mov     r12, r7
    ldmia   r0!, {r5, r7}
    sub     sp, #12
    str     r1, [sp, #0]
    str     r3, [sp, #4]
    str     r7, [sp, #8]
    movs    r6, #0
1:  ldr     r4, [sp, #0]
    ldmia   r4!, {r0, r2}
    str     r4, [sp, #0]
    ldr     r1, [sp, #4]
    adds    r2, r2, r1
    mov     r3, r11
    adds    r3, r3, r0
    mov     r10, r3
    mov     r7, r12
    movs    r3, #4
    add     r12, r3
    ldr     r3, [sp, #8]
    cmp     r3, #0
    bne     3f
2:  pack
3:  pack
    cmp     r0, r10
    bne     2b
    mov     r3, lr
    subs    r3, r3, #1
    mov     lr, r3
    bne     1b
    mov     r0, r6
    add     sp, #12
    restore_all_and_return

// Offsets in st_pairs_job_t.
.set PACKED, 0
.set SUMS, 4
.set N_ROWS, 8
.set STEP, 12
.set LENGTH, 16
.set MORE, 20
.set FIRST, 24
.set LAST, 28
.set WEIGHTS, 32
// On the stack: four weights, and
.set AT_JOB, 16
.set AT_END, 20
.set AT_PACKED, 24
.set AT_ROWS_LEFT, 28
.set STACK, 32

.macro add_product sum, x, weight
    mov     r4, \weight
    muls    r4, \x, r4
    adds    \sum, \sum, r4
.endm

.macro next_column
    ldmia   r0!, {r1-r3}
    add     r0, r8
.endm

// The column is in the middle of the window.
.macro middle sum
    add_product \sum, r1, r12
    add_product \sum, r2, lr
    ldr     r4, [sp, #0]
    muls    r4, r3, r4
    adds    \sum, \sum, r4
.endm

// The column is on the left of it.
.macro left sum
    ldr     \sum, [sp, #4]
    muls    \sum, r1, \sum
    ldr     r4, [sp, #8]
    muls    r4, r2, r4
    adds    \sum, \sum, r4
    ldr     r4, [sp, #12]
    muls    r4, r3, r4
    adds    \sum, \sum, r4
.endm

// It completes `sum`, which then is the sum that begins here; goes on with `next`.
.macro column sum, next
    next_column
    add_product \sum, r1, r9
    add_product \sum, r2, r10
    add_product \sum, r3, r11
    stmia   r7!, {\sum}
    middle  \next
    left    \sum
.endm

// r0: st_pairs_job_t. Then r0: words, r1-r3: a column of them, r4: scratch, r5, r6:
// sums of the outputs that the column is in the middle and on the left of, r7: sums; r8: step less
// the column, r9-r11: weights of the right column, r12, lr: of the middle.
ST_FUNCTION(st_depthwise_pairs)
    save_all
    sub     sp, #STACK
    str     r0, [sp, #AT_JOB]
    ldr     r1, [r0, #STEP]
    subs    r1, r1, #12
    mov     r8, r1
    ldr     r2, [r0, #PACKED]
    str     r2, [sp, #AT_PACKED]
    ldr     r2, [r0, #N_ROWS]
    str     r2, [sp, #AT_ROWS_LEFT]
    ldr     r7, [r0, #SUMS]
    adds    r0, r0, #WEIGHTS
    ldmia   r0!, {r1-r5}
    mov     r9, r1
    mov     r10, r2
    mov     r11, r3
    mov     r12, r4
    mov     lr, r5
    ldmia   r0!, {r1-r4}
    mov     r0, sp
    stmia   r0!, {r1-r4}
1:  ldr     r4, [sp, #AT_JOB]
    ldr     r0, [sp, #AT_PACKED]
    adds    r3, r0, #4
    str     r3, [sp, #AT_PACKED]
    ldr     r3, [r4, #LENGTH]
    adds    r3, r3, r0
    str     r3, [sp, #AT_END]
    ldr     r6, [r4, #FIRST]
    next_column
    middle  r6
    left    r5
    ldr     r4, [sp, #AT_JOB]
    ldr     r4, [r4, #MORE]
    lsrs    r3, r4, #1
    bcs     3f
    beq     5f
2:  column  r6, r5
4:  column  r5, r6
    ldr     r4, [sp, #AT_END]
    cmp     r0, r4
    bne     2b
5:  ldr     r4, [sp, #AT_JOB]
    ldr     r3, [r4, #LAST]
    adds    r6, r6, r3
    stmia   r7!, {r6}
    ldr     r3, [sp, #AT_ROWS_LEFT]
    subs    r3, r3, #1
    str     r3, [sp, #AT_ROWS_LEFT]
    bne     1b
    add     sp, #STACK
    restore_all_and_return
3:  mov     r4, r5
    mov     r5, r6
    mov     r6, r4
    b       4b

// Parted. On the stack: nine weights, and
.set AT_PARTED, 36          // as AT_JOB and what follows it
.set PARTED_STACK, 52
.set BIAS, 68

// Parts r4: the upper half's sum stays there, the lower one's goes to r5.
.macro part_r4
    sxth    r5, r4
    subs    r4, r4, r5
    asrs    r4, r4, #16
.endm

// All three products of the column, parted: the first two go to low and high, the third stays in r5
// and r4.
.macro three_products at, low, high, op=add
    ldr     r4, [sp, #12 * \at]
    muls    r4, r1, r4
    ldr     r5, [sp, #12 * \at + 4]
    muls    r5, r2, r5
    adds    r4, r4, r5
    part_r4
    \op     \low, r5
    \op     \high, r4
    ldr     r4, [sp, #12 * \at + 8]
    muls    r4, r3, r4
    part_r4
.endm

// r0: words, r1-r3: a column of them, r4-r6: scratch, r7: sums; r8, r9: lower and upper sum of the
// output on the left, r10, r11: of the own one; r12: step less the column, lr: bias.
ST_FUNCTION(st_depthwise_parted)
    save_all
    sub     sp, #PARTED_STACK
    str     r0, [sp, #AT_PARTED]
    ldr     r1, [r0, #STEP]
    subs    r1, r1, #12
    mov     r12, r1
    movs    r1, #BIAS
    ldr     r1, [r0, r1]
    mov     lr, r1
    ldr     r2, [r0, #PACKED]
    str     r2, [sp, #AT_PARTED + 8]
    ldr     r2, [r0, #N_ROWS]
    str     r2, [sp, #AT_PARTED + 12]
    ldr     r7, [r0, #SUMS]
    adds    r0, r0, #WEIGHTS
    mov     r6, sp
    ldmia   r0!, {r1-r5}
    stmia   r6!, {r1-r5}
    ldmia   r0!, {r1-r4}
    stmia   r6!, {r1-r4}
1:  ldr     r4, [sp, #AT_PARTED]
    ldr     r0, [sp, #AT_PARTED + 8]
    adds    r3, r0, #4
    str     r3, [sp, #AT_PARTED + 8]
    ldr     r3, [r4, #LENGTH]
    adds    r6, r3, r0          // the row's end
    ldr     r3, [r4, #FIRST]
    mov     r10, r3
    mov     r11, r3
    ldmia   r0!, {r1-r3}
    add     r0, r12
    b       3f
2:  ldmia   r0!, {r1-r3}
    add     r0, r12
    three_products 0, r8, r9
    add     r5, r8
    add     r4, r9
    stmia   r7!, {r4, r5}
3:  three_products 1, r10, r11
    add     r5, r10
    add     r4, r11
    mov     r8, r5
    mov     r9, r4
    three_products 2, r10, r11, mov
    add     r5, r10
    add     r4, r11
    add     r5, lr
    add     r4, lr
    mov     r10, r5
    mov     r11, r4
    cmp     r0, r6
    bne     2b
    ldr     r4, [sp, #AT_PARTED]
    ldr     r5, [r4, #LAST]
    movs    r4, r5
    add     r5, r8
    add     r4, r9
    stmia   r7!, {r4, r5}
    ldr     r3, [sp, #AT_PARTED + 12]
    subs    r3, r3, #1
    str     r3, [sp, #AT_PARTED + 12]
    bne     1b
    add     sp, #PARTED_STACK
    restore_all_and_return

#endif
