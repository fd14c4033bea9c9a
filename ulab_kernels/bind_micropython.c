// MicroPython's side of the method table: a module of the firmware, or (with dynruntime) a native
// .mpy. Nothing but conversion happens here.
#ifdef MICROPY_ENABLE_DYNRUNTIME
#include "py/dynruntime.h"
#else
#include "py/cstack.h"
#include "py/obj.h"
#include "py/runtime.h"
#endif
#include "interrupt.h"
#include "methods.h"

typedef void (*st_method_t)(const st_arg_t *arg, st_result_t *result);

static void convert(char kind, mp_obj_t from, st_arg_t *to) {
    if (kind == 'i') {
        to->value = (uint32_t)mp_obj_get_int_truncated(from);
        return;
    }
    mp_buffer_info_t info;
    mp_get_buffer_raise(from, &info, kind == 'w' ? MP_BUFFER_WRITE : MP_BUFFER_READ);
    to->data = info.buf;
    to->size = info.len;
}

#ifdef MICROPY_ENABLE_DYNRUNTIME

static void check_stack(void) { // a native module is told of no limit
}

#else

// Bytes of stack that a method takes at most (tests/test_both_cores.py counts), and that interrupts
// take beyond the margin that MicroPython keeps for them.
#define METHOD_STACK 3072
#define INTERRUPTS 384

// Below the stack lies the heap: too deep a call would write over objects.
static void check_stack(void) {
#if MICROPY_STACK_CHECK
    if (mp_cstack_usage() + METHOD_STACK + INTERRUPTS > MP_STATE_THREAD(stack_limit))
        mp_raise_recursion_depth();
#endif
}

#endif

#ifdef ST_INTERRUPTS

#include "shared/tinyusb/mp_usbd.h"

// USB is not asked within one of its own callbacks, nor by what may not wait for it: there nothing
// is pending.
static bool may_ask_usb(void) {
    return MP_STATE_VM(sched_state) == MP_SCHED_PENDING && mp_thread_is_main_thread();
}

// What came over USB is looked at when MicroPython's loop has time for it, which is now.
static void ask_usb(void) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) { // an exception would leave the second core running
        mp_usbd_task();
        nlr_pop();
    }
}

int st_is_interrupted(void) {
    if (may_ask_usb())
        ask_usb();
    return MP_STATE_THREAD(mp_pending_exception) != MP_OBJ_NULL;
}

static void raise_interrupt(void) {
    mp_handle_pending(true);
}

#else

static void raise_interrupt(void) {
}

#endif

static mp_obj_t call(st_method_t method, const char *signature, const mp_obj_t *args) {
    st_arg_t arg[ST_MAX_ARGS];
    st_result_t result;
    check_stack();
    result.value = 0;
    result.error_length = 0;
    result.is_interrupted = 0;
    for (int i = 0; signature[i]; i++)
        convert(signature[i], args[i], &arg[i]);
    method(arg, &result);
    if (result.is_interrupted)
        raise_interrupt();
    if (result.error_length) // as a str object: the text lies on this stack
        mp_raise_type_arg(&mp_type_ValueError, mp_obj_new_str(result.error, result.error_length));
    return mp_obj_new_int(result.value);
}

#define ST_METHOD(name, qstr, signature)                                                           \
    static mp_obj_t mod_##name(size_t n, const mp_obj_t *args) {                                   \
        (void)n;                                                                                   \
        return call(st_method_##name, signature, args);                                            \
    }                                                                                              \
    static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(mod_##name##_obj, sizeof(signature) - 1,            \
                                               sizeof(signature) - 1, mod_##name);
#include "methods.def.h"
#undef ST_METHOD

#ifdef MICROPY_ENABLE_DYNRUNTIME

__attribute__((externally_visible)) mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args,
                                                      size_t n_kw, mp_obj_t *args) {
    MP_DYNRUNTIME_INIT_ENTRY
#define ST_METHOD(name, qstr, signature) mp_store_global(qstr, MP_OBJ_FROM_PTR(&mod_##name##_obj));
#include "methods.def.h"
#undef ST_METHOD
    MP_DYNRUNTIME_INIT_EXIT
}

#else

static const mp_rom_map_elem_t globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_sparsetune_kernels)},
#define ST_METHOD(name, qstr, signature) {MP_ROM_QSTR(qstr), MP_ROM_PTR(&mod_##name##_obj)},
#include "methods.def.h"
#undef ST_METHOD
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t sparsetune_kernels_module = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&globals,
};
MP_REGISTER_MODULE(MP_QSTR_sparsetune_kernels, sparsetune_kernels_module);

#endif
