"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR. Both are the same kernel: for each output row and
column a table says which two input rows and columns it is made of (ulab_kernels/resize.h)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..backward import INT32_ROOM, Backward
from ..geometry import MAX_LENGTH
from ..graph import Graph, Operator
from ..lowering import Lowering
from ..program import Code, Const, Word
from .kind import Kind, check_maps, refuse

ONE, GRAD_LOG2 = 1024, 8  # ST_RESIZE_ONE, ST_RESIZE_GRAD_LOG2


@dataclass(frozen=True)
class Taps:
    """What one output row (column) is made of: x[low] * (ONE - weight) + x[high] * weight."""

    low: int
    high: int
    weight: int

    def packed(self) -> bytes:
        return struct.pack("<4h", self.low, self.high, ONE - self.weight, self.weight)


def bilinear_taps(size: int, out: int, align: bool, half: bool) -> list[Taps]:
    """As TFLite's integer reference does it, in 1/1024 of a row. size, out: rows in and out."""
    step = (ONE * size + out // 2) // out
    if align and out > 1:
        step = (ONE * (size - 1) + (out - 1) // 2) // (out - 1)
    return [_between(i * step + (step // 2 - ONE // 2 if half else 0), size) for i in range(out)]


def _between(at: int, size: int) -> Taps:
    """The rows around a place in 1/1024 of a row. In front of the first and behind the last row
    both are the same, and the weights do not matter."""
    low, high = max(at // ONE, 0), min(-(-at // ONE), size - 1)
    return Taps(low, high, at - low * ONE) if at >= 0 and high > low else Taps(low, low, 0)


def nearest_taps(size: int, out: int, align: bool, half: bool) -> list[Taps]:
    """As TFLite does it, in float32."""
    scale = np.float32(size) / np.float32(out)
    if align and out > 1:
        scale = np.float32(size - 1) / np.float32(out - 1)
    at = (np.arange(out, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    rows = np.floor(at + np.float32(0.5)) if align else np.floor(at)
    return [Taps(row, row, 0) for row in rows.astype(int).clip(0, size - 1).tolist()]


def most_weight(taps: Sequence[Taps], size: int) -> tuple[int, int]:
    """(sum of weights, number of outputs): the most that any input has a part in."""
    weights, counts = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for tap in taps:
        for row, weight in ((tap.low, ONE - tap.weight), (tap.high, tap.weight)):
            weights[row] += weight
            counts[row] += 1
    return int(weights.max()), int(counts.max())


class Resize(Kind):
    inputs = 2

    def check(self, graph: Graph, op: Operator) -> None:
        check_maps(graph, op)
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        if max(*x.shape, *y.shape) > MAX_LENGTH // 2:
            raise refuse(op, f"has axes above {MAX_LENGTH // 2}: not supported")
        for taps, size in zip(self.taps(graph, op), x.shape[1:3], strict=True):
            if max(tap.low for tap in taps) >= size:
                raise refuse(op, f"enlarges {size} rows or columns too much: not supported")

    def taps(self, graph: Graph, op: Operator) -> list[list[Taps]]:
        """For rows and columns."""
        make = bilinear_taps if op.kind == "RESIZE_BILINEAR" else nearest_taps
        x, y = graph.tensor(op.inputs[0]).shape, graph.tensor(op.outputs[0]).shape
        align = bool(op.options.get("alignCorners", False))
        half = bool(op.options.get("halfPixelCenters", False))
        return [make(x[i], y[i], align, half) for i in (1, 2)]

    def words(self, graph: Graph, op: Operator) -> list[Word]:
        x, y = graph.tensor(op.inputs[0]).shape, graph.tensor(op.outputs[0]).shape
        tables = [b"".join(tap.packed() for tap in taps) for taps in self.taps(graph, op)]
        return [Const(struct.pack("<5i", *x[1:], *y[1:3])), *(Const(table) for table in tables)]

    def lower(self, low: Lowering, op: Operator) -> None:
        y = low.new_value(op.outputs[0])
        low.emit(Code.RESIZE, op, *self.words(low.graph, op), low.values[op.inputs[0]], y)

    def differentiate(self, back: Backward, op: Operator) -> None:
        x = back.graph.tensor(op.inputs[0]).shape
        dy = back.take(op)
        (rows, row_count), (columns, column_count) = (
            most_weight(taps, size)
            for taps, size in zip(self.taps(back.graph, op), x[1:3], strict=True)
        )
        largest = (rows * columns >> (20 - GRAD_LOG2)) + row_count * column_count
        dy.data.bound(max(1, INT32_ROOM // largest))
        out, flags = back.error_out(op.inputs[0], dy, -GRAD_LOG2, x[3])
        words = (*self.words(back.graph, op), dy.data)
        back.emit(Code.RESIZE_GRAD_INPUT, op, *words, *out, flags=flags)


KINDS: dict[str, Kind] = {
    "RESIZE_BILINEAR": Resize(),
    "RESIZE_NEAREST_NEIGHBOR": Resize(),
}
