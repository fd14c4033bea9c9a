"""A new classifier on an old network: the last layer with another number of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data import check_shape
from .errors import SparsetuneError
from .graph import Array, Graph, Operator
from .inputs import as_file_takes, input_of
from .litert import activations
from .tflite import NewHead, append_head, parse_tflite, replace_head

SAMPLES = 32  # that the features are measured on
TYPICAL = 0.07  # root mean square of an activation over its range, where there are no samples
FIRST_LOGITS = 0.1  # standard deviation of the logits that the new weights make
ROOM = 32  # largest weight in units of the first ones' standard deviation
FINE_ROOM = 64  # where a residual keeps what int8 weights cannot tell
LOGIT_SCALE = 0.125  # int8 logits reach +-16: a probability of 1 - 1e-7
KINDS = ("FULLY_CONNECTED", "CONV_2D")


@dataclass(frozen=True)
class HeadRequest:
    """classes: of the new head. append: put it behind the output, instead of in the place of the
    last layer. seed: of its first weights. x: samples to measure the features on, or None. room: of
    the largest weight, in units of the first ones' standard deviation."""

    classes: int
    append: bool = False
    seed: int = 1
    x: Array | None = None
    room: int = ROOM


def with_new_head(model: bytes, request: HeadRequest) -> bytes:
    """The .tflite with a new head. Raises SparsetuneError when it has no head that could be
    replaced."""
    if not 2 <= request.classes <= 4095:
        raise SparsetuneError(f"--classes {request.classes}: a head has 2 to 4095 classes")
    graph = parse_tflite(model)
    features = graph.tensor(_end_of(graph) if request.append else _head_of(graph).inputs[0])
    energy = _energy(graph, model, features.index, request.x)
    size = features.size if request.append else graph.tensor(_head_of(graph).inputs[1]).shape[-1]
    head = _first_weights(request, size, energy)
    if request.append:
        return append_head(model, features.index, head)
    return replace_head(model, _head_of(graph).index, head)


def _end_of(graph: Graph) -> int:
    """The int8 tensor that a head is appended to."""
    maker, end = graph.producer(graph.output), graph.output
    if end in graph.shifted and maker and maker.kind == "RESHAPE":  # a QUANTIZE to uint8
        end = maker.inputs[0]
    if end in graph.shifted:
        raise SparsetuneError("the model is uint8: its head can be replaced, none appended")
    return end


def _head_of(graph: Graph) -> Operator:
    """The layer that makes the class scores."""
    op = graph.producer(graph.logits)
    while op is not None and op.kind == "RESHAPE":
        op = graph.producer(op.inputs[0])
    if op is None or op.kind not in KINDS or op not in graph.trainable:
        kind = "nothing" if op is None else op.kind
        raise SparsetuneError(
            f"the model's output comes from {kind}, not from a layer of its own: "
            "append a head with --append"
        )
    weights = graph.tensor(op.inputs[1])
    if weights.size != weights.shape[0] * weights.shape[-1]:
        raise SparsetuneError("the last layer is a convolution over a map: append a head")
    if graph.tensor(op.outputs[0]).size != weights.shape[0]:
        raise SparsetuneError("the last layer answers for several places: append a head")
    return op


def _energy(graph: Graph, model: bytes, tensor: int, x: Array | None) -> float:
    """Mean of sum(x^2) of the features in real units."""
    t = graph.tensor(tensor)
    if x is None or not np.size(x):
        return float(t.size * (TYPICAL * 255 * t.scale) ** 2)
    source = input_of(graph)
    check_shape(x, source.shape[1:])
    fed = as_file_takes(graph, source.stored(x[:SAMPLES]))
    values = [v[0] for v in activations(model, fed, [tensor])]
    stored = np.stack(values).astype(np.float64) - graph.shift(tensor)
    real = (stored - t.zero_point) * t.scale
    return max(float((real.reshape(len(real), -1) ** 2).sum(axis=1).mean()), 1e-9)


def _first_weights(request: HeadRequest, inputs: int, energy: float) -> NewHead:
    """Random weights that make small logits of any sample, and have room to grow."""
    rng = np.random.default_rng(request.seed)
    std = FIRST_LOGITS / np.sqrt(energy)
    scale = std * request.room / 127
    weights = np.rint(rng.normal(0, std / scale, (request.classes, inputs)))
    return NewHead(weights.astype(np.int8), float(scale), LOGIT_SCALE)
