// The instructions that the assembler knows: the table of QEMU's core de233_fpu, and of an ESP32-S3
// MULUH and MULSH besides, whose operands are those of MULL (RRR: op0 = 0, op1 = 2, op2 = 10, 11).
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "ansidecl.h"

#define uint32 uint32_t
#include "xtensa-modules.c.inc"

#if WITH_MULH

#define OPCODES (sizeof(opcodes) / sizeof(opcodes[0]))

static void encode_muluh(xtensa_insnbuf word) {
    word[0] = 0xa20000;
}

static void encode_mulsh(xtensa_insnbuf word) {
    word[0] = 0xb20000;
}

static xtensa_opcode_encode_fn muluh_in_slots[8] = {encode_muluh};
static xtensa_opcode_encode_fn mulsh_in_slots[8] = {encode_mulsh};

// Members of an entry are const, so that one is only copied whole.
static char more_opcodes[sizeof(opcodes) + 2 * sizeof(opcodes[0])] __attribute__((aligned(16)));

static void put_opcode(size_t at, const char *name, xtensa_opcode_encode_fn *in_slots) {
    char *entry = more_opcodes + at * sizeof(opcodes[0]);
    for (size_t i = 0; i < OPCODES; i++)
        if (!strcmp(opcodes[i].name, "mull"))
            memcpy(entry, &opcodes[i], sizeof(opcodes[0]));
    memcpy(entry + offsetof(xtensa_opcode_internal, name), &name, sizeof(name));
    memcpy(entry + offsetof(xtensa_opcode_internal, encode_fns), &in_slots, sizeof(in_slots));
}

__attribute__((constructor)) static void add_opcodes(void) {
    memcpy(more_opcodes, opcodes, sizeof(opcodes));
    put_opcode(OPCODES, "muluh", muluh_in_slots);
    put_opcode(OPCODES + 1, "mulsh", mulsh_in_slots);
    xtensa_modules.opcodes = (xtensa_opcode_internal *)more_opcodes;
    xtensa_modules.num_opcodes = OPCODES + 2;
}

#endif
