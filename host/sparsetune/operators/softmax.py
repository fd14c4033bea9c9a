"""SOFTMAX, where it is not part of the loss."""

from __future__ import annotations

import struct

from ..backward import INT32_ROOM, Backward
from ..graph import Graph, Operator
from ..lowering import Lowering
from ..numerics import softmax_scaling
from ..plan import UpdatePlan
from ..program import Code, Const, Flag
from .kind import Kind, refuse


class Softmax(Kind):
    def check(self, graph: Graph, op: Operator) -> None:
        y = graph.tensor(op.outputs[0])
        if graph.tensor(op.inputs[0]).shape != y.shape:
            raise refuse(op, "has different shapes in and out")
        if y.zero_point != -128 or abs(y.scale * 256 - 1) > 1e-3:
            raise refuse(op, "must have an output scale of 1/256 and zero point -128")

    def holds(self, graph: Graph, op: Operator, plan: UpdatePlan) -> set[int]:
        return {op.outputs[0]}

    def lower(self, low: Lowering, op: Operator) -> None:
        x = low.graph.tensor(op.inputs[0])
        flags = Flag.INFERENCE_ONLY if low.is_part_of_loss(op) else Flag.NONE
        y = low.new_value(op.outputs[0])
        words = (softmax_params(low.graph, op), low.values[x.index], y)
        low.emit(Code.SOFTMAX, op, *words, flags=flags)

    def differentiate(self, back: Backward, op: Operator) -> None:
        if op.options["beta"] != 1.0:
            raise refuse(op, "has a beta other than 1: no layer in front of it can be trained")
        dy = back.take(op)
        dy.data.bound(INT32_ROOM // (256 * 3 * 256))
        y = back.low.values[op.outputs[0]]
        depth = back.graph.tensor(op.inputs[0]).shape[-1]
        out, flags = back.error_out(op.inputs[0], dy, -16, depth)
        words = (softmax_params(back.graph, op), y, dy.data)
        back.emit(Code.SOFTMAX_GRAD_INPUT, op, *words, *out, flags=flags)


def softmax_params(graph: Graph, op: Operator) -> Const:
    """st_softmax_params_t: see ulab_kernels/softmax.h."""
    x = graph.tensor(op.inputs[0])
    depth = x.shape[-1]
    scaling = softmax_scaling(op.options["beta"], x.scale)
    return Const(struct.pack("<5i", x.size // depth, depth, *scaling))


KINDS: dict[str, Kind] = {"SOFTMAX": Softmax()}
