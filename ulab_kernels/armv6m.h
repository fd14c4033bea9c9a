// What the assembly files for Cortex-M0+ (armv6m_*.S) share.
#ifndef ST_ARMV6M_H
#define ST_ARMV6M_H

#ifdef ST_RAM_SECTION
#define ST_CODE_SECTION .section ST_RAM_SECTION, "ax"
#else
#define ST_CODE_SECTION .text
#endif

// Cycles: a load 2, of n words together 1 + n; a branch 2 where taken; all else 1.
#define ST_FUNCTION(name)                                                                          \
    ST_CODE_SECTION;                                                                               \
    .balign 4;                                                                                     \
    .thumb_func;                                                                                   \
    .global name;                                                                                  \
    .type name, % function;                                                                        \
    name:

// clang-format off
// All registers that a function must leave as they were. 9 words of the stack.
.macro save_all
    push    {r4-r7, lr}
    mov     r4, r8
    mov     r5, r9
    mov     r6, r10
    mov     r7, r11
    push    {r4-r7}
.endm

// And back to the caller.
.macro restore_all_and_return
    pop     {r4-r7}
    mov     r8, r4
    mov     r9, r5
    mov     r10, r6
    mov     r11, r7
    pop     {r4-r7, pc}
.endm

// Into the sums that the upper registers hold.
.macro all_r6
    mov     r8, r6
    mov     r9, r6
    mov     r10, r6
    mov     r11, r6
    mov     r12, r6
    mov     lr, r6
.endm

#endif
