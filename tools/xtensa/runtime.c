// What the compiler calls for 64-bit integers. Debian's libgcc keeps to the ABI of the ESP8266,
// without register windows, and cannot be linked.
#include <stdint.h>

typedef union {
    int64_t value;
    uint64_t bits;
    struct {
        uint32_t low, high;
    } half;
} word64_t;

int64_t __ashldi3(int64_t value, int n);
int64_t __lshrdi3(int64_t value, int n);
int64_t __ashrdi3(int64_t value, int n);
uint64_t __umulsidi3(uint32_t a, uint32_t b);
int64_t __muldi3(int64_t a, int64_t b);
int __popcountsi2(uint32_t bits);

int64_t __ashldi3(int64_t value, int n) {
    word64_t w = {value};
    if (n >= 32)
        w.half.high = w.half.low << (n - 32), w.half.low = 0;
    else if (n)
        w.half.high = w.half.high << n | w.half.low >> (32 - n), w.half.low <<= n;
    return w.value;
}

int64_t __lshrdi3(int64_t value, int n) {
    word64_t w = {value};
    if (n >= 32)
        w.half.low = w.half.high >> (n - 32), w.half.high = 0;
    else if (n)
        w.half.low = w.half.low >> n | w.half.high << (32 - n), w.half.high >>= n;
    return w.value;
}

int64_t __ashrdi3(int64_t value, int n) {
    word64_t w = {value};
    const int32_t high = (int32_t)w.half.high;
    if (n >= 32)
        w.half.low = (uint32_t)(high >> (n - 32)), w.half.high = (uint32_t)(high >> 31);
    else if (n)
        w.half.low = w.half.low >> n | w.half.high << (32 - n), w.half.high = (uint32_t)(high >> n);
    return w.value;
}

// By halves: only where the core has no MULUH is this called at all.
uint64_t __umulsidi3(uint32_t a, uint32_t b) {
    const uint32_t a_low = a & 0xffff, a_high = a >> 16, b_low = b & 0xffff, b_high = b >> 16;
    const uint32_t low = a_low * b_low, one = a_high * b_low + (low >> 16);
    const uint32_t other = a_low * b_high + (one & 0xffff);
    word64_t w;
    w.half.low = other << 16 | (low & 0xffff);
    w.half.high = a_high * b_high + (one >> 16) + (other >> 16);
    return w.bits;
}

int64_t __muldi3(int64_t a, int64_t b) {
    word64_t x = {a}, y = {b}, product;
    product.bits = __umulsidi3(x.half.low, y.half.low);
    product.half.high += x.half.high * y.half.low + x.half.low * y.half.high;
    return product.value;
}

int __popcountsi2(uint32_t bits) {
    int count = 0;
    for (; bits; bits &= bits - 1)
        count++;
    return count;
}
