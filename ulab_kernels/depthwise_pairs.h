// Depthwise 3x3 with stride 1 where two outputs of a channel share a word, and so all of their
// multiplications: (a + 2^16 b) * w = a * w + 2^16 * (b * w). Whether a sum of nine fits 16 bits
// hangs on how large the channel's inputs are: that is seen while they are put together. Where it
// does not, the sums are parted after two products of each column, and the third.
#ifndef ST_DEPTHWISE_PAIRS_H
#define ST_DEPTHWISE_PAIRS_H

#include "conv2d.h"
#include "requantize_pairs.h"

#define ST_MOST_PAIR_ROWS 16 // of outputs of one channel that are made at a time

// An output shares its word with the one half of the rows below it, where their number is odd with
// the one above that: those in the middle are made twice. A row of inputs of the lower halves, and
// how many bytes from it to that of the upper halves:
typedef struct {
    const int8_t *low;
    intptr_t high;
} st_pair_row_t;

// armv6m_depthwise_pairs.S reads these. To put inputs together, columns one behind the other:
typedef struct {
    const st_pair_row_t *rows;
    int32_t n_rows, channel;
    int32_t step;   // bytes from one column to the next
    int32_t length; // bytes from a row's first column to its end
    int32_t record; // bytes from a column's words to the next one's
    uint32_t *packed;
    uint32_t test; // added for the test whether an input is too large: then it has bit 8
    int32_t odd;   // whether the number of columns is
} st_pack_job_t;

// To make sums of them:
typedef struct {
    const uint32_t *packed;
    uint32_t *sums;
    int32_t n_rows, record;
    int32_t length;       // bytes of packed columns
    int32_t more;         // columns behind the first
    uint32_t first, last; // what the columns left and right of the row add
    int32_t weights[9];   // of the right column, the middle, the left
    int32_t bias;         // of sums that are parted
} st_pairs_job_t;

// Rows of pairs of outputs, and the two more rows of inputs that they take.
typedef struct {
    int32_t n;
    int8_t *y;        // of the lower halves
    uint32_t *packed; // scratch, st_pairs_words of it
    st_requantize_pairs_t put;
    st_pairs_job_t pairs;
    st_pack_job_t pack;
    st_pair_row_t rows[ST_MOST_PAIR_ROWS + 2];
} st_pair_strip_t;

// Scratch of a strip, in words.
static inline int32_t st_pairs_words(int32_t n, int32_t columns) {
    return (3 * n + 2) * columns;
}

// Whether the operator can be run so at all: behind it a ReLU that has all of the output's range.
// Few outputs are not worth it.
static inline int st_can_pair(const st_conv_geometry_t *g) {
    return g->stride_w == 1 && g->stride_h == 1 && g->out_h > 1 && g->out_h * g->out_w > 16 &&
           g->y_zero == -128 && g->act_min == -128 && g->act_max == 127;
}

// Fills in the jobs, but for what a channel has for itself.
void st_pair_strip_begin(const st_conv_geometry_t *g, st_pair_strip_t *strip);

// Makes the outputs of one channel. Equal to depthwise_conv2d_s8 bit for bit.
void st_depthwise_channel_pairs(const st_conv_geometry_t *g, const st_conv_params_t *p,
                                st_pair_strip_t *strip, int32_t channel);

#endif
