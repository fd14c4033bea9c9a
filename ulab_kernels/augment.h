// Light augmentation of a sample, in place: each time a little different, as a camera or a
// microphone would have it. A pure function of (parameters, seed).
#ifndef ST_AUGMENT_H
#define ST_AUGMENT_H

#include <stddef.h>
#include <stdint.h>

#define ST_AUGMENT_MAX_SIDE 32768
#define ST_AUGMENT_ONE (1 << 14) // a gain of 100 %

// 11 little-endian int32, made by device/sparsetune_device/augment.py.
typedef struct {
    int32_t height, width, channels; // of the sample, int8 [height, width, channels]
    int32_t zero;                    // what stands for the real 0
    int32_t flip;                    // 1: mirrored from left to right in every second draw
    int32_t shift_y, shift_x;        // moved by up to so many places to either side
    int32_t gain;                    // times 1 +- gain / ST_AUGMENT_ONE at most, around `zero`
    int32_t offset;                  // plus or minus so many steps at most
    int32_t erase_h, erase_w;        // a patch becomes `zero`; its centre is anywhere
} st_augment_t;

// Whether a sample of `bytes` bytes can be augmented so: sides of 1 to ST_AUGMENT_MAX_SIDE, shifts
// smaller than their side, a patch no larger than the sample.
int st_augment_is_possible(const st_augment_t *p, size_t bytes);

// In this order: mirrored, moved, gain and offset, a patch erased. Values saturate. What a shift
// leaves free repeats the edge. Parameters must be possible.
void augment_s8(const st_augment_t *p, uint32_t seed, int8_t *x);

#endif
