#include "methods.h"

#include "augment.h"
#include "decay.h"
#include "program.h"
#include "random.h"

static char *append(char *to, const char *end, const char *text) {
    while (*text && to < end)
        *to++ = *text++;
    *to = 0;
    return to;
}

static char *append_number(char *to, const char *end, int32_t value) {
    char digits[12];
    char *d = digits + sizeof(digits) - 1;
    *d = 0;
    do {
        *--d = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return append(to, end, d);
}

void st_method_run(const st_arg_t *arg, st_result_t *result) {
    st_machine_t machine;
    for (int i = 0; i < ST_BUFFERS; i++)
        machine.buffer[i] = (st_buffer_t){arg[i].data, arg[i].size};
    arg += ST_BUFFERS;
    machine.training = arg[2].value & 1;
    machine.cores = (st_cores_t)(arg[2].value >> 1 & 3);
    int32_t at;
    st_status_t status =
        st_program_run(&machine, (int32_t)arg[0].value, (int32_t)arg[1].value, &at);
    result->value = machine.cores == ST_BOTH_CORES ? 2 : 1;
    if (status == ST_OK)
        return;
    result->is_interrupted = status == ST_INTERRUPTED;
    const char *end = result->error + ST_ERROR_TEXT - 1;
    char *to = append(result->error, end, "operator ");
    to = append_number(to, end, at < 0 ? 0 : at);
    to = append(to, end, ": ");
    to = append(to, end, st_status_text(status));
    result->error_length = (size_t)(to - result->error);
}

static void refuse(st_result_t *result, const char *text) {
    const char *end = result->error + ST_ERROR_TEXT - 1;
    result->error_length = (size_t)(append(result->error, end, text) - result->error);
}

void st_method_gather(const st_arg_t *arg, st_result_t *result) {
    const st_arg_t to = arg[0], from = arg[2];
    const uint32_t to_at = arg[1].value, from_at = arg[3].value;
    const uint32_t step = arg[4].value, count = arg[5].value;
    const uint64_t last = from_at + (uint64_t)step * (count ? count - 1 : 0);
    if (count > to.size || to_at > to.size - count || (count && last >= from.size)) {
        refuse(result, "gather reaches outside");
        return;
    }
    uint8_t *into = (uint8_t *)to.data + to_at;
    const uint8_t *source = (const uint8_t *)from.data + from_at;
    for (uint32_t i = 0; i < count; i++)
        into[i] = source[i * (size_t)step];
}

void st_method_augment(const st_arg_t *arg, st_result_t *result) {
    st_augment_t p = {0};
    if (arg[1].size == sizeof(p))
        __builtin_memcpy(&p, arg[1].data, sizeof(p)); // wherever it lies
    if (st_augment_is_possible(&p, arg[0].size))
        augment_s8(&p, arg[2].value, arg[0].data);
    else
        refuse(result, "impossible augmentation");
}

static int is_inside(uint32_t at, uint32_t count, size_t size) {
    return count <= size && at <= size - count;
}

void st_method_decay(const st_arg_t *arg, st_result_t *result) {
    const st_arg_t state = arg[0];
    const uint32_t at = arg[1].value, fractions_at = arg[2].value, count = arg[3].value;
    const st_share_t share = {arg[4].value, (int32_t)arg[5].value};
    const int has_fractions = fractions_at != UINT32_MAX;
    if (!is_inside(at, count, state.size) ||
        (has_fractions && !is_inside(fractions_at, count, state.size))) {
        refuse(result, "decay reaches outside");
        return;
    }
    if (share.mantissa > UINT16_MAX || share.shift < 16) {
        refuse(result, "decay of 1 or more");
        return;
    }
    int8_t *data = (int8_t *)state.data;
    st_decay(data + at, has_fractions ? data + fractions_at : NULL, count, share, arg[6].value, at);
}

void st_method_random(const st_arg_t *arg, st_result_t *result) {
    result->value = (int32_t)(st_random(arg[0].value, arg[1].value) >> 2);
}

void st_method_abi(const st_arg_t *arg, st_result_t *result) {
    (void)arg;
    result->value = ST_IMAGE_VERSION;
}
