"""Operators that move data: TRANSPOSE, CONCATENATION, SPLIT, SLICE, PAD. Each is one or several
strided copies; the gradient of a copy is a gather (ulab_kernels/copy.h)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ..backward import Backward
from ..graph import Graph, Operator, Tensor
from ..lowering import Lowering
from ..program import Code, Const
from .kind import Kind, check_fused, check_same_numbers, refuse

MAX_AXES = 4  # ulab_kernels/copy.h


@dataclass(frozen=True)
class Axis:
    """One axis of x. Of its `size` elements those at begin, begin + step, ... are copied, `count`
    of them; in y they lie y_stride elements apart."""

    size: int
    begin: int
    step: int
    count: int
    y_stride: int

    @property
    def is_whole(self) -> bool:
        return self.begin == 0 and self.step == 1 and self.count == self.size


@dataclass(frozen=True)
class Copy:
    """One strided copy from tensor x to tensor y. axes: those of x, outermost first."""

    x: int
    y: int
    axes: tuple[Axis, ...]
    y_offset: int = 0

    def forward(self) -> Const:
        """st_copy_t"""
        strides = contiguous([axis.size for axis in self.axes])
        x_strides = [s * a.step for s, a in zip(strides, self.axes, strict=True)]
        offset = sum(s * a.begin for s, a in zip(strides, self.axes, strict=True))
        counts = [axis.count for axis in self.axes]
        words = (*counts, *x_strides, *(a.y_stride for a in self.axes), offset, self.y_offset)
        return Const(struct.pack("<14i", *words))

    def backward(self) -> Const:
        """st_gather_t"""
        names = ("size", "begin", "step", "count", "y_stride")
        words = [getattr(axis, name) for name in names for axis in self.axes]
        return Const(struct.pack("<21i", *words, self.y_offset))


def contiguous(shape: Sequence[int]) -> list[int]:
    """Strides of a tensor that lies in one piece."""
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def merged(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The same copy with as few axes as possible, at least MAX_AXES: a whole axis is one with the
    axis outside of it where y has both in one piece, too."""
    found: list[Axis] = []
    for inner in axes:
        outer = found[-1] if found else None
        if outer and outer.is_whole and outer.size == 1:
            found[-1] = inner
        elif outer and _is_one(outer, inner):
            n = inner.size
            found[-1] = Axis(outer.size * n, outer.begin * n, 1, outer.count * n, inner.y_stride)
        else:
            found.append(inner)
    return (*[Axis(1, 0, 1, 1, 0)] * (MAX_AXES - len(found)), *found)


def _is_one(outer: Axis, inner: Axis) -> bool:
    in_one_piece = outer.y_stride == inner.size * inner.y_stride or outer.count == 1
    return outer.step == 1 and inner.is_whole and in_one_piece


class Move(Kind):
    """An operator made of copies."""

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        """Its copies, axes not merged yet. Raises SparsetuneError for what is not supported."""
        raise NotImplementedError

    def fills(self, graph: Graph, op: Operator) -> int | None:
        """What stands where no copy writes; None where copies write everywhere."""
        return None

    def check(self, graph: Graph, op: Operator) -> None:
        for copy in self.copies(graph, op):
            x, y = graph.tensor(copy.x), graph.tensor(copy.y)
            check_same_numbers(op, x, y)
            if len(merged(copy.axes)) > MAX_AXES:
                raise refuse(op, f"moves more than {MAX_AXES} axes: not supported")
            reach = copy.y_offset + sum((a.count - 1) * a.y_stride for a in copy.axes)
            outside = any(
                min(a.begin, a.count - 1, a.y_stride) < 0
                or a.begin + (a.count - 1) * a.step >= a.size
                for a in copy.axes
            )
            if outside or copy.y_offset < 0 or reach >= y.size:
                raise refuse(op, "reaches outside of its tensors: convert the model again")
        written = sum(prod(a.count for a in copy.axes) for copy in self.copies(graph, op))
        if self.fills(graph, op) is None and written != sum(
            graph.tensor(t).size for t in op.outputs
        ):
            raise refuse(op, "has shapes that do not fit: convert the model again")

    def lower(self, low: Lowering, op: Operator) -> None:
        value = self.fills(low.graph, op)
        for tensor in op.outputs:
            y = low.new_value(tensor)
            if value is not None:
                low.emit(Code.FILL, op, y, y.size, value)
        for copy in self.merged_copies(low.graph, op):
            low.emit(Code.COPY, op, copy.forward(), low.values[copy.x], low.values[copy.y])

    def differentiate(self, back: Backward, op: Operator) -> None:
        errors = {t: back.errors.pop(t) for t in op.outputs if t in back.errors}
        for copy in self.merged_copies(back.graph, op):
            if copy.x in back.wanted and copy.y in errors:
                dy, row = errors[copy.y], copy.axes[-1].size
                out, flags = back.error_out(copy.x, dy, 0, row)
                back.emit(Code.COPY_GRAD_INPUT, op, copy.backward(), dy.data, *out, flags=flags)

    def merged_copies(self, graph: Graph, op: Operator) -> list[Copy]:
        return [
            Copy(copy.x, copy.y, merged(copy.axes), copy.y_offset)
            for copy in self.copies(graph, op)
        ]


