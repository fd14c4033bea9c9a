"""Samples and their targets: from the user's .npz to the file that the board reads."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import SparsetuneError
from .graph import Array
from .inputs import Input
from .task import Task

MAGIC = b"STDA"
VERSION = 2
HEADER_BYTES = 36
NAMES = ("x_train", "y_train", "x_test", "y_test")
MAX_SAMPLES = 1 << 24
MOST_OUTSIDE = 0.5  # share of the targets that may lie outside of what the output can hold
FEWEST_STEPS = 4  # of the output, by which targets should differ
NUMBERED = "y must be class numbers, 0, 1, ...: y = np.unique(y, return_inverse=True)[1]"
FEWEST_VALUES = 8  # of a sample: those of fewer bytes are alike by chance


@dataclass(frozen=True)
class Dataset:
    """x: [N, ...], int8 once it was brought into a model's numbers. y: class numbers [N], or
    targets [N, values] in real numbers (mse) or 0 and 1 (bce), or None where a sample is its own
    target."""

    x: Array
    y: Array | None

    def __len__(self) -> int:
        return len(self.x)

    def part(self, which: slice | Array) -> Dataset:
        """Some of the samples."""
        return Dataset(self.x[which], None if self.y is None else self.y[which])


def load_npz(path: Path) -> tuple[Dataset, Dataset | None]:
    """(training samples, held-out samples or None) of an .npz.

    Arrays: x_train, y_train and optionally x_test, y_test; or x, y alone. Autoencoders need no y.
    """
    try:
        file = np.load(path)
        if isinstance(file, np.ndarray):
            raise SparsetuneError(
                f"{path} is one array: save samples and labels with numpy.savez(..., x=x, y=y)"
            )
        with file:
            arrays = {name: _numbers(file, name, path) for name in file.files}
    except OSError as error:
        raise SparsetuneError(f"{path}: {error.strerror or error}: give an .npz file") from error
    except (ValueError, AttributeError, zlib.error, EOFError, zipfile.BadZipFile) as error:
        raise SparsetuneError(f"{path} is not an .npz file: save one with numpy.savez") from error
    others = [name for name in arrays if name[:2] in ("x_", "y_") and name not in NAMES]
    if others or {"x", "x_train"} <= set(arrays):
        wrong = others[0] if others else "x besides x_train"
        raise SparsetuneError(f"{path} has {wrong}: the names are {', '.join(NAMES)}, or x, y")
    train = _pair(arrays, "x_train", "y_train")
    if train is None:
        train = _pair(arrays, "x", "y")
    if train is None:
        raise SparsetuneError(f"{path} has {sorted(arrays)}: it needs x_train and y_train, or x, y")
    return train, _pair(arrays, "x_test", "y_test")


def _numbers(file: Mapping[str, Array], name: str, path: Path) -> Array:
    """One array of an .npz. Raises SparsetuneError where it holds Python's objects, which would be
    unpickled."""
    try:
        return file[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        if name.startswith("y"):
            raise SparsetuneError(f"{path}: {name} is of dtype object: {NUMBERED}") from error
        raise SparsetuneError(
            f"{path}: {name} is of dtype object, as of samples that differ in shape: save numbers, "
            "all samples of one shape"
        ) from error


def _pair(arrays: dict[str, Array], x: str, y: str) -> Dataset | None:
    if y in arrays and x not in arrays:
        raise SparsetuneError(f"the .npz has {y} and no {x}: give both")
    return Dataset(np.atleast_1d(arrays[x]), arrays.get(y)) if x in arrays else None


def fit_dataset(data: Dataset, source: Input, task: Task) -> Dataset:
    """The samples in the numbers of a model's input (Input.stored). Raises SparsetuneError when
    they do not fit the model."""
    shape = source.shape
    if not 0 < len(data) <= MAX_SAMPLES:
        raise SparsetuneError(f"{len(data)} samples: give 1 to {MAX_SAMPLES:,}")
    check_shape(data.x, shape[1:])
    fitted = Dataset(source.stored(data.x), data.y)
    if task.loss == "autoencoder":
        return fitted
    if data.y is None or len(np.atleast_1d(data.y)) != len(data):
        given = "no labels" if data.y is None else f"{len(np.atleast_1d(data.y))} labels"
        raise SparsetuneError(f"{len(data)} samples and {given}: give as many of one as the other")
    if not task.has_classes:
        _check_targets(data.y, task)
        return fitted
    labels = data.y[:, 0] if data.y.shape[1:] == (1,) else data.y  # as Keras has them: [N, 1]
    _check_labels(labels, task.outputs)
    return Dataset(fitted.x, labels)


def same_but_ones(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes are the same but for axes of size 1."""
    return [n for n in a if n != 1] == [n for n in b if n != 1]


def check_shape(x: Array, wanted: tuple[int, ...]) -> None:
    """Raises SparsetuneError where x is not [N, *wanted], what a model takes; axes of size 1 are no
    matter."""
    given = x.shape[1:]
    if x.ndim < 2:
        raise SparsetuneError("x is no list of samples: give it as [N, height, width, channels]")
    if not same_but_ones(given, wanted):
        raise SparsetuneError(
            f"samples have shape {list(given)}, the model takes {list(wanted)}: "
            + _how_to_fit(given, wanted)
        )


