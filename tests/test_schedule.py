"""Rates over a run, in integers, against their definitions in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from sparsetune_device.schedule import SCHEDULES, Schedule, parse_rate

# Of the share of the steps that are done, as shares of the whole rate; and how far off integers may
# be: shares and rates are cut to 16 bits, and a cosine is straight between 32 places.
WANTED: dict[str, tuple[Callable[[float], float], float]] = {
    "constant": (lambda done: 1.0, 0.0),
    "linear": (lambda done: 1 - done, 2**-14),
    "cosine": (lambda done: (1 + math.cos(math.pi * done)) / 2, 0.0007),
    "step": (lambda done: 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01, 2**-15),
}
LENGTHS = (1, 2, 3, 4, 5, 7, 63, 64, 1000, 76_001)


def real(rate: tuple[int, int]) -> float:
    return math.ldexp(*rate)


def test_all_schedules_have_a_reference() -> None:
    assert WANTED.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("warmup", [0, 1, 9])
@pytest.mark.parametrize("kind", WANTED)
def test_rates_are_those_of_their_definition(kind: str, warmup: int) -> None:
    """The rest of the steps behind a warm-up, which rises linearly."""
    of_share, off = WANTED[kind]
    base = parse_rate("0.05")
    whole = real(base)
    for length in LENGTHS:
        rates = Schedule(kind, base, warmup + length, warmup)
        for step in range(0, warmup + length, max(1, length // 97)):
            done = step - warmup
            wanted = (step + 1) / (warmup + 1) if done < 0 else of_share(done / length)
            found = real(rates.rate(step)) / whole
            assert found == pytest.approx(wanted, rel=2**-14, abs=max(off, 2**-15)), (length, step)


@pytest.mark.parametrize("steps", LENGTHS)
def test_steps_fall_at_a_half_and_at_three_quarters(steps: int) -> None:
    """At the first step of which as many are done, and nowhere else. Each depends on its number
    alone, so that a run that is resumed anywhere has the same."""
    rates = Schedule("step", parse_rate("1"), steps)
    found = [round(real(rates.rate(step)), 3) for step in range(steps)]
    half, later = math.ceil(steps / 2), math.ceil(0.75 * steps)
    assert found == [1.0] * half + [0.1] * (later - half) + [0.01] * (steps - later)
