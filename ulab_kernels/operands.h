// Operands: from a reference in the image to a checked address. Whatever does not fit its buffer,
// or could change while it is used, sets the context's status and gives NULL.
// Internal to the machine.
#ifndef ST_OPERANDS_H
#define ST_OPERANDS_H

#include "conv_geometry.h"
#include "program.h"
#include "softmax.h"

typedef struct {
    const st_machine_t *machine;
    st_status_t status; // of the first operand that was refused
    st_cores_t cores;   // how work is split now
} st_context_t;

// Elements of an array; negative, or more than ST_MOST_ELEMENTS, where there can be none such.
typedef int32_t st_count_t;
#define ST_MOST_ELEMENTS (INT32_MAX / 8)

// a * b, and a * b * c; negative where there are too many, or where a factor is negative.
st_count_t st_product(st_count_t a, st_count_t b);
st_count_t st_volume(st_count_t a, st_count_t b, st_count_t c);

// The address behind a reference to n elements of so many bytes (a power of two), aligned to them.
void *st_place(st_context_t *c, st_ref_t ref, st_count_t n, size_t element);

// In the image: shapes, tables and operators, which must not change while they are used.
const void *st_place_fixed(st_context_t *c, st_ref_t ref, st_count_t n, size_t element);

// Neither in the image nor in the store.
void *st_place_writable(st_context_t *c, st_ref_t ref, st_count_t n, size_t element);

// In one of the arenas: what must not overlap the state.
void *st_place_in_arena(st_context_t *c, st_ref_t ref, st_count_t n, size_t element);

#define PLACE(type, ref, n) ((const type *)st_place(c, ref, n, sizeof(type)))
#define PLACE_STRUCT(type, ref) ((const type *)st_place_fixed(c, ref, sizeof(type) / 4, 4))
#define PLACE_FIXED(type, ref, n) ((const type *)st_place_fixed(c, ref, n, sizeof(type)))
#define PLACE_OUT(type, ref, n) ((type *)st_place_writable(c, ref, n, sizeof(type)))
#define PLACE_ARENA(type, ref, n) ((type *)st_place_in_arena(c, ref, n, sizeof(type)))

static inline int st_is_nowhere(st_ref_t ref) {
    return st_space_of(ref) == ST_NOWHERE;
}

static inline int st_in_range(int32_t v, int32_t lo, int32_t hi) {
    return v >= lo && v <= hi;
}

st_control_t *st_control_of(st_context_t *c);

// A geometry whose numbers the kernels can rely on: ranges, windows that meet the input.
const st_conv_geometry_t *st_geometry(st_context_t *c, st_ref_t ref);

// The same for the gradients of a convolution, which may have dilations of 0: all taps of the
// window lie at one place then (patch.h).
const st_conv_geometry_t *st_gradient_geometry(st_context_t *c, st_ref_t ref);

// The same for pooling: channels are kept, windows have no holes that could miss the input.
const st_conv_geometry_t *st_pool_geometry(st_context_t *c, st_ref_t ref);

const st_softmax_params_t *st_softmax_params(st_context_t *c, st_ref_t ref);

// n chosen channels, all of them below `of`. Not in the arena, where kernels write.
const uint16_t *st_channel_list(st_context_t *c, st_ref_t ref, int32_t n, int32_t of);

// Elements of the input, and of the output.
st_count_t st_in_count(const st_conv_geometry_t *g);
st_count_t st_out_count(const st_conv_geometry_t *g);

// Elements of `rows` rows of them; of all where rows is 0.
st_count_t st_in_bytes(const st_conv_geometry_t *g, int32_t rows);
st_count_t st_out_bytes(const st_conv_geometry_t *g, int32_t rows);

#endif
