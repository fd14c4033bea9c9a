#include "operators.h"

// Of an update, which adds to them: a part of its own for each core (cores.h).
st_norm_t *st_place_norms(st_context_t *c, st_ref_t ref, int32_t chosen) {
    if (st_is_nowhere(ref))
        return NULL;
    if (ST_HEAD)
        c->status = ST_NOT_HERE;
    const st_count_t words = st_product(4, chosen);
    uint32_t *norms = PLACE_ARENA(uint32_t, ref, words);
    for (int32_t i = 0; norms && i < words; i++)
        norms[i] = 0;
    return (st_norm_t *)norms;
}

void st_run_scores(st_context_t *c, const st_op_scores_t *op) {
    const uint16_t *channels = st_channel_list(c, op->channels, op->chosen, op->of);
    const st_norm_t *norms =
        (const st_norm_t *)PLACE_ARENA(uint32_t, op->norms, st_product(4, op->chosen));
    st_score_t *scores = (st_score_t *)PLACE_OUT(uint16_t, op->scores, st_product(2, op->of));
    const int32_t exponent = st_error_exponent(c, op->dy_exponent_at);
    if (c->status == ST_OK &&
        !st_are_apart(channels, (size_t)op->chosen * 2, scores, (size_t)op->of * 4))
        c->status = ST_BAD_REF;
    for (int32_t i = 0; c->status == ST_OK && i < op->chosen; i++) {
        const st_norm_t norm = st_norm_sum(norms[i], norms[op->chosen + i]);
        st_score_t *score = &scores[channels[i]];
        *score = st_mean_score(*score, st_score_of(norm, exponent));
    }
}
