"""Weight decay: the method against exact fractions, and what a run makes of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import runs
import sparsetune_kernels as kernels
from sparsetune.errors import SparsetuneError
from sparsetune.export import parse_checkpoint
from sparsetune.image import ABSENT
from sparsetune.plan import default_plan
from sparsetune_device.channels import Cyclic, Static
from test_training import with_plan

NONE = 0xFFFFFFFF
SIGMAS = 5.0
COUNT = 200_000


@pytest.mark.parametrize("value", [127, -127, 1, -60, 0, -128])
@pytest.mark.parametrize(
    ("mantissa", "shift"), [(40000, 17), (65535, 16), (50001, 26), (32768, 33), (60000, 40)]
)
def test_decay_is_unbiased(value: int, mantissa: int, shift: int) -> None:
    weights = np.full(COUNT, value, np.int8)
    kernels.decay(weights, 0, NONE, COUNT, mantissa, shift, 77)
    exact = value * (1 - Fraction(mantissa, 1 << shift))
    low = exact.numerator // exact.denominator
    assert set(weights.tolist()) <= {low, low + 1}
    part = float(exact - low)
    wanted = np.sqrt(part * (1 - part) / COUNT) * SIGMAS + 1e-9
    assert abs(weights.astype(float).mean() - float(exact)) < wanted + 2 / COUNT


@pytest.mark.parametrize("shift", [18, 24, 30])
def test_fractions_decay_too(shift: int) -> None:
    rng = np.random.default_rng(shift)
    state = rng.integers(-127, 128, 2 * COUNT).astype(np.int8)
    state[:COUNT] //= 2
    before = state[:COUNT].astype(float) * 256 + state[COUNT:]
    kernels.decay(state, 0, COUNT, COUNT, 45000, shift, 5)
    after = state[:COUNT].astype(float) * 256 + state[COUNT:]
    error = after - before * (1 - 45000 / 2**shift)
    assert np.abs(error).max() < 1 and abs(error.mean()) < SIGMAS * 0.5 / np.sqrt(COUNT)


def test_only_what_is_named_decays() -> None:
    state = np.full(64, 100, np.int8)
    kernels.decay(state, 8, NONE, 16, 65535, 16, 1)
    assert (state[8:24] < 3).all() and (state[:8] == 100).all() and (state[24:] == 100).all()


@pytest.mark.parametrize(
    "arguments",
    [(0, NONE, 65, 1, 20), (64, NONE, 1, 1, 20), (NONE, NONE, 2, 1, 20), (0, 60, 5, 1, 20),
     (0, NONE, 8, 65536, 20), (0, NONE, 8, 1, 15), (0, NONE, 8, 1, -1)],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments: tuple[int, ...]) -> None:
    state = np.full(64, 100, np.int8)
    with pytest.raises(ValueError, match="decay"):
        kernels.decay(state, *arguments, 1)
    assert (state == 100).all()


def norm_after(**options: Any) -> float:
    """Of the trained weights."""
    task = runs.digits_task(steps=64)
    task = with_plan(task, default_plan(task.graph, 6), 400, **options)
    checkpoint = parse_checkpoint(runs.twin_train(task)[1], task.image)
    weights = [
        np.frombuffer(checkpoint.state, np.int8, layer.weights_bytes, layer.weights_at)
        for layer in task.image.layers
        if layer.weights_at != ABSENT
    ]
    return float(np.sqrt((np.concatenate(weights).astype(float) ** 2).sum()))


def test_a_run_shrinks_by_what_was_asked_for() -> None:
    """64 steps at a constant rate of 0.02 and a decay of 0.1: four times 1 - 16 * 0.002."""
    options = {"schedule": "constant", "rate": "0.02"}
    plain, shrunk = norm_after(**options), norm_after(**options, decay="0.1")
    assert shrunk / plain == pytest.approx((1 - 16 * 0.002) ** 4, rel=0.03)


class First(Static):
    """One of the user's own that does as the one it is made from."""


@pytest.mark.parametrize("policy", ["static", "magnitude", Static, First])
def test_channels_that_never_train_do_not_decay(policy: Any) -> None:
    with pytest.raises(SparsetuneError, match="decay would shrink channels that never train"):
        norm_after(decay="0.01", policy=policy)


class OfMyOwn:
    def __init__(self, layers: Any, seed: int) -> None:
        self.inner = Cyclic(layers, seed)

    def choose(self, number: int, state: bytearray) -> None:
        self.inner.choose(number, state)


@pytest.mark.parametrize("policy", ["cyclic", "random", "random-epoch", OfMyOwn])
def test_those_that_take_turns_do(policy: Any) -> None:
    assert norm_after(decay="0.1", policy=policy) < norm_after(policy=policy)


def test_where_decay_would_be_wrong() -> None:
    with pytest.raises(SparsetuneError, match="too large"):
        norm_after(decay="60", rate="0.1")
