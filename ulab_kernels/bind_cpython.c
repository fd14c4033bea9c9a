// CPython's side of the method table: the host twin runs the same C. Nothing but conversion.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "fast.h"
#include "methods.h"

typedef void (*st_method_t)(const st_arg_t *arg, st_result_t *result);

static int convert(char kind, PyObject *from, st_arg_t *to, Py_buffer *view) {
    if (kind == 'i') {
        to->value = (uint32_t)PyLong_AsUnsignedLongMask(from);
        return PyErr_Occurred() ? -1 : 0;
    }
    if (PyObject_GetBuffer(from, view, kind == 'w' ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return -1;
    to->data = view->buf;
    to->size = (size_t)view->len;
    return 0;
}

static PyObject *call(st_method_t method, const char *signature, PyObject *args) {
    st_arg_t arg[ST_MAX_ARGS] = {{0}};
    Py_buffer view[ST_MAX_ARGS] = {{0}};
    st_result_t result = {0};
    const Py_ssize_t n = (Py_ssize_t)strlen(signature);
    int failed = PyTuple_GET_SIZE(args) != n;
    if (failed)
        PyErr_Format(PyExc_TypeError, "expected %zd arguments", n);
    for (Py_ssize_t i = 0; !failed && i < n; i++)
        failed = convert(signature[i], PyTuple_GET_ITEM(args, i), &arg[i], &view[i]) < 0;
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS method(arg, &result);
        Py_END_ALLOW_THREADS
    }
    for (Py_ssize_t i = 0; i < ST_MAX_ARGS; i++)
        if (view[i].obj)
            PyBuffer_Release(&view[i]);
    if (!failed && result.error_length)
        PyErr_SetString(PyExc_ValueError, result.error);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(result.value);
}

#define ST_METHOD(name, qstr, signature)                                                           \
    static PyObject *mod_##name(PyObject *self, PyObject *args) {                                  \
        (void)self;                                                                                \
        return call(st_method_##name, signature, args);                                            \
    }
#include "methods.def.h"
#undef ST_METHOD

// Of CPython alone: which version of the kernels runs is decided in every other build when it is
// compiled (fast.h). The widest vectors that a text allows.
static int level_of(const char *text) {
    if (strcmp(text, "0") == 0)
        return ST_SIMD_NONE;
    return strcmp(text, "avx2") == 0 ? ST_SIMD_AVX2 : ST_SIMD_AVX512;
}

static PyObject *set_simd(PyObject *self, PyObject *wanted) {
    (void)self;
    if (wanted == Py_None)
        return PyBool_FromLong(st_simd_is_on());
    if (PyUnicode_Check(wanted)) {
        const char *text = PyUnicode_AsUTF8(wanted);
        return text ? PyBool_FromLong(st_simd_set(level_of(text)) == level_of(text)) : NULL;
    }
    const int on = PyObject_IsTrue(wanted);
    if (on < 0)
        return NULL;
    return PyBool_FromLong(st_simd_set(on ? ST_SIMD_AVX512 : ST_SIMD_NONE));
}

static PyMethodDef method_table[] = {
#define ST_METHOD(name, qstr, signature) {#name, mod_##name, METH_VARARGS, NULL},
#include "methods.def.h"
#undef ST_METHOD
    {"set_simd", set_simd, METH_O,
     "set_simd(on) -> bool: whether the fast kernels run from now on. None asks. They give the "
     "same bytes as\n"
     "the portable ones, which run where the processor lacks AVX2. on may name the widest vectors\n"
     "that they use, avx2 or avx512: then, whether it is those. At the start: all that there is,\n"
     "or what the environment says by SPARSETUNE_SIMD=0 or SPARSETUNE_SIMD=avx2."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "sparsetune_kernels", NULL, 0, method_table, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_sparsetune_kernels(void) {
    const char *wanted = getenv("SPARSETUNE_SIMD");
    st_simd_set(level_of(wanted ? wanted : ""));
    return PyModule_Create(&module);
}
