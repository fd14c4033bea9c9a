// The loops of requantize.c for Cortex-M0+. An output takes 23 cycles; behind a ReLU 21, and 17
// below it; 60 more for one in twenty-one.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// Offsets in st_requantize_t. At FACTOR: multiplier, shift, zero point, lo, hi.
.set SUMS, 0
.set Y, 4
.set COUNT, 8
.set Y_STEP, 12
.set SUM_STEP, 16
.set BIAS, 20
.set FACTOR, 24
.set LO, 36
.set HI, 40
.set REDUCED, 44

// r0: sums, r1: y, r2: step of the sums or bias, r3: the output, r4: multiplier, r5: drop, r6: limit,
// r7: scratch; r8: rounding, r9: doubt, r10: end of y, r11: lo, r12: hi - lo, lr: step of y. On the
// stack: st_requantize_t.
.macro begin r2_from
    save_all
    push    {r0}
    movs    r1, r0
    adds    r1, #REDUCED
    ldmia   r1!, {r4-r6}
    ldmia   r1!, {r2, r3}
    mov     r8, r2
    mov     r9, r3
    ldr     r3, [r0, #LO]
    mov     r11, r3
    ldr     r7, [r0, #HI]
    subs    r7, r7, r3
    mov     r12, r7
    ldr     r1, [r0, #Y]
    ldr     r2, [r0, #COUNT]
    ldr     r3, [r0, #Y_STEP]
    mov     lr, r3
    muls    r2, r3, r2
    adds    r2, r2, r1
    mov     r10, r2
    ldr     r2, [r0, #\r2_from]
    ldr     r0, [r0, #SUMS]
.endm

// The sum in r3 becomes the output at r1; then the next one, or the end. relu: lo is the zero point,
// so that all sums below 0 lie below it, and as unsigned ones beyond the limit.
.macro put relu
.if \relu
    cmp     r3, r6
.else
    asrs    r7, r3, #31
    eors    r7, r7, r3
    cmp     r7, r6
.endif
    bhs     4f
    asrs    r3, r3, r5
    muls    r3, r4, r3
    add     r3, r8
    lsls    r7, r3, #11
    cmp     r7, r9
    bhs     7f
    asrs    r3, r3, #21
2:  cmp     r3, r12             // less lo, so that one comparison finds both ends
    bhi     4f
    add     r3, r11
3:  strb    r3, [r1]
    add     r1, lr
    cmp     r1, r10
    bne     1b
    pop     {r0}
    restore_all_and_return
4:  cmp     r3, #0
    mov     r3, r11
    blt     3b
    add     r3, r12
    b       3b
.endm

// The sum in r0 becomes r3, to be compared at 2.
.macro put_exactly
    mov     r4, lr
    ldr     r7, [sp, #24]
    adds    r7, #FACTOR
    push    {r4}
    bl      st_exactly
    pop     {r4}
    mov     lr, r4
    pop     {r0-r2, r4-r6}
    b       2b
.endm

// r0: a sum, r7: where its factor stands: r3 = st_requantize(r0, factor) + zero - lo. It is in range,
// and its factor shifts to the right. r0-r2, r4-r7 change; r0 is the same without zero - lo. Beside
// its callers: from RAM no branch reaches flash.
ST_FUNCTION(st_exactly)
    ldmia   r7!, {r4-r6}
    mvns    r5, r5              // bits to the right, less one
    uxth    r1, r0
    asrs    r0, r0, #16
    uxth    r2, r4
    lsrs    r4, r4, #16
    movs    r3, r1
    muls    r3, r2, r3          // low * low
    lsrs    r3, r3, #16
    muls    r2, r0, r2          // high * low
    muls    r1, r4, r1          // low * high
    muls    r0, r4, r0          // high * high
    asrs    r7, r2, #31
    movs    r4, #1
    lsls    r4, r4, #14
    adds    r3, r3, r4
    adds    r1, r1, r3
    movs    r3, #0
    adds    r2, r2, r1
    adcs    r7, r3              // r0 * 2^16 + r7 * 2^32 + r2: the product, 2^-16 of it
    lsls    r7, r7, #17
    lsrs    r2, r2, #15
    lsls    r0, r0, #1
    adds    r0, r0, r7
    adds    r0, r0, r2          // rounded once
    asrs    r2, r0, #31
    adds    r0, r0, r2
    asrs    r0, r0, r5
    adds    r0, r0, #1
    asrs    r0, r0, #1          // rounded twice, a tie away from zero
    mov     r3, r11
    subs    r6, r6, r3
    adds    r3, r0, r6
    bx      lr

.macro run relu
    begin   SUM_STEP
1:  ldr     r3, [r0]
    adds    r0, r0, r2
    put     \relu
7:  push    {r0-r2, r4-r6}
    subs    r0, r0, r2
    ldr     r0, [r0]
    put_exactly
.endm

.macro row relu
    begin   BIAS
1:  ldmia   r0!, {r3}
    adds    r3, r3, r2
    put     \relu
7:  push    {r0-r2, r4-r6}
    subs    r0, r0, #4
    ldr     r0, [r0]
    adds    r0, r0, r2
    put_exactly
.endm

// r0: st_requantize_t, at least one sum.
ST_FUNCTION(st_requantize_run_fast)
    run     0
ST_FUNCTION(st_requantize_run_relu)
    run     1
ST_FUNCTION(st_requantize_row_fast)
    row     0
ST_FUNCTION(st_requantize_row_relu)
    row     1

#endif
