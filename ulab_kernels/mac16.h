// Sums of products for cores with MAC16 (ESP32, ESP32-S3): it multiplies two int16, adds to an
// accumulator and loads the next word, all as one instruction. Inputs and weights are widened to
// int16 first, once for many products: inputs as x + 128, which is never negative, so that a word
// of four becomes two words by masks. Each sum becomes an output at once.
#ifndef ST_MAC16_H
#define ST_MAC16_H

#include "arch.h"
#include "conv_geometry.h"
#include "requantize.h"

// Two int16, the first one in the lower half; also four int8.
typedef uint32_t __attribute__((may_alias)) st_mac16_word_t;

// How a channel's sums become outputs.
typedef struct {
    int32_t bias; // where a sum begins
    int32_t multiplier;
    int32_t drop;   // ST_MULSH: bits of the upper half of sum * multiplier that are no output's
    uint32_t limit; // not ST_MULSH: UINT32_MAX, if all sums are below it; all as st_reduced_t
    int32_t round;
    uint32_t doubt; // ST_MULSH: where all of these bits are set, the exact way is taken
    int32_t lo, hi;
    st_requant_t f;
    int32_t zero;
    int32_t (*exactly)(int32_t sum, st_requant_t f);
} st_mac16_output_t;

// Outputs of one channel, y_step bytes apart. xtensa_mac16.S reads this.
typedef struct {
    const int16_t *x; // 4-byte aligned, and w
    const int16_t *w;
    int8_t *y;
    const int8_t *end; // of y
    int32_t y_step;
    int32_t fours; // of inputs of a window, less one
    st_mac16_output_t out;
} st_mac16_job_t;

// A 3x3 filter of one channel, on inputs two rows a word, the upper one in its lower half. Of the
// three rows of a window two are one row of words (`both`), and one is half of another (`one`).
// xtensa_mac16.S reads this. Steps in bytes.
typedef struct {
    const st_mac16_word_t *w;          // of both: three columns; of one: two in a word, and one
    const st_mac16_word_t *both, *one; // of the first window; two words behind a row are read, too
    int8_t *y;
    int32_t y_step;
    int32_t columns, rows;  // of outputs
    int32_t next_x, next_y; // from a row to the next one; next_y: from its end
    st_mac16_output_t out;  // its lo and hi are -128 and 127
} st_mac16_taps_t;

// What all channels have in common of it; then what one has.
void st_mac16_begin(st_mac16_output_t *out, const st_conv_geometry_t *g);
void st_mac16_prepare(st_mac16_output_t *out, int32_t bias, st_requant_t f);

// Sum of x * (w + 128), n of them, a multiple of 4; w aligned, x too and each four as 0, 2, 1, 3.
// Two of x behind the last are read, too.
int32_t st_mac16_dot(const int16_t *x, const int8_t *w, int32_t n);

// Outputs of windows that lie one behind the other, 4 * (fours + 1) inputs each.
void st_mac16_windows(const st_mac16_job_t *job);

// By the columns from one window to the next, and the half that `one` is: lower or upper.
void st_mac16_taps_1_lower(const st_mac16_taps_t *job);
void st_mac16_taps_1_upper(const st_mac16_taps_t *job);
void st_mac16_taps_2_lower(const st_mac16_taps_t *job);
void st_mac16_taps_2_upper(const st_mac16_taps_t *job);

// Two rows of inputs of four channels, which are a word, to a row of pairs for each channel.
// xtensa_mac16.S reads this. Steps in bytes.
typedef struct {
    const int8_t *first, *second; // 4-byte aligned
    int32_t first_step, second_step;
    st_mac16_word_t *to; // [4, plane]: the first row in the lower halves, x + 128
    int32_t n;
    int32_t plane;       // bytes from a channel to the next one
    uint32_t flip, mask; // ST_MAC16_FLIP, ST_MAC16_MASK
} st_mac16_lines_t;

// Four bytes plus 128, and two of four bytes.
#define ST_MAC16_FLIP 0x80808080u
#define ST_MAC16_MASK 0x00ff00ffu

void st_mac16_widen_lines(const st_mac16_lines_t *lines);

// to = x + 128, n of them. In fours: n is a multiple of 4, x aligned, and each four lies as 0, 2,
// 1, 3.
void st_mac16_widen(const int8_t *x, int32_t n, int16_t *to);
void st_mac16_widen_fours(const int8_t *x, int32_t n, int16_t *to);

// The sum and two products, of the lower halves and of the upper.
static inline int32_t st_mac16_add_two(int32_t sum, st_mac16_word_t x, st_mac16_word_t w) {
#if ST_SMLAD
    __asm("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(x), "r"(w));
    return sum;
#else
    return sum + (int16_t)x * (int16_t)w + (int16_t)(x >> 16) * (int16_t)(w >> 16);
#endif
}

#endif
