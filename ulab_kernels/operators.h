// The operators of a program as they stand in the image (docs/FORMAT.md), and what runs each.
// Internal to the machine: program.c, operands.c, run_*.c.
#ifndef ST_OPERATORS_H
#define ST_OPERATORS_H

#include "conv2d.h"
#include "operands.h"

enum {
    OP_CONV2D = 1,
    OP_DEPTHWISE_CONV2D = 2,
    OP_AVG_POOL = 3,
    OP_ADD = 4,
    OP_SOFTMAX = 5,
    OP_FULLY_CONNECTED = 6,
    OP_COPY = 7,
    OP_SUB = 8,
    OP_MUL = 9,
    OP_MEAN = 10,
    OP_LOOKUP = 11,
    OP_MAX_POOL = 12,
    OP_RESIZE = 13,
    OP_CLAMP_MASK = 16,
    OP_KEEP_CHANNELS = 17,
    OP_STRIP = 18,
    OP_FILL = 19,
    OP_CONV2D_COLUMNS = 20,
    OP_FULLY_CONNECTED_COLUMNS = 21,
    OP_PATCH_VALUES = 22,
    OP_ENCODE_KEPT = 23,
    OP_LOSS = 32,
    OP_APPLY_MASK = 33,
    OP_ERROR_ADD = 34,
    OP_CONV2D_GRAD_INPUT = 35,
    OP_DEPTHWISE_CONV2D_GRAD_INPUT = 36,
    OP_AVG_POOL_GRAD_INPUT = 37,
    OP_SOFTMAX_GRAD_INPUT = 38,
    OP_COPY_GRAD_INPUT = 39,
    OP_REDUCE_GRAD_INPUT = 40,
    OP_LOOKUP_GRAD_INPUT = 43,
    OP_MAX_POOL_GRAD_INPUT = 44,
    OP_RESIZE_GRAD_INPUT = 45,
    OP_CONV2D_UPDATE = 48,
    OP_DEPTHWISE_CONV2D_UPDATE = 49,
    OP_CONV2D_COLUMNS_GRAD_INPUT = 47,
    OP_CONV2D_COLUMNS_UPDATE = 52,
    OP_MSE = 50,
    OP_BCE = 51,
    OP_SELECT_ERRORS = 54,
    OP_PATCH_ERRORS = 55,
    OP_SPREAD_ERRORS = 56,
    OP_DECODE_KEPT = 57,
    OP_SCORES = 59,
};

// First word of an operator: opcode, flags, words in all.
enum {
    FLAG_TRAINING_ONLY = 1,
    FLAG_INFERENCE_ONLY = 2,
    FLAG_ACCUMULATE = 4,
    FLAG_IN_STRIP = 8,  // run by the STRIP in front of it, not in its own turn
    FLAG_PACKED = 16,   // FULLY_CONNECTED: packed weights
    FLAG_TWO_ROWS = 32, // there is room for two scratch rows, one behind the other
};
typedef struct {
    uint8_t opcode, flags;
    uint16_t words;
} st_op_head_t;

// scratch: nowhere, or int32 [scratch_words] for a faster way where the processor has one
// (conv2d_lanes.h, depthwise3x3.h).
typedef struct {
    st_op_head_t head;
    st_ref_t geometry, x, weights, bias, requant, scratch;
    int32_t scratch_words;
    st_ref_t y;
} st_op_conv_t;

// table: in the state, see columns.h.
typedef struct {
    st_op_head_t head;
    st_ref_t geometry, x, weights, bias, requant, table, filter, y;
} st_op_conv_columns_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, x, y;
} st_op_pool_t;

// winner: nowhere, or what the gradient will need.
typedef struct {
    st_op_head_t head;
    st_ref_t geometry, x, winner, y;
} st_op_max_pool_t;

// params: the first five of st_resize_t; rows, columns: its tables.
typedef struct {
    st_ref_t params, rows, columns;
} st_resize_refs_t;

typedef struct {
    st_op_head_t head;
    st_resize_refs_t refs;
    st_ref_t x, y;
} st_op_resize_t;

