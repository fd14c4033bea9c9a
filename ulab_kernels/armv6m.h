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

#endif