def _how_to_fit(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(given) == 3 and (*given[1:], given[0]) == wanted:
        return "put channels last, x.transpose(0, 2, 3, 1)"
    if given == (*wanted[:2], 3) and wanted[2:] == (1,):
        return 'make them grey, photo.convert("L")'
    if given in (wanted[:2], (*wanted[:2], 1)) and wanted[2:] == (3,):
        return 'make them coloured, photo.convert("RGB")'
    if len(given) == 3 and given[2] == wanted[-1]:
        return "resize them"
    return "give them so"


def _check_labels(y: Array, classes: int) -> None:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise SparsetuneError(f"labels are {y.dtype} {list(y.shape)}{_what_labels_may_be(y)}")
    least, most = int(y.min()), int(y.max())
    if least < 0 or most >= classes:
        wrong, advice = least, "count from 0"
        if most >= classes:
            wrong, advice = most, f"`tune --classes {most + 1}` gives it more"
        raise SparsetuneError(
            f"label {wrong} is out of range: the model has classes 0 to {classes - 1} ({advice})"
        )


def _what_labels_may_be(y: Array) -> str:
    """What to do with labels that are no class numbers."""
    numbers = y.dtype.kind in "fiub"
    if numbers and y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return ", one-hot: give one integer a sample, y.argmax(axis=1)"
    if numbers:
        return ": give one integer a sample; --loss mse learns numbers"
    if y.dtype.kind in "US":
        return f": {NUMBERED}"
    return ": give one integer a sample"


def _check_targets(y: Array, task: Task) -> None:
    if y.size != len(y) * task.outputs or y.dtype.kind not in "fiub":
        raise SparsetuneError(
            f"targets are {y.dtype} {list(y.shape)}: for the loss {task.loss} give "
            f"{task.outputs} numbers a sample"
        )
    if not np.isfinite(y).all():
        raise SparsetuneError("some targets are no finite numbers: leave those samples out")
    if task.loss == "bce" and not np.isin(y, (0, 1)).all():
        raise SparsetuneError("targets of the loss bce are 0 or 1: round them first")


def doubts(data: Dataset, task: Task) -> list[str]:
    """What in these training samples will hardly be meant, a line each. Raises SparsetuneError for
    targets that cannot be learnt."""
    if data.y is None or task.loss == "autoencoder":
        return []
    if task.loss == "mse":
        return _doubt_numbers(data.y.astype(np.float64), task)
    known = np.unique(data.y)
    if len(known) == 1 and len(data) > 1:
        what = "labels" if task.has_classes else "targets"
        return [f"all {what} are {known[0]:g}: the model will learn to answer that to everything"]
    missing = sorted(set(range(task.outputs)) - {int(y) for y in known}) if task.has_classes else []
    if not missing:
        return []
    some = ", ".join(str(n) for n in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return [
        f"{len(missing)} of {task.outputs} classes have no training sample ({some}): the model may "
        "forget them"
    ]


def _doubt_numbers(y: Array, task: Task) -> list[str]:
    """Targets against what the output can hold."""
    low, high = (task.scale * (end - task.zero_point) for end in (-128, 127))
    outside = float(np.mean((y < low - task.scale) | (y > high + task.scale)))
    told = f"targets go from {y.min():.4g} to {y.max():.4g}, "
    told += f"the output from {low:.4g} to {high:.4g}"
    if outside > MOST_OUTSIDE:
        raise SparsetuneError(
            f"{told}: scale them, or make the int8 model with samples whose answers reach there"
        )
    if outside:
        return [f"{told}: {outside:.1%} of them are clipped"]
    steps = float(np.ptp(y)) / task.scale
    return [f"{told}: they differ by {steps:.2g} of its steps"] if steps < FEWEST_STEPS else []


def leaks(train: Dataset, test: Dataset) -> list[str]:
    """A line where held-out samples are trained on too. Both in a model's numbers: what differs by
    less is one sample to it."""
    if test.x[0].size < FEWEST_VALUES:
        return []
    known = set(_digests(train.x))
    found = sum(digest in known for digest in _digests(test.x))
    if not found:
        return []
    return [
        f"{found} of {len(test)} held-out samples are training samples too: what is told of them "
        "does not hold for new ones; give each sample once, in x_train or in x_test"
    ]


def lacks(train: Dataset, test: Dataset, task: Task) -> list[str]:
    """A line where held-out samples have less than half of the classes: a part of sorted ones."""
    if not task.has_classes or train.y is None or test.y is None:
        return []
    classes, held = (len(np.unique(np.asarray(data.y))) for data in (train, test))
    if 2 * held > classes or held == classes:
        return []
    return [
        f"held-out samples are of {held} of {classes} classes: what is told of them says little; "
        "shuffle samples before they are parted"
    ]


def _digests(x: Array) -> Iterator[bytes]:
    return (hashlib.blake2b(sample.tobytes(), digest_size=16).digest() for sample in x)


def target_bytes(data: Dataset, task: Task) -> bytes:
    """The targets as the sample file holds them, one sample after the other."""
    if task.target_bytes == 0 or data.y is None:
        return b""
    if task.has_classes:
        return data.y.astype("<u1" if task.target_bytes == 1 else "<u2").tobytes()
    if task.loss == "bce":
        return data.y.astype(np.int8).tobytes()
    stored = np.round(data.y.astype(np.float64) / task.scale) + task.zero_point
    return np.clip(stored, -128, 127).astype(np.int8).tobytes()


def sample_file(data: Dataset, task: Task) -> bytes:
    """The bytes of a sample file (docs/FORMAT.md)."""
    samples = np.ascontiguousarray(data.x).tobytes()
    targets = target_bytes(data, task)
    targets += bytes(-len(targets) % 4)
    count, samples_at = len(data), HEADER_BYTES + len(targets)
    sizes = (count, len(samples) // count, task.outputs, task.target_bytes)
    words = (VERSION, *sizes, HEADER_BYTES, samples_at, zlib.crc32(samples, zlib.crc32(targets)))
    return b"".join((MAGIC, struct.pack("<8I", *words), targets, samples))