typedef struct {
    st_op_head_t head;
    st_ref_t table, x;
    int32_t count;
    st_ref_t y;
} st_op_lookup_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, a, b, y;
} st_op_elementwise_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, x, y;
} st_op_mean_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, x, y;
} st_op_softmax_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, x, y;
} st_op_copy_t;

typedef struct {
    st_op_head_t head;
    st_ref_t y;
    int32_t count, value;
} st_op_fill_t;

typedef struct {
    st_op_head_t head;
    st_ref_t y, bits;
    int32_t count, lo, hi;
} st_op_clamp_mask_t;

typedef struct {
    st_op_head_t head;
    st_ref_t x, channels, kept;
    int32_t positions, chosen, of, step;
} st_op_keep_t;

typedef struct {
    st_op_head_t head;
    st_ref_t patches, x, channels, kept;
    int32_t chosen, of, step;
} st_op_patch_values_t;

// ENCODE_KEPT writes the codes of x, DECODE_KEPT x, without counts (activation.h).
typedef struct {
    st_op_head_t head;
    st_ref_t x, codes, counts;
    int32_t count;
} st_op_codes_t;

// Runs the `count` operators behind it row by row: `stages` convolutions and poolings, each with or
// without a LOOKUP in place behind it. windows: int32 [stages - 1], rows of each buffer between two
// stages.
typedef struct {
    st_op_head_t head;
    int32_t count, stages;
    st_ref_t windows;
} st_op_strip_t;

typedef struct {
    st_op_head_t head;
    st_ref_t dy, bits;
    int32_t count;
} st_op_apply_mask_t;

// What every operator that writes an error tensor ends with.
typedef struct {
    st_ref_t data, exponent_at, shift_at, dy_exponent_at, row;
    int32_t limit, exponent; // of the sums, relative to dy's
} st_error_out_t;

// smoothing: of st_answer_t.
typedef struct {
    st_op_head_t head;
    st_ref_t params, logits;
    int32_t smoothing;
    st_error_out_t out;
} st_op_loss_t;

// A loss on a vector of targets.
typedef struct {
    st_op_head_t head;
    st_ref_t params, y, target;
    st_error_out_t out;
} st_op_target_loss_t;

typedef struct {
    st_op_head_t head;
    st_ref_t dy;
    int32_t count;
    st_error_out_t out;
} st_op_error_add_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, weights, scale_q15;
    st_error_out_t out;
} st_op_conv_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, weights, scale_q15, table;
    st_error_out_t out;
} st_op_conv_columns_grad_t;

// Of an update: nowhere, or what steps go into (velocity.h), and the channels that it is of, where
// those take turns.
typedef struct {
    st_ref_t weights, channels, biases;
} st_velocity_refs_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, dy_exponent_at;
    st_ref_t kept, channels;
    int32_t chosen;
    st_ref_t table, bias, weight_rate, bias_rate, row;
    int32_t layer, kept_step, row_words;
    st_velocity_refs_t velocity;
    st_ref_t norms; // nowhere, or where SCORES behind it finds them (run_scores.c)
} st_op_columns_update_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy;
    int32_t count_log2;
    st_error_out_t out;
} st_op_pool_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t patches, dy;
    st_error_out_t out;
} st_op_patch_errors_t;

typedef struct {
    st_op_head_t head;
    st_ref_t patches, dy;
    int32_t count_log2;
    st_error_out_t out;
} st_op_spread_errors_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, y, dy;
    st_error_out_t out;
} st_op_softmax_grad_t;

// other: nowhere for a plain sum.
typedef struct {
    st_op_head_t head;
    st_ref_t params, dy, other;
    st_error_out_t out;
} st_op_reduce_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, winner, dy;
    st_error_out_t out;
} st_op_max_pool_grad_t;

typedef struct {
    st_op_head_t head;
    st_resize_refs_t refs;
    st_ref_t dy;
    st_error_out_t out;
} st_op_resize_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t slope, x;
    int32_t count;
    st_ref_t dy;
    st_error_out_t out;
} st_op_lookup_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t params, dy;
    st_error_out_t out;
} st_op_copy_grad_t;

typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, dy_exponent_at;
    st_ref_t kept, channels;
    int32_t chosen;
    st_ref_t weights, residual, bias, weight_rate, bias_rate, row;
    int32_t layer, kept_step, row_words;
    st_velocity_refs_t velocity;
    st_ref_t norms;
} st_op_update_t;

// maximum: int32 [2] in the state. channels: nowhere, or of a depthwise layer that trains some of
// its input channels those, `chosen` of them. inputs, chosen: what an error costs
// (select_errors.h); inputs -1: is_dense.
typedef struct {
    st_op_head_t head;
    st_ref_t geometry, dy, dy_exponent_at, maximum, row, channels;
    int32_t chosen, inputs, least, span;
} st_op_select_t;

typedef struct {
    st_op_head_t head;
    st_ref_t norms, dy_exponent_at, channels;
    int32_t chosen, of;
    st_ref_t scores;
} st_op_scores_t;

// Operator `index` of the image's table, all of its words inside; NULL with the status set.
const st_op_head_t *st_operator_at(st_context_t *c, int32_t index);

/// Error tensors (run_error.c) ///

// Exponent of the error tensor that an operator reads; 0 where it reads none.
int st_error_exponent(st_context_t *c, st_ref_t at);

// Opens the error tensor of `count` elements that an operator writes.
st_emit_t st_open_error(st_context_t *c, const st_error_out_t *out, const st_op_head_t *h,
                        st_count_t count);

// What a loss tells beside its value: the norm of its gradient, row[count] int32 of the exponent
// that it wrote with. A step's effort begins there.
void st_tell_norm(st_context_t *c, const int32_t *row, int32_t count, int exponent);

/// Convolutions (run_conv.c) ///

const st_requant_t *st_requant_table(st_context_t *c, st_ref_t ref, int32_t n);

// Whether two places do not overlap: writing weights must not change the list that says where.
int st_are_apart(const void *a, size_t a_size, const void *b, size_t b_size);

// The biases of an update that makes all output channels, and whose channels are placed already.
void st_place_bias(st_context_t *c, st_ref_t bias, st_ref_t rate, st_update_t *u);

/// Velocities (run_velocity.c) ///

// An update's velocity, if it has one: *v, of `weights` elements. What else the update writes and
// reads is placed already. With other channels than before it starts from 0.
void st_place_velocity(st_context_t *c, const st_velocity_refs_t *refs, st_count_t weights,
                       st_update_t *u, st_velocity_t *v);

/// Gradients of convolutions and max pools (run_gradient.c) ///

// row: scratch, row_size elements; with two_rows another one behind it. p: of a convolution's input
// gradient; winner: of a pool's.
typedef struct {
    const st_conv_geometry_t *g;
    const st_conv_params_t *p;
    const uint8_t *winner;
    const int16_t *dy;
    int32_t *row, row_size;
    int two_rows;
    int is_depthwise;
    st_cores_t cores;
} st_gradient_t;

// The scratch row of n elements, or two where the operator says so; how the work is split.
void st_place_rows(st_context_t *c, const st_op_head_t *head, st_ref_t row, st_gradient_t *job);

// The same for an update, whose row must lie in the arena, apart from what is learnt.
void st_place_sums(st_context_t *c, st_ref_t row, const st_update_t *u, st_gradient_t *job);

void st_make_input_gradient(const st_gradient_t *job, st_emit_t *dx);
void st_make_update(const st_gradient_t *job, const st_update_t *u);

// Zeros: norms of the chosen channels for each of two parts; NULL where nobody asks for them.
st_norm_t *st_place_norms(st_context_t *c, st_ref_t ref, int32_t chosen);

/// Forward ///

// A convolution or pooling whose operands were checked, ready to be run, whole or by rows.
typedef struct {
    uint8_t opcode;
    const st_conv_geometry_t *g;
    st_conv_params_t p;
    const int8_t *x;
    uint8_t *winner; // of MAX_POOL
    int8_t *y;
    st_scratch_t scratch;
    st_cores_t cores;
    int is_packed;       // FLAG_PACKED
    const int8_t *table; // of a LOOKUP in place behind it, in strips
} st_window_op_t;

