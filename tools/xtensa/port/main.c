// micropython SCRIPT [ARGUMENT...]: runs a script.
#include <string.h>
#include "extmod/vfs.h"
#include "extmod/vfs_posix.h"
#include "py/builtin.h"
#include "py/compile.h"
#include "py/cstack.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"

#define HEAP_BYTES (4 << 20)
#define STACK_BYTES (64 << 10)

void port_spill_windows(void); // jumps.S
int start_main(int *arguments);

static char heap[HEAP_BYTES] __attribute__((aligned(16)));
static char *stack_top;

// Registers of the callers lie on the stack once their windows are spilled.
void gc_collect(void) {
    port_spill_windows();
    void *here;
    gc_collect_start();
    gc_collect_root(&here, (size_t)(stack_top - (char *)&here) / sizeof(mp_uint_t));
    gc_collect_end();
}

void nlr_jump_fail(void *value) {
    (void)value;
    mp_print_str(&mp_plat_print, "an exception without a handler\n");
    _exit(99);
}

// The files of the machine are those of the program.
static void mount_files(void) {
    mp_obj_t arguments[] = {
        MP_OBJ_TYPE_GET_SLOT(&mp_type_vfs_posix, make_new)(&mp_type_vfs_posix, 0, 0, NULL),
        MP_OBJ_NEW_QSTR(MP_QSTR__slash_),
    };
    mp_vfs_mount(2, arguments, (mp_map_t *)&mp_const_empty_map);
    MP_STATE_VM(vfs_cur) = MP_STATE_VM(vfs_mount_table);
}

static void run_file(const char *path) {
    mp_lexer_t *lexer = mp_lexer_new_from_file(qstr_from_str(path));
    const qstr name = lexer->source_name;
    mp_parse_tree_t tree = mp_parse(lexer, MP_PARSE_FILE_INPUT);
    mp_call_function_0(mp_compile(&tree, name, false));
}

// What SystemExit holds: none, a number, or a text.
static int exit_status(mp_obj_t exception) {
    const mp_obj_t value = mp_obj_exception_get_value(exception);
    mp_int_t status = 1;
    if (value == mp_const_none)
        return 0;
    return mp_obj_get_int_maybe(value, &status) ? (int)status : 1;
}

static int run_script(const char *path) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mount_files();
        run_file(path);
        nlr_pop();
        return 0;
    }
    const mp_obj_t exception = MP_OBJ_FROM_PTR(nlr.ret_val);
    const mp_obj_t type = MP_OBJ_FROM_PTR(mp_obj_get_type(exception));
    if (mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_SystemExit)))
        return exit_status(exception);
    mp_obj_print_exception(&mp_plat_print, exception);
    return 1;
}

int start_main(int *arguments) {
    const int count = arguments[0];
    char **words = (char **)&arguments[1];
    stack_top = (char *)arguments;
    mp_cstack_init_with_sp_here(STACK_BYTES);
    gc_init(heap, heap + sizeof(heap));
    mp_init();
    if (count < 2) {
        mp_print_str(&mp_plat_print, "usage: micropython SCRIPT [ARGUMENT...]\n");
        return 2;
    }
    for (int i = 1; i < count; i++)
        mp_obj_list_append(mp_sys_argv, mp_obj_new_str(words[i], strlen(words[i])));
    const int status = run_script(words[1]);
    mp_deinit();
    return status;
}
