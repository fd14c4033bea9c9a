// The loop of depthwise3x3.c for Cortex-M0+: 39 cycles a column of three inputs, which is an output,
// in the narrow way; 44 in the wide one; 51 an output with stride 2; and 45 a row.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// Offsets in st_depthwise_job_t.
.set ROWS, 0
.set N_ROWS, 4
.set CHANNEL, 8
.set STEP, 12
.set SUMS, 16
.set WEIGHTS, 20
.set X_ZERO, 24
.set IN_LOOP, 28
.set FIRST_IS_REAL, 32
.set LAST_IS_REAL, 36
.set SPAN, 40
// On the stack.
.set AT_STEP, 0
.set AT_SUMS, 4
.set AT_END, 8
.set AT_JOB, 12
.set AT_ROWS, 16
.set AT_ROWS_LEFT, 20
.set AT_FIRST, 24           // what the columns of zero points left and right of the input add
.set AT_LAST, 28
.set AT_WEIGHTS_SUM, 32
.set STACK, 36

// r0: x, r1 and r2: to the second and third row. r8-r10: lanes, r11, r12, lr: single weights. r3, r4:
// scratch. The column's three inputs times the lanes go to r7 (and, in the wide way, the third to
// r4), those times the single weights are added to `single`.
.macro column wide, single, store
    ldrb    r3, [r0]
    sxtb    r3, r3
    mov     r7, r8
    muls    r7, r3, r7
    mov     r4, r11
    muls    r4, r3, r4
    adds    \single, \single, r4
    ldrsb   r3, [r0, r1]
    mov     r4, r9
    muls    r4, r3, r4
    adds    r7, r7, r4
    mov     r4, r12
    muls    r4, r3, r4
    adds    \single, \single, r4
    ldrsb   r3, [r0, r2]
    mov     r4, lr
    muls    r4, r3, r4
    adds    \single, \single, r4
.if \store
    store
.endif
    mov     r4, r10
    muls    r4, r3, r4
.if !\wide
    adds    r7, r7, r4
.endif
.endm