// Rows that the operator's input and output have in memory; 0: all of the map.
typedef struct {
    int32_t in, out;
} st_rows_t;

// Each checks one operator for rows in memory; the context's status says whether it may be run.
void st_bind_conv(st_context_t *c, const st_op_conv_t *op, st_rows_t rows, st_window_op_t *w);
void st_bind_pool(st_context_t *c, const st_op_pool_t *op, st_rows_t rows, st_window_op_t *w);
void st_bind_max_pool(st_context_t *c, const st_op_max_pool_t *op, st_rows_t rows,
                      st_window_op_t *w);
void st_run_window(const st_window_op_t *op);       // as it says, on one core or two
void st_run_whole_window(const st_window_op_t *op); // on this core, with all of the scratch

void st_run_strip(st_context_t *c, const st_op_strip_t *op, int32_t index);
void st_run_conv(st_context_t *c, const st_op_conv_t *op);
void st_run_avg_pool(st_context_t *c, const st_op_pool_t *op);
void st_run_elementwise(st_context_t *c, const st_op_elementwise_t *op);
void st_run_mean(st_context_t *c, const st_op_mean_t *op);
void st_run_softmax(st_context_t *c, const st_op_softmax_t *op);
void st_run_copy(st_context_t *c, const st_op_copy_t *op);
void st_run_fill(st_context_t *c, const st_op_fill_t *op);
void st_run_max_pool(st_context_t *c, const st_op_max_pool_t *op);
void st_run_resize(st_context_t *c, const st_op_resize_t *op);
void st_run_lookup(st_context_t *c, const st_op_lookup_t *op);
void st_run_clamp_mask(st_context_t *c, const st_op_clamp_mask_t *op);
void st_run_keep_channels(st_context_t *c, const st_op_keep_t *op);
void st_run_kept_codes(st_context_t *c, const st_op_codes_t *op);
void st_run_patch_values(st_context_t *c, const st_op_patch_values_t *op);

/// Backward ///

void st_run_loss(st_context_t *c, const st_op_loss_t *op);
void st_run_mse(st_context_t *c, const st_op_target_loss_t *op);
void st_run_bce(st_context_t *c, const st_op_target_loss_t *op);
void st_run_apply_mask(st_context_t *c, const st_op_apply_mask_t *op);
void st_run_error_add(st_context_t *c, const st_op_error_add_t *op);
void st_run_patch_errors(st_context_t *c, const st_op_patch_errors_t *op);
void st_run_spread_errors(st_context_t *c, const st_op_spread_errors_t *op);
void st_run_conv_grad_input(st_context_t *c, const st_op_conv_grad_t *op);
void st_run_avg_pool_grad_input(st_context_t *c, const st_op_pool_grad_t *op);
void st_run_softmax_grad_input(st_context_t *c, const st_op_softmax_grad_t *op);
void st_run_copy_grad_input(st_context_t *c, const st_op_copy_grad_t *op);
void st_run_reduce_grad_input(st_context_t *c, const st_op_reduce_grad_t *op);
void st_run_max_pool_grad_input(st_context_t *c, const st_op_max_pool_grad_t *op);
void st_run_resize_grad_input(st_context_t *c, const st_op_resize_grad_t *op);
void st_run_lookup_grad_input(st_context_t *c, const st_op_lookup_grad_t *op);
void st_run_conv_columns(st_context_t *c, const st_op_conv_columns_t *op);
void st_run_conv_columns_grad_input(st_context_t *c, const st_op_conv_columns_grad_t *op);
void st_run_select_errors(st_context_t *c, const st_op_select_t *op);
void st_run_columns_update(st_context_t *c, const st_op_columns_update_t *op);
void st_run_update(st_context_t *c, const st_op_update_t *op);
void st_run_scores(st_context_t *c, const st_op_scores_t *op);

#endif
