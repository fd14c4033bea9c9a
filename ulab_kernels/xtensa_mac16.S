// The loops of mac16.h for ESP32 and ESP32-S3: 1 instruction a multiply-accumulate, and for an
// output 15 of windows; for one of 3x3 taps 20, or 18 of every second column. 5 and 4 more without
// MULSH.
//
// QEMU 7.2 is wrong where a block without branches reads one of m0 to m3, loads it, and reads it
// again (not so one instruction at a time): loops part such blocks, that of taps in its middle.
#include "arch.h"
#if ST_XTENSA_MAC16

// Of st_mac16_output_t.
#define BIAS 0
#define MULTIPLIER 4
#define DROP 8
#define LIMIT 12
#define ROUND 16
#define DOUBT 20
#define LO 24
#define HI 28
#define F 32
#define ZERO 40
#define EXACTLY 44

// Of st_mac16_job_t.
#define X 0
#define W 4
#define Y 8
#define END 12
#define Y_STEP 16
#define FOURS 20
#define OUT 24

// Of st_mac16_taps_t.
#define WEIGHTS 0
#define BOTH 4
#define ONE 8
#define TAPS_Y 12
#define TAPS_Y_STEP 16
#define COLUMNS 20
#define ROWS 24
#define NEXT_X 28
#define NEXT_Y 32
#define TAPS_OUT 36

// Of st_mac16_lines_t.
#define FIRST 0
#define SECOND 4
#define FIRST_STEP 8
#define SECOND_STEP 12
#define TO 16
#define LINE_COLUMNS 20
#define PLANE 24
#define FLIP 28
#define MASK 32

// Of the frame, whose uppermost 32 bytes are for windows of registers: 4 to 7 of this function lie
// there while C code runs, and 0 to 3 of another one.
#define FRAME 80
#define JOB 0
#define RETURN 4
#define ROW_X 8
#define ROW_Y 12
#define ROWS_LEFT 16
#define ROW_COLUMNS 20
#define LOOP_BEGIN 24
#define LOOP_END 28
#define LOOP_COUNT 32
#define KEPT_LIMIT 36

// a2: the job, with st_mac16_output_t at `out`. What holds for all outputs.
.macro load_constants out
    l32i    a8, a2, \out + BIAS
    l32i    a9, a2, \out + MULTIPLIER
    l32i    a10, a2, \out + DROP
    ssr     a10
    l32i    a10, a2, \out + ROUND
    l32i    a11, a2, \out + DOUBT
.endm

// Calls `exactly` with the sum, which lies in ACCLO still; the output in a0, the job in a2.
.macro call_exactly out
    l32i    a2, a1, JOB
    rsr.acclo a10
    l32i    a11, a2, \out + F
    l32i    a12, a2, \out + F + 4
    l32i    a13, a2, \out + EXACTLY
    callx8  a13
    l32i    a0, a2, \out + ZERO
    add     a0, a0, a10
.endm

// The sum to an output in a0, which may be beyond an int8. SAR: the bits that are dropped.
.macro requantize out, exact
    rsr.acclo a2
#if ST_MULSH
    mulsh   a0, a2, a9
    add     a0, a0, a10
    ball    a0, a11, \exact
    sra     a0, a0
#else
    abs     a0, a2
    l32i    a2, a1, KEPT_LIMIT
    bgeu    a0, a2, \out
    rsr.acclo a2
    sra     a0, a2
    mull    a0, a0, a9
    add     a0, a0, a10
    slli    a2, a0, 11
    bgeu    a2, a11, \exact
    srai    a0, a0, 21
#endif
.endm

// Beyond the limit: the least or the most.
.macro saturate out, done
#if !ST_MULSH
\out:
    rsr.acclo a2
    srai    a0, a2, 31
    movi    a2, 127
    xor     a0, a0, a2
    j       \done
#endif
.endm

.macro keep_limit out
#if !ST_MULSH
    l32i    a0, a2, \out + LIMIT
    s32i    a0, a1, KEPT_LIMIT
#endif
.endm

/// Windows ///

// a3: x, a5: w, both less the 4 that a load adds first. a4: end of y, a6: y, a7: its step.
.macro load_windows_constants
    load_constants OUT
    l32i    a13, a2, OUT + LO
    l32i    a14, a2, OUT + HI
    l32i    a15, a2, FOURS
.endm

    .text
    .align  4
    .global st_mac16_windows
    .type   st_mac16_windows, @function
st_mac16_windows:
    entry   a1, FRAME
    s32i    a2, a1, JOB
    s32i    a0, a1, RETURN
    l32i    a3, a2, X
    l32i    a5, a2, W
    l32i    a6, a2, Y
    l32i    a4, a2, END
    l32i    a7, a2, Y_STEP
    addi    a3, a3, -4
    addi    a5, a5, -4
    keep_limit OUT
    load_windows_constants
