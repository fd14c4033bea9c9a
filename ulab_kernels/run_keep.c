#include "operators.h"

#include "activation.h"
#include "fast.h"

void st_run_clamp_mask(st_context_t *c, const st_op_clamp_mask_t *op) {
    const int8_t *y = PLACE(int8_t, op->y, op->count);
    uint8_t *bits = PLACE_OUT(uint8_t, op->bits, ((int64_t)op->count + 7) / 8);
    if (c->status == ST_OK)
        ST_FAST(clamp_mask_s8)(y, op->count, op->lo, op->hi, bits);
}

void st_run_keep_channels(st_context_t *c, const st_op_keep_t *op) {
    const st_channels_t channels = {st_channel_list(c, op->channels, op->chosen, op->of),
                                    op->chosen, op->of};
    const int8_t *x = PLACE(int8_t, op->x, (int64_t)op->positions * op->of);
    int8_t *kept = PLACE_ARENA(int8_t, op->kept, (int64_t)op->positions * op->chosen);
    if (c->status == ST_OK)
        keep_channels_s8(x, op->positions, &channels, kept);
}

void st_run_apply_mask(st_context_t *c, const st_op_apply_mask_t *op) {
    int16_t *dy = PLACE_OUT(int16_t, op->dy, op->count);
    const uint8_t *bits = PLACE(uint8_t, op->bits, ((int64_t)op->count + 7) / 8);
    if (c->status == ST_OK)
        ST_FAST(apply_mask)(dy, op->count, bits);
}
