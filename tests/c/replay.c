// Replays recorded training steps on the kernels alone, in buffers of exactly their size, so that
// the sanitizers see every byte out of place.
//
//   replay FILE           runs all steps; prints each loss, then a checksum of the state
//   replay FILE CORES     the same, its work split as cores.h has it
//   replay FILE CORES SEED N
//                         damages the image in N different ways and runs the first step on each;
//                         prints each status that came: how often, and a hash of for which damage
//                         and at which operator
//
// FILE: int32 words: sizes of image, state, arena, sample; where the sample goes in the arena;
// steps; operators. Then image, state, and for each step: label, rate mantissa, rate exponent,
// seed, sample.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "random.h"

typedef struct {
    int32_t image, state, arena, sample, sample_at, steps, ops;
} sizes_t;

typedef struct {
    sizes_t size;
    uint8_t *image, *state, *steps;
} recording_t;

static uint8_t *copy_of(const uint8_t *data, int32_t size) {
    uint8_t *copy = malloc((size_t)size);
    if (!copy)
        exit(3);
    if (data)
        memcpy(copy, data, (size_t)size);
    return copy;
}

static uint8_t *read_bytes(FILE *file, int32_t size) {
    uint8_t *data = copy_of(NULL, size);
    if (fread(data, 1, (size_t)size, file) != (size_t)size)
        exit(4);
    return data;
}

static recording_t read_recording(const char *path) {
    recording_t r;
    FILE *file = fopen(path, "rb");
    if (!file || fread(&r.size, sizeof(r.size), 1, file) != 1)
        exit(5);
    r.image = read_bytes(file, r.size.image);
    r.state = read_bytes(file, r.size.state);
    r.steps = read_bytes(file, r.size.steps * (16 + r.size.sample));
    fclose(file);
    return r;
}

static void prepare_step(const recording_t *r, int32_t step, uint8_t *state, uint8_t *arena) {
    const uint8_t *record = r->steps + step * (16 + r->size.sample);
    memcpy(state, record, 4);
    memcpy(state + 12, record + 4, 12);
    memcpy(arena + r->size.sample_at, record + 16, (size_t)r->size.sample);
}

static st_cores_t cores = ST_ONE_CORE;

static st_status_t run(const recording_t *r, uint8_t *image, uint8_t *state, uint8_t *arena,
                       int32_t *at) {
    st_machine_t machine = {.buffer = {{image, (size_t)r->size.image},
                                       {state, (size_t)r->size.state},
                                       {arena, (size_t)r->size.arena}},
                            .training = 1,
                            .cores = cores};
    return st_program_run(&machine, 0, r->size.ops, at);
}

static void replay(const recording_t *r) {
    uint8_t *image = copy_of(r->image, r->size.image), *state = copy_of(r->state, r->size.state);
    uint8_t *arena = copy_of(NULL, r->size.arena);
    for (int32_t step = 0; step < r->size.steps; step++) {
        memset(arena, 0, (size_t)r->size.arena); // the target of a loss that has one
        prepare_step(r, step, state, arena);
        int32_t at;
        if (run(r, image, state, arena, &at) != ST_OK)
            exit(6);
        printf("%d\n", (int)((const st_control_t *)(const void *)state)->loss_q16);
    }
    uint32_t sum = 0;
    for (int32_t i = 0; i < r->size.state; i++)
        sum = st_mix32(sum ^ state[i]);
    printf("%u\n", (unsigned)sum);
    free(image);
    free(state);
    free(arena);
}

static uint32_t near_end(const sizes_t *size, uint32_t word, uint32_t random) {
    const uint32_t space = word >> 29 > 2 ? 2 : word >> 29;
    const int32_t sizes[] = {size->image, size->state, size->arena};
    const uint32_t from_end = random % (1u << random % 9) * 4, all = (uint32_t)sizes[space];
    return space << 29 | (from_end < all ? all - from_end : 0);
}