.macro store
    ldr     r4, [sp, #AT_SUMS]
    stmia   r4!, {r5}
    str     r4, [sp, #AT_SUMS]
.endm

// Parts the lanes: `sum` becomes `low` and the lower halves, `high` the upper ones.
.macro part wide, lanes, low, sum, high
.if \wide           // the sum of three may need 17 bits: the third is parted for itself
    sxth    r3, r4
    adds    \sum, \low, r3
    subs    r4, r4, r3
    sxth    r3, \lanes
    adds    \sum, \sum, r3
    subs    \lanes, \lanes, r3
    asrs    \lanes, \lanes, #16
    asrs    r4, r4, #16
    adds    \high, \lanes, r4
.else
    sxth    r4, \lanes
    adds    \sum, \low, r4
    subs    \lanes, \lanes, r4
    asrs    \high, \lanes, #16
.endif
.endm

.macro next_column
    ldr     r4, [sp, #AT_STEP]
    adds    r0, r0, r4
.endm

// A row of the filter: r4-r6, from r2 on, r1 apart. Added to: r0 all, r3 left, r7 right.
.macro row_of_filter stride, lanes, single
    ldrsb   r4, [r2, r1]
    adds    r2, r2, r1
    ldrsb   r5, [r2, r1]
    adds    r2, r2, r1
    ldrsb   r6, [r2, r1]
    adds    r2, r2, r1
    adds    r0, r0, r4
    adds    r0, r0, r5
    adds    r0, r0, r6
    adds    r3, r3, r4
    adds    r7, r7, r6
    lsls    r4, r4, #16
.if \stride == 1
    adds    r4, r4, r5          // a column meets own, next output; left
    mov     \single, r6
.else
    adds    r4, r4, r6          // left, own; or, the next column, own
    mov     \single, r5
.endif
    mov     \lanes, r4
.endm

.macro begin stride
    save_all
    sub     sp, #STACK
    str     r0, [sp, #AT_JOB]
    ldr     r1, [r0, #ROWS]
    ldr     r2, [r0, #N_ROWS]
    str     r1, [sp, #AT_ROWS]
    str     r2, [sp, #AT_ROWS_LEFT]
    ldr     r1, [r0, #STEP]
    ldr     r2, [r0, #SUMS]
    str     r1, [sp, #AT_STEP]
    str     r2, [sp, #AT_SUMS]
    ldr     r2, [r0, #WEIGHTS]
    subs    r2, r2, r1
    movs    r0, #0
    movs    r3, #0
    movs    r7, #0
    row_of_filter \stride, r8, r11
    row_of_filter \stride, r9, r12
    row_of_filter \stride, r10, lr
    str     r0, [sp, #AT_WEIGHTS_SUM]
    ldr     r4, [sp, #AT_JOB]
    ldr     r4, [r4, #X_ZERO]
    muls    r3, r4, r3
    muls    r7, r4, r7
    str     r3, [sp, #AT_FIRST]
    str     r7, [sp, #AT_LAST]
.endm

// Adds the magnitude of `value` to `size`. r5: scratch.
.macro add_size size, value
    asrs    r5, \value, #31
    eors    \value, r5
    subs    \value, \value, r5
    adds    \size, \size, \value
.endm

// r1, r2: sizes of the lanes' columns.
.macro add_lane_sizes lanes
    mov     r3, \lanes
    sxth    r4, r3
    subs    r3, r3, r4
    asrs    r3, r3, #16
    add_size r1, r4
    add_size r2, r3
.endm

// The three rows to r0-r2, the job to r7.
.macro begin_row
    ldr     r7, [sp, #AT_JOB]
    ldr     r4, [sp, #AT_ROWS]
    ldmia   r4!, {r0-r2}
    str     r4, [sp, #AT_ROWS]
    ldr     r4, [r7, #CHANNEL]
    adds    r0, r0, r4
.endm

.macro end_row again
    ldr     r4, [sp, #AT_ROWS_LEFT]
    subs    r4, r4, #1
    str     r4, [sp, #AT_ROWS_LEFT]
    bne     \again
    ldr     r0, [sp, #AT_WEIGHTS_SUM]
    add     sp, #STACK
    restore_all_and_return
.endm

// Stride 1. r5: sum of the output on the left, r6: of the own one.
.macro rows wide
1:  begin_row
    ldr     r6, [sp, #AT_FIRST]
    ldr     r4, [r7, #SPAN]
    adds    r4, r4, r0
    str     r4, [sp, #AT_END]
    column  \wide, r5, 0
    part    \wide, r7, r6, r5, r6
    next_column
    ldr     r7, [sp, #AT_JOB]
    ldr     r4, [r7, #IN_LOOP]
    lsrs    r4, r4, #1
    bcs     3f
2:  column  \wide, r5, 1
    part    \wide, r7, r6, r5, r6
    next_column
3:  column  \wide, r5, 1
    part    \wide, r7, r6, r5, r6
    next_column
    ldr     r3, [sp, #AT_END]
    cmp     r0, r3
    bne     2b
    ldr     r4, [sp, #AT_LAST]
    adds    r5, r5, r4
    store
    end_row 1b
.endm

// r0: st_depthwise_job_t. Returns the sum of the filter.
ST_FUNCTION(st_depthwise_stride_1)
    begin   1
    movs    r1, #0
    movs    r2, #0
    add_lane_sizes r8
    add_lane_sizes r9
    add_lane_sizes r10
    cmp     r1, #255            // three products fit a half if their weights add up to that
    bhi     2f
    cmp     r2, #255
    bls     3f
2:  b       4f
3:  rows    0
4:  rows    1

// Stride 2. As above, but r5: sum of the own output, r6: of the next one, r7: sums, lr: step, and the
// last weight on the stack.
.set AT_WEIGHT, AT_STEP

// A column between two outputs: completes r5 and begins the next one in r6.
.macro between
    ldrb    r3, [r0]
    sxtb    r3, r3
    mov     r6, r8
    muls    r6, r3, r6
    ldrsb   r3, [r0, r1]
    mov     r4, r9
    muls    r4, r3, r4
    adds    r6, r6, r4
    ldrsb   r3, [r0, r2]
    mov     r4, r10
    muls    r4, r3, r4
    part    1, r6, r5, r5, r6
    add     r0, lr
.endm

// A column in the middle of r5's window.
.macro middle
    ldrb    r3, [r0]
    sxtb    r3, r3
    mov     r4, r11
    muls    r4, r3, r4
    adds    r5, r5, r4
    ldrsb   r3, [r0, r1]
    mov     r4, r12
    muls    r4, r3, r4
    adds    r5, r5, r4
    ldrsb   r3, [r0, r2]
    ldr     r4, [sp, #AT_WEIGHT]
    muls    r4, r3, r4
    adds    r5, r5, r4
    add     r0, lr
.endm

ST_FUNCTION(st_depthwise_stride_2)
    begin   2
    mov     r4, lr
    ldr     r5, [sp, #AT_STEP]
    str     r4, [sp, #AT_WEIGHT]
    mov     lr, r5
1:  begin_row
    ldr     r6, [sp, #AT_FIRST]
    ldr     r3, [r7, #FIRST_IS_REAL]
    ldr     r4, [r7, #IN_LOOP]
    ldr     r7, [sp, #AT_SUMS]
    lsls    r4, r4, #2
    adds    r4, r4, r7
    str     r4, [sp, #AT_END]
    movs    r5, #0
    cmp     r3, #0
    beq     2f
    between
2:  movs    r5, r6
    ldr     r4, [sp, #AT_END]
    cmp     r7, r4
    beq     4f
3:  middle
    between
    stmia   r7!, {r5}
    movs    r5, r6
    ldr     r4, [sp, #AT_END]
    cmp     r7, r4
    bne     3b
4:  ldr     r6, [sp, #AT_JOB]
    ldr     r4, [r6, #LAST_IS_REAL]
    cmp     r4, #0
    bne     5f
    middle
    ldr     r4, [sp, #AT_LAST]
    adds    r5, r5, r4
    stmia   r7!, {r5}
5:  str     r7, [sp, #AT_SUMS]
    end_row 1b

#endif
