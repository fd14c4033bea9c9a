"""Real factors as fixed-point numbers, exactly as TFLite's reference kernels derive them."""

from __future__ import annotations

import math

import numpy as np

from .graph import Array

Requant = tuple[int, int]


def quantize_multiplier(real: float) -> Requant:
    """(multiplier, shift) with real ~ multiplier * 2^(shift - 31) and multiplier in [2^30, 2^31).

    TFLite's QuantizeMultiplier; factors below 2^-32 become 0.
    """
    if real == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    multiplier = math.floor(mantissa * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def rate(real: float) -> Requant:
    """(mantissa, exponent) with real ~ mantissa * 2^exponent and mantissa in [2^15, 2^16)."""
    if real == 0.0:
        return 0, 0
    fraction, exponent = math.frexp(real)
    mantissa = round(fraction * 65536)
    if mantissa == 65536:
        mantissa, exponent = 32768, exponent + 1
    return mantissa, exponent - 16


def softmax_scaling(beta: float, scale: float) -> tuple[int, int, int]:
    """(multiplier, left_shift, diff_min) of an int8 softmax: differences in Q5.26."""
    real = min(beta * scale * (1 << 26), float((1 << 31) - 1))
    multiplier, left_shift = quantize_multiplier(real)
    radius = math.floor(31 * (1 << 26) / (1 << left_shift))
    return multiplier, left_shift, -min(radius, 255)


def activation_range(activation: int, scale: float, zero_point: int) -> tuple[int, int]:
    """int8 limits of a fused activation (TFLite's ActivationFunctionType)."""
    limits = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}[activation]
    low, high = (
        None if v is None else zero_point + _round_half_away(np.float32(v) / np.float32(scale))
        for v in limits
    )
    return max(-128, low if low is not None else -128), min(127, high if high is not None else 127)


def _round_half_away(value: float) -> int:
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def channel_scale_q15(scales: Array) -> tuple[Array, int]:
    """(uint16 [channels], k) with scales ~ q15 / 2^15 * 2^k, the largest in (2^14, 2^15]."""
    exponent = math.frexp(float(scales.max()))[1]
    q15 = np.round(scales / 2.0**exponent * 32768)
    return q15.astype(np.uint16), exponent
