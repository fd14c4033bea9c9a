#include "decay.h"

#include <stddef.h>

#include "random.h"
#include "update.h"

#define LONGEST 62 // shift: two hashes have bits for that

static int32_t rounded(int32_t value, st_share_t share, uint32_t seed, uint32_t counter) {
    const uint64_t random = (uint64_t)st_random(seed, counter) << 32 | st_random(~seed, counter);
    const int64_t below = (int64_t)(random >> (64 - share.shift)); // 0 to 2^shift - 1
    return (int32_t)(((int64_t)value * share.mantissa + below) >> share.shift);
}

void st_decay(int8_t *weights, int8_t *fractions, uint32_t count, st_share_t share, uint32_t seed,
              uint32_t first) {
    if (share.shift > LONGEST)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t value = fractions ? weights[i] * 256 + fractions[i] : weights[i];
        const int32_t less = value ? rounded(value, share, seed, first + i) : 0;
        if (less && fractions)
            st_add_fine(weights + i, fractions + i, -less);
        else if (less)
            weights[i] = (int8_t)(value - less);
    }
}
