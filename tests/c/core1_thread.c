// A second core (cores.h) that is a thread, so that the thread sanitizer sees what both touch.
#include "cores.h"

#include <pthread.h>

static pthread_t thread;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static st_part_work_t *work_now; // NULL: none
static const void *job_now;
static st_part_t part_now;
static int stops;

static void *work_for_ever(void *unused) {
    pthread_mutex_lock(&mutex);
    while (!stops) {
        if (work_now) {
            pthread_mutex_unlock(&mutex);
            work_now(job_now, part_now);
            pthread_mutex_lock(&mutex);
            work_now = NULL;
            pthread_cond_broadcast(&changed);
        } else {
            pthread_cond_wait(&changed, &mutex);
        }
    }
    pthread_mutex_unlock(&mutex);
    return unused;
}

int st_core1_start(void) {
    stops = 0;
    return pthread_create(&thread, NULL, work_for_ever, NULL) == 0;
}

int st_core1_give(st_part_work_t *work, const void *job, st_part_t part) {
    pthread_mutex_lock(&mutex);
    work_now = work;
    job_now = job;
    part_now = part;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return 1;
}

void st_core1_wait(void) {
    pthread_mutex_lock(&mutex);
    while (work_now)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

int st_core1_is_lost(void) {
    return 0;
}

void st_core1_stop(void) {
    pthread_mutex_lock(&mutex);
    stops = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
}
