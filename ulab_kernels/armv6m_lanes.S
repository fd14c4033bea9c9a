// The loop of lanes.c for Cortex-M0+. 48 multiply-accumulates take 137 cycles with three pairs of
// channels: 116 in the pairs, 16 for eight inputs, 5 for the end of the loop.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r5: the words' products with two inputs, r3 and r4. r1: weights.
.macro products
    ldmia   r1!, {r5, r6}
    muls    r5, r3, r5
    muls    r6, r4, r6
    adds    r5, r5, r6
.endm

// all += two products, high += their upper half: its floor, and 1 if the lower half is below 0,
// which is the last bit to leave r5. Only in the lower registers can the carry be added.
.macro pair_with_carry all, high
    products
    add     \all, r5
    asrs    r5, r5, #16
    adcs    \high, r5
.endm

// The same in the upper registers. r9: 2^15, which goes into `all` as well.
.macro pair all, high
    products
    add     r5, r9
    add     \all, r5
    asrs    r5, r5, #16
    add     \high, r5
.endm
.macro pairs n
    pair_with_carry r8, r7
.if \n > 1
    pair    r10, r11
.endif
.if \n > 2
    pair    r12, lr
.endif
.endm

.macro start all, high
    ldmia   r1!, {r2, r3}
    mov     \all, r2
    mov     \high, r3
.endm

// Parts the halves and stores both.
.macro finish all, high
    mov     r3, \all
    mov     r4, \high
    lsls    r5, r4, #16
    subs    r3, r3, r5
    stmia   r1!, {r3, r4}
.endm

.macro four_inputs n
    ldmia   r0!, {r2}
    sxtb    r3, r2
    asrs    r2, r2, #8
    sxtb    r4, r2
    asrs    r2, r2, #8
    pairs   \n
    sxtb    r3, r2
    asrs    r4, r2, #8
    pairs   \n
.endm

// r0: x, r1: group, r2: sums, r3: {end of the group, end of the sums, inputs}.
// On the stack: 0 sums, 4 end of the sums, 8 end of the group, 12 group, 16 inputs.
.macro run n
    save_all
    sub     sp, #20
    str     r1, [sp, #12]
    ldmia   r3!, {r4-r6}
    str     r4, [sp, #8]
    str     r5, [sp, #4]
    str     r6, [sp, #16]
    movs    r7, #1
    lsls    r7, r7, #15
    mov     r9, r7
    movs    r1, r2
1:  str     r1, [sp, #0]
    ldr     r1, [sp, #12]
    ldr     r4, [sp, #16]
    start   r8, r7
.if \n > 1
    start   r10, r11
.endif
.if \n > 2
    start   r12, lr
.endif
    lsrs    r4, r4, #3
    bcs     3f
2:  four_inputs \n
3:  four_inputs \n
    ldr     r2, [sp, #8]
    cmp     r1, r2
    bne     2b
    ldr     r1, [sp, #0]
    finish  r8, r7
.if \n > 1
    finish  r10, r11
.endif
.if \n > 2
    finish  r12, lr
.endif
    ldr     r2, [sp, #4]
    cmp     r1, r2
    beq     5f
    b       1b
5:
    add     sp, #20
    restore_all_and_return
.endm

ST_FUNCTION(st_lanes_run_1)
    run     1
ST_FUNCTION(st_lanes_run_2)
    run     2
ST_FUNCTION(st_lanes_run_3)
    run     3

// r4, r5: words of the lower and the upper channel. \to = byte i of the one + byte i of the other *
// 2^16; r8 += the lower ones, r9 += \to.
.macro pack to, i
.if \i == 0
    sxtb    \to, r4
    lsls    r7, r5, #24
    asrs    r7, r7, #8
.elseif \i == 3
    asrs    \to, r4, #24
    asrs    r7, r5, #24
    lsls    r7, r7, #16
.else
    lsls    \to, r4, #24 - 8 * \i
    asrs    \to, \to, #24
    lsls    r7, r5, #24 - 8 * \i
    asrs    r7, r7, #24
    lsls    r7, r7, #16
.endif
    add     r8, \to
    adds    \to, \to, r7
    add     r9, \to
.endm

// r0, r1: weights of two channels, r2: where their words go, r3: {bytes between two words and the
// next two, end of r0; the sum of r0's weights, the sum of the words}. 43 cycles for 8 weights.
ST_FUNCTION(st_lanes_pack_fours)
    save_all
    push    {r3}
    ldmia   r3!, {r4-r7}
    mov     r10, r4
    mov     r11, r5
    mov     r8, r6
    mov     r9, r7
1:  ldmia   r0!, {r4}
    ldmia   r1!, {r5}
    pack    r3, 0
    pack    r6, 1
    stmia   r2!, {r3, r6}
    add     r2, r10
    pack    r3, 2
    pack    r6, 3
    stmia   r2!, {r3, r6}
    add     r2, r10
    cmp     r0, r11
    bne     1b
    pop     {r3}
    mov     r4, r8
    mov     r5, r9
    str     r4, [r3, #8]
    str     r5, [r3, #12]
    restore_all_and_return

#endif
