"""An int8 model beside the float model that it was made of: what was lost, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import litert
from .data import Dataset
from .float_samples import shaped
from .graph import Array, Tensor
from .stored import Stored, dequantise

TINY = 1e-30  # where a division by the signal would fail


@dataclass(frozen=True)
class Judgement:
    """What both models make of the same samples.

    accuracies: shares right, float and int8; None without labels. agreement: share of samples with
    the same largest output. Both are None where the outputs are no classes. error: of the outputs,
    relative (RMS).
    """

    samples: int
    accuracies: tuple[float, float] | None
    agreement: float | None
    error: float


@dataclass(frozen=True)
class LayerError:
    """A layer of the int8 model: signal to error in dB at its output, against the float model's
    values, and how much less that is than at the worst of its inputs."""

    operator: int
    kind: str
    shape: tuple[int, ...]
    decibels: float
    lost: float


def judge(real: Stored, small: Stored, data: Dataset, fast: bool = False) -> Judgement:
    """Compare the outputs on data.x (float32). fast: the int8 ones by LiteRT's optimised kernels,
    not by those that the board reproduces."""
    x, y = shaped(data.x, real.graph), data.y
    wanted = _outputs(real, x, fast=True)
    got = _outputs(small, x, fast)
    float_top, int8_top = wanted.argmax(axis=1), got.argmax(axis=1)
    classes = wanted.shape[1] > 1 and real.graph.loss_name == "softmax"
    labelled = classes and y is not None and y.ndim == 1 and y.dtype.kind in "iu"
    return Judgement(
        samples=len(x),
        accuracies=(_share(float_top == y), _share(int8_top == y)) if labelled else None,
        agreement=_share(float_top == int8_top) if classes else None,
        error=float(np.sqrt(np.sum((got - wanted) ** 2) / max(np.sum(wanted**2), TINY))),
    )


def _outputs(model: Stored, x: Array, fast: bool) -> Array:
    """float64 [N, values]: real outputs for real samples."""
    stored = litert.predict(model.data, model.stored_input(x), fast=fast)
    return dequantise(stored, model.graph.tensor(model.graph.output)).reshape(len(x), -1)


def _share(right: Array) -> float:
    return float(np.mean(right))


def layer_errors(real: Stored, small: Stored, x: Array) -> list[LayerError]:
    """The layers of an int8 model, worst first. x: float32 samples."""
    float_tensors = {t.name: t for t in real.graph.tensors}
    pairs = {
        t.index: float_tensors[t.name]
        for t in small.graph.tensors
        if t.data is None and t.dtype == "int8" and t.name in float_tensors
    }
    decibels = _decibels(real, small, shaped(x, real.graph), pairs)
    found = []
    for op in small.graph.operators:
        at = decibels.get(op.outputs[0])
        if at is not None:
            before = min((decibels[i] for i in op.inputs if i in decibels), default=at)
            shape = small.graph.tensor(op.outputs[0]).shape
            found.append(LayerError(op.index, op.kind, shape, at, before - at))
    return sorted(found, key=lambda layer: layer.decibels)


def _decibels(real: Stored, small: Stored, x: Array, pairs: dict[int, Tensor]) -> dict[int, float]:
    """Signal to error. pairs: tensor of the int8 model -> that of the float model."""
    signal, error = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    ours = litert.activations(small.data, small.stored_input(x), list(pairs))
    theirs = litert.activations(real.data, x, [t.index for t in pairs.values()], fast=True)
    for got, wanted in zip(ours, theirs, strict=True):
        for index, a, b in zip(pairs, got, wanted, strict=True):
            difference = dequantise(a, small.graph.tensor(index)) - b
            signal[index] += float(np.sum(b.astype(np.float64) ** 2))
            error[index] += float(np.sum(difference**2))
    return {i: 10 * float(np.log10(max(signal[i], TINY) / max(error[i], TINY))) for i in pairs}
