#include "cores.h"

#include "fast.h"

st_cores_t st_cores_begin(st_cores_t cores) {
    if (!ST_SPLITS || st_simd_is_on()) // the twin's fast kernels use cores in their own way
        return ST_ONE_CORE;
#ifdef ST_CORE_1
    if (cores == ST_BOTH_CORES)
        return st_core1_start() ? ST_BOTH_CORES : ST_ONE_CORE;
#endif
    return cores == ST_IN_TURN || cores == ST_IN_TURN_BACK ? cores : ST_ONE_CORE;
}

void st_cores_end(st_cores_t cores) {
#ifdef ST_CORE_1
    if (cores == ST_BOTH_CORES)
        st_core1_stop();
#endif
    (void)cores;
}

int st_cores_lost_one(void) {
#ifdef ST_CORE_1
    return st_core1_is_lost();
#else
    return 0;
#endif
}

#if ST_SPLITS

static void do_both(st_cores_t cores, st_part_work_t *work, const void *job,
                    const st_part_t part[2]) {
#ifdef ST_CORE_1
    if (cores == ST_BOTH_CORES && st_core1_give(work, job, part[1])) {
        work(job, part[0]);
        st_core1_wait();
        return;
    }
#endif
    const int first = cores == ST_IN_TURN_BACK;
    work(job, part[first]);
    work(job, part[!first]);
}

// Half of them, to the nearest step.
static int32_t cut_of(st_units_t units) {
    return (units.count + units.step) / (2 * units.step) * units.step;
}

void st_split(st_cores_t cores, st_part_work_t *work, const void *job, st_units_t units) {
    const int32_t cut = cut_of(units);
    if (!st_is_split(cores) || cut < 1 || cut >= units.count) {
        work(job, (st_part_t){0, units.count, 0});
        return;
    }
    const st_part_t part[2] = {{0, cut, 0}, {cut, units.count, 1}};
    do_both(cores, work, job, part);
}

#endif
