#include "operators.h"

#include "fixedpoint.h"

int st_error_exponent(st_context_t *c, st_ref_t at) {
    if (st_is_nowhere(at))
        return 0;
    const int16_t *exponent = PLACE(int16_t, at, 1);
    return exponent ? *exponent : 0;
}

st_emit_t st_open_error(st_context_t *c, const st_error_out_t *out, const st_op_head_t *h,
                        st_count_t count) {
    st_emit_t e = {
        .state = {PLACE_OUT(int16_t, out->exponent_at, 1), PLACE_OUT(int16_t, out->shift_at, 1)},
        .data = PLACE_OUT(int16_t, out->data, count),
        .count = count,
        .limit = out->limit,
    };
    const int base = st_error_exponent(c, out->dy_exponent_at) + st_clamp(out->exponent, -256, 256);
    if (!st_in_range(out->limit, 1, 32767) || !st_in_range(out->exponent, -256, 256))
        c->status = ST_BAD_OPERATOR;
    if (c->status == ST_OK)
        st_emit_begin(&e, base, h->flags & FLAG_ACCUMULATE);
    return e;
}

void st_tell_norm(st_context_t *c, const int32_t *row, int32_t count, int exponent) {
    st_control_t *control = st_control_of(c);
    uint64_t norm = 0; // below 2^47
    for (int32_t i = 0; i < count; i++)
        norm += row[i] < 0 ? 0u - (uint32_t)row[i] : (uint32_t)row[i];
    const int left = st_clamp(exponent + 16, -63, 16);
    norm = left < 0 ? norm >> -left : norm << left;
    control->norm_q16 = norm > ST_MOST_NORM ? ST_MOST_NORM : (int32_t)norm;
    control->effort = 0;
}
