// What forward keeps for backward: clamp masks and the chosen channels; and plumbing of errors.
#ifndef ST_ACTIVATION_H
#define ST_ACTIVATION_H

#include <stdint.h>
#include "error_tensor.h"

// bits[ceil(n / 8)]: bit i % 8 of byte i / 8 is set where lo < y[i] < hi, that is where the
// clamp (ReLU, or the end of the int8 range) passes the gradient.
void clamp_mask_s8(const int8_t *y, int32_t n, int32_t lo, int32_t hi, uint8_t *bits);

// dy[i] = 0 where bit i is not set.
void apply_mask(int16_t *dy, int32_t n, const uint8_t *bits);

// kept[positions, step] = x[positions, channels] at the n chosen channels, and zeros behind them.
typedef struct {
    const uint16_t *index;
    int32_t n, of, step; // chosen, all, from position to position of those kept
} st_channels_t;
void keep_channels_s8(const int8_t *x, int32_t positions, const st_channels_t *channels,
                      int8_t *kept);

// Codes of 2 bits in place of kept activations. An element is below or above the mean (to nearest,
// ties up), and near to it or far; what is read for it is the mean of all that have its code
// (Lloyd's condition), so that what is lost is at right angles to what is kept. Far: more than 5/4
// of the mean distance, to nearest; a normal distribution loses least by 1.23. ActNN (2104.14129)
// draws its codes, between fixed levels.
#define ST_LEVELS 4
#define ST_MAX_CODES (1 << 20)
#define ST_VALUES 256 // of a byte

// codes: int8 level [ST_LEVELS], then bytes [ceil(n / 4)]: x[i] is level[bits i % 4 * 2 of byte
// i / 4]; 0 where there is no x[i]. n in [1, ST_MAX_CODES]. counts: scratch [ST_VALUES].
void encode_kept_s8(const int8_t *x, int32_t n, uint32_t *counts, uint8_t *codes);
void decode_kept_s8(const uint8_t *codes, int32_t n, int8_t *x);

// Hands dy[n] on to another error tensor (copied, or added when dx accumulates).
void error_add(const int16_t *dy, int32_t n, st_emit_t *dx);

#endif
