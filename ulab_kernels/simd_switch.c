#include "simd_vector.h"

#if ST_HAS_SIMD

static int is_off;

int st_simd_is_on(void) {
    return !is_off && __builtin_cpu_supports("avx2");
}

int st_simd_set(int on) {
    is_off = !on;
    return st_simd_is_on();
}

// Of each thread its own: two twins in two threads run at once.
static __thread st_simd_scratch_t scratch __attribute__((aligned(64)));

st_simd_scratch_t *st_simd_scratch(void) {
    return &scratch;
}

ST_AVX2 void st_simd_widen(const int8_t *x, int32_t n, int32_t zero, int16_t *to) {
    const st_vec_t z = _mm256_set1_epi16((int16_t)zero);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        vec_store(to + i, _mm256_sub_epi16(vec_widen(x + i), z));
    for (; i < n; i++)
        to[i] = (int16_t)(x[i] - zero);
}

#endif
