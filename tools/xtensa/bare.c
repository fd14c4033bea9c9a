// The kernels alone as a program of Linux, which QEMU runs: reads commands from its input, and
// answers on its output (tools/sparsetune_tools/linux_core.py).
#include <stdint.h>
#include "linux.h"
#include "program.h"

// What is there too where all files are compiled as one, of which the rest is left out.
#define BARE_ENTRY __attribute__((used, externally_visible))

enum { WRITE, READ, CALL };

typedef struct {
    uint32_t kind, address, count;
    uint32_t argument[4];
} command_t;

typedef uint32_t function_t(uint32_t, uint32_t, uint32_t, uint32_t);

// Behind it nothing is mapped: a kernel that reads there stops.
BARE_ENTRY uint8_t bare_memory[16 << 20] __attribute__((aligned(4096)));

// args: {buffer address, size} five times, how (methods.def.h), begin, end; result: status |
// operator << 8.
BARE_ENTRY int32_t bare_run(const uint32_t *arg);

int32_t bare_run(const uint32_t *arg) {
    st_machine_t m;
    for (int i = 0; i < ST_BUFFERS; i++)
        m.buffer[i] = (st_buffer_t){(uint8_t *)arg[2 * i], arg[2 * i + 1]};
    m.training = (int)arg[10] & 1;
    m.cores = (st_cores_t)(arg[10] >> 1);
    int32_t at;
    const int32_t status = (int32_t)st_program_run(&m, (int32_t)arg[11], (int32_t)arg[12], &at);
    return status | at << 8;
}

BARE_ENTRY uint32_t bare_load(const volatile uint32_t *address);

uint32_t bare_load(const volatile uint32_t *address) {
    return *address;
}

// Whether all bytes went through the call.
static int transfer(int32_t number, int file, uint32_t address, uint32_t count) {
    while (count) {
        const int32_t done = linux_call(number, file, (intptr_t)address, (intptr_t)count, 0, 0, 0);
        if (done <= 0)
            return 0;
        address += (uint32_t)done, count -= (uint32_t)done;
    }
    return 1;
}

static int obey(const command_t *c) {
    if (c->kind == WRITE)
        return transfer(LINUX_READ, 0, c->address, c->count);
    if (c->kind == READ)
        return transfer(LINUX_WRITE, 1, c->address, c->count);
    const uint32_t *arg = c->argument;
    const uint32_t result = ((function_t *)c->address)(arg[0], arg[1], arg[2], arg[3]);
    return transfer(LINUX_WRITE, 1, (uint32_t)&result, sizeof(result));
}

BARE_ENTRY int start_main(int *arguments);

int start_main(int *arguments) {
    (void)arguments;
    command_t c;
    while (transfer(LINUX_READ, 0, (uint32_t)&c, sizeof(c)) && obey(&c))
        ;
    return 0;
}
