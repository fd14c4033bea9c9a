"""Functions of one int8 value as tables of 256 entries, exactly as TFLite's reference kernels
compute them (gemmlowp's fixed point), and their slopes in real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .graph import Array, Tensor
from .numerics import activation_range, quantize_multiplier

INPUTS = range(-128, 128)
INT16 = (-(1 << 15), (1 << 15) - 1)
INT32 = (-(1 << 31), (1 << 31) - 1)


def table_of(function: Callable[[int], int]) -> Array:
    """int8 [256]: function(x) for x from -128 on, clamped to int8."""
    return np.array([_clamp(function(x), (-128, 127)) for x in INPUTS], np.int8)


def slopes_of(x: Tensor, derivative: Callable[[float], float]) -> Array:
    """float64 [256]: the derivative of a function of the real value."""
    return np.array([derivative(x.scale * (q - x.zero_point)) for q in INPUTS])


# Fixed point ------------------------------------------------------------------------------------


def _clamp(value: int, ends: tuple[int, int]) -> int:
    return min(max(value, ends[0]), ends[1])


def _high_mul(a: int, b: int, bits: int = 31) -> int:
    """SaturatingRoundingDoublingHighMul of int32 (bits 31) or int16 (15): round(a b / 2^bits)."""
    lowest = -(1 << bits)
    if a == b == lowest:
        return -lowest - 1
    product = a * b
    nudge = 1 << (bits - 1) if product >= 0 else 1 - (1 << (bits - 1))
    return _truncated(product + nudge, 1 << bits)


def _truncated(a: int, b: int) -> int:
    """a / b towards zero, b > 0."""
    return a // b if a >= 0 else -(-a // b)


def _round_shift(x: int, n: int) -> int:
    """x / 2^n, ties away from zero (RoundingDivideByPOT)."""
    mask = (1 << n) - 1
    return (x >> n) + ((x & mask) > (mask >> 1) + (x < 0))


def _shift_left(x: int, n: int, ends: tuple[int, int] = INT32) -> int:
    return _clamp(x << n, ends)


def requantized(x: int, real: float) -> int:
    """x * real, rounded twice (MultiplyByQuantizedMultiplier)."""
    multiplier, shift = quantize_multiplier(real)
    left, right = max(shift, 0), max(-shift, 0)
    return _round_shift(_high_mul(_wrapped(x << left), multiplier), right)


def _wrapped(x: int) -> int:
    return (x + (1 << 31)) % (1 << 32) - (1 << 31)


def _exp_negative(x: int, fraction: int) -> int:
    """exp(x) for x <= 0 with `fraction` fractional bits: Q0.31 out (exp_on_negative_values)."""
    if x == 0:
        return INT32[1]
    quarter = 1 << (fraction - 2)
    mod = (x & (quarter - 1)) - quarter
    remainder = mod - x
    result = _exp_quarter(mod << (31 - fraction))
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for k, factor in enumerate(factors):  # exp(-2^k) for k = -2 ... 4
        if remainder & (quarter << k):
            result = _high_mul(result, factor)
    return result


def _exp_quarter(a: int) -> int:
    """exp(x) for x in [-1/4, 0), Q0.31: Taylor's series around -1/8."""
    factor, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = _high_mul(x, x)
    x3, x4 = _high_mul(x2, x), _high_mul(x2, x2)
    series = _high_mul(_round_shift(x4, 2) + x3, third) + x2
    return factor + _high_mul(factor, x + _round_shift(series, 1))


def _newton(a: int) -> tuple[int, int]:
    """(half of 1 + a, its reciprocal in Q2.29) for a in [0, 1], Q0.31: Newton and Raphson."""
    half = (a + INT32[1] + 1) >> 1
    x = 1515870810 + _high_mul(half, -1010580540)
    for _ in range(3):
        x += _shift_left(_high_mul(x, (1 << 29) - _high_mul(half, x)), 2)
    return half, x


def _one_over_one_plus(a: int) -> int:
    return _shift_left(_newton(a)[1], 1)


