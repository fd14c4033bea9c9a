#include "activation.h"
#include "fixedpoint.h"

#define MOST_SUMS 64

void clamp_mask_s8(const int8_t *y, int32_t n, int32_t lo, int32_t hi, uint8_t *bits) {
    for (int32_t i = 0; i < n; i += 8) {
        unsigned byte = 0;
        for (int32_t j = i; j < n && j < i + 8; j++)
            byte |= (unsigned)(y[j] > lo && y[j] < hi) << (j - i);
        *bits++ = (uint8_t)byte;
    }
}

void apply_mask(int16_t *dy, int32_t n, const uint8_t *bits) {
    for (int32_t i = 0; i < n; i++)
        if (!(bits[i >> 3] >> (i & 7) & 1))
            dy[i] = 0;
}

void keep_channels_s8(const int8_t *x, int32_t positions, const st_channels_t *channels,
                      int8_t *kept) {
    for (int32_t i = 0; i < positions; i++, x += channels->of)
        for (int32_t j = 0; j < channels->n; j++)
            *kept++ = x[channels->index[j]];
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
