// Gradients of the input of a depthwise layer for ESP32 and ESP32-S3 (depthwise_conv2d.c): four
// channels at a time. 6 instructions a multiply-accumulate, and 9 a channel, or 12 without MULSH.
#include "arch.h"
#if ST_XTENSA_MAC16

// Of st_taps_job_t.
#define TAPS_END 0
#define TAPS 4
#define ROW 8
#define CHANNELS 12
#define SCALE 16

// Of the frame.
#define COUNT 0

// The sum times scale / 2^15, as st_mul_q15. a3: scale, a7: row. MULSH: a sum of 25 products at most
// has room for two bits more. Without it in two halves.
.macro put_scaled sum, at_scale, at
    l16ui   a13, a3, \at_scale
#if ST_MULSH
    slli    \sum, \sum, 2
    slli    a13, a13, 15
    mulsh   a15, \sum, a13
#else
    srai    a14, \sum, 16
    extui   a15, \sum, 0, 16
    mull    a14, a14, a13
    mull    a15, a15, a13
    srli    a15, a15, 15
    addx2   a15, a14, a15
#endif
    s32i    a15, a7, \at
.endm

    .text
    .align  4
    .global st_sum_taps
    .type   st_sum_taps, @function
st_sum_taps:
    entry   a1, 32
    l32i    a3, a2, TAPS_END
    l32i    a4, a2, TAPS
    sub     a3, a3, a4
    srli    a3, a3, 3
    s32i    a3, a1, COUNT
    movi    a4, 0
    movi    a12, 0
// a4, a12: bytes to these channels, of weights and of errors. a8 to a11: sums.
.Lchannels:
    l32i    a3, a2, TAPS
    l32i    a5, a1, COUNT
    movi    a8, 0
    movi    a9, 0
    movi    a10, 0
    movi    a11, 0
    loopnez a5, .Lsummed
    l32i    a6, a3, 0
    l32i    a7, a3, 4
    addi    a3, a3, 8
    add     a6, a6, a12
    add     a7, a7, a4
    l32i    a13, a6, 0
    l32i    a7, a7, 0
    l32i    a14, a6, 4
    sext    a15, a7, 7
    mul16s  a15, a15, a13
    slli    a5, a7, 16
    add     a8, a8, a15
    srai    a13, a13, 16
    srai    a5, a5, 24
    mul16s  a5, a5, a13
    slli    a15, a7, 8
    add     a9, a9, a5
    srai    a15, a15, 24
    mul16s  a15, a15, a14
    srai    a14, a14, 16
    srai    a7, a7, 24
    add     a10, a10, a15
    mul16s  a7, a7, a14
    add     a11, a11, a7
.Lsummed:
    l32i    a3, a2, SCALE
    l32i    a7, a2, ROW
    l32i    a5, a2, CHANNELS
    add     a3, a3, a12
    addx2   a7, a12, a7
    put_scaled a8, 0, 0
    put_scaled a9, 2, 4
    put_scaled a10, 4, 8
    put_scaled a11, 6, 12
    addi    a4, a4, 4
    addi    a12, a12, 8
    bne     a4, a5, .Lchannels
    retw
    .size   st_sum_taps, . - st_sum_taps

#endif