// Damage: somewhere in the operators and the small tables that they point to, a word becomes
// another reference, one near its buffer's end, an extreme, a neighbour, or loses a bit.
static uint32_t damaged(const sizes_t *size, uint32_t word, uint32_t random) {
    static const uint32_t extremes[] = {0,           1,           0xffffffffu, 0x7fffffffu,
                                        0x80000000u, 0x40000000u, 0xc0000000u, 255,
                                        65535,       4096,        0x80000001u, 0x7ffffffeu};
    switch (random & 7) {
    case 0:
        return extremes[(random >> 3) % (sizeof(extremes) / sizeof(*extremes))];
    case 1:
        return word + ((random >> 3) & 63) - 32;
    case 2:
        return word ^ (7u << 29 & random);
    case 3:
        return random;
    case 4:
        return near_end(size, word, random >> 3);
    case 5:
        return word * 2;
    default:
        return word ^ (1u << (random >> 3 & 31));
    }
}

// The number of a word in the image: of an operator, or behind one of its references.
static uint32_t victim(const recording_t *r, uint32_t random) {
    const uint32_t *image = (const uint32_t *)(const void *)r->image; // undamaged
    const uint32_t words = (uint32_t)r->size.image / 4;
    const uint32_t *table = image + image[4] / 4;
    uint32_t at = table[st_mix32(random) % image[5]] / 4;
    at += (random >> 4) % (image[at] >> 16);
    const uint32_t behind = image[at] / 4; // where it points to, if it is a reference
    return (random & 3) == 0 && behind + 20 < words ? behind + (random >> 8) % 20 : at;
}

// Within one operator a word becomes another one, or a little more: places that should be apart
// meet.
static void let_meet(const recording_t *r, uint32_t *image, uint32_t random) {
    const uint32_t *table = image + image[4] / 4;
    const uint32_t at = table[st_mix32(random) % image[5]] / 4;
    if (at >= (uint32_t)r->size.image / 4)
        return;
    const uint32_t words = image[at] >> 16, to = 1 + (random >> 3) % 15,
                   from = 1 + (random >> 7) % 15;
    if (to < words && from < words && at + 15 < (uint32_t)r->size.image / 4)
        image[at + to] = image[at + from] + (random >> 11 & 15) * 4 - 28;
}

static void fuzz(const recording_t *r, uint32_t seed, uint32_t count) {
    int statuses[ST_BAD_LABEL + 1] = {0};
    uint32_t where[ST_BAD_LABEL + 1] = {0};
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *image = copy_of(r->image, r->size.image);
        uint8_t *state = copy_of(r->state, r->size.state);
        uint8_t *arena = copy_of(NULL, r->size.arena);
        memset(arena, (int)i, (size_t)r->size.arena);
        prepare_step(r, 0, state, arena);
        const uint32_t hits = 1 + st_random(seed, i) % 3;
        for (uint32_t hit = 0; hit < hits; hit++) {
            uint32_t *word = (uint32_t *)(void *)image + victim(r, st_random(seed + i, 2 * hit));
            *word = damaged(&r->size, *word, st_random(seed + i, 2 * hit + 1));
        }
        if (i % 4 == 1) {
            memcpy(image, r->image, (size_t)r->size.image); // nothing else is wrong
            let_meet(r, (uint32_t *)(void *)image, st_random(seed + i, 9));
        }
        if (i % 4 == 0) // what a program on the board may have written
            state[32 + st_random(seed, ~i) % (uint32_t)(r->size.state - 32)] ^= 0xff;
        int32_t at;
        const st_status_t status = run(r, image, state, arena, &at);
        statuses[status]++;
        where[status] = st_mix32(where[status] ^ st_mix32(i) ^ (uint32_t)at);
        free(image);
        free(state);
        free(arena);
    }
    for (int i = 0; i <= ST_BAD_LABEL; i++)
        printf("%s: %d %08x\n", st_status_text((st_status_t)i), statuses[i], (unsigned)where[i]);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc == 4 || argc > 5)
        return 2;
    if (argc > 2)
        cores = (st_cores_t)strtoul(argv[2], NULL, 10);
    const recording_t r = read_recording(argv[1]);
    if (argc < 5)
        replay(&r);
    else
        fuzz(&r, (uint32_t)strtoul(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10));
    free(r.image);
    free(r.state);
    free(r.steps);
    return 0;
}