.Lnext_window:
    mov     a2, a5
    wsr.acclo a8
    ldinc   m0, a3
    ldinc   m2, a2
    loopnez a15, .Llast_four
    mula.dd.ll.ldinc m1, a3, m0, m2
    mula.dd.hh.ldinc m3, a2, m0, m2
    mula.dd.ll.ldinc m0, a3, m1, m3
    mula.dd.hh.ldinc m2, a2, m1, m3
.Llast_four:
    mula.dd.ll.ldinc m1, a3, m0, m2
    mula.dd.hh.ldinc m3, a2, m0, m2
    mula.dd.ll m1, m3
    mula.dd.hh m1, m3
    requantize .Lwindow_is_out, .Lwindow_exactly
.Lwindow_done:
    max     a0, a0, a13
    min     a0, a0, a14
    s8i     a0, a6, 0
    add     a6, a6, a7
    bne     a6, a4, .Lnext_window
    l32i    a0, a1, RETURN
    retw
    saturate .Lwindow_is_out, .Lwindow_done
.Lwindow_exactly:
    call_exactly OUT
    load_windows_constants
    j       .Lwindow_done
    .size   st_mac16_windows, . - st_mac16_windows

/// Rows of weights ///

    .align  4
    .global st_mac16_dot
    .type   st_mac16_dot, @function
st_mac16_dot:
    entry   a1, 32
    movi    a5, 0x80
    slli    a6, a5, 8
    or      a5, a5, a6
    slli    a6, a5, 16
    or      a5, a5, a6
    movi    a6, 0xff
    slli    a7, a6, 16
    or      a6, a6, a7
    movi    a7, 0
    wsr.acclo a7
    addi    a2, a2, -4
    srli    a4, a4, 2
    ldinc   m0, a2
    loopnez a4, .Lno_weights
    l32i    a7, a3, 0
    addi    a3, a3, 4
    xor     a7, a7, a5
    and     a4, a7, a6
    srli    a7, a7, 8
    and     a7, a7, a6
    mula.da.ll.ldinc m1, a2, m0, a4
    mula.da.hh m0, a4
    mula.da.ll.ldinc m0, a2, m1, a7
    mula.da.hh m1, a7
.Lno_weights:
    rsr.acclo a2
    retw
    .size   st_mac16_dot, . - st_mac16_dot

/// Taps ///

// a3: y, a12: its step. a4: both, a5: one, less the 4 that a load adds first. a6, a7, a13: weights
// of both's columns, a14: two of one's, a15: its third. A call of C code changes a8 to a15.
.macro load_taps_constants
    load_constants TAPS_OUT
    l32i    a12, a2, TAPS_Y_STEP
    l32i    a15, a2, WEIGHTS
    l32i    a13, a15, 8
    l32i    a14, a15, 12
    l32i    a15, a15, 16
.endm

// Of a window some products come before the loop's end, the others behind its begin. Loads of the
// window after a row's last one find nothing of use. half: of one's words, as m operand.

// Column by column; m0 and m2, m1 are words of both, then of one. Six products.
.macro begin_1 half
    wsr.acclo a8
    mula.da.ll.ldinc m2, a4, m0, a6
    mula.da.hh.ldinc m1, a4, m0, a6
    mula.ad.ll a7, m2
    mula.ad.hh a7, m2
    mula.da.ll.ldinc m0, a5, m1, a13
    mula.da.hh.ldinc m3, a5, m1, a13
.endm

.macro end_1 half
    mula.da.\half\()l.ldinc m1, a5, m0, a14
    addi    a4, a4, -8
    addi    a5, a5, -8
    mula.ad.h\half a14, m3
    mula.da.\half\()l.ldinc m0, a4, m1, a15
.endm

.macro first_1
    ldinc   m0, a4
.endm

// Words of both that a row of columns in a7 passes by, to a6; of one it is one less.
.macro passed_1
    addi    a6, a7, 3
.endm

// Every second column: the last one of a window is the first one of the next. m0, m2: both, m1, m3:
// one. Three products.
.macro begin_2 half
    wsr.acclo a8
    mula.da.ll.ldinc m2, a4, m0, a6
    mula.da.hh.ldinc m3, a5, m0, a6
    mula.da.\half\()l.ldinc m0, a4, m1, a14
.endm

.macro end_2 half
    mula.ad.ll a7, m2
    mula.ad.hh a7, m2
    mula.ad.h\half a14, m3
    mula.da.ll.ldinc m1, a5, m0, a13
    mula.da.hh m0, a13
    mula.da.\half\()l m1, a15
.endm

.macro first_2
    ldinc   m0, a4
    ldinc   m1, a5
.endm

.macro passed_2
    slli    a6, a7, 1
    addi    a6, a6, 3
.endm

.macro taps step, name, half
    .align  4
    .global st_mac16_taps_\step\()_\name
    .type   st_mac16_taps_\step\()_\name, @function
