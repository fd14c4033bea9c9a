// Calls one function of the kernels for every record of int32 words on stdin; writes the results
// to stdout. Built with sanitizers: a record that makes it misbehave ends the program.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error_tensor.h"
#include "fixedpoint.h"
#include "random.h"
#include "update.h"

static void requantize(const int32_t *in, int32_t *out) {
    out[0] = st_requantize(in[0], (st_requant_t){in[1], in[2]});
}

static void requantize_once(const int32_t *in, int32_t *out) {
    out[0] = st_requantize_once(in[0], (st_requant_t){in[1], in[2]});
}

static void mul_q15(const int32_t *in, int32_t *out) {
    out[0] = st_mul_q15(in[0], (uint32_t)in[1]);
}

static void exp_negative(const int32_t *in, int32_t *out) {
    out[0] = st_exp_negative(in[0]);
}

static void reciprocal(const int32_t *in, int32_t *out) {
    int bits;
    out[0] = st_reciprocal(in[0], &bits);
    out[1] = bits;
}

static void ln_q16(const int32_t *in, int32_t *out) {
    out[0] = st_ln_q16((uint32_t)in[0], in[1]);
}

static void random_bits(const int32_t *in, int32_t *out) {
    out[0] = (int32_t)st_random((uint32_t)in[0], (uint32_t)in[1]);
}

static st_rate_t rate_of(const int32_t *in) {
    return (st_rate_t){(uint16_t)in[0], (int16_t)in[1]};
}

// In: rate, rate's exponent, learning rate, its exponent, error exponent, seed.
static st_update_t update_of(const int32_t *in, const st_rate_t *rate) {
    return (st_update_t){.weight_rate = rate,
                         .bias_rate = rate,
                         .learning_rate = rate_of(in + 2),
                         .error_exponent = in[4],
                         .seed = (uint32_t)in[5],
                         .made = {0, 1}};
}

// In: as update_of, weight, residual, whether there is one, sum, index. Out: weight, residual.
static void weight(const int32_t *in, int32_t *out) {
    static int8_t weights[65536], residuals[65536];
    const st_rate_t rate = rate_of(in);
    st_update_t u = update_of(in, &rate);
    const int32_t index = in[10] & 0xffff;
    weights[index] = (int8_t)in[6];
    residuals[index] = (int8_t)in[7];
    u.weights = weights;
    u.residual = in[8] ? residuals : NULL;
    st_update_weight(&u, st_weight_step(&u, 0), index, in[9]);
    out[0] = weights[index];
    out[1] = residuals[index];
}

enum { ROW_COUNT = 64 };

// In: as update_of, counter of the row, sum of every slot. Out: weights, which were 0.
static void row(const int32_t *in, int32_t *out) {
    static int8_t weights[65536 + ROW_COUNT];
    uint16_t channels[ROW_COUNT];
    int32_t sums[ROW_COUNT];
    const st_rate_t rate = rate_of(in);
    st_update_t u = update_of(in, &rate);
    const int32_t base = in[6] & 0xffff;
    for (int i = 0; i < ROW_COUNT; i++) {
        channels[i] = (uint16_t)i;
        sums[i] = in[7];
        weights[base + i] = 0;
    }
    u.weights = weights;
    u.channels = channels;
    u.n_channels = ROW_COUNT;
    st_weight_rows_t rows = {.u = &u, .base = base, .sums = sums};
    st_begin_rows(&rows);
    st_update_rows(&rows, 1);
    for (int i = 0; i < ROW_COUNT; i++)
        out[i] = weights[base + i];
}

// In: as update_of, bias, dy. Out: bias.
static void bias(const int32_t *in, int32_t *out) {
    const st_rate_t rate = rate_of(in);
    st_update_t u = update_of(in, &rate);
    const int16_t dy = (int16_t)in[7];
    int32_t value = in[6];
    u.bias = &value;
    st_update_biases(1, 1, &dy, &u);
    out[0] = value;
}

enum { EMIT_COUNT = 64 };

// In: limit, shift, sums' exponent, accumulate, data's exponent, data, sums. Out: exponent, shift,
// data.
static void emit(const int32_t *in, int32_t *out) {
    int16_t exponent = (int16_t)in[4], shift = (int16_t)in[1], data[EMIT_COUNT];
    for (int i = 0; i < EMIT_COUNT; i++)
        data[i] = (int16_t)in[5 + i];
    st_emit_t e = {.state = {&exponent, &shift}, .data = data, .count = EMIT_COUNT, .limit = in[0]};
    st_emit_begin(&e, in[2], in[3]);
    for (int i = 0; i < EMIT_COUNT; i += 8)
        st_emit_row(&e, i, in + 5 + EMIT_COUNT + i, 8);
    st_emit_end(&e);
    out[0] = exponent;
    out[1] = shift;
    for (int i = 0; i < EMIT_COUNT; i++)
        out[2 + i] = data[i];
}

typedef struct {
    const char *name;
    size_t in, out;
    void (*call)(const int32_t *in, int32_t *out);
} probe_t;

static const probe_t probes[] = {
    {"requantize", 3, 1, requantize},
    {"requantize_once", 3, 1, requantize_once},
    {"mul_q15", 2, 1, mul_q15},
    {"exp", 1, 1, exp_negative},
    {"reciprocal", 1, 2, reciprocal},
    {"ln", 2, 1, ln_q16},
    {"random", 2, 1, random_bits},
    {"weight", 11, 2, weight},
    {"row", 8, ROW_COUNT, row},
    {"bias", 8, 1, bias},
    {"emit", 5 + 2 * EMIT_COUNT, 2 + EMIT_COUNT, emit},
};

int main(int argc, char **argv) {
    int32_t in[5 + 2 * EMIT_COUNT], out[2 + EMIT_COUNT];
    for (size_t i = 0; argc == 2 && i < sizeof(probes) / sizeof(*probes); i++) {
        if (strcmp(probes[i].name, argv[1]))
            continue;
        while (fread(in, sizeof(int32_t), probes[i].in, stdin) == probes[i].in) {
            probes[i].call(in, out);
            fwrite(out, sizeof(int32_t), probes[i].out, stdout);
        }
        return 0;
    }
    return 2;
}
