// The learning rule: stochastic gradient descent in real units on int8 weights (which is
// quantisation-aware scaling, MCUNetV3 2206.15472, section 2.1: a step of size 1/s_w^2 on the
// quantised gradient), in fixed point, with stochastic rounding and saturation.
#ifndef ST_UPDATE_H
#define ST_UPDATE_H

#include <stdint.h>
#include "arch.h"
#include "columns.h"
#include "conv_geometry.h"
#include "scores.h"
#include "velocity.h"

// Leaves room for the sum of a window, so that forward cannot overflow.
#define ST_BIAS_LIMIT (1 << 30)

typedef struct st_update {
    const int8_t *kept;       // activations of the chosen channels, those of a position and group
    int32_t kept_step;        // so many apart: n_channels, or a multiple of 4 with zeros behind
    const uint16_t *channels; // the chosen input channels, in any order, n_channels
    int32_t n_channels;       // 0: only the bias is updated
    int8_t *weights;          // NULL where columns are given
    const st_columns_t *columns;
    int8_t *residual;             // NULL, or the weights' fraction in 1/256 of a quantisation step
    int32_t *bias;                // NULL: the bias is frozen
    const st_rate_t *weight_rate; // [out_c] x_scale / w_scale[c] (with either of these times 256)
    const st_rate_t *bias_rate;   // [out_c] 1 / (x_scale * w_scale[c])
    st_rate_t learning_rate;
    int32_t error_exponent; // of dy
    int32_t row_words;      // of the scratch row: st_sums_room, or some times that
    uint32_t seed;          // differs for every layer and step
    st_range_t made;        // output channels whose weights and biases learn: all, or a part's
    const st_velocity_t *velocity; // NULL: steps go to the weights at once
    st_norm_t *norms;              // NULL, or [n_channels] that the gradients are added to
} st_update_t;

// Sums of an output channel's tap in the scratch row, an even number.
static inline int32_t st_sums_room(const st_update_t *u) {
    return (u->kept_step + 1) & ~1;
}

// Of a step whose product has no more than 32 bits to keep; sums of smaller shifts are shifted
// left.
#define ST_LEAST_SHIFT 32
#define ST_MOST_SHIFT 46 // |upper half| < 2^30: room for 30 random bits

// A step factor ready for one output channel: step = sum * mantissa * 2^-shift; mantissa < 2^15.
typedef struct {
    uint32_t mantissa;
    int32_t shift;
} st_step_t;

st_step_t st_weight_step(const st_update_t *u, int32_t out_channel);

// mantissa * 2^-shift; mantissa < 2^15. Steps that are all below one half lose bits.
st_step_t st_step(uint32_t mantissa, int32_t shift);

// sum * step, rounded up with the probability of its fraction, saturating at INT32_MAX.
int32_t st_steps_of(int32_t sum, st_step_t step, uint32_t random);

// Adds 1/256 steps to a weight and its fraction, saturating at [-127, 127].
void st_add_fine(int8_t *weight, int8_t *fraction, int32_t steps);

// Adds to a bias, saturating.
void st_add_to_bias(int32_t *bias, int32_t v);

// Weights first + k * apart, k < count.
typedef struct {
    int32_t first, apart, count;
} st_spread_t;

// Subtracts sums[k] * step from each; stochastic rounding, saturating at [-127, 127].
void st_update_spread(const st_update_t *u, st_step_t step, st_spread_t at, const int32_t *sums);

// The same of one weight.
void st_update_weight(const st_update_t *u, st_step_t step, int32_t index, int32_t sum);

#if ST_ARMV6M

#define ST_ROWS_ODD 1  // all but the last sum of a row, which becomes 0
#define ST_ROWS_FINE 2 // weights with a residual

// armv6m_update.S: rows of an even number of sums; kind: of ST_ROWS_*. row, counter, channels,
// weights and row_end are those of a row in front of the next one, from where it has ended; gap,
// counter_step and the other steps lead to the next row, all but that of the counter in bytes.
// fractions: from a weight to its own.
typedef struct {
    uint32_t row, counter, channels, weights;
    const st_rate_t *rate, *rate_end;
    uint32_t learning_rate;
    int32_t shift; // of a rate of exponent 0
    uint32_t row_end, row_step, channels_step, counter_step, filter, gap, kind, fractions;
} st_step_rows_t;

#endif

// Rows of sums, of one output channel after the other, `step` elements apart, an even number each.
// next, sums: those of the next row; base: the first weight of output channel 0, `filter` weights
// in front of that of channel 1.
typedef struct {
    const st_update_t *u;
    int32_t base, filter, next;
    int32_t *sums;
    int32_t step;
#if ST_ARMV6M
    st_step_rows_t loop;
#endif
} st_weight_rows_t;

// All but the loop is given.
void st_begin_rows(st_weight_rows_t *rows);

// The same for weights base + channels[slot] with sums[slot], for all n_channels slots of the next
// `count` rows. Their random bits hang on the slot. Sums are of no use then; an odd number of slots
// is made even: sums[n_channels] = 0.
void st_update_rows(st_weight_rows_t *rows, int32_t count);

// One slot of it.
void st_update_slot(const st_update_t *u, st_step_t step, int32_t base, int32_t slot, int32_t sum);

typedef struct {
    int32_t base, slot;
} st_slot_t;

// One slot, whose weight lies in a column.
void st_update_slot_in_column(const st_update_t *u, st_step_t step, st_slot_t at, int32_t sum,
                              int8_t *weight);

// Subtracts sums * step from the velocity of the chosen channels of one tap, whose first weight is
// `base`.
void st_update_velocities(const st_update_t *u, st_step_t step, int32_t base, const int32_t *sums);

// Subtracts sum * step from the bias of one output channel.
void st_update_bias(const st_update_t *u, int32_t out_channel, int32_t sum);

// Subtracts the bias step of the output channels made, where the bias is trained.
// dy: int16 [positions, out_c].
void st_update_biases(int32_t positions, int32_t out_c, const int16_t *dy, const st_update_t *u);

#endif
