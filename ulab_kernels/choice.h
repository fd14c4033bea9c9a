// Which input channels a step trains: what policies (device/sparsetune_device/channels.py) leave to
// C, since it has as many steps as a layer has channels. All are pure functions of their arguments.
#ifndef ST_CHOICE_H
#define ST_CHOICE_H

#include <stdint.h>
#include "scores.h"

// order[n] = a permutation of 0 ... n - 1 (Fisher and Yates), n <= 65536.
void st_shuffle(uint16_t *order, int32_t n, uint32_t seed);

// Draws `chosen` of `count` channels without replacement: each time one of those that are left,
// with a probability in proportion to its score. Channels never trained count as the one with the
// highest score; none counts less than ST_FLOOR of the mean, so that all are reached.
// chosen <= count <= 65536. tree: scratch [count].
typedef struct {
    const st_score_t *scores;
    int32_t count, chosen;
    uint32_t *tree;
} st_draw_t;

#define ST_FLOOR 16 // a sixteenth

void st_draw(const st_draw_t *d, uint32_t seed, uint16_t *channels);

// Sets the bit of each channel below `count`; returns how many were not set before.
int32_t st_mark(uint8_t *bits, int32_t count, const uint16_t *channels, int32_t n);

#endif
