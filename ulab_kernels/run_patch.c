#include "operators.h"

#include "patch.h"

#define MOST_COUNT_LOG2 8 // of ST_MAX_PATCH

// Whether the first and the last patch of an axis have an element each. Its numbers are in range.
static int axis_ok(int32_t begin, int32_t patch, int32_t patches, int32_t length) {
    return st_in_range(begin, 1 - patch, length - 1) && begin + (patches - 1) * patch < length;
}

static int are_lengths(const st_patches_t *p) {
    return st_in_range(p->h, 1, ST_MAX_LENGTH) && st_in_range(p->w, 1, ST_MAX_LENGTH) &&
           st_in_range(p->c, 1, ST_MAX_LENGTH) && st_in_range(p->rows, 1, ST_MAX_LENGTH) &&
           st_in_range(p->columns, 1, ST_MAX_LENGTH);
}

static st_count_t map_count(const st_patches_t *p) {
    return st_volume(p->h, p->w, p->c);
}

static st_count_t patch_count(const st_patches_t *p) {
    return st_volume(p->rows, p->columns, p->c);
}

static const st_patches_t *patches(st_context_t *c, st_ref_t ref) {
    const st_patches_t *p = PLACE_STRUCT(st_patches_t, ref);
    if (!p)
        return NULL;
    if (!are_lengths(p) || !st_in_range(p->patch_h, 1, ST_MAX_PATCH) ||
        !st_in_range(p->patch_w, 1, ST_MAX_PATCH) || p->patch_h * p->patch_w > ST_MAX_PATCH ||
        !axis_ok(p->top, p->patch_h, p->rows, p->h) ||
        !axis_ok(p->left, p->patch_w, p->columns, p->w) || map_count(p) < 0 || patch_count(p) < 0) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    return p;
}

void st_run_patch_values(st_context_t *c, const st_op_patch_values_t *op) {
    const st_patches_t *p = patches(c, op->patches);
    if (!p)
        return;
    if (!st_in_range(op->of, 1, p->c) || p->c % op->of || !st_in_range(op->chosen, 1, op->of) ||
        op->step < op->chosen) {
        c->status = ST_BAD_OPERATOR;
        return;
    }
    const st_channels_t channels = {st_channel_list(c, op->channels, op->chosen, op->of),
                                    op->chosen, op->of, op->step};
    const int8_t *x = PLACE(int8_t, op->x, map_count(p));
    const st_count_t positions = st_volume(p->rows, p->columns, (p->c / op->of));
    int8_t *kept = PLACE_ARENA(int8_t, op->kept, st_product(positions, op->step));
    if (c->status == ST_OK)
        patch_values_s8(p, &channels, x, kept);
}

void st_run_patch_errors(st_context_t *c, const st_op_patch_errors_t *op) {
    const st_patches_t *p = patches(c, op->patches);
    if (!p)
        return;
    const int16_t *dy = PLACE(int16_t, op->dy, map_count(p));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->c);
    st_emit_t e = st_open_error(c, &op->out, &op->head, patch_count(p));
    if (c->status)
        return;
    patch_errors(p, dy, row, &e);
    st_emit_end(&e);
}

void st_run_spread_errors(st_context_t *c, const st_op_spread_errors_t *op) {
    const st_patches_t *p = patches(c, op->patches);
    if (!p)
        return;
    const int16_t *dy = PLACE(int16_t, op->dy, patch_count(p));
    int32_t *row = PLACE_OUT(int32_t, op->out.row, p->c);
    st_emit_t e = st_open_error(c, &op->out, &op->head, map_count(p));
    if (!st_in_range(op->count_log2, 0, MOST_COUNT_LOG2))
        c->status = ST_BAD_OPERATOR;
    if (c->status)
        return;
    spread_errors(p, op->count_log2, dy, row, &e);
    st_emit_end(&e);
}
