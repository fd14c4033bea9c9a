// Square root and elementary functions. Series in double precision, chosen for size: MicroPython
// brings its own libm, so only hand-written SDK programs come here.
#include <stdint.h>
#include "rom_float.h"

#define PI_2_HIGH 1.5707963267341256       // pi/2 in two parts, so that k * high is exact
#define PI_2_LOW 6.0771005065061922e-11
#define LN2_HIGH 0.69314718036912382
#define LN2_LOW 1.9082149292705877e-10
#define MINUS_INFINITY bits_double(0xfff0000000000000ull)

static double floor_to_int(double x, int *k)
{
    int n = (int)x;
    n -= n > x;
    *k = n;
    return n;
}

// floor(sqrt(mantissa * 2^54)) digit by digit: 54 bits, the last one only for rounding.
static uint64_t root_of_mantissa(uint64_t mantissa)
{
    uint64_t root = 0, rest = 0;
    for (int i = 0; i < 54; i++) {
        rest = rest << 2 | (mantissa >> 52 & 3);
        mantissa <<= 2;
        uint64_t trial = root << 2 | 1;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1;
        }
    }
    return root;
}

double rom_dsqrt(double x)
{
    uint64_t bits = double_bits(x);
    int exponent = (int)(bits >> 52 & 0x7ff);
    if (exponent == 0) {
        return 0;
    }
    if (bits >> 63) {
        return MINUS_INFINITY;
    }
    if (exponent == 0x7ff) {
        return x;
    }
    int power = exponent - 1023;
    uint64_t mantissa = (bits & ((1ull << 52) - 1)) | 1ull << 52;
    uint64_t root = (root_of_mantissa(mantissa << (power & 1)) + 1) >> 1;
    return bits_double(((uint64_t)((power >> 1) + 1022) << 52) + root);
}

// x = k * pi/2 + r with |r| <= pi/4; returns r.
static double reduce_angle(double x, int *k)
{
    double turns = floor_to_int(x * 0.63661977236758134 + 0.5, k);
    return x - turns * PI_2_HIGH - turns * PI_2_LOW;
}

// Taylor series of sine (odd = 1) or cosine (odd = 0) for |r| <= pi/4.
static double circular_series(double r, int odd)
{
    double term = odd ? r : 1, sum = 0;
    for (int n = odd; n < 20; n += 2) {
        sum += term;
        term = -term * r * r / ((n + 1) * (n + 2));
    }
    return sum;
}

static double circular(double x, int quarter)
{
    int k;
    double r = reduce_angle(x, &k);
    k += quarter;
    double value = circular_series(r, !(k & 1));
    return k & 2 ? -value : value;
}

double rom_dsin(double x) { return circular(x, 0); }
double rom_dcos(double x) { return circular(x, 1); }
double rom_dtan(double x) { return rom_dsin(x) / rom_dcos(x); }

double rom_dexp(double x)
{
    if (x < -708) {
        return 0;
    }
    if (x > 709) {
        return -MINUS_INFINITY;
    }
    int k;
    double turns = floor_to_int(x * 1.4426950408889634 + 0.5, &k);
    double r = x - turns * LN2_HIGH - turns * LN2_LOW;
    double term = 1, sum = 0;
    for (int n = 1; n < 18; n++) {
        sum += term;
        term = term * r / n;
    }
    return sum * power_of_2(k);
}

// t + t^3/3 + ... (sign 1) or t - t^3/3 + ... (sign -1): artanh and arctan of a small t.
static double odd_series(double t, int sign)
{
    double power = t, sum = 0;
    for (int n = 1; n < 44; n += 2) {
        sum += power / n;
        power *= sign * t * t;
    }
    return sum;
}

double rom_dln(double x)
{
    uint64_t bits = double_bits(x);
    int exponent = (int)(bits >> 52 & 0x7ff);
    if (bits >> 63 || exponent == 0) {
        return MINUS_INFINITY;
    }
    if (exponent == 0x7ff) {
        return x;
    }
    double m = bits_double((bits & ((1ull << 52) - 1)) | 1023ull << 52);
    int k = exponent - 1023;
    if (m > 1.4142135623730951) {
        m *= 0.5;
        k++;
    }
    return 2 * odd_series((m - 1) / (m + 1), 1) + k * LN2_LOW + k * LN2_HIGH;
}

// arctan(y / x) for 0 <= y <= x, x > 0.
static double first_octant(double y, double x)
{
    double t = y / x;
    if (t > 0.41421356237309503) {
        return 0.78539816339744828 + odd_series((t - 1) / (t + 1), -1);
    }
    return odd_series(t, -1);
}

double rom_datan2(double y, double x)
{
    double ay = y < 0 ? -y : y, ax = x < 0 ? -x : x, angle;
    if (ax == 0 && ay == 0) {
        angle = 0;
    } else if (ay > ax) {
        angle = 1.5707963267948966 - first_octant(ax, ay);
    } else {
        angle = first_octant(ay, ax);
    }
    if (double_bits(x) >> 63) {
        angle = 3.1415926535897931 - angle;
    }
    return double_bits(y) >> 63 ? -angle : angle;
}

float rom_fsqrt(float x) { return (float)rom_dsqrt(x); }
float rom_fsin(float x) { return (float)rom_dsin(x); }
float rom_fcos(float x) { return (float)rom_dcos(x); }
float rom_ftan(float x) { return (float)rom_dtan(x); }
float rom_fexp(float x) { return (float)rom_dexp(x); }
float rom_fln(float x) { return (float)rom_dln(x); }
float rom_fatan2(float y, float x) { return (float)rom_datan2(y, x); }

typedef struct { float sine, cosine; } sincos_t;

// r0 and r1 of the answer: sine and cosine.
uint64_t rom_fsincos(float x)
{
    union { sincos_t pair; uint64_t registers; } out = {{rom_fsin(x), rom_fcos(x)}};
    return out.registers;
}
