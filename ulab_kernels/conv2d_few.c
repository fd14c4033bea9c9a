#include "conv2d_few.h"
#include "add_errors.h"
#include "arch.h"
#include "fixedpoint.h"

// Terms of one chosen channel, to be added to the sums of all output channels of a tile.
typedef struct {
    const st_kernel_tap_t *tap;
    st_add_errors_t job;
    int32_t count;
    st_error_term_t terms[ST_TERMS + 1];
} st_few_t;

ST_ONCE int32_t st_few_at_once(const st_kernel_tap_t *t, const int16_t *dy, int32_t oc) {
    const st_conv_geometry_t *g = t->g;
    const int32_t size = st_sums_room(t->u) * ST_ERROR_BLOCK, left = t->u->made.end - oc;
    const int32_t are_words = !(((uintptr_t)(dy + oc) & 3) | (g->out_c & 1));
    int32_t words = t->u->row_words, count = 0;
    if (t->u->n_channels > ST_FEW || g->groups != 1 || t->one_position || !are_words)
        return 0;
    for (; words >= size && count + ST_ERROR_BLOCK <= left; words -= size)
        count += ST_ERROR_BLOCK;
    return count;
}

static void add_terms(st_few_t *f) {
    f->terms[f->count].row = ST_NO_ERRORS;
    st_add_errors(&f->job);
    f->job.add = 1;
    f->count = 0;
}

// Those of a run's values that are not x_zero; returns how many it got to, n where all had room.
ST_HOT static int32_t gather_run(st_few_t *f, const st_factors_t *run) {
    const int32_t zero = f->tap->g->x_zero, step = run->step, dy_step = run->dy_step;
    const int8_t *x = run->row;
    const int16_t *dy = run->dy;
    st_error_term_t *term = f->terms + f->count;
    const st_error_term_t *const end = f->terms + ST_TERMS;
    int32_t i = 0;
    for (; i < run->n && term < end; i++, x += step, dy += dy_step) {
        const int32_t factor = *x - zero;
        if (factor)
            *term++ = (st_error_term_t){factor, dy};
    }
    f->count = (int32_t)(term - f->terms);
    return i;
}

static void add_run(st_few_t *f, st_factors_t run) {
    while (run.n > 0) {
        const int32_t done = gather_run(f, &run);
        run.n -= done;
        run.dy += done * run.dy_step;
        run.row += done * run.step;
        if (f->count == ST_TERMS)
            add_terms(f);
    }
}

// Chosen channel i of one tap.
static void add_errors_of(st_few_t *f, const st_tile_t *tile, int32_t i) {
    st_factors_t run = f->tap->first;
    f->job.sums = tile->sums + i;
    f->job.add = f->count = 0;
    run.dy += tile->oc;
    run.row += i;
    for (int32_t n = f->tap->runs; n > 0; n--) {
        add_run(f, run);
        run.dy += f->tap->dy_step;
        run.row += f->tap->row_step;
    }
    if (f->count || !f->job.add)
        add_terms(f);
}

ST_ONCE void st_few_sums(const st_kernel_tap_t *t, const st_tile_t *tile) {
    st_few_t f; // no initialiser: it would clear the terms, too
    f.tap = t;
    f.job.terms = f.terms;
    f.job.blocks = tile->count / ST_ERROR_BLOCK;
    f.job.step = st_sums_room(t->u);
    for (int32_t i = 0; i < t->u->n_channels; i++)
        add_errors_of(&f, tile, i);
}