def constant(graph: Graph, op: Operator, position: int) -> list[int]:
    """The numbers of a constant operand. Raises SparsetuneError where it is not constant."""
    at = op.inputs[position] if position < len(op.inputs) else -1
    tensor = graph.tensor(at) if at >= 0 else None
    if tensor is None or tensor.data is None or tensor.dtype not in ("int32", "int64"):
        raise refuse(op, "has a shape that is only known when it runs: fix it in the model")
    return [int(n) for n in tensor.data.ravel()]


def _axis_number(op: Operator, axis: int, tensor: Tensor) -> int:
    rank = len(tensor.shape)
    if not -rank <= axis < rank:
        raise refuse(op, f"has axis {axis} of a tensor with {rank} axes: convert the model again")
    return axis % rank


class Transpose(Move):
    inputs = 2

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        order = constant(graph, op, 1)
        if sorted(order) != list(range(len(x.shape))) or len(y.shape) != len(x.shape):
            raise refuse(op, f"has the order {order} for {len(x.shape)} axes: not supported")
        strides = contiguous(y.shape)
        axes = [Axis(n, 0, 1, n, strides[order.index(i)]) for i, n in enumerate(x.shape)]
        return [Copy(x.index, y.index, tuple(axes))]


class Concatenation(Move):
    def activations(self, graph: Graph, op: Operator) -> tuple[int, ...]:
        return op.inputs

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        check_fused(op)
        if op.options.get("fusedActivationFunction", 0):
            raise refuse(op, "has a fused activation: not supported")
        y = graph.tensor(op.outputs[0])
        axis = _axis_number(op, op.options["axis"], y)
        strides, at, found = contiguous(y.shape), 0, []
        for tensor in op.inputs:
            x = graph.tensor(tensor)
            if len(x.shape) != len(y.shape):
                raise refuse(op, "joins tensors of different rank: convert the model again")
            axes = [Axis(n, 0, 1, n, s) for n, s in zip(x.shape, strides, strict=True)]
            found.append(Copy(tensor, y.index, tuple(axes), at * strides[axis]))
            at += x.shape[axis]
        return found


class Cut(Move):
    """Outputs that are parts of one input."""

    def part(self, x: Tensor, y: Tensor, ranges: dict[int, tuple[int, int, int]]) -> Copy:
        """ranges: axis -> (begin, step, count); all other axes are whole."""
        spans = [ranges.get(i, (0, 1, n)) for i, n in enumerate(x.shape)]
        strides = contiguous([count for _, _, count in spans])
        axes = [
            Axis(n, begin, step, count, stride)
            for n, (begin, step, count), stride in zip(x.shape, spans, strides, strict=True)
        ]
        return Copy(x.index, y.index, tuple(axes))


