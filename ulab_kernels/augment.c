#include "augment.h"
#include "copy_bytes.h"
#include "fixedpoint.h"
#include "random.h"

// What each random number is for.
enum { DRAW_FLIP, DRAW_Y, DRAW_X, DRAW_GAIN, DRAW_OFFSET, DRAW_PATCH_Y, DRAW_PATCH_X };

#define OWN_SEEDS 0x61756721u // the same seed rounds the step's weights: not by the same bits

static int is_within(int32_t v, int32_t lo, int32_t hi) {
    return v >= lo && v <= hi;
}

static int has_sides(const st_augment_t *p, size_t bytes) {
    return is_within(p->height, 1, ST_AUGMENT_MAX_SIDE) &&
           is_within(p->width, 1, ST_AUGMENT_MAX_SIDE) &&
           is_within(p->channels, 1, ST_AUGMENT_MAX_SIDE) &&
           (uint64_t)p->height * (uint64_t)p->width * (uint64_t)p->channels == bytes &&
           bytes <= INT32_MAX;
}

int st_augment_is_possible(const st_augment_t *p, size_t bytes) {
    return has_sides(p, bytes) && is_within(p->zero, -128, 127) && is_within(p->flip, 0, 1) &&
           is_within(p->shift_y, 0, p->height - 1) && is_within(p->shift_x, 0, p->width - 1) &&
           is_within(p->gain, 0, ST_AUGMENT_ONE) && is_within(p->offset, 0, 255) &&
           is_within(p->erase_h, 0, p->height) && is_within(p->erase_w, 0, p->width);
}

// One of 0 ... n - 1, n up to 65536.
static int32_t below(uint32_t seed, uint32_t what, int32_t n) {
    return (int32_t)((st_random(seed, what) >> 16) * (uint32_t)n >> 16);
}

// One of -n ... n, n below 32768.
static int32_t around_zero(uint32_t seed, uint32_t what, int32_t n) {
    return below(seed, what, 2 * n + 1) - n;
}

static void mirror_row(int8_t *row, int32_t width, int32_t channels) {
    int8_t *left = row, *right = row + (width - 1) * channels;
    for (; left < right; right -= 2 * channels)
        for (int32_t i = 0; i < channels; i++, left++, right++) {
            const int8_t value = *left;
            *left = *right;
            *right = value;
        }
}

static void mirror(const st_augment_t *p, int8_t *x) {
    for (int32_t y = 0; y < p->height; y++)
        mirror_row(x + y * p->width * p->channels, p->width, p->channels);
}

// to[0 ... n - 1] of pixels become `pixel`.
static void repeat_pixel(int8_t *to, const int8_t *pixel, int32_t n, int32_t channels) {
    if (channels == 1) {
        st_fill_bytes(to, *pixel, n);
        return;
    }
    for (; n > 0; n--)
        for (int32_t i = 0; i < channels; i++)
            *to++ = pixel[i];
}

// Row `to` becomes row `from`, which may be the same, dx pixels further to the right.
static void shift_row_of(const st_augment_t *p, int8_t *to, const int8_t *from, int32_t dx) {
    const int32_t c = p->channels, right = st_max(dx, 0) * c, left = st_max(-dx, 0) * c;
    const int32_t kept = p->width * c - left - right;
    __builtin_memmove(to + right, from + left, (uint32_t)kept);
    repeat_pixel(to, to + right, right / c, c);
    repeat_pixel(to + kept, to + kept - c, left / c, c);
}

// From the side that rows move to, so that each is read before it is written over; the edge's own
// row, which is read several times, comes last.
static void shift_sample(const st_augment_t *p, int8_t *x, int32_t dy, int32_t dx) {
    const int32_t row = p->width * p->channels, last = p->height - 1;
    for (int32_t i = 0; i <= last; i++) {
        const int32_t y = dy > 0 ? last - i : i;
        shift_row_of(p, x + y * row, x + st_clamp(y - dy, 0, last) * row, dx);
    }
}

// factor: of ST_AUGMENT_ONE, up to twice that; rounded half up.
static void scale(const st_augment_t *p, int8_t *x, int32_t factor, int32_t offset) {
    const int32_t n = p->height * p->width * p->channels, zero = p->zero;
    for (int32_t i = 0; i < n; i++) {
        const int32_t scaled = ((x[i] - zero) * factor + (1 << 13)) >> 14;
        x[i] = (int8_t)st_clamp(scaled + zero + offset, -128, 127);
    }
}

// y, x: of its centre.
static void erase(const st_augment_t *p, int8_t *sample, int32_t y, int32_t x) {
    const int32_t top = st_max(y - p->erase_h / 2, 0), left = st_max(x - p->erase_w / 2, 0);
    const int32_t end = st_min(y - p->erase_h / 2 + p->erase_h, p->height);
    const int32_t right = st_min(x - p->erase_w / 2 + p->erase_w, p->width);
    for (int32_t i = top; i < end; i++)
        st_fill_bytes(sample + (i * p->width + left) * p->channels, p->zero,
                      (right - left) * p->channels);
}

void augment_s8(const st_augment_t *p, uint32_t seed, int8_t *x) {
    seed ^= OWN_SEEDS;
    if (p->flip && below(seed, DRAW_FLIP, 2))
        mirror(p, x);
    const int32_t dy = around_zero(seed, DRAW_Y, p->shift_y);
    const int32_t dx = around_zero(seed, DRAW_X, p->shift_x);
    if (dy || dx)
        shift_sample(p, x, dy, dx);
    if (p->gain || p->offset)
        scale(p, x, ST_AUGMENT_ONE + around_zero(seed, DRAW_GAIN, p->gain),
              around_zero(seed, DRAW_OFFSET, p->offset));
    if (p->erase_h && p->erase_w)
        erase(p, x, below(seed, DRAW_PATCH_Y, p->height), below(seed, DRAW_PATCH_X, p->width));
}
