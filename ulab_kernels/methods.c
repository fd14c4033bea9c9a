#include "methods.h"

#include "augment.h"
#include "choice.h"
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

static void refuse(st_result_t *result, const char *why) {
    const char *end = result->error + ST_ERROR_TEXT - 1;
    result->error_length = (size_t)(append(result->error, end, why) - result->error);
}

// Whether n elements lie in a buffer from byte `at` on, aligned.
static int has_room(const st_arg_t *buffer, uint32_t at, uint32_t n, uint32_t element) {
    const int is_aligned = (((uintptr_t)buffer->data + at) & (element - 1)) == 0;
    return is_aligned && n <= 1u << 16 && at <= buffer->size &&
           (size_t)n * element <= buffer->size - at;
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

void st_method_shuffle(const st_arg_t *arg, st_result_t *result) {
    if (!has_room(&arg[0], 0, arg[1].value, 2))
        refuse(result, "shuffle: the order is too short, or not of 16 bits");
    else
        st_shuffle((uint16_t *)arg[0].data, (int32_t)arg[1].value, arg[2].value);
}

void st_method_draw(const st_arg_t *arg, st_result_t *result) {
    const uint32_t scores = arg[1].value, count = arg[2].value, list = arg[3].value;
    const st_arg_t *state = &arg[0], *tree = &arg[5];
    uint8_t *data = (uint8_t *)state->data;
    if (!has_room(state, scores, count, sizeof(st_score_t)) ||
        !has_room(state, list, arg[4].value, 2) || arg[4].value > count ||
        !has_room(tree, 0, count, sizeof(uint32_t)) || !count) {
        refuse(result, "draw reaches outside, or draws more than there are");
        return;
    }
    const st_draw_t d = {(const st_score_t *)(data + scores), (int32_t)count, (int32_t)arg[4].value,
                         (uint32_t *)tree->data};
    st_draw(&d, arg[6].value, (uint16_t *)(data + list));
}

void st_method_mark(const st_arg_t *arg, st_result_t *result) {
    const uint32_t bits = arg[1].value, count = arg[2].value, list = arg[3].value;
    uint8_t *data = (uint8_t *)arg[0].data;
    if (count > 1u << 16 || !has_room(&arg[0], bits, (count + 7) / 8, 1) ||
        !has_room(&arg[0], list, arg[4].value, 2)) {
        refuse(result, "mark reaches outside");
        return;
    }
    result->value = st_mark(data + bits, (int32_t)count, (const uint16_t *)(data + list),
                            (int32_t)arg[4].value);
}

void st_method_random(const st_arg_t *arg, st_result_t *result) {
    result->value = (int32_t)(st_random(arg[0].value, arg[1].value) >> 2);
}

void st_method_abi(const st_arg_t *arg, st_result_t *result) {
    (void)arg;
    result->value = ST_IMAGE_VERSION;
}
