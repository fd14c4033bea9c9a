#include "simd_vector.h"

#if ST_HAS_SIMD

static int allowed = ST_SIMD_AVX512;

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

int st_simd_is_on(void) {
    return allowed && __builtin_cpu_supports("avx2");
}

int st_simd_is_wide(void) {
    return allowed == ST_SIMD_AVX512 && has_avx512();
}

int st_simd_set(int most) {
    allowed = most;
    return st_simd_is_wide() ? ST_SIMD_AVX512 : st_simd_is_on() ? ST_SIMD_AVX2 : ST_SIMD_NONE;
}

// Of each thread its own: two twins in two threads run at once.
static __thread st_simd_scratch_t scratch __attribute__((aligned(64)));

st_simd_scratch_t *st_simd_scratch(void) {
    return &scratch;
}

// Eight channels; returns whether they shift to the right.
ST_AVX2 static int eight_factors(const int32_t *bias, const st_requant_t *requant,
                                 st_factors_t *to) {
    const vec_requant_t f = vec_requant_load(requant);
    __builtin_memcpy(to->bias, bias, sizeof(to->bias));
    vec_store(to->multiplier, f.multiplier);
    vec_store(to->left, f.left);
    vec_store(to->right, f.right);
    vec_store(to->mask, f.mask);
    vec_store(to->half, f.half);
    const st_vec_t less = _mm256_sub_epi32(f.right, _mm256_set1_epi32(1));
    vec_store(to->right_less_1, less);
    return !_mm256_movemask_ps(_mm256_castsi256_ps(less));
}

ST_AVX2 int st_simd_factors(const st_conv_params_t *p, int32_t first, int32_t count,
                            st_factors_t *to) {
    const int32_t *bias = p->bias + first;
    const st_requant_t *requant = p->requant + first;
    int all_right = 1;
    for (; count >= 8; count -= 8, bias += 8, requant += 8)
        all_right &= eight_factors(bias, requant, to++);
    if (!count)
        return all_right;
    int32_t some_bias[8] = {0};
    st_requant_t some_requant[8];
    for (int32_t i = 0; i < 8; i++)
        some_requant[i] = i < count ? requant[i] : (st_requant_t){0, -1};
    __builtin_memcpy(some_bias, bias, sizeof(*bias) * (size_t)count);
    return eight_factors(some_bias, some_requant, to) & all_right;
}

#endif
