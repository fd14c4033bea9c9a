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

static void clear_channel(int32_t positions, int8_t *kept, int32_t step) {
    for (; positions > 0; positions--, kept += step)
        *kept = 0;
}

void keep_channels_s8(const int8_t *x, int32_t positions, const st_channels_t *channels,
                      int8_t *kept) {
    const uint8_t *from = (const uint8_t *)x;
    const int32_t n = channels->n, step = channels->step;
    for (int32_t i = 0; i < n; i++)
        keep_channel(from + channels->index[i], channels->of, positions, (uint8_t *)kept + i, step);
    for (int32_t i = n; i < step; i++)
        clear_channel(positions, kept + i, step);
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
