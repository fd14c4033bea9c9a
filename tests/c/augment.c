// Augments random samples that end where their memory does, for the sanitizers. stdin: records of
// st_augment_t, a seed and the bytes of a sample; stdout: the samples behind it. What is impossible
// is passed over.
#include <stdio.h>
#include <stdlib.h>
#include "augment.h"
#include "random.h"

typedef struct {
    st_augment_t p;
    uint32_t seed, bytes;
} record_t;

int main(void) {
    record_t r;
    while (fread(&r, sizeof(r), 1, stdin) == 1) {
        int8_t *x = malloc(r.bytes + 1u);
        if (!x)
            return 1;
        int8_t *sample = x + 1; // not aligned
        for (uint32_t i = 0; i < r.bytes; i++)
            sample[i] = (int8_t)(uint8_t)st_random(r.seed, i);
        if (st_augment_is_possible(&r.p, r.bytes)) {
            augment_s8(&r.p, r.seed, sample);
            fwrite(sample, 1, r.bytes, stdout);
        }
        free(x);
    }
    return 0;
}
