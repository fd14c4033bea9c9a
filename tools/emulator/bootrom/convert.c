// Conversions between floating point and integer or fixed point, as the datasheet's float tables
// ask for them: towards minus infinity, saturating. C's casts truncate, so none is used here.
#include <stdint.h>
#include "rom_float.h"

typedef struct { uint64_t magnitude; int negative; int overflow; } fixed_t;

// |x| * 2^fraction_bits rounded towards minus infinity (magnitude up for negative x).
static fixed_t to_fixed(double x, int fraction_bits)
{
    uint64_t bits = double_bits(x);
    int exponent = (int)(bits >> 52 & 0x7ff);
    fixed_t out = {0, (int)(bits >> 63), 0};
    if (exponent == 0) {
        return out;
    }
    uint64_t mantissa = (bits & ((1ull << 52) - 1)) | 1ull << 52;
    int shift = exponent - 1075 + fraction_bits;
    if (shift > 11) {
        out.overflow = 1;
    } else if (shift >= 0) {
        out.magnitude = mantissa << shift;
    } else {
        int right = shift < -63 ? 63 : -shift;
        out.magnitude = mantissa >> right;
        out.magnitude += out.negative && (out.magnitude << right) != mantissa;
    }
    return out;
}

static int64_t to_signed(double x, int fraction_bits, int64_t largest)
{
    fixed_t f = to_fixed(x, fraction_bits);
    uint64_t limit = (uint64_t)largest + (uint64_t)f.negative;
    uint64_t magnitude = f.overflow || f.magnitude > limit ? limit : f.magnitude;
    return (int64_t)(f.negative ? 0 - magnitude : magnitude);
}

static uint64_t to_unsigned(double x, int fraction_bits, uint64_t largest)
{
    fixed_t f = to_fixed(x, fraction_bits);
    if (f.negative) {
        return 0;
    }
    return f.overflow || f.magnitude > largest ? largest : f.magnitude;
}

int32_t rom_d2fix(double x, int n) { return (int32_t)to_signed(x, n, INT32_MAX); }
int32_t rom_d2int(double x) { return rom_d2fix(x, 0); }
uint32_t rom_d2ufix(double x, int n) { return (uint32_t)to_unsigned(x, n, UINT32_MAX); }
uint32_t rom_d2uint(double x) { return rom_d2ufix(x, 0); }
int64_t rom_d2fix64(double x, int n) { return to_signed(x, n, INT64_MAX); }
int64_t rom_d2int64(double x) { return rom_d2fix64(x, 0); }
uint64_t rom_d2ufix64(double x, int n) { return to_unsigned(x, n, UINT64_MAX); }
uint64_t rom_d2uint64(double x) { return rom_d2ufix64(x, 0); }

int32_t rom_f2fix(float x, int n) { return rom_d2fix(x, n); }
int32_t rom_f2int(float x) { return rom_d2fix(x, 0); }
uint32_t rom_f2ufix(float x, int n) { return rom_d2ufix(x, n); }
uint32_t rom_f2uint(float x) { return rom_d2ufix(x, 0); }
int64_t rom_f2fix64(float x, int n) { return rom_d2fix64(x, n); }
int64_t rom_f2int64(float x) { return rom_d2fix64(x, 0); }
uint64_t rom_f2ufix64(float x, int n) { return rom_d2ufix64(x, n); }
uint64_t rom_f2uint64(float x) { return rom_d2ufix64(x, 0); }

float rom_fix2f(int32_t x, int n) { return (float)x * float_power_of_2(-n); }
float rom_ufix2f(uint32_t x, int n) { return (float)x * float_power_of_2(-n); }
float rom_fix642f(int64_t x, int n) { return (float)x * float_power_of_2(-n); }
float rom_ufix642f(uint64_t x, int n) { return (float)x * float_power_of_2(-n); }
double rom_fix2d(int32_t x, int n) { return x * power_of_2(-n); }
double rom_ufix2d(uint32_t x, int n) { return x * power_of_2(-n); }
double rom_fix642d(int64_t x, int n) { return (double)x * power_of_2(-n); }
double rom_ufix642d(uint64_t x, int n) { return (double)x * power_of_2(-n); }
