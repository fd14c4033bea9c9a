// What every int8 operator ends with: an int32 sum becomes an int8 output. Bit-exact with
// st_requantize, in 32-bit arithmetic for all sums but the few that lie near a tie.
#ifndef ST_REQUANTIZE_H
#define ST_REQUANTIZE_H

#include "fixedpoint.h"

// A factor for 32-bit arithmetic, with the output's zero point. 2^-shift of the factor is split in
// bits that are dropped of the sum and bits that the multiplier lacks, so that the product counts
// in 2^-21 of an output. It misses the exact one by what is dropped and by the multiplier's
// rounding; TFLite's first rounding moves it, too. Where that may change the output, its fraction
// lies in the uppermost part, and the exact way is taken: for one sum in twenty where bits are
// dropped.
typedef struct {
    int32_t multiplier, drop;
    uint32_t limit; // sums from it on, or below -it, are out of range, whatever the zero point
    int32_t round;  // added to the product: half an output, less what it may miss downwards
    uint32_t doubt; // fractions, as the upper bits of a word, from where the exact way is taken
} st_reduced_t;

#define ST_REDUCED_LEAST 3 // shifts to the right below it, or above, go the exact way
#define ST_REDUCED_MOST 31

static inline int st_is_reducible(st_requant_t f) {
    return !ST_SMALL && f.shift <= -ST_REDUCED_LEAST && f.shift >= -ST_REDUCED_MOST;
}

static inline st_reduced_t st_reduce(st_requant_t f, int32_t zero) {
    const int32_t right = -f.shift, drop = right > 6 ? right - 6 : 0;
    const int32_t lacks = 10 + right - drop;
    const int32_t miss = right >= 6 ? 0 : (1 << (20 - right)) + (1 << (8 + right - drop));
    const int32_t above = right >= 6 ? 1 << 16 : miss, below = right >= 6 ? 1 << 15 : miss;
    return (st_reduced_t){
        .multiplier = (int32_t)(((uint32_t)f.multiplier + (1u << (lacks - 1))) >> lacks),
        .drop = drop,
        .limit = 1u << st_min(9 + right, 31),
        .round = (1 << 20) - below + zero * (1 << 21),
        .doubt = 0u - ((uint32_t)(above + below) << 11),
    };
}

// What sends every sum the exact way, where the factor is not reducible.
static inline st_reduced_t st_reduce_if_possible(st_requant_t f, int32_t zero) {
    const st_reduced_t exact = {
        .limit = 1u << 31, .drop = 0, .multiplier = 0, .round = 0, .doubt = 0};
    return st_is_reducible(f) ? st_reduce(f, zero) : exact;
}

// Whether the output is found so: then clamp(st_requantize(sum, f) + zero, lo, hi) is clamp(*v, lo,
// hi), where r = st_reduce(f, zero) and -128 <= lo <= hi <= 127. Rounded once it is the same.
static inline int st_requantize_by(const st_reduced_t *r, int32_t sum, int32_t *v) {
    if ((uint32_t)(sum ^ (sum >> 31)) >= r->limit) {
        *v = sum < 0 ? -256 : 255;
        return 1;
    }
    const int32_t q = (sum >> r->drop) * r->multiplier + r->round;
    *v = q >> 21;
    return (uint32_t)q << 11 < r->doubt;
}

// Sums of one channel. Steps in bytes.
typedef struct {
    const int32_t *sums;
    int8_t *y;
    int32_t count, y_step;
    int32_t sum_step; // of a run
    int32_t bias;     // of a row: added to each sum
    st_requant_t f;
    int32_t zero, lo, hi;
    st_reduced_t reduced; // by st_requantize_prepare
} st_requantize_t;

// Once f, zero, lo and hi are known: what holds for all their sums.
void st_requantize_prepare(st_requantize_t *r);

// y = clamp(st_requantize(sum, f) + zero, lo, hi), for each, sum_step apart.
void st_requantize_run(const st_requantize_t *run);

// y = clamp(st_requantize(sum + bias, f) + zero, lo, hi), for each, one behind the other.
void st_requantize_row(const st_requantize_t *row);

#endif
