"""Operators that only rename the axes of what lies in memory."""

from __future__ import annotations

from ..backward import Backward
from ..graph import Graph, Operator
from ..lowering import Lowering
from .kind import Kind, refuse


class Reshape(Kind):
    def check(self, graph: Graph, op: Operator) -> None:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        same_numbers = (x.scale, x.zero_point) == (y.scale, y.zero_point)
        if x.size != y.size or not same_numbers:
            raise refuse(op, "changes the number or the scale of its elements")

    def lower(self, low: Lowering, op: Operator) -> None:
        low.values[op.outputs[0]] = low.values[op.inputs[0]]

    def differentiate(self, back: Backward, op: Operator) -> None:
        back.hand_on(op, back.take(op), op.inputs[0], may_keep=True)


# SQUEEZE, EXPAND_DIMS and the like have become one (simplify.py).
KINDS: dict[str, Kind] = {"RESHAPE": Reshape()}
