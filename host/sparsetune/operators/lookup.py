"""Functions of one value: RELU, HARD_SWISH, LOGISTIC, TANH, a change of scale ... All run as a
table of 256 entries (tables.py)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import tables
from ..backward import Backward
from ..graph import Array, Graph, Operator, Tensor
from ..lowering import Lowering
from ..numerics import activation_range
from ..plan import UpdatePlan
from ..program import Code, Const, Flag
from .kind import Kind, refuse


class Lookup(Kind):
    """y = table[x], in place where x is needed no more."""

    def table(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        raise NotImplementedError

    def check(self, graph: Graph, op: Operator) -> None:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        if x.shape != y.shape:
            raise refuse(op, f"has different shapes in and out ({x.shape}, {y.shape})")

    def lower(self, low: Lowering, op: Operator) -> None:
        x, y = low.graph.tensor(op.inputs[0]), low.graph.tensor(op.outputs[0])
        source = low.values[x.index]
        if low.dies_at(x.index, op):
            low.values[y.index] = source
        else:
            low.new_value(y.index)
        table = Const(self.table(op, x, y).tobytes())
        flags = Flag.INFERENCE_ONLY if low.is_part_of_loss(op) else Flag.NONE
        low.emit(Code.LOOKUP, op, table, source, x.size, low.values[y.index], flags=flags)


class Identity(Lookup):
    """y = x within limits, perhaps in another scale: where it is not at an end the gradient passes
    as it is. activation: TFLite's number of what it clamps to."""

    def __init__(self, activation: int) -> None:
        self.activation = activation

    def table(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        return tables.clamp(x, y, self.activation)

    def clamps(self, graph: Graph, op: Operator) -> bool:
        return True

    def limits(self, graph: Graph, op: Operator) -> tuple[int, int]:
        y = graph.tensor(op.outputs[0])
        return activation_range(self.activation, y.scale, y.zero_point)

    def differentiate(self, back: Backward, op: Operator) -> None:
        back.hand_on(op, back.take(op), op.inputs[0], may_keep=True)


class Curve(Lookup):
    """Any other function: the gradient is multiplied by its slope at x, which is held for it."""

    def derivative(self, op: Operator) -> Callable[[float], float]:
        raise NotImplementedError

    def holds(self, graph: Graph, op: Operator, plan: UpdatePlan) -> set[int]:
        return {op.inputs[0]}

    def slopes(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        """float64 [256]; 0 where the output is at an end of its range and stays there."""
        found = tables.slopes_of(x, self.derivative(op))
        table = self.table(op, x, y)
        return np.where((table > -128) & (table < 127), found, 0.0)

    def differentiate(self, back: Backward, op: Operator) -> None:
        x, y = back.graph.tensor(op.inputs[0]), back.graph.tensor(op.outputs[0])
        dy = back.take(op)
        slopes = self.slopes(op, x, y)
        exponent = math.frexp(float(np.abs(slopes).max()))[1] - 14
        mantissas = np.round(slopes * 2.0**-exponent).astype("<i2")
        out, flags = back.error_out(x.index, dy, exponent, 0)
        words = (Const(mantissas.tobytes()), back.low.values[x.index], x.size, dy.data)
        back.emit(Code.LOOKUP_GRAD_INPUT, op, *words, *out, flags=flags)


class LeakyRelu(Curve):
    def table(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        return tables.leaky_relu(x, y, op.options["alpha"])

    def derivative(self, op: Operator) -> Callable[[float], float]:
        return lambda x: 1.0 if x >= 0 else float(op.options["alpha"])


class HardSwish(Curve):
    def table(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        return tables.hard_swish(x, y)

    def derivative(self, op: Operator) -> Callable[[float], float]:
        return lambda x: (2 * x + 3) / 6 if -3 < x < 3 else float(x >= 3)


class Sigmoid(Curve):
    """A curve that nears its ends: a small slope is left there, so that it can come back."""

    scale: float
    zero_point: int

    def check(self, graph: Graph, op: Operator) -> None:
        super().check(graph, op)
        y = graph.tensor(op.outputs[0])
        if y.zero_point != self.zero_point or abs(y.scale / self.scale - 1) > 1e-3:
            raise refuse(op, f"must have an output scale of {self.scale:g} and zero point "
                         f"{self.zero_point}: convert the model again")

    def slopes(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        return tables.slopes_of(x, self.derivative(op))


class Logistic(Sigmoid):
    scale, zero_point = 1 / 256, -128

    def table(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        return tables.logistic(x)

    def derivative(self, op: Operator) -> Callable[[float], float]:
        return lambda x: 1 / (2 + math.exp(min(x, 700)) + math.exp(min(-x, 700)))


class Tanh(Sigmoid):
    scale, zero_point = 1 / 128, 0

    def table(self, op: Operator, x: Tensor, y: Tensor) -> Array:
        return tables.tanh(x)

    def derivative(self, op: Operator) -> Callable[[float], float]:
        return lambda x: 1 - math.tanh(x) ** 2


KINDS: dict[str, Kind] = {
    "QUANTIZE": Identity(0),
    "RELU": Identity(1),
    "RELU_N1_TO_1": Identity(2),
    "RELU6": Identity(3),
    "LEAKY_RELU": LeakyRelu(),
    "HARD_SWISH": HardSwish(),
    "LOGISTIC": Logistic(),
    "TANH": Tanh(),
}
