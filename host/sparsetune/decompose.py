"""Operators of float models that have no int8 kernel here, made of several that have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .graph import Array, Graph, Operator, Tensor

UNSCALED = np.ones(1, np.float32), 0  # scales and zero point of floats


def decompose(graph: Graph) -> Graph:
    """The same function of the input, of operators that can become int8 where that is possible."""
    parts = _Parts(graph)
    for op in graph.operators:
        way = WAYS.get(op.kind)
        complete = way is not None and len(op.inputs) >= way.inputs and min(op.inputs) >= 0
        if way is None or not complete or not way.write(parts, op):
            parts.operators.append(op)
    return replace(graph, tensors=tuple(parts.tensors), operators=tuple(parts.operators))


@dataclass(frozen=True)
class _Way:
    """write: adds an operator's parts, or does nothing and says False. inputs: that it needs."""

    inputs: int
    write: Callable[[_Parts, Operator], bool]


class _Parts:
    """The graph that is being made. New operators have numbers behind those of the file."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors, self.operators = list(graph.tensors), list[Operator]()
        self.next = 1 + max((op.index for op in graph.operators), default=-1)

    def constant(self, value: float) -> int:
        """A new scalar."""
        index, data = len(self.tensors), np.array([value], np.float32)
        self.tensors.append(Tensor(index, f"{value:.3g} {index}", (1,), "float32", *UNSCALED, data))
        return index

    def like(self, tensor: int, shape: tuple[int, ...] | None = None) -> int:
        """A new activation, of the shape of a tensor or of another one."""
        index = len(self.tensors)
        shape = self.tensors[tensor].shape if shape is None else shape
        name = f"{self.tensors[tensor].name} part {index}"
        self.tensors.append(Tensor(index, name, shape, "float32", *UNSCALED))
        return index

    def emit(self, kind: str, inputs: tuple[int, ...], output: int, **options: int) -> int:
        """A new operator; returns its output."""
        self.operators.append(Operator(self.next, kind, inputs, (output,), options))
        self.next += 1
        return output

    def relu(self, x: int) -> int:
        return self.emit("RELU", (x,), self.like(x))

    def binary(self, kind: str, a: int, b: int, output: int | None = None) -> int:
        """ADD, SUB or MUL; a has the shape of the result."""
        output = self.like(a) if output is None else output
        return self.emit(kind, (a, b), output, fusedActivationFunction=0)


def _prelu(parts: _Parts, op: Operator) -> bool:
    """A leaky ReLU with a slope for each channel: relu(x) + slope (x - relu(x))."""
    x, slope = op.inputs[:2]
    positive = parts.relu(x)
    negative = parts.binary("SUB", x, positive)
    parts.binary("ADD", positive, parts.binary("MUL", negative, slope), op.outputs[0])
    return True


def _abs(parts: _Parts, op: Operator) -> bool:
    """|x| = relu(x) + (relu(x) - x)"""
    positive = parts.relu(op.inputs[0])
    parts.binary("ADD", positive, parts.binary("SUB", positive, op.inputs[0]), op.outputs[0])
    return True


def _extremum(parts: _Parts, op: Operator) -> bool:
    """max(a, b) = b + relu(a - b), min(a, b) = a - relu(a - b)"""
    graph, (a, b) = parts.graph, op.inputs[:2]
    if graph.tensor(a).data is not None:
        a, b = b, a
    if graph.tensor(a).shape != graph.tensor(op.outputs[0]).shape:
        return False
    more = parts.relu(parts.binary("SUB", a, b))
    if op.kind == "MAXIMUM":
        parts.binary("ADD", more, b, op.outputs[0])
    else:
        parts.binary("SUB", a, more, op.outputs[0])
    return True


def _relu_0_to_1(parts: _Parts, op: Operator) -> bool:
    """As hard sigmoids end: relu6(6 x) / 6."""
    wide = parts.binary("MUL", op.inputs[0], parts.constant(6.0))
    clamped = parts.emit("RELU6", (wide,), parts.like(wide))
    parts.binary("MUL", clamped, parts.constant(1 / 6), op.outputs[0])
    return True


def _reduce_max(parts: _Parts, op: Operator) -> bool:
    """The largest along axes: for one after the other a pool whose window is the whole axis."""
    axes = _axes(parts.graph, op)
    if axes is None:
        return False
    at, shape = op.inputs[0], list(parts.graph.tensor(op.inputs[0]).shape)
    for axis in axes:
        length, flat = shape[axis], (1, prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
        at = parts.emit("RESHAPE", (at,), parts.like(at, flat))
        at = parts.emit(
            "MAX_POOL_2D", (at,), parts.like(at, (*flat[:2], 1, flat[3])), **_whole(length)
        )
        shape[axis] = 1
    parts.emit("RESHAPE", (at,), op.outputs[0])
    return True


def _axes(graph: Graph, op: Operator) -> list[int] | None:
    """The axes that are reduced; None where they are computed, or the batch is among them."""
    data: Array | None = graph.tensor(op.inputs[1]).data
    rank = len(graph.tensor(op.inputs[0]).shape)
    if data is None or not rank or any(not -rank <= axis < rank for axis in data.ravel()):
        return None
    axes = sorted({int(axis) % rank for axis in data.ravel()}, reverse=True)
    return axes if axes and axes[-1] > 0 else None


def _whole(length: int) -> dict[str, int]:
    """Options of a pool over a whole axis, VALID, without an activation."""
    return {
        "filterHeight": 1,
        "filterWidth": length,
        "strideH": 1,
        "strideW": 1,
        "padding": 1,
        "fusedActivationFunction": 0,
    }


WAYS = {
    "PRELU": _Way(2, _prelu),
    "ABS": _Way(1, _abs),
    "MAXIMUM": _Way(2, _extremum),
    "MINIMUM": _Way(2, _extremum),
    "RELU_0_TO_1": _Way(1, _relu_0_to_1),
    "REDUCE_MAX": _Way(2, _reduce_max),
}
