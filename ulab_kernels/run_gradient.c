// Gradients of convolutions and max pools, in two parts where there is a scratch row for each
// (cores.h): the input's by its rows, the weights' by output channels.
#include "operators.h"

#include "add_errors.h"
#include "conv2d_few.h"
#include "depthwise_conv2d.h"
#include "fast.h"
#include "max_pool.h"

#define SMALL_ROW 64 // elements: the stack has room for a second one

void st_place_rows(st_context_t *c, const st_op_head_t *head, st_ref_t row, st_gradient_t *job) {
    job->two_rows = head->flags & FLAG_TWO_ROWS;
    job->row = PLACE_OUT(int32_t, row, st_product(job->two_rows ? 2 : 1, job->row_size));
    job->cores = job->two_rows || job->row_size <= SMALL_ROW ? c->cores : ST_ONE_CORE;
}

void st_place_sums(st_context_t *c, st_ref_t row, const st_update_t *u, st_gradient_t *job) {
    const int32_t least = st_sums_room(u);
    if (u->kept_step < u->n_channels || u->row_words < least)
        c->status = ST_BAD_OPERATOR;
    job->row = PLACE_ARENA(int32_t, row, u->row_words);
    job->two_rows = u->row_words / 2 >= least;
    job->cores = job->two_rows || least <= SMALL_ROW ? c->cores : ST_ONE_CORE;
    job->row_size = u->row_words >> (job->two_rows && st_is_split(job->cores));
}

// The row of a part. own: SMALL_ROW elements.
static int32_t *row_of(const st_gradient_t *job, st_part_t part, int32_t *own) {
    if (!part.number)
        return job->row;
    return job->two_rows ? job->row + job->row_size : own;
}

/// Of the input ///

static void input_gradient(const st_gradient_t *job, const int16_t *dy, int32_t *row,
                           st_emit_t *dx) {
    if (job->winner)
        max_pool_grad_input(job->g, job->winner, dy, row, dx);
    else if (job->is_depthwise)
        ST_FAST(depthwise_conv2d_grad_input)(job->g, job->p, dy, row, dx);
    else
        ST_FAST(conv2d_grad_input)(job->g, job->p, dy, row, dx);
}

// dx: of each part.
typedef struct {
    const st_gradient_t *job;
    st_emit_t *dx;
    int32_t *second; // where the second part begins, once it has run; before, 0
} st_input_rows_t;

// A geometry of the input rows of a part alone, and the first row of dy that they meet.
static int32_t cut_rows(st_conv_geometry_t *g, st_part_t part) {
    const int32_t span = (g->kernel_h - 1) * g->dilation_h + 1;
    const st_range_t first = st_outputs_of(part.begin, g->stride_h, g->pad_h, span, g->out_h);
    const st_range_t last = st_outputs_of(part.end - 1, g->stride_h, g->pad_h, span, g->out_h);
    const int32_t from = st_min(first.begin, last.end);
    g->in_h = part.end - part.begin;
    g->out_h = last.end - from;
    g->pad_h += part.begin - from * g->stride_h;
    return from;
}

static void input_rows(const void *job, st_part_t part) {
    const st_input_rows_t *rows = (const st_input_rows_t *)job;
    st_gradient_t some = *rows->job;
    st_conv_geometry_t g = *some.g;
    const int32_t from = cut_rows(&g, part);
    st_emit_t *dx = &rows->dx[part.number];
    if (part.number) {
        dx->data += part.begin * g.in_w * g.in_c;
        *rows->second = part.begin;
    }
    some.g = &g;
    if (some.winner)
        some.winner += from * g.out_w * g.out_c;
    int32_t own[SMALL_ROW];
    input_gradient(&some, some.dy + from * g.out_w * g.out_c, row_of(&some, part, own), dx);
}

// Where the second part begins; 0 where one core did all.
static int32_t in_parts(const st_input_rows_t *rows) {
    const st_conv_geometry_t *g = rows->job->g;
    st_split(rows->job->cores, input_rows, rows, (st_units_t){g->in_h, 1});
    return *rows->second;
}

static void second_again(const st_input_rows_t *rows) {
    input_rows(rows, (st_part_t){*rows->second, rows->job->g->in_h, 1});
}

static void overwrite(const st_gradient_t *job, st_emit_t *dx) {
    st_emit_t both[2] = {*dx, *dx};
    int32_t second = 0;
    const st_input_rows_t rows = {job, both, &second};
    if (in_parts(&rows) && !st_emit_join(&both[0], &both[1], dx->shift)) {
        both[1] = *dx;
        both[1].shift = both[0].shift;
        second_again(&rows);
        st_emit_join(&both[0], &both[1], both[0].shift);
    }
    *dx = both[0];
}

// In two parts as long as all fits; from where it does not, one core goes on, with all behind that
// place as it was.
static void add(const st_gradient_t *job, st_emit_t *dx) {
    const int32_t none = dx->count;
    st_emit_t both[2] = {*dx, *dx};
    int32_t second = 0;
    both[0].mode = both[1].mode = ST_TRY_TO_ADD;
    both[0].edge = both[1].edge = none;
    const st_input_rows_t rows = {job, both, &second};
    (void)in_parts(&rows);
    dx->peak = both[0].peak;
    dx->edge = both[0].edge;
    if (second && both[0].edge < none) {
        both[1].mode = ST_TAKE_BACK;
        both[1].data = dx->data;
        second_again(&rows);
    } else if (second) {
        dx->peak = st_max(both[0].peak, both[1].peak);
        if (both[1].edge < none)
            dx->edge = (int32_t)(both[1].data - dx->data) + both[1].edge;
    }
    if (dx->edge < none)
        input_gradient(job, job->dy, job->row, dx);
}

void st_make_input_gradient(const st_gradient_t *job, st_emit_t *dx) {
    if (!st_is_split(job->cores))
        input_gradient(job, job->dy, job->row, dx);
    else if (dx->mode == ST_OVERWRITE)
        overwrite(job, dx);
    else
        add(job, dx);
}

/// Of the weights ///

typedef struct {
    const st_gradient_t *job;
    const st_update_t *u;
} st_update_job_t;

static void update_channels(const void *job, st_part_t part) {
    const st_update_job_t *update = (const st_update_job_t *)job;
    const st_gradient_t *all = update->job;
    st_update_t u = *update->u;
    u.made = (st_range_t){part.begin, part.end};
    if (u.norms)
        u.norms += part.number * u.n_channels;
    int32_t own[SMALL_ROW], *row = row_of(all, part, own);
    u.row_words = row == own ? SMALL_ROW : all->row_size;
    if (!ST_HEAD && all->is_depthwise)
        ST_FAST(depthwise_conv2d_update)(all->g, all->dy, &u, row);
    else
        ST_FAST(conv2d_update)(all->g, all->dy, &u, row);
    if (!ST_HEAD && u.velocity && !u.velocity->waits)
        st_velocity_move(all->g, &u, all->is_depthwise);
}

void st_make_update(const st_gradient_t *job, const st_update_t *u) {
    const st_update_job_t update = {job, u};
    const int32_t step = u->n_channels > 0 && u->n_channels <= ST_FEW ? ST_ERROR_BLOCK : 1;
    st_split(job->cores, update_channels, &update, (st_units_t){job->g->out_c, step});
}
