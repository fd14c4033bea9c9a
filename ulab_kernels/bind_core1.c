// The RP2040's second core under MicroPython (cores.h). It works only while a program runs: before
// and after, it waits in the boot ROM as after a reset, so that whoever wants it finds it there.
// Compiled into the firmware alone. Waiting for it has an end: on a chip whose second core does not
// answer, programs run on one; where it stops in the middle of its work, the run is at an end.
#include "cores.h"

#include "hardware/structs/psm.h"
#include "hardware/structs/scb.h"
#include "hardware/sync.h"
#include "hardware/timer.h"
#include "pico/multicore.h"
#include "py/runtime.h"

#define PATIENCE 2000 // microseconds; the boot ROM answers within a few
#define RESPONSES 8   // as many as the mailbox between the cores holds
// Bytes of stack that a part of an operator takes at most (tests/test_both_cores.py counts), and
// that interrupts take on top of it.
#define PART_STACK 1792
#define RUN_STACK 2944 // of operators that are not split, from st_core1_start on
#define INTERRUPTS 640
#define ITS_STACK 2048
#define STACK_MARK 0x5ca1ab1eu // at the end of its stack: behind it lies the heap

extern uint8_t __StackBottom[];

// What the second core is to do; done when work is NULL.
static struct {
    st_part_work_t *volatile work;
    const void *job;
    st_part_t part;
} mailbox;

static bool is_silent; // it did not answer once: not asked again
static bool is_lost;   // it stopped in this run

// Microseconds after which a part will never be done: no operator that fits takes that long. Only
// tests change it.
static volatile uint32_t patience = 60000000;

/// On the second core ///

// Interrupts of the first core may write to flash: they stop the second one meanwhile, as the SDK
// has it.
static void be_stoppable(const void *job, st_part_t part) {
    (void)job, (void)part;
    multicore_lockout_victim_init();
}

static void work_for_ever(void) {
    for (;;) {
        while (!mailbox.work)
            __wfe();
        __dmb();
        mailbox.work(mailbox.job, mailbox.part);
        __dmb();
        mailbox.work = NULL;
        __sev();
    }
}

/// On the first core ///

static volatile uint32_t *end_of_its_stack(void) {
    return (volatile uint32_t *)(uintptr_t)__StackBottom;
}

static void give(st_part_work_t *work, const void *job, st_part_t part) {
    mailbox.job = job;
    mailbox.part.begin = part.begin;
    mailbox.part.end = part.end;
    mailbox.part.number = part.number;
    __dmb();
    mailbox.work = work;
    __sev();
}

// For so many microseconds. Asks again and again: a core that has stopped sends no event.
static bool is_done_within(uint32_t limit) {
    const uint32_t since = time_us_32();
    while (mailbox.work)
        if (time_us_32() - since > limit)
            return false;
    __dmb();
    return true;
}

/// Who has it ///

#if MICROPY_PY_THREAD

static void taken_by_kernels(void *arg) {
    (void)arg;
}

// MicroPython's own note of who has the second core: _thread refuses it, interrupts know of it.
static bool is_free(void) {
    return core1_entry == NULL;
}

static void take(void) {
    core1_entry = (core_entry_func_t)taken_by_kernels;
}

static void give_back(void) {
    core1_entry = NULL;
}

#else

static bool is_free(void) {
    return !multicore_lockout_victim_is_initialized(1); // another module's program
}

static void take(void) {
}

static void give_back(void) {
}

#endif

// Its stack is the far end of this core's, if that is far enough: no other RAM is free. MicroPython
// may not grow into it meanwhile.
static inline bool has_room(size_t bytes) {
    const uint8_t *here;
    __asm volatile("mov %0, sp" : "=r"(here));
    return here >= __StackBottom + ITS_STACK + bytes + INTERRUPTS;
}

static bool can_be_had(void) {
    return !is_silent && get_core_num() == 0 && __get_current_exception() == 0 && is_free() &&
           has_room(RUN_STACK);
}

