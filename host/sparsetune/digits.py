"""The demo's data: scikit-learn's digits as a camera sees them, before and after a change.

Pre-training sees the first part of the images, upright and well lit (the normal case). The
demo adapts to the other part as the same camera sees it after it was turned by 40 degrees and
its light changed (the changed case). No image is in both parts.

Images are int8 [N, 16, 16, 1]: pixel - 128, where pixel is 0..255. Labels are uint8 [N].
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparsetune.errors import SparsetuneError

Images: TypeAlias = "npt.NDArray[np.int8]"
Labels: TypeAlias = "npt.NDArray[np.uint8]"
Pixels: TypeAlias = "npt.NDArray[np.float32]"
Sets: TypeAlias = "dict[str, npt.NDArray[Any]]"

SIZE = 16
PRETRAIN_COUNT = 900
ADAPT_COUNT = 500
_POOL_SEED = 20240229  # which images pre-training sees; the shipped model depends on it


@dataclass(frozen=True)
class Camera:
    """How the digits are seen: turned by `turn` degrees, pixel = contrast * p + brightness."""

    turn: float = 0.0
    contrast: float = 1.0
    brightness: float = 0.0


NORMAL = Camera()
# Turned about its axis, with stray light on the lens: dark rises, the range shrinks.
CHANGED = Camera(turn=40.0, contrast=0.6, brightness=64.0)


class DigitsError(SparsetuneError):
    """The digits cannot be made (one-line message)."""


def normal_sets() -> Sets:
    """The normal case: x_train, y_train (pre-training's), x_test, y_test (all others)."""
    digits, labels = load()
    seen, unseen = pool_split(len(labels))
    return _sets(_as_int8(photograph(digits, NORMAL)), labels, seen, unseen)


def changed_sets(seed: int = 0, adapt: int = ADAPT_COUNT) -> Sets:
    """The changed case: x_train, y_train to adapt with, x_test, y_test held out.

    `seed` chooses which `adapt` of the images that pre-training has not seen are to adapt with;
    the rest is held out.
    """
    digits, labels = load()
    _, unseen = pool_split(len(labels))
    if not 0 < adapt < len(unseen):
        raise DigitsError(f"adapt is {adapt}, but must be 1 to {len(unseen) - 1}")
    order = np.random.default_rng(seed).permutation(unseen)
    return _sets(_as_int8(photograph(digits, CHANGED)), labels, order[:adapt], order[adapt:])


def save_changed_sets(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write `changed_sets(seed)` as a compressed npz at `path`; returns the path."""
    arrays: dict[str, Any] = changed_sets(seed)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    target = Path(path)
    target.write_bytes(packed.getvalue())
    return target


def photograph(digits: Pixels, camera: Camera) -> Pixels:
    """What `camera` sees of scikit-learn's digits [N, 8, 8] (0..16): [N, 16, 16, 1], 0..255."""
    rows, columns = _turned_grid(camera.turn, digits.shape[1])
    seen = _bilinear(digits, rows, columns) * np.float32(255 / 16)
    lit = np.clip(seen * camera.contrast + camera.brightness, 0, 255)
    return np.asarray(lit[..., None], np.float32)


def load() -> tuple[Pixels, Labels]:
    """scikit-learn's digits [1797, 8, 8] (0..16) and their labels. Raises DigitsError."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DigitsError("scikit-learn is not installed: pip install scikit-learn") from error
    data = load_digits()
    return np.asarray(data.images, np.float32), np.asarray(data.target, np.uint8)


def pool_split(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Which of `count` digits pre-training sees, and which it never sees."""
    order = np.random.default_rng(_POOL_SEED).permutation(count)
    return order[:PRETRAIN_COUNT], order[PRETRAIN_COUNT:]


def _turned_grid(turn: float, size: int) -> tuple[Pixels, Pixels]:
    """Where in a picture of `size` pixels the camera's pixels lie, turned about its centre."""
    steps = ((np.arange(SIZE) + 0.5) / SIZE - 0.5) * size
    angle = np.deg2rad(turn)
    y, x = steps[:, None], steps[None, :]
    middle = (size - 1) / 2
    rows = np.cos(angle) * y + np.sin(angle) * x + middle
    columns = np.cos(angle) * x - np.sin(angle) * y + middle
    return rows.astype(np.float32), columns.astype(np.float32)


def _bilinear(pixels: Pixels, rows: Pixels, columns: Pixels) -> Pixels:
    """Pixels [N, h, w] read at the points (rows, columns); outside the picture it is 0."""
    framed = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
    last = framed.shape[1] - 1
    y, x = np.clip(rows + 1, 0, last), np.clip(columns + 1, 0, last)
    i, j = (np.minimum(v.astype(np.intp), last - 1) for v in (y, x))
    v, u = y - i, x - j
    upper = framed[:, i, j] * (1 - u) + framed[:, i, j + 1] * u
    lower = framed[:, i + 1, j] * (1 - u) + framed[:, i + 1, j + 1] * u
    return np.asarray(upper * (1 - v) + lower * v, np.float32)


def _as_int8(pixels: npt.NDArray[np.float32]) -> Images:
    return (np.rint(pixels) - 128).astype(np.int8)


def _sets(x: Images, y: Labels, train: npt.NDArray[np.intp], test: npt.NDArray[np.intp]) -> Sets:
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