class Split(Cut):
    """SPLIT has the axis in front of x, SPLIT_V the sizes and the axis behind it."""

    inputs = 2

    def __init__(self, x_at: int, axis_at: int) -> None:
        self.x_at, self.axis_at = x_at, axis_at

    def activations(self, graph: Graph, op: Operator) -> tuple[int, ...]:
        return (op.inputs[self.x_at],)

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        x = graph.tensor(op.inputs[self.x_at])
        axis = _axis_number(op, constant(graph, op, self.axis_at)[0], x)
        at, found = 0, []
        for tensor in op.outputs:
            y = graph.tensor(tensor)
            if len(y.shape) != len(x.shape):
                raise refuse(op, "has parts of another rank: convert the model again")
            found.append(self.part(x, y, {axis: (at, 1, y.shape[axis])}))
            at += y.shape[axis]
        return found


class Slice(Cut):
    inputs = 3

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        begins, sizes = constant(graph, op, 1), constant(graph, op, 2)
        if not len(begins) == len(sizes) == len(x.shape):
            raise refuse(op, "has begins or sizes that do not match its input's axes")
        ranges = {
            i: (begin, 1, n - begin if size < 0 else size)
            for i, (begin, size, n) in enumerate(zip(begins, sizes, x.shape, strict=True))
        }
        return [self.part(x, y, ranges)]


class StridedSlice(Cut):
    inputs = 4

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        if op.options.get("ellipsisMask", 0) or op.options.get("newAxisMask", 0):
            raise refuse(op, "has an ellipsis or a new axis: not supported")
        if op.options.get("offset", False):
            raise refuse(op, "counts its ends from its beginnings: not supported")
        triples = list(zip(*(constant(graph, op, i) for i in (1, 2, 3)), strict=False))
        if len(triples) > len(x.shape):
            raise refuse(op, "slices more axes than there are: convert the model again")
        ranges = {i: self._range(op, i, x.shape[i], *triple) for i, triple in enumerate(triples)}
        return [self.part(x, y, ranges)]

    def _range(
        self, op: Operator, axis: int, size: int, begin: int, end: int, step: int
    ) -> tuple[int, int, int]:
        if step < 1:
            raise refuse(op, f"has the stride {step}: only positive ones are supported")
        bit = 1 << axis
        first = 0 if op.options["beginMask"] & bit else _within(begin, size)
        last = size if op.options["endMask"] & bit else _within(end, size)
        if op.options["shrinkAxisMask"] & bit:
            last = first + 1
        return first, step, -(-(last - first) // step)


def _within(index: int, size: int) -> int:
    """An index of an axis; negative ones count from its end."""
    return min(max(index + size if index < 0 else index, 0), size)


class Pad(Move):
    """PAD fills with the zero point, PADV2 with a constant; what simplify.py leaves of them."""

    inputs = 2

    def copies(self, graph: Graph, op: Operator) -> list[Copy]:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        amounts = constant(graph, op, 1)
        padded = tuple(map(sum, zip(x.shape, amounts[::2], amounts[1::2], strict=False)))
        if len(amounts) != 2 * len(x.shape) or min(amounts) < 0 or padded != y.shape:
            raise refuse(op, "has paddings that do not match its axes: convert the model again")
        strides = contiguous(y.shape)
        axes = [Axis(n, 0, 1, n, s) for n, s in zip(x.shape, strides, strict=True)]
        offset = sum(n * s for n, s in zip(amounts[::2], strides, strict=True))
        return [Copy(x.index, y.index, tuple(axes), offset)]

    def fills(self, graph: Graph, op: Operator) -> int | None:
        if op.kind == "PAD" or len(op.inputs) < 3:
            return graph.tensor(op.inputs[0]).zero_point
        value = graph.tensor(op.inputs[2])
        if value.data is None or value.dtype != "int8" or value.size != 1:
            raise refuse(op, "pads with something else than one int8 constant: not supported")
        return int(value.data.ravel()[0])


KINDS: dict[str, Kind] = {
    "TRANSPOSE": Transpose(),
    "CONCATENATION": Concatenation(),
    "SPLIT": Split(x_at=1, axis_at=0),
    "SPLIT_V": Split(x_at=0, axis_at=2),
    "SLICE": Slice(),
    "STRIDED_SLICE": StridedSlice(),
    "PAD": Pad(),
    "PADV2": Pad(),
}
