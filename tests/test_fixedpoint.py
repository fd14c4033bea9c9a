"""The fixed-point functions against exact integers and against the real functions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from c_tools import Probe
from small_models import Array

INT32_MAX = 2**31 - 1


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(tmp_path_factory.mktemp("probe"))


def integers(rng: np.random.Generator, count: int, bits: int = 31) -> Array:
    """Of all magnitudes and signs, with the ends of the range."""
    ends = [0, 1, -1, 2**bits - 1, -(2**bits)]
    magnitudes = 2.0 ** rng.uniform(0, bits, count)
    return np.concatenate([ends, (magnitudes * rng.choice((-1, 1), count)).astype(np.int64)])


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


def scales(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Multipliers in [2^30, 2^31), the power of two among them, and shifts."""
    multipliers = rng.integers(2**30, 2**31, count)
    multipliers[::7] = 2**30
    return multipliers, rng.integers(-31, 8, count)


def test_requantize(probe: Probe) -> None:
    """Rounded twice: ties upwards at 2^-31, ties away from zero behind it."""
    rng = np.random.default_rng(1)
    x = integers(rng, 20000, 23)
    multipliers, shifts = scales(rng, len(x))
    for got, a, m, s in zip(
        probe("requantize", x, multipliers, shifts)[:, 0], x, multipliers, shifts, strict=True
    ):
        high = half_up(Fraction(int(a) * 2 ** max(0, int(s)) * int(m), 2**31))
        assert got == half_away(Fraction(high, 2 ** max(0, -int(s)))), (a, m, s)


def test_requantize_once(probe: Probe) -> None:
    rng = np.random.default_rng(2)
    x = integers(rng, 20000, 23)
    multipliers, shifts = scales(rng, len(x))
    for got, a, m, s in zip(
        probe("requantize_once", x, multipliers, shifts)[:, 0], x, multipliers, shifts, strict=True
    ):
        assert got == half_away(Fraction(int(a) * int(m), 2 ** (31 - int(s)))), (a, m, s)


def test_mul_q15(probe: Probe) -> None:
    rng = np.random.default_rng(3)
    x = integers(rng, 20000)
    q = rng.integers(0, 2**15 + 1, len(x))
    q[::5] = 2**15
    assert (probe("mul_q15", x, q)[:, 0] == (x * q) >> 15).all()


def test_exp(probe: Probe) -> None:
    """Absolute error in units of 1: that of gemmlowp's polynomial."""
    x = np.concatenate([np.arange(0, -70000, -7), np.linspace(0, -(2**31), 20001).astype(np.int64)])
    wanted = np.exp(x / 2.0**26)
    assert np.abs(probe("exp", x)[:, 0] / 2.0**31 - wanted).max() < 2.0**-22


def test_reciprocal(probe: Probe) -> None:
    """Of sums of exponentials, 1 to 4095 in Q12.19: relative error."""
    x = np.concatenate(
        [2 ** np.arange(19, 31), np.linspace(2**19, INT32_MAX, 20001).astype(np.int64)]
    )
    mantissa, bits = probe("reciprocal", x).T
    assert (mantissa > 2**30 - 16).all()
    relative = mantissa / 2.0**31 * 2.0**-bits * (x / 2.0**19) - 1
    assert np.abs(relative).max() < 2.0**-26


def test_ln(probe: Probe) -> None:
    """Of sums of exponentials, as the loss takes them."""
    x = np.concatenate(
        [2 ** np.arange(19, 31), np.linspace(2**19, INT32_MAX, 50001).astype(np.int64)]
    )
    error = probe("ln", x, 19)[:, 0] / 65536 - np.log(x / 2.0**19)
    assert np.abs(error).max() < 2.0**-13


def test_random_bits_are_uniform_and_uncorrelated(probe: Probe) -> None:
    """Along counters and along seeds: the rounding of one weight over steps, of all in one."""
    n = 1 << 16
    lines = {
        "counters": probe("random", 12345, np.arange(n))[:, 0],
        "seeds": probe("random", np.arange(n), 77)[:, 0],
        "both": probe("random", np.arange(n), np.arange(n))[:, 0],
    }
    for name, bits in lines.items():
        u = (bits & 0xFFFFFFFF) / 2.0**32
        counts = np.histogram(u, 256, (0, 1))[0]
        assert ((counts - n / 256) ** 2 / (n / 256)).sum() < 255 + 5 * np.sqrt(2 * 255), name
        for lag in (1, 2, 3, 64, 576):
            assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 5 / np.sqrt(n), (name, lag)