st_mac16_taps_\step\()_\name:
    entry   a1, FRAME
    s32i    a2, a1, JOB
    s32i    a0, a1, RETURN
    l32i    a3, a2, TAPS_Y
    l32i    a4, a2, BOTH
    l32i    a5, a2, ONE
    addi    a4, a4, -4
    addi    a5, a5, -4
    l32i    a7, a2, COLUMNS
    l32i    a8, a2, ROWS
    l32i    a9, a2, NEXT_X
    l32i    a10, a2, NEXT_Y
    passed_\step
    slli    a6, a6, 2
    sub     a9, a9, a6
    s32i    a7, a1, ROW_COLUMNS
    s32i    a8, a1, ROWS_LEFT
    s32i    a9, a1, ROW_X
    s32i    a10, a1, ROW_Y
    l32i    a7, a2, WEIGHTS
    l32i    a6, a7, 0
    l32i    a7, a7, 4
    keep_limit TAPS_OUT
    load_taps_constants
.Lrow_\@:
    l32i    a0, a1, ROW_COLUMNS
    first_\step
    begin_\step \half
    loop    a0, .Lend_\@
    end_\step \half
    requantize .Lis_out_\@, .Lexactly_\@
.Ldone_\@:
    clamps  a0, a0, 7
    s8i     a0, a3, 0
    add     a3, a3, a12
    begin_\step \half
.Lend_\@:
    l32i    a0, a1, ROWS_LEFT
    addi    a0, a0, -1
    beqz    a0, .Lno_row_\@
    s32i    a0, a1, ROWS_LEFT
    l32i    a0, a1, ROW_X
    l32i    a2, a1, ROW_Y
    add     a4, a4, a0
    add     a5, a5, a0
    addi    a5, a5, 4
    add     a3, a3, a2
    j       .Lrow_\@
.Lno_row_\@:
    l32i    a0, a1, RETURN
    retw
    saturate .Lis_out_\@, .Ldone_\@
.Lexactly_\@:
    rsr.lbeg a0
    s32i    a0, a1, LOOP_BEGIN
    rsr.lend a0
    s32i    a0, a1, LOOP_END
    rsr.lcount a0
    s32i    a0, a1, LOOP_COUNT
    call_exactly TAPS_OUT
    load_taps_constants
    l32i    a2, a1, LOOP_BEGIN
    wsr.lbeg a2
    l32i    a2, a1, LOOP_END
    wsr.lend a2
    l32i    a2, a1, LOOP_COUNT
    wsr.lcount a2
    isync
    j       .Ldone_\@
    .size   st_mac16_taps_\step\()_\name, . - st_mac16_taps_\step\()_\name
.endm

    taps    1, lower, l
    taps    1, upper, h
    taps    2, lower, l
    taps    2, upper, h

/// Inputs ///

// a3, a4: the first and the second row of the input, a5, a6: their steps. a7 to a10: rows of words.
// a11: 128 four times, a12: the mask of two of these.
.macro column offset
    l32i    a13, a3, 0
    l32i    a14, a4, 0
    add     a3, a3, a5
    add     a4, a4, a6
    slli    a15, a13, 16
    src     a15, a14, a15
    extui   a2, a14, 16, 16
    src     a2, a2, a13
    xor     a15, a15, a11
    xor     a2, a2, a11
    and     a13, a15, a12
    s32i    a13, a7, \offset
    srli    a15, a15, 8
    and     a15, a15, a12
    s32i    a15, a8, \offset
    and     a13, a2, a12
    s32i    a13, a9, \offset
    srli    a2, a2, 8
    and     a2, a2, a12
    s32i    a2, a10, \offset
.endm

    .align  4
    .global st_mac16_widen_lines
    .type   st_mac16_widen_lines, @function
st_mac16_widen_lines:
    entry   a1, 48
    l32i    a3, a2, FIRST
    l32i    a4, a2, SECOND
    l32i    a5, a2, FIRST_STEP
    l32i    a6, a2, SECOND_STEP
    l32i    a7, a2, TO
    l32i    a15, a2, PLANE
    l32i    a13, a2, LINE_COLUMNS
    l32i    a11, a2, FLIP
    l32i    a12, a2, MASK
    add     a8, a7, a15
    add     a9, a8, a15
    add     a10, a9, a15
    s32i    a13, a1, 0
    srli    a13, a13, 1
    ssai    16
    loopnez a13, .Lno_columns
    column  0
    column  4
    addi    a7, a7, 8
    addi    a8, a8, 8
    addi    a9, a9, 8
    addi    a10, a10, 8
.Lno_columns:
    l32i    a13, a1, 0
    bbci    a13, 0, .Lno_column
    column  0
.Lno_column:
    retw
    .size   st_mac16_widen_lines, . - st_mac16_widen_lines

#endif
