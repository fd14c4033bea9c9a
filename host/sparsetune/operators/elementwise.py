"""ADD: two tensors of one shape."""

from __future__ import annotations

import struct

from ..backward import Backward
from ..geometry import output_limits
from ..graph import Graph, Operator
from ..lowering import Lowering
from ..numerics import quantize_multiplier
from ..program import Buffer, Code, Const
from .kind import Kind, check_fused, refuse


class Add(Kind):
    inputs = 2

    def activations(self, graph: Graph, op: Operator) -> tuple[int, ...]:
        return op.inputs[:2]

    def check(self, graph: Graph, op: Operator) -> None:
        a, b, y = (graph.tensor(i) for i in (*op.inputs[:2], op.outputs[0]))
        if not a.shape == b.shape == y.shape:
            raise refuse(op, f"broadcasts {list(a.shape)} + {list(b.shape)}: not supported")
        check_fused(op)

    def clamps(self, graph: Graph, op: Operator) -> bool:
        return True

    def lower(self, low: Lowering, op: Operator) -> None:
        a, b, y = (low.graph.tensor(i) for i in (*op.inputs[:2], op.outputs[0]))
        twice_max = 2 * max(a.scale, b.scale)
        factors = (a.scale / twice_max, b.scale / twice_max, twice_max / ((1 << 20) * y.scale))
        pairs = [word for real in factors for word in quantize_multiplier(real)]
        zeros = (a.zero_point, b.zero_point, y.zero_point)
        params = Const(struct.pack("<11i", *zeros, *pairs, *output_limits(low.graph, op)))
        places = low.values[a.index], low.values[b.index]
        out = next((low.values[t.index] for t in (a, b) if low.dies_at(t.index, op)), None)
        low.values[y.index] = out or Buffer(f"t{y.index}", y.size)
        low.emit(Code.ADD, op, params, *places, low.values[y.index], y.size)

    def differentiate(self, back: Backward, op: Operator) -> None:
        dy = back.take(op)
        targets = [t for t in op.inputs[:2] if t in back.wanted]
        # Those that need a copy anyway come first, so that the last may take dy itself.
        targets.sort(key=lambda t: t not in back.errors)
        for i, tensor in enumerate(targets):
            last = i == len(targets) - 1
            back.hand_on(op, dy, tensor, may_keep=last and targets.count(tensor) == 1)


KINDS: dict[str, Kind] = {"ADD": Add()}
