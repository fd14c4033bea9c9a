// The loops of mac16.h for ESP32 and ESP32-S3: 1 instruction a multiply-accumulate, and for an
// output 16 of windows, 20 of taps (which have 12 products for 9); 3 and 4 more without MULSH.
//
// QEMU 7.2 is wrong where a block without branches loads one of m0 to m3 twice (not so one
// instruction at a time): a loop parts such blocks.
#include "arch.h"
#if ST_XTENSA_MAC16

// Of st_mac16_job_t.
#define X 0
#define W 4
#define Y 8
#define END 12
#define Y_STEP 16
#define BIAS 20
#define MULTIPLIER 24
#define DROP 28
#define LIMIT 32
#define ROUND 36
#define DOUBT 40
#define LO 44
#define HI 48
#define FOURS 52
#define COLUMN 56
#define NEXT_WINDOW 60
#define F 64
#define ZERO 72
#define EXACTLY 76
#define ROWS 80
#define NEXT_X 84
#define NEXT_Y 88

// Of the frame.
#define JOB 0
#define RETURN 4
#define STEP 8
#define ROW_X 12
#define ROWS_LEFT 16
#define SPAN 20

// a2: the job. What holds for all outputs. With MULSH a10 is free: taps have their step there.
.macro load_constants
    l32i    a8, a2, BIAS
    l32i    a9, a2, MULTIPLIER
    l32i    a10, a2, DROP
    ssr     a10
#if !ST_MULSH
    l32i    a10, a2, LIMIT
#endif
    l32i    a11, a2, ROUND
    l32i    a12, a2, DOUBT
    l32i    a13, a2, LO
    l32i    a14, a2, HI
.endm

// a3: x, a5: w, both less the 4 that a load adds first. a4: end of y, a6: y, a7: its step.
.macro begin
    entry   a1, 64
    s32i    a2, a1, JOB
    s32i    a0, a1, RETURN
    l32i    a3, a2, X
    l32i    a5, a2, W
    l32i    a6, a2, Y
    l32i    a4, a2, END
    l32i    a7, a2, Y_STEP
    addi    a3, a3, -4
    addi    a5, a5, -4
    load_constants
.endm

// Four products, of the words in m0 and m2 and the next ones; then those behind them are loaded.
.macro four
    mula.dd.ll.ldinc m1, a3, m0, m2
    mula.dd.hh.ldinc m3, a2, m0, m2
    mula.dd.ll.ldinc m0, a3, m1, m3
    mula.dd.hh.ldinc m2, a2, m1, m3
.endm

// The sum becomes an output, and the next one is begun. SAR shifts right by the bits that are
// dropped, and left by 32 less these.
.macro put next, out, exact, done
    rsr.acclo a2
#if ST_MULSH
    mulsh   a0, a2, a9
    add     a0, a0, a11
    sll     a2, a0
    bgeu    a2, a12, \exact
    sra     a0, a0
#else
    abs     a0, a2
    bgeu    a0, a10, \out
    sra     a0, a2
    mull    a0, a0, a9
    add     a0, a0, a11
    slli    a2, a0, 11
    bgeu    a2, a12, \exact
    srai    a0, a0, 21
#endif
\done:
    max     a0, a0, a13
    min     a0, a0, a14
    s8i     a0, a6, 0
    add     a6, a6, a7
    bne     a6, a4, \next
.endm

.macro put_limit out, done
#if !ST_MULSH
\out:
    mov     a0, a14
    movltz  a0, a13, a2
    j       \done
#endif
.endm

// The sum lies in ACCLO still.
.macro put_exactly constant, done, has_step
    l32i    a2, a1, JOB
    rsr.acclo a10
    l32i    a11, a2, F
    l32i    a12, a2, F + 4
    l32i    a13, a2, EXACTLY
    callx8  a13
    l32i    a0, a2, ZERO
    add     a0, a0, a10
    load_constants
    l32i    a15, a2, \constant
#if ST_MULSH
.if \has_step
    l32i    a10, a1, STEP
.endif
#endif
    j       \done
.endm

    .text
    .align  4
    .global st_mac16_windows
    .type   st_mac16_windows, @function
st_mac16_windows:
    begin
    l32i    a15, a2, FOURS
.Lnext_window:
    mov     a2, a5
    wsr.acclo a8
    ldinc   m0, a3
    ldinc   m2, a2
    loopnez a15, .Llast_four
    four
.Llast_four:
    mula.dd.ll.ldinc m1, a3, m0, m2
    mula.dd.hh.ldinc m3, a2, m0, m2
    mula.dd.ll m1, m3
    mula.dd.hh m1, m3
    put     .Lnext_window, .Lwindow_is_out, .Lwindow_exactly, .Lwindow_done
    l32i    a0, a1, RETURN
    retw
    put_limit .Lwindow_is_out, .Lwindow_done
.Lwindow_exactly:
    put_exactly FOURS, .Lwindow_done, 0
    .size   st_mac16_windows, . - st_mac16_windows

    .align  4
    .global st_mac16_taps
    .type   st_mac16_taps, @function
st_mac16_taps:
    begin
    l32i    a15, a2, NEXT_WINDOW
    s32i    a15, a1, STEP
    sub     a3, a3, a15
    s32i    a3, a1, ROW_X
    l32i    a15, a2, ROWS
    s32i    a15, a1, ROWS_LEFT
    sub     a15, a4, a6
    s32i    a15, a1, SPAN
    l32i    a15, a2, COLUMN
#if ST_MULSH
    l32i    a10, a1, STEP
#endif
.Lnext_taps:
    mov     a2, a5
#if ST_MULSH
    add     a3, a3, a10
#else
    l32i    a0, a1, STEP
    add     a3, a3, a0
#endif
    wsr.acclo a8
    ldinc   m0, a3
    ldinc   m2, a2
    movi    a0, 2
    loop    a0, .Llast_column
    mula.dd.ll.ldinc m1, a3, m0, m2
    mula.dd.hh.ldinc m3, a2, m0, m2
    add     a3, a3, a15
    mula.dd.ll.ldinc m0, a3, m1, m3
    mula.dd.hh.ldinc m2, a2, m1, m3
.Llast_column:
    mula.dd.ll.ldinc m1, a3, m0, m2
    mula.dd.hh.ldinc m3, a2, m0, m2
    mula.dd.ll m1, m3
    mula.dd.hh m1, m3
    put     .Lnext_taps, .Ltaps_are_out, .Ltaps_exactly, .Ltaps_done
    l32i    a0, a1, ROWS_LEFT
    addi    a0, a0, -1
    beqz    a0, .Lno_row
    s32i    a0, a1, ROWS_LEFT
    l32i    a2, a1, JOB
    l32i    a3, a1, ROW_X
    l32i    a0, a2, NEXT_X
    add     a3, a3, a0
    s32i    a3, a1, ROW_X
    l32i    a0, a2, NEXT_Y
    add     a6, a6, a0
    l32i    a0, a1, SPAN
    add     a4, a6, a0
    j       .Lnext_taps
.Lno_row:
    l32i    a0, a1, RETURN
    retw
    put_limit .Ltaps_are_out, .Ltaps_done
.Ltaps_exactly:
    put_exactly COLUMN, .Ltaps_done, 1
    .size   st_mac16_taps, . - st_mac16_taps

#endif
