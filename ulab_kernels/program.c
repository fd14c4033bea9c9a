#include "program.h"

#include "interrupt.h"
#include "operators.h"

// The image header's words that the machine needs; the rest is for Python.
enum { WORD_MAGIC, WORD_VERSION, WORD_SIZE, WORD_CRC, WORD_OPS, WORD_OP_COUNT };

// Words of each operator that there is; 0: none.
static const uint8_t operator_words[] = {
    [OP_STRIP] = sizeof(st_op_strip_t) / 4,
#define ST_OPERATOR(code, words, run) [code] = sizeof(words) / 4,
#include "operators.def.h"
#undef ST_OPERATOR
};

// Whether it is one of ours, of the right size; says so.
static int is_known(st_context_t *c, const st_op_head_t *op) {
    const int32_t words = op->opcode < sizeof(operator_words) ? operator_words[op->opcode] : 0;
    if (op->words == words && words)
        return 1;
    c->status = ST_HEAD && !words ? ST_NOT_HERE : ST_BAD_OPERATOR;
    return 0;
}

static void run_one(st_context_t *c, const st_op_head_t *op, int32_t index) {
    if (!is_known(c, op))
        return;
    switch (op->opcode) {
#define ST_OPERATOR(code, words, run)                                                              \
    case code:                                                                                     \
        run(c, (const words *)op);                                                                 \
        return;
#include "operators.def.h"
#undef ST_OPERATOR
    case OP_STRIP:
        st_run_strip(c, (const st_op_strip_t *)op, index);
    }
}

static int is_skipped(const st_machine_t *m, const st_op_head_t *op) {
    const int not_now = m->training ? FLAG_INFERENCE_ONLY : FLAG_TRAINING_ONLY;
    return (op->flags & (not_now | FLAG_IN_STRIP)) != 0;
}

static int share_memory(const st_buffer_t *a, const st_buffer_t *b) {
    const uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
    return a->size && b->size && x < y + b->size && y < x + a->size;
}

// An operator trusts that what it writes is none of what it has checked.
static int is_shared(const st_machine_t *m, int buffer) {
    for (int i = 0; i < ST_BUFFERS; i++)
        if (i != buffer && share_memory(&m->buffer[i], &m->buffer[buffer]))
            return 1;
    return 0;
}

static st_status_t check_buffers(const st_machine_t *m) {
    for (int i = 0; i < ST_BUFFERS; i++)
        if ((m->buffer[i].size && (uintptr_t)m->buffer[i].data & 3) || is_shared(m, i))
            return ST_BAD_BUFFER;
    if (m->buffer[ST_IN_STATE].size < sizeof(st_control_t))
        return ST_BAD_BUFFER;
    const uint32_t *word = (const uint32_t *)m->buffer[ST_IN_IMAGE].data;
    const size_t size = m->buffer[ST_IN_IMAGE].size;
    if (size < 64 || word[WORD_MAGIC] != ST_IMAGE_MAGIC || word[WORD_VERSION] != ST_IMAGE_VERSION ||
        word[WORD_SIZE] > size)
        return ST_BAD_IMAGE;
    return ST_OK;
}

const st_op_head_t *st_operator_at(st_context_t *c, int32_t index) {
    const uint32_t *word = (const uint32_t *)c->machine->buffer[ST_IN_IMAGE].data;
    if (index < 0 || (uint32_t)index >= word[WORD_OP_COUNT]) {
        c->status = ST_BAD_OPERATOR;
        return NULL;
    }
    const uint32_t *table = PLACE_FIXED(uint32_t, word[WORD_OPS], word[WORD_OP_COUNT]);
    if (!table)
        return NULL;
    const st_op_head_t *op = (const st_op_head_t *)PLACE_FIXED(uint32_t, table[index], 1);
    if (op)
        (void)PLACE_FIXED(uint32_t, table[index], op->words);
    return op;
}

// Until the loss a run only reads what is learnt: broken off there, it is as if it had not begun.
static int ends_here(const st_op_head_t *op) {
    return op->opcode < OP_LOSS && st_is_interrupted();
}

static void run_all(st_context_t *c, int32_t end, int32_t *at) {
    for (; *at < end; ++*at) {
        const st_op_head_t *op = st_operator_at(c, *at);
        if (c->status == ST_OK && ends_here(op))
            c->status = ST_INTERRUPTED;
        if (c->status == ST_OK && !is_skipped(c->machine, op))
            run_one(c, op, *at);
        if (st_cores_lost_one())
            c->status = ST_LOST_CORE;
        if (c->status)
            return;
    }
}

st_status_t st_program_run(st_machine_t *m, int32_t begin, int32_t end, int32_t *at) {
    st_context_t c = {m, check_buffers(m), ST_ONE_CORE};
    *at = begin;
    if (c.status)
        return c.status;
    const uint32_t *word = (const uint32_t *)m->buffer[ST_IN_IMAGE].data;
    if (begin < 0 || end < begin || (uint32_t)end > word[WORD_OP_COUNT])
        return ST_BAD_OPERATOR;
    c.cores = m->cores = st_cores_begin(m->cores);
    run_all(&c, end, at);
    st_cores_end(c.cores);
    return c.status;
}

const char *st_status_text(st_status_t status) {
    switch (status) {
    case ST_OK:
        return "ok";
    case ST_BAD_BUFFER:
        return "buffer too small, not 4-byte aligned, or over another one";
    case ST_BAD_IMAGE:
        return "not an image of this version";
    case ST_BAD_REF:
        return "operator points outside its buffers";
    case ST_BAD_OPERATOR:
        return "unknown operator or impossible parameters";
    case ST_NOT_HERE:
        return "not in kernels of flavour head: push flavour small or full";
    case ST_BAD_LABEL:
        return "label is not a class of the model";
    case ST_LOST_CORE:
        return "the second core stopped: train with --cores 1";
    case ST_INTERRUPTED:
        return "interrupted";
    }
    return "unknown status";
}
