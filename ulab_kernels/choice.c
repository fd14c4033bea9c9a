#include "choice.h"
#include "fixedpoint.h"
#include "random.h"

void st_shuffle(uint16_t *order, int32_t n, uint32_t seed) {
    for (int32_t i = 0; i < n; i++)
        order[i] = (uint16_t)i;
    for (int32_t i = n - 1; i > 0; i--) {
        const uint32_t j = (st_random(seed, (uint32_t)i) >> 2) % ((uint32_t)i + 1);
        const uint16_t other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
}

// Scores as integers of up to 16 bits, in units of the largest one's last bit.
typedef struct {
    const st_score_t *scores;
    int32_t exponent;
    int32_t unseen, least;
} st_weighing_t;

// 0 for a channel that never was trained.
static int32_t plain_weight(const st_weighing_t *w, int32_t i) {
    const int32_t right = w->exponent - w->scores[i].exponent;
    return right >= 0 && right < 16 ? w->scores[i].mantissa >> right : 0;
}

static uint32_t weight(const st_weighing_t *w, int32_t i) {
    const int is_seen = w->scores[i].mantissa;
    return (uint32_t)(is_seen ? st_max(plain_weight(w, i), w->least) : w->unseen);
}

static st_weighing_t weigh(const st_draw_t *d) {
    st_weighing_t w = {d->scores, INT16_MIN, 1, 0};
    uint32_t total = 0;
    for (int32_t i = 0; i < d->count; i++)
        if (d->scores[i].mantissa)
            w.exponent = st_max(w.exponent, d->scores[i].exponent);
    for (int32_t i = 0; i < d->count; i++)
        w.unseen = st_max(w.unseen, plain_weight(&w, i));
    for (int32_t i = 0; i < d->count; i++)
        total += weight(&w, i); // up to 2^16 of less than 2^16
    w.least = st_max((int32_t)(total / (uint32_t)d->count / ST_FLOOR), 1);
    return w;
}

// A binary indexed tree (Fenwick 1994): node i, counted from 1, has the sum of the weights of the
// lowest set bit of i channels up to channel i - 1. Returns the sum of all.
static uint32_t grow(const st_draw_t *d, const st_weighing_t *w) {
    uint32_t total = 0;
    for (int32_t i = 0; i < d->count; i++) {
        d->tree[i] = weight(w, i);
        total += d->tree[i];
    }
    for (int32_t i = 1, parent; i <= d->count; i++)
        if ((parent = i + (i & -i)) <= d->count)
            d->tree[parent - 1] += d->tree[i - 1];
    return total;
}

// The channel within whose weight `at` lies, when those of all channels stand in a row.
static int32_t find(const st_draw_t *d, uint32_t at) {
    int32_t found = 0, bit = 1;
    while (bit * 2 <= d->count)
        bit *= 2;
    for (; bit; bit /= 2)
        if (found + bit <= d->count && d->tree[found + bit - 1] <= at) {
            found += bit;
            at -= d->tree[found - 1];
        }
    return st_min(found, d->count - 1); // scratch that somebody writes to could lead beyond
}

static void take_out(const st_draw_t *d, int32_t channel, uint32_t weight) {
    for (int32_t i = channel + 1; i <= d->count; i += i & -i)
        d->tree[i - 1] -= weight;
}

void st_draw(const st_draw_t *d, uint32_t seed, uint16_t *channels) {
    const st_weighing_t w = weigh(d);
    uint32_t left = grow(d, &w);
    for (int32_t n = 0; n < d->chosen; n++) {
        const uint64_t random = st_random(seed, (uint32_t)n);
        const int32_t channel = find(d, (uint32_t)(random * left >> 32));
        channels[n] = (uint16_t)channel;
        take_out(d, channel, weight(&w, channel));
        left -= weight(&w, channel);
    }
}

int32_t st_mark(uint8_t *bits, int32_t count, const uint16_t *channels, int32_t n) {
    int32_t fresh = 0;
    for (int32_t i = 0; i < n; i++) {
        const uint8_t bit = (uint8_t)(1 << (channels[i] & 7));
        uint8_t *byte = bits + channels[i] / 8;
        if (channels[i] >= count || *byte & bit)
            continue;
        *byte |= bit;
        fresh++;
    }
    return fresh;
}
