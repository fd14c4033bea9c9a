"""The step of a weight at its very edge, on the emulated core: a sum that just moves it, and the
sum one below, which does not. The rule is written down again here (docs/DESIGN.md, Update), in
whole numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from sparsetune_tools.bare import BareCore

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


def stepped(core: BareCore, rates: list[tuple[int, int]], sums: np.ndarray) -> np.ndarray:
    """What st_update_rows makes of weights that are 0."""
    at = core.data + 64
    places = {}
    parts = {
        "channels": np.arange(SUMS, dtype="<u2").tobytes(),
        "rates": b"".join(struct.pack("<Hh", *rate) for rate in rates),
        "sums": sums.tobytes(),
        "weights": bytes(BASE + ROWS * FILTER),
        "update": bytes(68),
        "rows": bytes(128),
    }
    for name, data in parts.items():
        places[name] = at
        core.write(at, data)
        at += len(data) + -len(data) % 4
    update = (0, SUMS, places["channels"], SUMS, places["weights"], 0, 0, 0, places["rates"], 0)
    core.write(
        places["update"],
        struct.pack("<10IHhi2I2i", *update, *LEARNING_RATE, ERROR_EXPONENT, SUMS, SEED, 0, ROWS),
    )
    rows = (places["update"], BASE, FILTER, 0, places["sums"], SUMS)
    core.write(places["rows"], struct.pack("<6I", *rows))
    core.call("st_begin_rows", places["rows"])
    core.call("st_update_rows", places["rows"], ROWS)
    weights = np.frombuffer(core.read(places["weights"], BASE + ROWS * FILTER), np.int8)
    return weights[BASE:].reshape(ROWS, FILTER)[:, :SUMS]
