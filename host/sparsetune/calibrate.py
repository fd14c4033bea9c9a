"""What samples tell a quantiser: the ranges of a float model's tensors, and biases put right.

A float model and its int8 counterpart have the same names for the same tensors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import litert
from .errors import SparsetuneError
from .graph import TRAINABLE, Array, Graph, Operator, Tensor
from .stored import Stored, dequantise
from .tflite import store_graph

# Of a tensor's values this share may lie outside its range, at each end: a few outliers would cost
# all others their resolution.
CLIPPED = 2e-5
Spans = dict[str, tuple[float, float]]  # lowest and highest value, by a tensor's name


# Ranges -------------------------------------------------------------------------------------------


class _Tails:
    """The lowest values of a tensor over many samples, and the highest, which are kept negated."""

    def __init__(self, size: int, samples: int, clipped: float) -> None:
        self.keep = max(1, int(clipped * size * samples))
        self.low = self.high = np.empty(0, np.float32)

    def add(self, values: Array) -> None:
        self.low = self._lowest(self.low, values.ravel())
        self.high = self._lowest(self.high, -values.ravel())

    def _lowest(self, so_far: Array, values: Array) -> Array:
        """The lowest of all, in order."""
        if len(so_far) == self.keep:
            values = values[values < so_far[-1]]
        return np.sort(np.concatenate([so_far, values]))[: self.keep]

    @property
    def range(self) -> tuple[float, float]:
        return float(self.low[-1]), -float(self.high[-1])


def ranges(model: Stored, x: Array) -> Spans:
    """Lowest and highest value for each activation of a float model, by name.

    x: float32 samples. The input's are exact; for others CLIPPED is left out at each end.
    """
    graph = model.graph
    wanted = [graph.tensor(i) for op in graph.operators for i in op.outputs]
    wanted = [t for t in wanted if t.dtype == "float32"]
    tails = [_Tails(t.size, len(x), CLIPPED) for t in wanted]
    ends = [i for i, t in enumerate(wanted) if t.index == graph.output]
    for values in litert.activations(model.data, x, [t.index for t in wanted], fast=True):
        if not all(np.isfinite(values[i]).all() for i in ends):
            raise SparsetuneError(
                "the float model gives outputs that are no finite numbers on these samples: it is "
                "damaged, or takes others"
            )
        for tail, value in zip(tails, values, strict=True):
            tail.add(value)
    found = {t.name: tail.range for t, tail in zip(wanted, tails, strict=True)}
    return {graph.tensor(graph.input).name: (float(x.min()), float(x.max())), **found}


def finite_pads(graph: Graph, spans: Spans) -> tuple[Graph, Spans]:
    """The model, and ranges from ranges(), with PADV2 that writes the lowest value of its input
    where it wrote a lower one.

    PyTorch's padded max pools have minus infinity there, which would take all of the range. In int8
    it is the same: nothing is below the lowest.
    """
    tensors, operators, spans = list(graph.tensors), list(graph.operators), dict(spans)
    for at, op in enumerate(operators):
        fill = graph.tensor(op.inputs[2]) if op.kind == "PADV2" and len(op.inputs) > 2 else None
        low, high = spans.get(graph.tensor(op.inputs[0]).name, (0.0, 0.0))
        if fill is None or fill.data is None or fill.data.max() >= low:
            continue
        low = min(low, 0.0)  # every range holds 0
        values = np.full(fill.shape, low, np.float32)
        name = f"lowest of operator {op.index}"
        tensors.append(replace(fill, index=len(tensors), name=name, data=values))
        operators[at] = replace(op, inputs=(*op.inputs[:2], tensors[-1].index))
        spans[graph.tensor(op.outputs[0]).name] = low, high
    return replace(graph, tensors=tuple(tensors), operators=tuple(operators)), spans


# Biases -------------------------------------------------------------------------------------------


def correct_biases(real: Stored, small: Stored, x: Array) -> Stored:
    """`small`, the int8 counterpart of `real`, with biases that cancel its mean errors.

    Rounded weights, and errors that come in from layers before, move the mean of each channel.
    From the first layer to the last, the difference of the means over the samples x (float32) is
    taken out of the bias (Nagel et al., 1906.04721, 4.2, with samples in place of statistics).
    """
    wanted = _channel_means(real, x)
    x8 = small.stored_input(x)
    for op in small.graph.operators:
        output = small.graph.tensor(op.outputs[0])
        bias = small.graph.bias_of(op) if op.kind in TRAINABLE else None
        if bias is None or output.name not in wanted:
            continue
        got = dequantise(litert.predict(_until(small, op), x8, fast=True), output)
        error = _means(got) - wanted[output.name]
        small = replace(small, graph=_with_bias(small.graph, bias, error))
    return Stored.of(store_graph(small.data, small.graph))


def _channel_means(model: Stored, x: Array) -> dict[str, Array]:
    """The mean of each channel of the outputs of layers with weights, by the output's name."""
    layers = [op for op in model.graph.operators if op.kind in TRAINABLE]
    outputs = [op.outputs[0] for op in layers]
    sums = [np.zeros(model.graph.tensor(i).shape[-1]) for i in outputs]
    for values in litert.activations(model.data, x, outputs, fast=True):
        for total, value in zip(sums, values, strict=True):
            total += _means(value)
    return {model.graph.tensor(i).name: s / len(x) for i, s in zip(outputs, sums, strict=True)}


def _means(values: Array) -> Array:
    return np.asarray(values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64))


def _until(model: Stored, op: Operator) -> bytes:
    """The model up to an operator."""
    operators = model.graph.operators
    part = operators[: operators.index(op) + 1]
    return store_graph(model.data, replace(model.graph, operators=part, output=op.outputs[0]))


def _with_bias(graph: Graph, bias: Tensor, error: Array) -> Graph:
    assert bias.data is not None
    steps = np.rint(error / bias.scales.astype(np.float64))
    limits = np.iinfo(np.int32)
    corrected = np.clip(bias.data - steps, limits.min // 2, limits.max // 2).astype(np.int32)
    tensors = list(graph.tensors)
    tensors[bias.index] = replace(bias, data=corrected)
    return replace(graph, tensors=tuple(tensors))
