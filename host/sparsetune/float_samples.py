"""Samples in real numbers, as a float model takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .data import Dataset, load_npz, same_but_ones
from .errors import SparsetuneError, warn
from .graph import Array, Graph

HELD_OUT = 0.2
FEW_STEPS, FEWEST_STEPS = 64, 8  # of 255 between --range: fewer are doubted, or not believed
Spread = tuple[float, float]


def load_samples(path: Path, spread: Spread | None) -> tuple[Dataset, Dataset]:
    """(samples to calibrate with, held-out samples) as float32, from an .npz.

    Arrays as load_npz takes them, y optional; a fifth is held out where there is no x_test.
    spread: the real values of the lowest and the highest integer, for arrays of integers.
    """
    train, test = load_npz(path)
    for part in (train, test):
        if part is not None and part.y is not None and len(np.atleast_1d(part.y)) != len(part):
            count = len(np.atleast_1d(part.y))
            raise SparsetuneError(f"{len(part)} samples and {count} labels: give one each")
    train = Dataset(real_values(train.x, spread), train.y)
    if test is not None:
        return train, Dataset(real_values(test.x, spread), test.y)
    if len(train) < 2:
        raise SparsetuneError("one sample is not enough: give at least two")
    order = np.random.default_rng(0).permutation(len(train))
    cut = max(1, round(len(train) * HELD_OUT))
    return train.part(order[cut:]), train.part(order[:cut])


def real_values(x: Array, spread: Spread | None) -> Array:
    """Samples as float32. Integers need to be told what they stand for."""
    if x.dtype.kind == "f":
        if spread:
            raise SparsetuneError(f"samples are {x.dtype}: leave out --range, which is of integers")
        if not np.isfinite(x).all():
            raise SparsetuneError("some samples are not finite numbers: leave those out")
        return x.astype(np.float32)
    if x.dtype not in (np.uint8, np.int8):
        raise SparsetuneError(f"samples are {x.dtype}: give float32 as the float model takes them")
    if spread is None:
        raise SparsetuneError(
            f"samples are {x.dtype}, which does not tell the range that the float model takes: "
            "name it with --range LOW HIGH (0 1, -1 1 and 0 255 are usual), or give float32"
        )
    low, high = spread
    if low == high or not np.isfinite(spread).all():
        raise SparsetuneError(f"--range {low:g} {high:g}: give two real numbers that differ")
    steps: Array = x.astype(np.float32) - np.iinfo(x.dtype).min
    real: Array = low + steps * ((high - low) / 255)
    _check_use(real, spread)
    return real.astype(np.float32)


def _check_use(x: Array, spread: Spread) -> None:
    """Raises SparsetuneError where samples use next to nothing of the range, as those do that were
    scaled to 0 ... 1 before they became integers; says so where they use little."""
    low, high = spread
    used = float(np.ptp(x)) / abs(high - low) if x.size else 1.0
    told = f"samples go from {x.min():.4g} to {x.max():.4g}" if x.size else ""
    told += f" of --range {low:g} {high:g}"
    if used * 255 < FEWEST_STEPS:
        raise SparsetuneError(
            f"{told}: name what the lowest and the highest integer stand for, or give float32"
        )
    if used * 255 < FEW_STEPS:
        warn([f"{told}: is it that of the integers' ends?"])


def shaped(x: Array, graph: Graph) -> Array:
    """Samples in the shape of the model's input. Raises SparsetuneError when they do not fit."""
    shape = graph.tensor(graph.input).shape[1:]
    if not len(x) or x.ndim < 2 or not same_but_ones(x.shape[1:], shape):
        given = f"{len(x)} samples of shape {list(x.shape[1:])}"
        raise SparsetuneError(f"the .npz has {given}, the model takes {list(shape)}")
    return x.reshape(len(x), *shape)


def few(x: Array, most: int) -> Array:
    """At most that many samples, evenly spaced."""
    chosen: Array = x[np.linspace(0, len(x) - 1, min(most, len(x))).astype(int)]
    return chosen
