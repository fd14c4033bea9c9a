#include "activation.h"
#include "arch.h"
#include "fixedpoint.h"

#define MOST_SUMS 64

// 2 * bits, and 1 if the value lies within `span` of first.
static inline uint32_t push_bit(uint32_t bits, int8_t value, int32_t first, uint32_t span) {
    const uint32_t v = (uint8_t)(value - first);
#if ST_CORTEX_M0 // the carry of the comparison is the bit
    __asm__("cmp %2, %1\n\tadc %0, %0" : "+l"(bits) : "l"(v), "l"(span) : "cc");
    return bits;
#else
    return 2 * bits + (v <= span);
#endif
}

// A bit for each of n values that lies within `span` of first.
static void mask_run(const int8_t *y, int32_t n, int32_t first, uint32_t span, uint8_t *bits) {
    for (; n >= 8; n -= 8, y += 8) {
        uint32_t byte = 0;
        ST_UNROLL(8)
        for (int32_t j = 7; j >= 0; j--)
            byte = push_bit(byte, y[j], first, span);
        *bits++ = (uint8_t)byte;
    }
    uint32_t byte = 0;
    for (int32_t j = n - 1; j >= 0; j--)
        byte = push_bit(byte, y[j], first, span);
    if (n)
        *bits = (uint8_t)byte;
}

void clamp_mask_s8(const int8_t *y, int32_t n, int32_t lo, int32_t hi, uint8_t *bits) {
    const int32_t first = st_max(lo + 1, -128), last = st_min(hi - 1, 127);
    if (first <= last)
        mask_run(y, n, first, (uint32_t)(last - first), bits);
    else
        for (int32_t i = 0; i < n; i += 8)
            *bits++ = 0;
}

void apply_mask(int16_t *dy, int32_t n, const uint8_t *bits) {
    for (; n >= 8; n -= 8, dy += 8) {
        uint32_t byte = (uint32_t)*bits++ << 24;
        if (byte == 0xff000000u)
            continue;
        ST_UNROLL(8)
        for (int32_t j = 7; j >= 0; j--, byte <<= 1)
            if ((int32_t)byte >= 0)
                dy[j] = 0;
    }
    for (int32_t j = 0; j < n; j++)
        if (!(*bits >> j & 1))
            dy[j] = 0;
}

// Of bytes without a sign, which load faster.
ST_HOT static void keep_channel(const uint8_t *x, int32_t of, int32_t positions, uint8_t *kept,
                                int32_t step) {
    ST_UNROLL(4)
    for (; positions > 0; positions--, x += of, kept += step)
        *kept = *x;
}

void keep_channels_s8(const int8_t *x, int32_t positions, const st_channels_t *channels,
                      int8_t *kept) {
    const uint8_t *from = (const uint8_t *)x, zero = 0;
    for (int32_t i = 0; i < channels->step; i++) {
        const int is_kept = i < channels->n;
        keep_channel(is_kept ? from + channels->index[i] : &zero, is_kept ? channels->of : 0,
                     positions, (uint8_t *)kept + i, channels->step);
    }
}

// a / b to nearest, ties up.
ST_ONCE static int32_t ratio_kept(uint32_t a, uint32_t b) {
    return (int32_t)((a + b / 2) / b);
}

// Counts each value at its byte without a sign, which loads faster.
static void count_kept(const uint8_t *x, int32_t n, uint32_t *counts) {
    for (int32_t i = 0; i < ST_VALUES; i++)
        counts[i] = 0;
    ST_UNROLL(4)
    for (; n > 0; n--)
        counts[*x++]++;
}

// Writes the levels, and to each value its code in place of its count. v: of value + 128.
static void levels_kept(uint32_t *counts, int32_t n, uint8_t *level) {
    uint32_t all = 0, distance = 0;
    for (uint32_t v = 0; v < ST_VALUES; v++)
        all += counts[v ^ 128u] * v;
    const int32_t mean = ratio_kept(all, (uint32_t)n);
    for (int32_t v = 0; v < ST_VALUES; v++)
        distance += counts[v ^ 128] * (uint32_t)(v < mean ? mean - v : v - mean);
    const int32_t far = ratio_kept(distance + distance / 4, (uint32_t)n);
    const int32_t end[ST_LEVELS] = {mean - far, mean, st_min(mean + far + 1, ST_VALUES), ST_VALUES};
    for (int32_t code = 0, v = 0; code < ST_LEVELS; code++) {
        uint32_t sum = 0, count = 0;
        for (; v < end[code]; v++) {
            uint32_t *of = counts + (v ^ 128);
            sum += *of * (uint32_t)v;
            count += *of;
            *of = (uint32_t)code;
        }
        level[code] = (uint8_t)(ratio_kept(sum, count + !count) - 128);
    }
}

static void pack_kept(const uint8_t *x, int32_t n, const uint32_t *code, uint8_t *bytes) {
    for (; !ST_SMALL && n >= 4; n -= 4, x += 4)
        *bytes++ = (uint8_t)(code[x[0]] | code[x[1]] << 2 | code[x[2]] << 4 | code[x[3]] << 6);
    for (; n > 0; n -= 4, x += 4) {
        uint32_t byte = 0;
        for (int32_t i = st_min(n, 4) - 1; i >= 0; i--)
            byte = byte << 2 | code[x[i]];
        *bytes++ = (uint8_t)byte;
    }
}

void encode_kept_s8(const int8_t *x, int32_t n, uint32_t *counts, uint8_t *codes) {
    count_kept((const uint8_t *)x, n, counts);
    levels_kept(counts, n, codes);
    pack_kept((const uint8_t *)x, n, counts, codes + ST_LEVELS);
}

void decode_kept_s8(const uint8_t *codes, int32_t n, int8_t *x) {
    const uint8_t *level = codes, *bytes = codes + ST_LEVELS;
    uint8_t *to = (uint8_t *)x;
    for (; !ST_SMALL && n >= 4; n -= 4, to += 4) {
        const uint32_t byte = *bytes++;
        to[0] = level[byte & 3];
        to[1] = level[byte >> 2 & 3];
        to[2] = level[byte >> 4 & 3];
        to[3] = level[byte >> 6];
    }
    for (; n > 0; n -= 4, to += 4) {
        uint32_t byte = *bytes++;
        for (int32_t i = 0, some = st_min(n, 4); i < some; i++, byte >>= 2)
            to[i] = level[byte & 3];
    }
}

void error_add(const int16_t *dy, int32_t n, st_emit_t *dx) {
    int32_t sums[MOST_SUMS];
    for (int32_t i = 0; i < n; i += MOST_SUMS) {
        const int32_t count = st_min(MOST_SUMS, n - i);
        for (int32_t j = 0; j < count; j++)
            sums[j] = dy[i + j];
        st_emit_row(dx, i, sums, count);
    }
}
