// Convolutions and poolings by their output rows in two parts, as strips run them. Kernels that
// take scratch part their work themselves: they have something to share.
#include "operators.h"

static void window_part(const void *job, st_part_t part) {
    st_window_op_t w = *(const st_window_op_t *)job;
    st_conv_geometry_t g = *w.g;
    const int32_t at = part.begin * g.out_w * g.out_c;
    g.out_h = part.end - part.begin;
    g.pad_h -= part.begin * g.stride_h;
    w.g = &g;
    w.y += at;
    if (w.winner)
        w.winner += at;
    st_run_whole_window(&w);
}

void st_run_window(const st_window_op_t *op) {
    if (!st_is_split(op->cores) || op->scratch.data)
        st_run_whole_window(op);
    else
        st_split(op->cores, window_part, op, (st_units_t){op->g->out_h, 1});
}
