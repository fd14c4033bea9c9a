// ADD, SUB and MUL of tensors that lie in one piece, or of a tensor and one value.
#include "simd_vector.h"

#if ST_HAS_SIMD

#define LEFT_SHIFT 20 // TFLite's headroom for int8 inputs of sums

typedef enum { ADD, SUB, MUL } kind_t;

// The factors of a run, in vectors.
typedef struct {
    vec_requant_t a, b, y;
    st_vec_t a_zero, b_zero;
    vec_output_t output;
} factors_t;

ST_AVX2_INLINE vec_requant_t same_for_all(st_requant_t f) {
    return vec_requant(_mm256_set1_epi32(f.multiplier), _mm256_set1_epi32(f.shift));
}

ST_AVX2_INLINE factors_t factors_of(const st_elementwise_t *p) {
    const factors_t f = {
        same_for_all(p->a_scale),     same_for_all(p->b_scale),
        same_for_all(p->y_scale),     _mm256_set1_epi32(p->a_zero),
        _mm256_set1_epi32(p->b_zero), vec_output(p->y_zero, p->act_min, p->act_max)};
    return f;
}

// Eight values of an operand, its zero point taken off.
ST_AVX2_INLINE st_vec_t operand(const int8_t *from, int32_t stride, st_vec_t zero) {
    const st_vec_t v = stride ? _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from))
                              : _mm256_set1_epi32(*from);
    return _mm256_sub_epi32(v, zero);
}

ST_AVX2_INLINE st_vec_t eight(const factors_t *f, st_vec_t a, st_vec_t b, const kind_t kind) {
    if (kind == MUL) {
        a = _mm256_mullo_epi32(a, b);
    } else {
        a = vec_requantize(_mm256_slli_epi32(a, LEFT_SHIFT), &f->a);
        b = vec_requantize(_mm256_slli_epi32(b, LEFT_SHIFT), &f->b);
        a = kind == ADD ? _mm256_add_epi32(a, b) : _mm256_sub_epi32(a, b);
    }
    return vec_clamp(vec_requantize(a, &f->y), &f->output);
}

// The first n <= 8 of what `from` gives, zeros behind them.
ST_AVX2_INLINE st_vec_t some_of(const int8_t *from, int32_t stride, int32_t n, st_vec_t zero) {
    int8_t some[8] = {0};
    __builtin_memcpy(some, from, stride ? (size_t)n : 1);
    return operand(some, stride, zero);
}

// A run of n outputs; strides are 0 or 1. Operands are read before what they give is written: y may
// be one of them.
typedef struct {
    const int8_t *a, *b;
    int8_t *y;
    int32_t a_stride, b_stride, n;
} run_t;

ST_AVX2_INLINE void run(const factors_t *f, run_t r, const kind_t kind) {
    int8_t out[32];
    for (; r.n >= 8; r.n -= 8, r.a += 8 * r.a_stride, r.b += 8 * r.b_stride, r.y += 8) {
        const st_vec_t v = eight(f, operand(r.a, r.a_stride, f->a_zero),
                                 operand(r.b, r.b_stride, f->b_zero), kind);
        vec_store(out, vec_narrow(v, v, v, v));
        __builtin_memcpy(r.y, out, 8);
    }
    if (!r.n)
        return;
    const st_vec_t v = eight(f, some_of(r.a, r.a_stride, r.n, f->a_zero),
                             some_of(r.b, r.b_stride, r.n, f->b_zero), kind);
    vec_store(out, vec_narrow(v, v, v, v));
    __builtin_memcpy(r.y, out, (size_t)r.n);
}

// Whether an operand lies as y does, so that all axes are one.
static int is_dense(const int32_t count[ST_AXES], const int32_t stride[ST_AXES]) {
    int32_t wanted = 1;
    for (int i = ST_AXES - 1; i >= 0; wanted *= count[i--])
        if (count[i] > 1 && stride[i] != wanted)
            return 0;
    return 1;
}

ST_AVX2_INLINE void all_runs(const st_elementwise_t *p, run_t r, const kind_t kind) {
    const factors_t f = factors_of(p);
    const int8_t *a = r.a, *b = r.b;
    if (is_dense(p->count, p->a_stride) && is_dense(p->count, p->b_stride)) {
        const int32_t n = p->count[0] * p->count[1] * p->count[2] * p->count[3];
        run(&f, (run_t){a, b, r.y, 1, 1, n}, kind);
        return;
    }
    for (int32_t i = 0; i < p->count[0]; i++)
        for (int32_t j = 0; j < p->count[1]; j++)
            for (int32_t k = 0; k < p->count[2]; k++, r.y += r.n) {
                r.a = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                r.b = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                run(&f, r, kind);
            }
}

// An innermost axis along which an operand takes larger steps is left to the portable kernel.
static int has_unit_steps(const st_elementwise_t *p) {
    return p->a_stride[3] <= 1 && p->b_stride[3] <= 1;
}

static run_t first_run(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    return (run_t){a, b, y, p->a_stride[3], p->b_stride[3], p->count[3]};
}

ST_AVX2 void add_s8_simd(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    if (has_unit_steps(p))
        all_runs(p, first_run(p, a, b, y), ADD);
    else
        add_s8(p, a, b, y);
}

ST_AVX2 void sub_s8_simd(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    if (has_unit_steps(p))
        all_runs(p, first_run(p, a, b, y), SUB);
    else
        sub_s8(p, a, b, y);
}

ST_AVX2 void mul_s8_simd(const st_elementwise_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    if (has_unit_steps(p))
        all_runs(p, first_run(p, a, b, y), MUL);
    else
        mul_s8(p, a, b, y);
}

#endif