/// Starting it, as the boot ROM wants it ///

static bool answers(uint32_t until) {
    while (!multicore_fifo_rvalid())
        if ((int32_t)(time_us_32() - until) > 0)
            return false;
    return true;
}

static void forget_responses(void) {
    for (int i = 0; i < RESPONSES && multicore_fifo_rvalid(); i++)
        (void)sio_hw->fifo_rd;
}

static bool switch_off(uint32_t until) {
    hw_set_bits(&psm_hw->frce_off, PSM_FRCE_OFF_PROC1_BITS);
    while (!(psm_hw->frce_off & PSM_FRCE_OFF_PROC1_BITS))
        if ((int32_t)(time_us_32() - until) > 0)
            return false;
    return true;
}

static bool reset(uint32_t until) {
    if (!switch_off(until))
        return false;
    hw_clear_bits(&psm_hw->frce_off, PSM_FRCE_OFF_PROC1_BITS);
    return answers(until);
}

static bool launch(uint32_t until) {
    const uint32_t top = (uintptr_t)__StackBottom + ITS_STACK;
    const uint32_t words[] = {0, 0, 1, scb_hw->vtor, top, (uintptr_t)work_for_ever};
    for (unsigned i = 0; i < count_of(words);) {
        if (!words[i]) {
            forget_responses();
            __sev();
        }
        sio_hw->fifo_wr = words[i];
        __sev();
        if (!answers(until))
            return false;
        i = sio_hw->fifo_rd == words[i] ? i + 1 : 0; // an echo, or all over again
    }
    return true;
}

// Without interrupts: one could take the responses, or write to flash while it runs from there and
// cannot be stopped yet.
static bool start(void) {
    const uint32_t until = time_us_32() + PATIENCE, interrupts = save_and_disable_interrupts();
    mailbox.work = NULL;
    *end_of_its_stack() = STACK_MARK;
    bool runs = reset(until) && launch(until);
    if (runs) {
        give(be_stoppable, NULL, (st_part_t){0, 0, 1});
        runs = is_done_within(PATIENCE);
    }
    restore_interrupts(interrupts);
    return runs;
}

int st_core1_start(void) {
    if (!can_be_had())
        return 0;
    MP_STATE_THREAD(stack_limit) -= ITS_STACK; // before the second core uses it
    is_silent = !start();
    if (is_silent) {
        (void)switch_off(time_us_32() + PATIENCE); // it may have started, only too late
        MP_STATE_THREAD(stack_limit) += ITS_STACK;
        return 0;
    }
    take();
    return 1;
}

int st_core1_give(st_part_work_t *work, const void *job, st_part_t part) {
    const bool takes_it = !is_lost && has_room(PART_STACK);
    if (takes_it)
        give(work, job, part);
    return takes_it;
}

// Switched off, it writes no more to memory that others use from now on. So is one whose stack was
// too small, before it writes more than it has.
void st_core1_wait(void) {
    if (is_done_within(patience) && *end_of_its_stack() == STACK_MARK)
        return;
    is_lost = is_silent = true;
    (void)switch_off(time_us_32() + PATIENCE);
    mailbox.work = NULL;
}

int st_core1_is_lost(void) {
    return is_lost;
}

// The SDK's reset waits for ever for a core that does not answer.
static bool can_be_reset(void) {
    if (!is_lost)
        return true;
    is_lost = false;
    const bool answered = reset(time_us_32() + PATIENCE);
    forget_responses();
    return answered;
}

// The SDK's reset switches it off before it forgets that it could be stopped: an interrupt in
// between that writes to flash would wait for it for ever.
void st_core1_stop(void) {
    const uint32_t interrupts = save_and_disable_interrupts();
    if (can_be_reset())
        multicore_reset_core1();
    restore_interrupts(interrupts);
    MP_STATE_THREAD(stack_limit) += ITS_STACK;
    give_back();
}
