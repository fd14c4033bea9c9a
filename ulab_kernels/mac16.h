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

// Outputs of one channel, y_step bytes apart. xtensa_mac16.S reads this.
typedef struct {
    const int16_t *x; // 4-byte aligned, and w
    const int16_t *w;
    int8_t *y;
    const int8_t *end; // of y
    int32_t y_step;
    int32_t bias;
    int32_t multiplier;
    int32_t drop;   // ST_MULSH: bits of the upper half of sum * multiplier that are no output's
    uint32_t limit; // not ST_MULSH: UINT32_MAX, if all sums are below it; all as st_reduced_t
    int32_t round;
    uint32_t doubt;
    int32_t lo, hi;
    int32_t fours;       // of inputs of a window, less one
    int32_t column;      // of taps: bytes from the end of four to the next four
    int32_t next_window; // of taps: bytes from the end of a window to the next one
    st_requant_t f;
    int32_t zero;
    int32_t (*exactly)(int32_t sum, st_requant_t f);
    int32_t rows;           // of taps: of outputs, each from y to end
    int32_t next_x, next_y; // bytes from a row's first window to the next row's, from its end
} st_mac16_job_t;

// What all channels have in common of it; then what one has.
void st_mac16_begin(st_mac16_job_t *job, const st_conv_geometry_t *g);
void st_mac16_prepare(st_mac16_job_t *job, int32_t bias, st_requant_t f);

// Outputs of windows that lie one behind the other, 4 * (fours + 1) inputs each.
void st_mac16_windows(const st_mac16_job_t *job);

// Rows of outputs of three fours each; the weights of one lie one behind the other.
void st_mac16_taps(const st_mac16_job_t *job);

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
