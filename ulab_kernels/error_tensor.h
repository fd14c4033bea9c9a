// Error tensors: gradients of the loss with respect to activations, in real units, as int16 with
// one shared binary exponent: value = data[i] * 2^exponent.
//
// A kernel makes the elements as exact int32 sums and hands them over row by row. The shift from
// int32 to int16 starts at what the last step ended with; when a value does not fit, what is
// already written is halved and the shift grows by one. So nothing saturates, nothing wraps, and
// no second pass over the layer is needed.
#ifndef ST_ERROR_TENSOR_H
#define ST_ERROR_TENSOR_H

#include <stdint.h>

// Both live in the state buffer: the exponent belongs to the tensor, the shift to the operator.
typedef struct {
    int16_t *exponent; // of the tensor as it is now
    int16_t *shift;    // where the operator's next step starts
} st_error_state_t;

// What a writer does with rows. Two may add to parts of a tensor at once as long as they try: what
// is there can be had back then, and written again by one.
typedef enum {
    ST_OVERWRITE,
    ST_ADD,        // those from `edge` on
    ST_TRY_TO_ADD, // those up to the first one of which an element does not fit; that is the `edge`
    ST_TAKE_BACK,  // those up to `edge`, which were added
} st_emit_mode_t;

// The writer of one error tensor. limit: largest magnitude allowed, <= 32767; the host derives
// it so that no int32 sum over this tensor can overflow.
typedef struct {
    st_error_state_t state;
    int16_t *data;
    int32_t count;   // elements of the whole tensor
    int32_t written; // elements that already hold values at the present exponent
    int32_t limit;
    int32_t peak; // largest magnitude of the finished part
    int16_t shift;
    int16_t base_exponent; // of the int32 sums that come in
    int8_t mode;           // st_emit_mode_t
    int32_t edge;          // where a row begins
} st_emit_t;

// Starts a tensor whose sums have the given exponent; state, data, count and limit are set.
// accumulate != 0: the tensor holds values already (at *state.exponent), the sums are added.
void st_emit_begin(st_emit_t *e, int base_exponent, int accumulate);

// Writes sums[n] to data[at .. at + n).
void st_emit_row(st_emit_t *e, int32_t at, const int32_t *sums, int32_t n);

// The same by two writers, if it does not accumulate: both start as copies of one that has begun,
// the second one with its data where the first one's end. Joins what the second one wrote, which
// started at that shift, to the first one's; returns 0 if that has a larger shift by now, so that
// the second part must be written again, from there.
int st_emit_join(st_emit_t *e, const st_emit_t *second, int start);

// Stores the exponent and where the next step should start.
void st_emit_end(const st_emit_t *e);

#endif
