// Ctrl-C while a program runs.
#ifndef ST_INTERRUPT_H
#define ST_INTERRUPT_H

// Whether the user wants the run to end. Asked where nothing that is learnt has been written yet.
#ifdef ST_INTERRUPTS // bind_micropython.c
int st_is_interrupted(void);
#else
static inline int st_is_interrupted(void) {
    return 0;
}
#endif

#endif
