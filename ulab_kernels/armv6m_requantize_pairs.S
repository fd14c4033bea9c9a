// The loop of requantize_pairs.c for Cortex-M0+: 33 cycles for two outputs, 4 more where a half may
// be beyond the output's range, 4 less for each sum below 0; more for one in forty.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// Offsets in st_pairs_job_t: words, y, other, multiplier, most, round, doubt, end, offset,
// least, step of y, and
.set FACTOR, 44
.set BASE, 52

// r0: words, r1: y, r2: other, r3: lower half, r4: multiplier, r5: most, r6: the word, then the upper
// half, r7: scratch; r8: rounding, r9: doubt, r10: end of y, r11: least, r12: offset, lr: step of y.
// On the stack: the job.

// The half becomes the output at [r1 + at]. n: a digit for the labels.
.macro half half, small, at, n
    cmp     \half, r11
    blo     4\n\()f
.if !\small
    cmp     \half, r5
    bhs     5\n\()f
.endif
    muls    \half, r4, \half
    add     \half, r8
    lsls    r7, \half, #11
    cmp     r7, r9
    bhs     6\n\()f
    asrs    \half, \half, #21
2\n:
    cmp     \half, #127
    bgt     5\n\()f
3\n:
    strb    \half, [r1, \at]
.endm

// What it branches to. part: the instruction that takes the half from the word in r0.
.macro seldom half, n, part:vararg
4\n:
    movs    \half, #128
    b       3\n\()b
5\n:
    movs    \half, #127
    b       3\n\()b
6\n:                             // in doubt: the exact way
    mov     r7, lr
    push    {r0-r2, r4-r7}
    subs    r0, r0, #4
    ldr     r0, [r0]
    add     r0, r12
    \part
    ldr     r7, [sp, #28]
    ldr     r1, [r7, #BASE]
    adds    r0, r0, r1
    adds    r7, #FACTOR
    bl      st_exactly
    subs    r0, r0, #128
    mov     r3, r0
    pop     {r0-r2, r4-r7}
    mov     lr, r7
.ifnc \half, r3
    mov     \half, r3
.endif
    b       2\n\()b
.endm

.macro pairs small
    save_all
    push    {r0}
    mov     r7, r0
    ldmia   r7!, {r0-r5}
    mov     r8, r5
    mov     r5, r4
    mov     r4, r3
    ldmia   r7!, {r3, r6}
    mov     r9, r3
    mov     r10, r6
    ldmia   r7!, {r3, r6}
    mov     r12, r3
    mov     r11, r6
    ldr     r3, [r7]
    mov     lr, r3
1:  ldmia   r0!, {r6}
    add     r6, r12
    uxth    r3, r6
    lsrs    r6, r6, #16
    half    r3, \small, 0, 0
    half    r6, \small, r2, 1
    add     r1, lr
    cmp     r1, r10
    bne     1b
    add     sp, #4
    restore_all_and_return
    seldom  r3, 0, uxth r0, r0
    seldom  r6, 1, lsrs r0, r0, #16
.endm

// r0: st_pairs_job_t. At least one word.
ST_FUNCTION(st_requantize_pairs_fast)
    pairs   0
ST_FUNCTION(st_requantize_pairs_small)
    pairs   1

#endif
