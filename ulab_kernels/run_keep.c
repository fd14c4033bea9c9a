#include "operators.h"

#include "activation.h"
#include "fast.h"

#define BITS 8 // parts begin with a byte of bits

static st_count_t bytes_of(int32_t bits) {
    return (int32_t)(((uint32_t)bits + 7) / 8);
}

typedef struct {
    const st_op_clamp_mask_t *op;
    const int8_t *y;
    uint8_t *bits;
} st_clamp_mask_t;

static void clamp_mask_part(const void *job, st_part_t part) {
    const st_clamp_mask_t *m = (const st_clamp_mask_t *)job;
    ST_FAST(clamp_mask_s8)
    (m->y + part.begin, part.end - part.begin, m->op->lo, m->op->hi, m->bits + part.begin / BITS);
}

void st_run_clamp_mask(st_context_t *c, const st_op_clamp_mask_t *op) {
    const st_clamp_mask_t job = {op, PLACE(int8_t, op->y, op->count),
                                 PLACE_OUT(uint8_t, op->bits, bytes_of(op->count))};
    if (c->status == ST_OK)
        st_split(c->cores, clamp_mask_part, &job, (st_units_t){op->count, BITS});
}

void st_run_keep_channels(st_context_t *c, const st_op_keep_t *op) {
    const st_channels_t channels = {st_channel_list(c, op->channels, op->chosen, op->of),
                                    op->chosen, op->of, op->step};
    const int8_t *x = PLACE(int8_t, op->x, st_product(op->positions, op->of));
    int8_t *kept = PLACE_ARENA(int8_t, op->kept, st_product(op->positions, op->step));
    if (op->step < op->chosen)
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        keep_channels_s8(x, op->positions, &channels, kept);
}

void st_run_kept_codes(st_context_t *c, const st_op_codes_t *op) {
    const int32_t n = op->count;
    if (!st_in_range(n, 1, ST_MAX_CODES))
        c->status = ST_BAD_OPERATOR;
    int8_t *x = PLACE_ARENA(int8_t, op->x, n);
    uint8_t *codes = PLACE_ARENA(uint8_t, op->codes, ST_LEVELS + ((uint32_t)n + 3) / 4);
    const int is_encoded = op->head.opcode == OP_ENCODE_KEPT;
    uint32_t *counts = is_encoded ? PLACE_ARENA(uint32_t, op->counts, ST_VALUES) : NULL;
    if (c->status != ST_OK)
        return;
    if (is_encoded)
        encode_kept_s8(x, n, counts, codes);
    else
        decode_kept_s8(codes, n, x);
}

typedef struct {
    int16_t *dy;
    const uint8_t *bits;
} st_apply_mask_t;

static void apply_mask_part(const void *job, st_part_t part) {
    const st_apply_mask_t *m = (const st_apply_mask_t *)job;
    ST_FAST(apply_mask)(m->dy + part.begin, part.end - part.begin, m->bits + part.begin / BITS);
}

void st_run_apply_mask(st_context_t *c, const st_op_apply_mask_t *op) {
    const st_apply_mask_t job = {PLACE_OUT(int16_t, op->dy, op->count),
                                 PLACE(uint8_t, op->bits, bytes_of(op->count))};
    if (c->status == ST_OK)
        st_split(c->cores, apply_mask_part, &job, (st_units_t){op->count, BITS});
}
