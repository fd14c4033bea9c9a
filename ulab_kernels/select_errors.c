#include "select_errors.h"
#include <stddef.h>
#include "fixedpoint.h"

#define TOP (1u << 30)     // the least mantissa
#define FURTHEST (1 << 20) // exponents beyond are those of damaged states
#define DROPPED 0u         // in the row of costs; else 1 + the cost of an error and tap

/// How many channels stay ///

static st_magnitude_t magnitude(uint64_t sum, int32_t exponent) {
    st_magnitude_t m = {0, 0};
    if (!sum)
        return m;
    for (; sum >= 2 * (uint64_t)TOP; sum >>= 1)
        exponent++;
    for (; sum < TOP; sum <<= 1)
        exponent--;
    m.mantissa = (uint32_t)sum;
    m.exponent = exponent;
    return m;
}

static int is_larger(st_magnitude_t a, st_magnitude_t b) {
    if (!a.mantissa || !b.mantissa)
        return a.mantissa > b.mantissa;
    return a.exponent != b.exponent ? a.exponent > b.exponent : a.mantissa > b.mantissa;
}

// The maximum after this step; what stood in the state is normalised first.
static st_magnitude_t maximum_with(st_magnitude_t before, st_magnitude_t now) {
    const int32_t exponent = st_clamp(before.exponent, -FURTHEST, FURTHEST);
    st_magnitude_t m = magnitude(before.mantissa, exponent);
    m = magnitude(m.mantissa - (m.mantissa >> ST_FORGET), m.exponent);
    return is_larger(now, m) ? now : m;
}

// a / b in 1/32768, rounded down; a is not the larger one.
static uint32_t part_of(st_magnitude_t a, st_magnitude_t b) {
    const int32_t apart = b.exponent - a.exponent;
    if (!a.mantissa || apart > 15)
        return 0;
    return ((a.mantissa >> 15) << 15) / (b.mantissa >> 15) >> apart;
}

static int32_t how_many(const st_selection_t *s, uint32_t share) {
    const uint32_t part = (uint32_t)s->least + (((uint32_t)s->span * share + (1u << 14)) >> 15);
    const uint32_t k = ((uint32_t)s->g->out_c * part + (1u << 14)) >> 15;
    return st_clamp((int32_t)k, 1, s->g->out_c);
}

/// Which ones ///

static uint64_t sum_all_channels(const st_selection_t *s) {
    const int32_t channels = s->g->out_c, positions = s->g->out_h * s->g->out_w;
    const int16_t *dy = s->dy;
    for (int32_t c = 0; c < channels; c++)
        s->row[c] = 0;
    for (int32_t p = 0; p < positions; p++, dy += channels)
        for (int32_t c = 0; c < channels; c++)
            s->row[c] += (uint32_t)(dy[c] < 0 ? -dy[c] : dy[c]);
    uint64_t sum = 0;
    for (int32_t c = 0; c < channels; c++)
        sum += s->row[c];
    return sum;
}

static int32_t count_from(const st_selection_t *s, uint32_t least) {
    int32_t count = 0;
    for (int32_t c = 0; c < s->g->out_c; c++)
        count += s->row[c] >= least;
    return count;
}

// The k-th largest sum, bit by bit: the largest number that k sums reach.
static uint32_t kth_largest(const st_selection_t *s, int32_t k) {
    uint32_t all = 0, found = 0;
    for (int32_t c = 0; c < s->g->out_c; c++)
        all |= s->row[c];
    for (uint32_t bit = 1u << 31; bit; bit >>= 1)
        if (bit <= all && count_from(s, found | bit) >= k)
            found |= bit;
    return found;
}

// In the place of the sums: DROPPED, or 1 + the cost of an error that is not zero, by tap.
static void put_costs(const st_selection_t *s, int32_t k) {
    const int32_t channels = s->g->out_c;
    const uint32_t least = k < channels ? kth_largest(s, k) : 0;
    int32_t equals = k - (least == UINT32_MAX ? 0 : count_from(s, least + 1));
    const uint32_t cost = 1u + (uint32_t)s->inputs + (s->channels ? 0 : (uint32_t)s->chosen);
    for (int32_t c = 0; c < channels; c++) {
        const int stays = s->row[c] > least || (s->row[c] == least && equals-- > 0);
        s->row[c] = stays ? cost : DROPPED;
    }
}

static void add_chosen(const st_selection_t *s) {
    const int32_t outputs = s->g->out_c / s->g->in_c;
    for (int32_t i = 0; i < s->chosen; i++)
        for (int32_t c = s->channels[i] * outputs; c < (s->channels[i] + 1) * outputs; c++)
            s->row[c] += s->row[c] != DROPPED;
}

/// What they cost ///

// Zeros what is dropped at one position; the cost of a tap there.
static uint32_t drop(int16_t *dy, const uint32_t *costs, int32_t channels) {
    uint32_t sum = 0;
    for (int32_t c = 0; c < channels; c++) {
        const int32_t v = costs[c] != DROPPED ? dy[c] : 0;
        sum += v ? costs[c] - 1 : 0;
        dy[c] = (int16_t)v;
    }
    return sum;
}

// Where all errors cost the same.
static uint32_t count_errors(const int16_t *dy, int32_t channels) {
    uint32_t count = 0;
    for (int32_t c = 0; c < channels; c++)
        count += dy[c] != 0;
    return count;
}

// costs: NULL where nothing is dropped and all errors cost 1.
static uint64_t drop_all(const st_selection_t *s, const uint32_t *costs) {
    const st_conv_geometry_t *g = s->g;
    int16_t *dy = s->dy;
    uint64_t cost = 0;
    for (int32_t y = 0; y < g->out_h; y++) {
        const st_taps_t rows = st_taps_h(g, y);
        for (int32_t x = 0; x < g->out_w; x++, dy += g->out_c) {
            const st_taps_t columns = st_taps_w(g, x);
            const uint32_t taps =
                (uint32_t)((rows.end - rows.begin) * (columns.end - columns.begin));
            const uint32_t each = costs ? drop(dy, costs, g->out_c) : count_errors(dy, g->out_c);
            cost += (uint64_t)each * taps;
        }
    }
    return cost;
}

// Of a gradient that multiplies zeros, too.
static uint64_t cost_of_all(const st_conv_geometry_t *g) {
    uint64_t rows = 0, columns = 0;
    for (int32_t y = 0; y < g->out_h; y++)
        rows += (uint64_t)(st_taps_h(g, y).end - st_taps_h(g, y).begin);
    for (int32_t x = 0; x < g->out_w; x++)
        columns += (uint64_t)(st_taps_w(g, x).end - st_taps_w(g, x).begin);
    return rows * columns * (uint64_t)g->out_c;
}

static uint64_t drop_channels(const st_selection_t *s, int32_t exponent, st_magnitude_t *maximum) {
    const st_magnitude_t sum = magnitude(sum_all_channels(s), exponent);
    *maximum = maximum_with(*maximum, sum);
    put_costs(s, how_many(s, part_of(sum, *maximum)));
    if (s->channels)
        add_chosen(s);
    return drop_all(s, s->row);
}

uint64_t select_errors(const st_selection_t *s, int32_t exponent, st_magnitude_t *maximum) {
    const uint64_t whole = s->is_dense ? cost_of_all(s->g) : 0;
    if (s->least == 1 << 15 && !s->channels)
        return whole + drop_all(s, NULL) * (uint64_t)(s->inputs + s->chosen);
    return whole + drop_channels(s, exponent, maximum);
}
