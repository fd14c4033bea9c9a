// Sums of terms for ESP32 and ESP32-S3 (add_rows.c): eight elements at a time, whose sums stay in
// registers. 4 instructions a multiply-accumulate, 4.5 where rows are no words.
#include "arch.h"
#if ST_XTENSA_MAC16

// Of st_add_rows_t.
#define TERMS 0
#define COUNT 4
#define ROW 8
#define BLOCKS 12
#define START 16
#define IS_BEGUN 20

// Of the frame.
#define JOB 0
#define RETURN 4
#define SUMS 8
#define LEFT 12

// a5: the factor, a7: four elements plus 128.
.macro add_word at, first, second, third, fourth
    l32i    a7, a6, \at
    xor     a7, a7, a0
    extui   a2, a7, 0, 8
    mull    a2, a2, a5
    add     \first, \first, a2
    extui   a2, a7, 8, 8
    mull    a2, a2, a5
    add     \second, \second, a2
    extui   a2, a7, 16, 8
    mull    a2, a2, a5
    add     \third, \third, a2
    extui   a2, a7, 24, 8
    mull    a2, a2, a5
    add     \fourth, \fourth, a2
.endm

.macro words
    add_word 0, a8, a9, a10, a11
    add_word 4, a12, a13, a14, a15
.endm

.macro add_byte at, to
    l8ui    a2, a6, \at
    sext    a2, a2, 7
    mull    a2, a2, a5
    add     \to, \to, a2
.endm

.macro bytes
    add_byte 0, a8
    add_byte 1, a9
    add_byte 2, a10
    add_byte 3, a11
    add_byte 4, a12
    add_byte 5, a13
    add_byte 6, a14
    add_byte 7, a15
.endm

.macro add_rows elements
    .align  4
    .global st_add_rows_\elements
    .type   st_add_rows_\elements, @function
st_add_rows_\elements:
    entry   a1, 48
    s32i    a0, a1, RETURN
    s32i    a2, a1, JOB
    l32i    a3, a2, ROW
    l32i    a4, a2, BLOCKS
    s32i    a3, a1, SUMS
    s32i    a4, a1, LEFT
    movi    a4, 0
    movi    a0, 0x80
    slli    a3, a0, 8
    or      a0, a0, a3
    slli    a3, a0, 16
    or      a0, a0, a3
.Lblock_\@:
    l32i    a3, a2, START
    l32i    a5, a2, IS_BEGUN
    mov     a8, a3
    mov     a9, a3
    mov     a10, a3
    mov     a11, a3
    mov     a12, a3
    mov     a13, a3
    mov     a14, a3
    mov     a15, a3
    beqz    a5, .Lbegin_\@
    l32i    a6, a1, SUMS
    l32i    a7, a6, 0
    l32i    a5, a6, 4
    add     a8, a8, a7
    add     a9, a9, a5
    l32i    a7, a6, 8
    l32i    a5, a6, 12
    add     a10, a10, a7
    add     a11, a11, a5
    l32i    a7, a6, 16
    l32i    a5, a6, 20
    add     a12, a12, a7
    add     a13, a13, a5
    l32i    a7, a6, 24
    l32i    a5, a6, 28
    add     a14, a14, a7
    add     a15, a15, a5
.Lbegin_\@:
    l32i    a5, a2, COUNT
    l32i    a3, a2, TERMS
    loopnez a5, .Lsummed_\@
    l32i    a5, a3, 0
    l32i    a6, a3, 4
    addi    a3, a3, 8
    add     a6, a6, a4
    \elements
.Lsummed_\@:
    l32i    a6, a1, SUMS
    s32i    a8, a6, 0
    s32i    a9, a6, 4
    s32i    a10, a6, 8
    s32i    a11, a6, 12
    s32i    a12, a6, 16
    s32i    a13, a6, 20
    s32i    a14, a6, 24
    s32i    a15, a6, 28
    addi    a6, a6, 32
    s32i    a6, a1, SUMS
    addi    a4, a4, 8
    l32i    a2, a1, JOB
    l32i    a5, a1, LEFT
    addi    a5, a5, -1
    s32i    a5, a1, LEFT
    bnez    a5, .Lblock_\@
    l32i    a0, a1, RETURN
    retw
    .size   st_add_rows_\elements, . - st_add_rows_\elements
.endm

    .text
    add_rows words
    add_rows bytes

#endif
