// Copying and filling short runs without a library call: on Cortex-M0+ whole words where all is
// aligned. The places do not overlap.
#ifndef ST_COPY_BYTES_H
#define ST_COPY_BYTES_H

#include <stdint.h>

void st_copy_bytes(int8_t *to, const int8_t *from, int32_t n);
void st_fill_bytes(int8_t *to, int32_t value, int32_t n);

#endif
