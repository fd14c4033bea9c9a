// The loops of elementwise.c for Cortex-M0+: 20 cycles for an operand's element, 23 where it is added; 3
// less where the operand is not shifted.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r0: x, r1: sums, r2: value, r3: scratch, r4: upper, r5: lower, r6: shift, r7: half; r8: what is added to
// value * upper, r9: to value * lower, r10: end of the sums.
.macro terms is_shifted, is_added
1:  movs    r2, #0
    ldrsb   r2, [r0, r2]
    adds    r0, r0, #1
    movs    r3, r2
    muls    r3, r5, r3
    add     r3, r9
    asrs    r3, r3, #11
    muls    r2, r4, r2
    add     r2, r8
    adds    r2, r2, r3
    .if     \is_shifted
    asrs    r3, r2, #31
    adds    r2, r2, r3
    adds    r2, r2, r7
    asrs    r2, r6
    .endif
    .if     \is_added
    ldr     r3, [r1]
    adds    r2, r2, r3
    .endif
    stmia   r1!, {r2}
    cmp     r1, r10
    bne     1b
    restore_all_and_return
.endm

// r0: st_term_of_t, r1: x, r2: sums, r3: elements, not 0; of the fifth argument, whether they are added.
ST_FUNCTION(st_terms)
    save_all
    lsls    r3, r3, #2
    adds    r3, r3, r2
    mov     r10, r3
    ldmia   r0!, {r4-r7}
    mov     r8, r4
    mov     r9, r6
    movs    r4, r5
    movs    r5, r7
    ldmia   r0!, {r6, r7}
    movs    r0, r1
    movs    r1, r2
    ldr     r2, [sp, #36]
    cmp     r2, #0
    bne     3f
    cmp     r6, #0
    bne     2f
    terms   0, 0
2:  terms   1, 0
3:  cmp     r6, #0
    bne     4f
    terms   0, 1
4:  terms   1, 1

#endif
