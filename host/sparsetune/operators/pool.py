"""AVERAGE_POOL_2D and MAX_POOL_2D."""

from __future__ import annotations

import math

from ..backward import INT32_ROOM, Backward
from ..errors import SparsetuneError
from ..geometry import Geometry, conv_geometry
from ..graph import Graph, Operator
from ..lowering import Lowering
from ..program import Buffer, Code
from .kind import Kind, check_fused, check_maps, check_window, refuse

AVG_POOL_MAX_WINDOW, AVG_POOL_MAX_SHIFTED = 4080, 2880  # ulab_kernels/avg_pool.h
MAX_POOL_MAX_TAPS = 256  # ulab_kernels/max_pool.h


class Pool2D(Kind):
    """What both share."""

    def check(self, graph: Graph, op: Operator) -> None:
        check_maps(graph, op)
        check_fused(op)
        check_window(graph, op, (op.options["filterHeight"], op.options["filterWidth"]))

    def clamps(self, graph: Graph, op: Operator) -> bool:
        # Neither a mean nor a maximum leaves the range of what it is taken from.
        return bool(op.options.get("fusedActivationFunction", 0))


class AveragePool2D(Pool2D):
    def lower(self, low: Lowering, op: Operator) -> None:
        geometry = conv_geometry(low.graph, op)
        largest = AVG_POOL_MAX_SHIFTED if geometry.w_zero else AVG_POOL_MAX_WINDOW
        if geometry.kernel_h * geometry.kernel_w > largest:
            raise SparsetuneError(
                f"AVERAGE_POOL_2D (operator {op.index}) has a window of {geometry.kernel_h}x"
                f"{geometry.kernel_w}: at most {largest} elements are supported"
            )
        const = geometry.const()
        low.notes[op.index] = geometry, const
        low.emit(Code.AVG_POOL, op, const, low.values[op.inputs[0]], low.new_value(op.outputs[0]))

    def differentiate(self, back: Backward, op: Operator) -> None:
        geometry, const = back.low.notes[op.index]
        dy = back.take(op)
        count_log2 = _smallest_window(geometry).bit_length() - 1
        dy.data.bound(INT32_ROOM // (_overlap(geometry) << 15))
        out, flags = back.error_out(op.inputs[0], dy, -(count_log2 + 15), geometry.in_c)
        words = (const, dy.data, count_log2)
        back.emit(Code.AVG_POOL_GRAD_INPUT, op, *words, *out, flags=flags)


class MaxPool2D(Pool2D):
    """A byte for each output element says where it came from, where a gradient must pass."""

    def check(self, graph: Graph, op: Operator) -> None:
        super().check(graph, op)
        taps = op.options["filterHeight"] * op.options["filterWidth"]
        if taps > MAX_POOL_MAX_TAPS:
            raise refuse(op, f"has a window of {taps}: at most {MAX_POOL_MAX_TAPS} are supported")

    def lower(self, low: Lowering, op: Operator) -> None:
        geometry = conv_geometry(low.graph, op)
        winner = None
        if op.index in low.active:
            winner = Buffer(f"winner{op.index}", low.graph.tensor(op.outputs[0]).size)
            low.winners[op.index] = winner
        low.notes[op.index] = geometry, geometry.const()
        words = (geometry.const(), low.values[op.inputs[0]], winner)
        low.emit(Code.MAX_POOL, op, *words, low.new_value(op.outputs[0]))

    def differentiate(self, back: Backward, op: Operator) -> None:
        geometry, const = back.low.notes[op.index]
        dy = back.take(op)
        dy.data.bound(INT32_ROOM // _overlap(geometry))
        out, flags = back.error_out(op.inputs[0], dy, 0, geometry.in_c)
        words = (const, back.low.winners[op.index], dy.data)
        back.emit(Code.MAX_POOL_GRAD_INPUT, op, *words, *out, flags=flags)


KINDS: dict[str, Kind] = {"AVERAGE_POOL_2D": AveragePool2D(), "MAX_POOL_2D": MaxPool2D()}


def _smallest_window(g: Geometry) -> int:
    """Fewest input elements that any pooling window meets."""
    rows = [_inside(y * g.stride_h - g.pad_h, g.kernel_h, g.in_h) for y in range(g.out_h)]
    columns = [_inside(x * g.stride_w - g.pad_w, g.kernel_w, g.in_w) for x in range(g.out_w)]
    return min(rows) * min(columns)


def _inside(first: int, length: int, size: int) -> int:
    return min(first + length, size) - max(first, 0)


def _overlap(g: Geometry) -> int:
    """Most windows that one input element can be part of."""
    return math.ceil(g.kernel_h / g.stride_h) * math.ceil(g.kernel_w / g.stride_w)
