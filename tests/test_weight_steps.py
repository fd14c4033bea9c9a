"""The steps of weights on the emulated core. At their very edge: a sum that just moves one, and the
sum one below, which does not; and weights with a residual, from sums of all sizes. The rule is
written down again here (docs/DESIGN.md, Update), in whole numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from small_models import Array
from sparsetune_tools.bare import BareCore

Rates = list[tuple[int, int]]
MASK = 0xFFFFFFFF
ROWS, SUMS, FILTER, BASE, SEED = 12, 64, 80, 5, 0x12345
LEARNING_RATE = (40503, -9)
ERROR_EXPONENT = -3
LEAST_SHIFT, MOST_SHIFT = 32, 46


@pytest.fixture(scope="module")
def core() -> Iterator[BareCore]:
    with BareCore() as core:
        yield core


def mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def random_bits(row: int, slot: int) -> int:
    x = mix((SEED + (BASE + row * FILTER + slot // 2) * 0x9E3779B9) & MASK)
    return int.from_bytes(x.to_bytes(4, "little"), "big") if slot % 2 else x


def step_of(rate: tuple[int, int]) -> tuple[int, int]:
    """(mantissa, shift); what a shift exceeds the largest by is rounded off the mantissa."""
    mantissa = rate[0] * LEARNING_RATE[0] >> 17
    shift = -(rate[1] + LEARNING_RATE[1] + ERROR_EXPONENT + 17)
    beyond = min(shift - MOST_SHIFT, 31)
    if beyond > 0:
        return mantissa + (1 << beyond - 1) >> beyond, MOST_SHIFT
    return mantissa, shift


def moves(total: int, step: tuple[int, int], random: int) -> bool:
    rest = step[1] - 16
    return (total * step[0] + (1 << 15) >> 16) + (random >> 32 - rest) >= 1 << rest


def edge(step: tuple[int, int], random: int) -> int:
    """The least positive sum that moves a weight; 2^31 where none does."""
    low, high = 0, 1 << 31
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if moves(middle, step, random) else (middle + 1, high)
    return low


@pytest.mark.parametrize("shift", [32, 33, 40, 45, 46, 47, 48, 50])
@pytest.mark.parametrize("below", [0, 1])
def test_the_least_sum_that_moves_a_weight(shift: int, below: int, core: BareCore) -> None:
    rng = np.random.default_rng(shift)
    exponent = -(shift + 17 + LEARNING_RATE[1] + ERROR_EXPONENT)
    rates = [(int(m), exponent) for m in rng.integers(1 << 15, 1 << 16, ROWS)]
    edges = np.array(
        [[edge(step_of(r), random_bits(i, k)) for k in range(SUMS)] for i, r in enumerate(rates)]
    )
    can_move = edges < 1 << 31
    sums = np.where(can_move, edges - below, 0).astype("<i4")
    assert can_move.sum() > ROWS  # else nothing is tested
    weights = stepped(core, rates, sums)
    assert (weights == (0 if below else -1 * can_move)).all()


def stepped(core: BareCore, rates: Rates, sums: Array) -> Array:
    """What st_update_rows makes of weights that are 0."""
    weights = np.zeros((ROWS, FILTER), np.int8)
    return rows_stepped(core, rates, sums, np.arange(SUMS), weights, None)[0][:, :SUMS]


def rows_stepped(
    core: BareCore, rates: Rates, sums: Array, channels: Array, weights: Array,
    fractions: Array | None, calls: tuple[int, ...] = (ROWS,),
) -> tuple[Array, Array]:  # fmt: skip
    """(weights, fractions) behind st_update_rows. sums: [rows, slots]; of an odd number of slots
    there is room for one more. calls: rows that each one does."""
    at, places, slots = core.data + 64, {}, sums.shape[1]
    room = np.full((ROWS, slots + slots % 2), 12345, "<i4")
    room[:, :slots] = sums
    parts = {
        "channels": channels.astype("<u2").tobytes(),
        "rates": b"".join(struct.pack("<Hh", *rate) for rate in rates),
        "sums": room.tobytes(),
        "weights": bytes(BASE) + weights.tobytes(),
        "fractions": bytes(BASE) + (weights if fractions is None else fractions).tobytes(),
        "update": bytes(68),
        "rows": bytes(128),
    }
    for name, data in parts.items():
        places[name] = at
        core.write(at, data)
        at += len(data) + -len(data) % 4
    fine = 0 if fractions is None else places["fractions"]
    update = (0, SUMS, places["channels"], slots, places["weights"], 0, fine, 0, places["rates"], 0)
    core.write(
        places["update"],
        struct.pack("<10IHhi2I2i", *update, *LEARNING_RATE, ERROR_EXPONENT, SUMS, SEED, 0, ROWS),
    )
    rows = (places["update"], BASE, FILTER, 0, places["sums"], room.shape[1])
    core.write(places["rows"], struct.pack("<6I", *rows))
    core.call("st_begin_rows", places["rows"])
    for count in calls:
        core.call("st_update_rows", places["rows"], count)
    return tuple(
        np.frombuffer(core.read(places[name] + BASE, ROWS * FILTER), np.int8).reshape(ROWS, FILTER)
        for name in ("weights", "fractions")
    )


def fine_step(total: int, step: tuple[int, int], random: int) -> int:
    """Of a weight and its residual; of what does not fit 32 bits the product is made first."""
    mantissa, shift = step
    left = max(0, LEAST_SHIFT - shift)
    if shift > 0 and abs(total) <= (2**31 - 1) >> left:
        rest = shift + left - 16
        return (((total << left) * mantissa + (1 << 15) >> 16) + (random >> 32 - rest)) >> rest
    if shift <= 0:
        return limited(total * mantissa << min(-shift, 31), 2**31 - 1)
    product, rest = total * mantissa, shift - 16
    upper = product << -rest if rest <= 0 else product + (1 << rest >> 1) >> rest
    return limited(upper + (random >> 16) >> 16, 2**31 - 1)


def limited(value: int, limit: int) -> int:
    return max(-limit, min(limit, value))


def moved(weight: int, fraction: int, step: int) -> tuple[int, int]:
    if not step:
        return weight, fraction
    fine = limited(256 * weight + fraction - step, 127 * 256)
    coarse = fine + 128 >> 8
    return coarse, fine - 256 * coarse


@pytest.mark.parametrize("shift", [-3, 0, 5, 16, 24, 31, 32, 33, 40, 46, 50])
@pytest.mark.parametrize("slots", [1, 2, 7, 40, 63])
def test_weights_with_a_residual(shift: int, slots: int, core: BareCore) -> None:
    """Weights of all values with those at their limits and one beyond, sums of all sizes with the
    largest ones; rows some of which go by the loop and some by the portable rule."""
    rng = np.random.default_rng((shift + 9, slots))
    exponents = -(shift + 17 + LEARNING_RATE[1] + ERROR_EXPONENT) + rng.integers(-1, 2, ROWS)
    rates = [(int(rng.integers(1 << 15, 1 << 16)), int(e)) for e in exponents]
    rates[3] = (0, rates[3][1])
    bits = rng.integers(0, 32, (ROWS, slots))
    bits[6:] = np.maximum(bits[6:], min(31, LEAST_SHIFT + 2 - shift))  # these can be shifted
    sums = rng.integers(-(2**31), 2**31, (ROWS, slots)) >> bits
    sums[rng.random(sums.shape) < 0.1] = 0
    sums[0, 0], sums[1, -1] = -(2**31), 2**31 - 1
    weights = rng.choice([*range(-127, 128), *[-127, 127, 126, -126] * 30, -128], (ROWS, FILTER))
    fractions = rng.integers(-128, 128, (ROWS, FILTER))
    channels = np.sort(rng.permutation(FILTER)[:slots])
    got = rows_stepped(core, rates, sums, channels, weights.astype(np.int8),
                       fractions.astype(np.int8), (1, 5, ROWS - 6))  # fmt: skip
    want = weights.copy(), fractions.copy()
    for row in range(ROWS):
        for slot, channel in enumerate(channels):
            step = fine_step(int(sums[row, slot]), step_of(rates[row]), random_bits(row, slot))
            at = row, channel
            want[0][at], want[1][at] = moved(int(weights[at]), int(fractions[at]), step)
    assert (want[1] != fractions).any() or slots < 40
    for name, mine, reference in zip(("weights", "fractions"), got, want, strict=True):
        assert (mine == reference).all(), name