def _one_minus_over_one_plus(a: int) -> int:
    return _shift_left(_newton(a)[1] - (1 << 29), 2)


# Functions ---------------------------------------------------------------------------------------


def rescale(x: Tensor, y: Tensor) -> Array:
    """y = x in another scale: QUANTIZE from int8 to int8."""
    real = x.scale / y.scale
    return table_of(lambda q: y.zero_point + requantized(q - x.zero_point, real))


def clamp(x: Tensor, y: Tensor, activation: int) -> Array:
    """RELU and its like, or QUANTIZE. activation: TFLite's ActivationFunctionType."""
    if not activation:
        return rescale(x, y)
    low, high = activation_range(activation, y.scale, y.zero_point)
    ratio = float(np.float32(x.scale) / np.float32(y.scale))  # QUANTIZE divides in float64
    table = table_of(lambda q: y.zero_point + requantized(q - x.zero_point, ratio))
    return np.clip(table, low, high)


def leaky_relu(x: Tensor, y: Tensor, alpha: float) -> Array:
    scale, out = np.float32(x.scale), np.float32(y.scale)

    def value(q: int) -> int:
        real = float((scale if q >= x.zero_point else scale * np.float32(alpha)) / out)
        return y.zero_point + requantized(q - x.zero_point, real)

    return table_of(value)


def hard_swish(x: Tensor, y: Tensor) -> Array:
    """x relu6(x + 3) / 6, in int16."""
    hires = np.float32(1 / 128) * np.float32(x.scale)
    factor, shift = _int16_multiplier(float(hires / np.float32(y.scale)))
    reluish, reluish_shift = _int16_multiplier(float(hires / np.float32(3 / 32768)))

    def value(q: int) -> int:
        wide = (q - x.zero_point) * 128
        gate = _gate(wide, reluish, reluish_shift)
        product = _truncated(gate * _high_mul(wide, factor, 15), 1 << 15)
        return _round_shift(product, -shift) + y.zero_point

    return table_of(value)


def _gate(wide: int, multiplier: int, shift: int) -> int:
    """relu6(x + 3) / 6 in Q0.15, from x in 1/128 of a step."""
    value = _shift_left(wide, shift - 1, INT16) if shift > 0 else wide
    value = _high_mul(value, multiplier, 15)
    if shift > 0:
        value = _shift_left(value, 1, INT16)
    if shift < 0:
        value = _round_shift(value, -shift)
    return (value + (1 << 15)) >> 1


def _int16_multiplier(real: float) -> tuple[int, int]:
    multiplier, shift = quantize_multiplier(real)
    return min((multiplier + (1 << 15)) >> 16, INT16[1]), shift


def logistic(x: Tensor) -> Array:
    """1 / (1 + exp(-x)), output scale 1/256, zero point -128."""

    def value(a: int) -> int:
        half = _one_over_one_plus(_exp_negative(-abs(a), 27))
        positive = (1 << 30) if a == 0 else (half if a > 0 else INT32[1] - half)
        return _round_shift(positive, 23) - 128

    return _of_q4(x, value)


def tanh(x: Tensor) -> Array:
    """Output scale 1/128, zero point 0."""

    def value(a: int) -> int:
        # The same bits with one fractional bit less stand for 2 a.
        magnitude = _one_minus_over_one_plus(_exp_negative(-abs(a), 26))
        return _round_shift(0 if a == 0 else (magnitude if a > 0 else -magnitude), 24)

    return _of_q4(x, value)


def _of_q4(x: Tensor, function: Callable[[int], int]) -> Array:
    """Table of a function of Q4.27; beyond its range it is at its end."""
    multiplier, shift = quantize_multiplier(x.scale * (1 << 27))
    radius = math.floor(15 * (1 << 27) / (1 << shift)) if shift >= 0 else 1 << 31

    def value(q: int) -> int:
        centred = q - x.zero_point
        if abs(centred) >= radius:
            return -128 if centred <= -radius else 127
        wide = _high_mul(centred << max(shift, 0), multiplier)
        return function(_round_shift(wide, max(-shift, 0)))

    return table_of(value)
