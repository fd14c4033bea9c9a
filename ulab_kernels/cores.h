// An operator's work in two parts, for a chip with two cores. The parts write nothing in common and
// read nothing that the other one writes: at once, one after the other, or as one, they give the
// same bytes.
#ifndef ST_CORES_H
#define ST_CORES_H

#include <stdint.h>

typedef enum {
    ST_ONE_CORE = 0,
    ST_BOTH_CORES = 1,   // where there is a second core that nobody else uses; else one
    ST_IN_TURN = 2,      // both parts, one after the other: for tests
    ST_IN_TURN_BACK = 3, // the second one first
} st_cores_t;

// Units [begin, end) of a job. number: 0, or 1 of a second part, which has memory of its own.
typedef struct {
    int32_t begin, end, number;
} st_part_t;

typedef void st_part_work_t(const void *job, st_part_t part);

// Native modules have one core, and no room for two ways.
#ifdef MICROPY_ENABLE_DYNRUNTIME
#define ST_SPLITS 0
#else
#define ST_SPLITS 1
#endif

// Whether a run that was asked for `cores` splits its work, and how; st_cores_end when it is done.
// Meanwhile a second core is taken, from MicroPython too.
st_cores_t st_cores_begin(st_cores_t cores);
void st_cores_end(st_cores_t cores);

// What a job is made of; the first of two parts takes a multiple of `step`.
typedef struct {
    int32_t count, step;
} st_units_t;

// Does all units of a job, in two parts if told so and if there are enough.
#if ST_SPLITS
void st_split(st_cores_t cores, st_part_work_t *work, const void *job, st_units_t units);
#else
static inline void st_split(st_cores_t cores, st_part_work_t *work, const void *job,
                            st_units_t units) {
    (void)cores;
    work(job, (st_part_t){0, units.count, 0});
}
#endif

static inline int st_is_split(st_cores_t cores) {
    return ST_SPLITS && cores != ST_ONE_CORE;
}

// Whether the second core left a part of this run undone: what that should have made is not there.
int st_cores_lost_one(void);

// The second core, where a build has one (ST_CORE_1): bind_core1.c, or a test's thread.
#ifdef ST_CORE_1
// Whether it runs now and waits for work.
int st_core1_start(void);
// Gives it a part, which it does at once; one at a time. Returns whether it took it.
int st_core1_give(st_part_work_t *work, const void *job, st_part_t part);
// Returns when it has done that, or when that has taken so long that it never will: it is lost
// then, and switched off.
void st_core1_wait(void);
int st_core1_is_lost(void);
void st_core1_stop(void);
#endif

#endif
