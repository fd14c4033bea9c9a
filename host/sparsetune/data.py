"""Labelled samples: from the user's .npz to the file that the board reads."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import SparsetuneError
from .graph import Array

MAGIC = b"STDA"
VERSION = 1
HEADER_BYTES = 32
MAX_SAMPLES = 65535
MAX_CLASSES = 256


@dataclass(frozen=True)
class Dataset:
    """x: int8 [N, ...] as the model's input takes it; y: class numbers [N]."""

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.y)


def load_npz(path: Path) -> tuple[Dataset, Dataset | None]:
    """(training samples, held-out samples or None) of an .npz.

    Arrays: x_train, y_train and optionally x_test, y_test; or x, y alone.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise SparsetuneError(f"{path}: {error.strerror or error}: give an .npz file") from error
    except (ValueError, AttributeError, zlib.error, EOFError) as error:
        raise SparsetuneError(f"{path} is not an .npz file: save one with numpy.savez") from error
    train = _pair(arrays, "x_train", "y_train")
    if train is None:
        train = _pair(arrays, "x", "y")
    if train is None:
        raise SparsetuneError(f"{path} has {sorted(arrays)}: it needs x_train and y_train, or x, y")
    return train, _pair(arrays, "x_test", "y_test")


def _pair(arrays: dict[str, Array], x: str, y: str) -> Dataset | None:
    if (x in arrays) != (y in arrays):
        raise SparsetuneError(f"the .npz has only one of {x} and {y}: give both")
    return Dataset(arrays[x], arrays[y]) if x in arrays else None


def check_dataset(data: Dataset, shape: tuple[int, ...], classes: int) -> None:
    """Raises SparsetuneError when the samples do not fit a model with this input shape (batch
    first) and number of classes."""
    samples, labels = (len(np.atleast_1d(a)) for a in (data.x, data.y))
    if not 0 < labels <= MAX_SAMPLES or samples != labels:
        raise SparsetuneError(
            f"{samples} samples and {labels} labels: "
            f"give as many of one as of the other, 1 to {MAX_SAMPLES}"
        )
    if data.x.ndim < 2:
        raise SparsetuneError("x is no list of samples: give it as [N, height, width, channels]")
    if data.x.dtype != np.int8:
        raise SparsetuneError(
            f"samples are {data.x.dtype}: give int8 as the model's input takes it "
            "(for most image models uint8 pixels - 128)"
        )
    if data.x[0].size != int(np.prod(shape)) or not _same_but_ones(data.x.shape[1:], shape):
        raise SparsetuneError(
            f"samples have shape {list(data.x.shape[1:])}, the model takes {list(shape[1:])}"
        )
    _check_labels(data.y, classes)


def _same_but_ones(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return [n for n in a if n != 1] == [n for n in b if n != 1]


def _check_labels(y: Array, classes: int) -> None:
    if classes > MAX_CLASSES:
        raise SparsetuneError(f"the model has {classes} classes: at most {MAX_CLASSES} for now")
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise SparsetuneError(f"labels are {y.dtype} {list(y.shape)}: give one integer a sample")
    if y.min() < 0 or y.max() >= classes:
        wrong = int(y.max()) if y.max() >= classes else int(y.min())
        raise SparsetuneError(
            f"label {wrong} is out of range: the model has classes 0 to {classes - 1}"
        )


def sample_file(data: Dataset, classes: int) -> bytes:
    """The bytes of a sample file (docs/FORMAT.md)."""
    samples = np.ascontiguousarray(data.x).tobytes()
    labels = data.y.astype(np.uint8).tobytes()
    labels += bytes(-len(labels) % 4)
    count = len(data)
    samples_at = HEADER_BYTES + len(labels)
    words = (VERSION, count, len(samples) // count, classes, HEADER_BYTES, samples_at)
    crc = zlib.crc32(labels + samples)
    return MAGIC + struct.pack("<7I", *words, crc) + labels + samples
