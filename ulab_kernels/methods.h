// Methods of the module, free of any Python: the bindings turn objects into st_arg_t and back.
#ifndef ST_METHODS_H
#define ST_METHODS_H

#include <stddef.h>
#include <stdint.h>

#define ST_MAX_ARGS 8
#define ST_ERROR_TEXT 80

typedef struct {
    void *data; // of 'r' and 'w'
    size_t size;
    uint32_t value; // of 'i'
} st_arg_t;

typedef struct {
    int32_t value;
    char error[ST_ERROR_TEXT];
    size_t error_length; // 0: no error
    int is_interrupted;  // the error is that the user broke it off
} st_result_t;

#define ST_METHOD(name, qstr, signature)                                                           \
    void st_method_##name(const st_arg_t *arg, st_result_t *result);
#include "methods.def.h"
#undef ST_METHOD

#endif
