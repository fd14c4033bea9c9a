// The loop of requantize.c for Cortex-M0+: 26 cycles an output, behind a ReLU
// 24 and 15 below it; more for one in twenty-one.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// Offsets in st_requantize_t.
.set SUMS, 0
.set Y, 4
.set COUNT, 8
.set Y_STEP, 12
.set SUM_STEP, 16
.set BIAS, 20
.set FACTOR, 24
.set ZERO, 32
.set LO_HI, 36

// r0: sums, r1: y, r2: bias, r3: the output, r4: multiplier, r5: drop, r6: bound, r7: scratch;
// r8: rounding, r9: doubt, r10: end of y, r11: lo, r12: hi, lr: step of y.
.macro begin
    save_all
    push    {r0, r1}
    ldmia   r1!, {r4-r6}
    ldmia   r1!, {r2, r3}
    mov     r8, r2
    mov     r9, r3
    mov     r2, r0
    adds    r2, #LO_HI
    ldmia   r2!, {r3, r7}
    mov     r11, r3
    mov     r12, r7
    ldr     r1, [r0, #Y]
    ldr     r2, [r0, #COUNT]
    ldr     r3, [r0, #Y_STEP]
    mov     lr, r3
    muls    r2, r3, r2
    adds    r2, r2, r1
    mov     r10, r2
    ldr     r2, [r0, #BIAS]
    ldr     r0, [r0, #SUMS]
.endm

// The sum in r3 becomes the output at r1; then the next one, or the end. relu: lo is the zero point,
// so that sums below 0 need not be looked at.
.macro put relu
.if \relu
    bmi     6f
    movs    r7, r3
    asrs    r7, r7, r6
    bne     7f
.else
    movs    r7, r3
    asrs    r7, r7, r6
    adds    r7, r7, #1
    cmp     r7, #1
    bhi     5f
.endif
    asrs    r3, r3, r5
    muls    r3, r4, r3
    add     r3, r8
    lsls    r7, r3, #11
    cmp     r7, r9
    bhs     8f
    asrs    r3, r3, #21
2:
.if !\relu
    cmp     r3, r11
    blt     6f
.endif
    cmp     r3, r12
    bgt     7f
3:  strb    r3, [r1]
    add     r1, lr
    cmp     r1, r10
    bne     1b
    pop     {r0, r1, r4-r7}
    mov     r8, r4
    mov     r9, r5
    mov     r10, r6
    mov     r11, r7
    pop     {r4-r7, pc}
.if !\relu
5:  cmp     r3, #0
    bge     7f
.endif
6:  mov     r3, r11
    b       3b
7:  mov     r3, r12
    b       3b
8:  mov     r3, r12             // in doubt: the exact way
    mov     r7, lr
    push    {r0-r3, r7}
.endm

// r0: the sum again.
.macro put_exactly
    ldr     r3, [sp, #20]
    ldr     r1, [r3, #FACTOR]
    ldr     r2, [r3, #FACTOR + 4]
    bl      st_requantize_exactly
    mov     r7, r0
    pop     {r0-r3}
    mov     r12, r3
    mov     r3, r7
    pop     {r7}
    mov     lr, r7
    ldr     r7, [sp, #0]
    ldr     r7, [r7, #ZERO]
    adds    r3, r3, r7
    b       2b
.endm

.macro run relu
    begin
    ldr     r2, [sp, #0]
    ldr     r2, [r2, #SUM_STEP]
1:  ldr     r3, [r0]
    adds    r0, r0, r2
.if \relu
    cmp     r3, #0
.endif
    put     \relu
    subs    r0, r0, r2
    ldr     r0, [r0]
    put_exactly
.endm

.macro row relu
    begin
1:  ldmia   r0!, {r3}
    adds    r3, r3, r2
    put     \relu
    subs    r0, r0, #4
    ldr     r0, [r0]
    adds    r0, r0, r2
    put_exactly
.endm

// r0: st_requantize_t, r1: st_reduced_t. At least one sum.
ST_FUNCTION(st_requantize_run_fast)
    run     0
ST_FUNCTION(st_requantize_run_relu)
    run     1
ST_FUNCTION(st_requantize_row_fast)
    row     0
ST_FUNCTION(st_requantize_row_relu)
    row     1

#endif
