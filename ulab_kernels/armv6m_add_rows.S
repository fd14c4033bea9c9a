// The loop of add_rows.c for Cortex-M0+: 75 cycles for two terms of eight elements whose values lie in
// aligned words, 91 where they do not.
#include "arch.h"
#if ST_ARMV6M
#include "armv6m.h"

    .syntax unified
    .cpu cortex-m0plus
    .thumb

// r0: terms, an even number; r1: end of them, r2: values, r3: row. Then r2: factor, r3: where the row is and
// scratch, r4, r5: eight values; sums in r1, r6, r7, r8-r11, lr; r12: values. Stack: 0 end, 4 row.
.macro begin
    save_all
    sub     sp, #8
    str     r1, [sp, #0]
    str     r3, [sp, #4]
    mov     r12, r2
    ldmia   r3!, {r4-r7}
    mov     r8, r4
    mov     r9, r5
    mov     r10, r6
    mov     r11, r7
    ldmia   r3!, {r1, r2, r6, r7}
    mov     lr, r1
    movs    r1, r2
.endm

.macro end
    ldr     r3, [sp, #0]
    cmp     r0, r3
    bne     1b
    ldr     r3, [sp, #4]
    mov     r0, r8
    mov     r2, r9
    mov     r4, r10
    mov     r5, r11
    stmia   r3!, {r0, r2, r4, r5}
    mov     r0, lr
    stmia   r3!, {r0, r1, r6, r7}
    add     sp, #8
    restore_all_and_return
.endm

.macro add_product sum, value
    muls    \value, r2, \value
    add     \sum, \value
.endm

.macro four word, a, b, c, d
    sxtb    r3, \word
    add_product \a, r3
    asrs    \word, \word, #8
    sxtb    r3, \word
    add_product \b, r3
    asrs    \word, \word, #8
    sxtb    r3, \word
    add_product \c, r3
    asrs    \word, \word, #8
    add_product \d, \word
.endm

.macro one sum, at
    ldrb    r4, [r3, #\at]
    sxtb    r4, r4
    add_product \sum, r4
.endm

.macro words
    ldmia   r0!, {r2, r3}
    add     r3, r12
    ldmia   r3!, {r4, r5}
    four    r4, r8, r9, r10, r11
    four    r5, lr, r1, r6, r7
.endm

ST_FUNCTION(st_add_rows_words)
    begin
1:  words
    words
    end

.macro bytes
    ldmia   r0!, {r2, r3}
    add     r3, r12
    one     r8, 0
    one     r9, 1
    one     r10, 2
    one     r11, 3
    one     lr, 4
    one     r1, 5
    one     r6, 6
    one     r7, 7
.endm

ST_FUNCTION(st_add_rows_bytes)
    begin
1:  bytes
    bytes
    end

#endif
