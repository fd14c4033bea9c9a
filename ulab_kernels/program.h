// A program of operators, compiled by the host and run here over ST_BUFFERS buffers. docs/FORMAT.md
// gives every word; this header is its C side.
#ifndef ST_PROGRAM_H
#define ST_PROGRAM_H

#include <stddef.h>
#include <stdint.h>
#include "cores.h"

#define ST_IMAGE_MAGIC 0x4d495453u // "STIM"
#define ST_IMAGE_VERSION 6u

// A place in one of the buffers: the buffer in the upper three bits, the byte offset below.
typedef uint32_t st_ref_t;
#define ST_REF_BITS 29
enum {
    ST_IN_IMAGE = 0, // flash: never written
    ST_IN_STATE = 1, // what is learnt
    ST_IN_ARENA = 2, // what lives within a step
    ST_IN_COLD = 3,  // more of it, in slower memory
    ST_IN_STORE = 4, // flash: what was learnt and has no room in the state
    ST_BUFFERS = 5,
    ST_NOWHERE = 7,
};

static inline uint32_t st_space_of(st_ref_t ref) {
    return ref >> ST_REF_BITS;
}

typedef struct {
    uint8_t *data;
    size_t size;
} st_buffer_t;

// Image and store are only read. All start at 4-byte aligned addresses.
typedef struct {
    st_buffer_t buffer[ST_BUFFERS];
    int training;     // 0: operators that only training needs are passed over
    st_cores_t cores; // asked for; behind a run, how it went
} st_machine_t;

// Velocities do not move anything yet: the group of steps goes on (velocity.h).
#define ST_UPDATE_WAITS 1u
// Where velocities move weights, those of each filter are standardised first (velocity.h).
#define ST_UPDATE_STANDARD 2u

// The first words of the state buffer: what Python and C tell each other in a step.
typedef struct {
    int32_t label;          // in: class of the sample
    int32_t loss_q16;       // out
    int32_t predicted;      // out: class; of a loss on targets: 1 if all outputs were right
    uint32_t rate_mantissa; // in: learning rate = mantissa * 2^exponent, mantissa < 2^16
    int32_t rate_exponent;  // in
    uint32_t seed;          // in: differs for every step
    int32_t norm_q16;       // out: L1 norm of the loss' gradient, at most ST_MOST_NORM
    uint32_t update;        // in: ST_UPDATE_WAITS, ST_UPDATE_STANDARD
    uint32_t momentum;      // in: of layers with a velocity, in 1/32768, below 1
    uint32_t effort;   // out: multiply-accumulates of the gradients (select_errors.h), saturates
    int32_t rule;      // Python's: what decides which steps end at their loss (effort.py)
    int32_t choice;    // Python's: which of its choices stands in the lists, plus 1
    uint32_t standard; // in: of ST_UPDATE_STANDARD: a gain, exponent * 2^16 + mantissa
    int32_t reserved[3];
} st_control_t;

#define ST_MOST_NORM ((1 << 30) - 1) // what MicroPython holds without an object

typedef enum {
    ST_OK = 0,
    ST_BAD_BUFFER,   // a buffer is too small or not 4-byte aligned
    ST_BAD_IMAGE,    // magic, version or size is wrong
    ST_BAD_REF,      // an operator points outside its buffers
    ST_BAD_OPERATOR, // unknown operator or impossible parameters
    ST_BAD_LABEL,    // control.label is not a class of the model
    ST_LOST_CORE,    // the second core never did its part: state and arena are not to be used
    ST_NOT_HERE,     // an operator that these kernels were built without (ST_HEAD)
    ST_INTERRUPTED,  // by the user (interrupt.h): the state is as it was before the run
} st_status_t;

// Runs operators [begin, end) of the image's program. *at: the operator that failed.
st_status_t st_program_run(st_machine_t *m, int32_t begin, int32_t end, int32_t *at);

const char *st_status_text(st_status_t status);

#endif
