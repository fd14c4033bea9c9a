// The loop of error_tensor.c for Cortex-M0+: 38 cycles for four elements.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r4: 0, r5: scratch, r6: shift, r7: peak, r8: twice that. The carry is set before and after. The last bit
// that is shifted out rounds; where there is no shift r4 takes the carry off.
.macro put value, at, stop
    asrs    \value, r6
    adcs    \value, r4
    adds    r5, \value, r7
    cmp     r8, r5
    bcc     \stop
    strh    \value, [r1, #\at]
.endm

// r0: st_put_fours_t. Then r0: sums, r1: to, r9: end.
ST_FUNCTION(st_put_fours)
    push    {r4-r7, lr}
    mov     r4, r8
    mov     r5, r9
    push    {r4, r5}
    ldmia   r0!, {r1-r3, r6, r7}
    mov     r9, r2
    adds    r5, r7, r7
    mov     r8, r5
    movs    r0, r1
    movs    r1, r3
    movs    r4, #0
    cmp     r6, #0
    bne     1f
    mvns    r4, r4
1:  cmp     r9, r0
2:  ldmia   r0!, {r2, r3}
    put     r2, 0, 3f
    put     r3, 2, 4f
    ldmia   r0!, {r2, r3}
    put     r2, 4, 5f
    put     r3, 6, 6f
    adds    r1, r1, #8
    cmp     r9, r0
    bne     2b
    b       3f
6:  adds    r1, r1, #2
5:  adds    r1, r1, #2
4:  adds    r1, r1, #2
3:  movs    r0, r1
    pop     {r4, r5}
    mov     r8, r4
    mov     r9, r5
    pop     {r4-r7, pc}

#endif
