"""Functions of one int8 value as tables of 256 entries, exactly as LiteRT's reference kernels
compute them (fixed point, or a table made in float32), and their slopes in real numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .graph import Array, Tensor
from .numerics import activation_range, quantize_multiplier

INPUTS = range(-128, 128)
INT16 = (-(1 << 15), (1 << 15) - 1)


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


def _shift_left(x: int, n: int, ends: tuple[int, int]) -> int:
    return _clamp(x << n, ends)


def requantized(x: int, real: float) -> int:
    """x * real, rounded twice (MultiplyByQuantizedMultiplier)."""
    multiplier, shift = quantize_multiplier(real)
    left, right = max(shift, 0), max(-shift, 0)
    return _round_shift(_high_mul(_wrapped(x << left), multiplier), right)


def _wrapped(x: int) -> int:
    return (x + (1 << 31)) % (1 << 32) - (1 << 31)


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
    real = _float32_values(x)
    with np.errstate(over="ignore"):  # to 1 / infinity
        return _stored(np.float32(1) / (np.float32(1) + np.exp(-real)), 256, -128)


def tanh(x: Tensor) -> Array:
    """Output scale 1/128, zero point 0."""
    return _stored(np.tanh(_float32_values(x)), 128, 0)


def _float32_values(x: Tensor) -> Array:
    """What the 256 integers stand for, in float32 as LiteRT has it."""
    steps = np.arange(-128, 128, dtype=np.float32) - np.float32(x.zero_point)
    values: Array = np.float32(x.scale) * steps
    return values


def _stored(values: Array, steps: int, zero_point: int) -> Array:
    """float32 values in 1/steps, rounded half away from zero."""
    rounded = np.trunc(values * np.float32(steps) + np.copysign(np.float32(0.5), values))
    table: Array = (rounded + zero_point).clip(-128, 127).astype(np.int8)
    return table
