"""ADD, SUB and MUL of two tensors, one of which may be broadcast or constant; MEAN over axes."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..backward import INT32_ROOM, Backward, Error
from ..graph import Graph, Operator, Tensor
from ..lowering import Lowering
from ..numerics import quantize_multiplier
from ..plan import UpdatePlan
from ..program import Buffer, Code, Const, Place
from .kind import Kind, check_fused, refuse
from .shape import contiguous

MAX_AXES = 4  # ulab_kernels/elementwise.h


@dataclass(frozen=True)
class Axis:
    """One axis of the output. strides: of each operand, 0 where it is broadcast."""

    count: int
    strides: tuple[int, ...]


def axes_of(y: tuple[int, ...], operands: Sequence[tuple[int, ...]]) -> list[Axis]:
    """The axes of y, with neighbours merged that all operands have in one piece. Operands of lower
    rank get axes of size 1 in front, as in NumPy."""
    strides = [_strides(shape, len(y)) for shape in operands]
    found: list[Axis] = []
    for i, count in enumerate(y):
        axis = Axis(count, tuple(s[i] for s in strides))
        if count == 1:
            continue
        if found and all(
            o == n * count for o, n in zip(found[-1].strides, axis.strides, strict=True)
        ):
            axis = Axis(found.pop().count * count, axis.strides)
        found.append(axis)
    return found


def _strides(shape: tuple[int, ...], rank: int) -> list[int]:
    shape = (1,) * (rank - len(shape)) + shape
    return [0 if n == 1 else s for n, s in zip(shape, contiguous(shape), strict=True)]


def padded(axes: Sequence[Axis], operands: int) -> list[Axis]:
    """Four of them, the missing ones in front."""
    return [Axis(1, (0,) * operands)] * (MAX_AXES - len(axes)) + list(axes)


def columns(axes: Sequence[Axis], operands: int) -> list[int]:
    """Counts, then the strides of each operand, of four axes."""
    full = padded(axes, operands)
    return [a.count for a in full] + [a.strides[i] for i in range(operands) for a in full]


class Elementwise(Kind):
    inputs = 2
    code: Code

    def activations(self, graph: Graph, op: Operator) -> tuple[int, ...]:
        return tuple(t for t in op.inputs[:2] if graph.tensor(t).data is None)

    def check(self, graph: Graph, op: Operator) -> None:
        check_fused(op)
        a, b, y = (graph.tensor(i) for i in (*op.inputs[:2], op.outputs[0]))
        for t in (a, b):
            if t.dtype != "int8" or len(t.scales) != 1 or not 0 < t.scale < np.inf:
                raise refuse(op, "has an operand that is not int8 with one scale: convert it again")
            if not -128 <= t.zero_point <= 127:
                raise refuse(op, f"has the zero point {t.zero_point}: convert the model again")
        try:
            fits = np.broadcast_shapes(a.shape, b.shape) == y.shape
        except ValueError:
            fits = False
        if not fits or not self.activations(graph, op):
            raise refuse(op, f"combines shapes {a.shape} and {b.shape} to {y.shape}: not supported")
        if len(axes_of(y.shape, (a.shape, b.shape))) > MAX_AXES:
            raise refuse(op, f"broadcasts over more than {MAX_AXES} axes: not supported")

    def clamps(self, graph: Graph, op: Operator) -> bool:
        return True

    def lower(self, low: Lowering, op: Operator) -> None:
        a, b, y = (low.graph.tensor(i) for i in (*op.inputs[:2], op.outputs[0]))
        zeros = (a.zero_point, b.zero_point, y.zero_point)
        axes = columns(axes_of(y.shape, (a.shape, b.shape)), 2)
        limits = self.limits(low.graph, op)
        params = Const(struct.pack("<23i", *axes, *zeros, *self.scales(a, b, y), *limits))
        places = operand(low, a), operand(low, b)
        # In place over an operand that nobody reads any more.
        out = next((low.values[t.index] for t in (a, b) if _may_go(low, op, t, y)), None)
        low.values[y.index] = out or Buffer(f"t{y.index}", y.size)
        low.emit(self.code, op, params, *places, low.values[y.index])

    def scales(self, a: Tensor, b: Tensor, y: Tensor) -> list[int]:
        """The requants of a, b and y."""
        twice_max = 2 * max(a.scale, b.scale)
        factors = (a.scale / twice_max, b.scale / twice_max, twice_max / ((1 << 20) * y.scale))
        return [word for real in factors for word in quantize_multiplier(real)]


def operand(low: Lowering, tensor: Tensor) -> Place:
    """Where an operand lies: a constant is part of the image."""
    return low.values[tensor.index] if tensor.data is None else Const(tensor.data.tobytes())


def _may_go(low: Lowering, op: Operator, tensor: Tensor, y: Tensor) -> bool:
    return tensor.data is None and tensor.size == y.size and low.dies_at(tensor.index, op)


class Add(Elementwise):
    code = Code.ADD
    sign_of_b = 1

    def differentiate(self, back: Backward, op: Operator) -> None:
        dy, y = back.take(op), back.graph.tensor(op.outputs[0])
        targets = [(i, t) for i, t in enumerate(op.inputs[:2]) if t in back.wanted]
        plain = [t for i, t in targets if not self._needs_sum(back.graph.tensor(t), y, i)]
        for i, tensor in targets:
            if tensor not in plain or self._needs_sum(back.graph.tensor(tensor), y, i):
                sign = 1 if i == 0 else self.sign_of_b
                reduce_error(back, op, dy, Reduction(tensor, None, float(sign)))
        # Those that need a copy anyway come first, so that the last may take dy itself.
        plain.sort(key=lambda t: t not in back.errors)
        for i, tensor in enumerate(plain):
            last = i == len(plain) - 1
            back.hand_on(op, dy, tensor, may_keep=last and plain.count(tensor) == 1)

    def _needs_sum(self, x: Tensor, y: Tensor, position: int) -> bool:
        """Whether the gradient of an operand is more than dy."""
        return x.size != y.size or (position == 1 and self.sign_of_b < 0)


class Sub(Add):
    code = Code.SUB
    sign_of_b = -1


class Mul(Elementwise):
    code = Code.MUL

    def scales(self, a: Tensor, b: Tensor, y: Tensor) -> list[int]:
        # TFLite computes this one in float32.
        product = np.float32(a.scale) * np.float32(b.scale) / np.float32(y.scale)
        return [0, 0, 0, 0, *quantize_multiplier(float(product))]

    def holds(self, graph: Graph, op: Operator, plan: UpdatePlan) -> set[int]:
        return set(self.activations(graph, op))

    def differentiate(self, back: Backward, op: Operator) -> None:
        dy = back.take(op)
        for tensor, other in (op.inputs[:2], op.inputs[1::-1]):
            if tensor in back.wanted:
                scale = back.graph.tensor(other).scale
                reduce_error(back, op, dy, Reduction(tensor, other, scale))


@dataclass(frozen=True)
class Reduction:
    """The gradient of operand `tensor`: factor * sum of dy * (other - its zero point), other None
    standing for 1; summed over what `tensor` was broadcast along."""

    tensor: int
    other: int | None
    factor: float


def reduce_error(back: Backward, op: Operator, dy: Error, r: Reduction) -> None:
    """Appends the operator that makes it."""
    x, y = back.graph.tensor(r.tensor), back.graph.tensor(op.outputs[0])
    other = back.graph.tensor(r.other) if r.other is not None else None
    shapes = (y.shape, other.shape if other else (1,), x.shape)
    axes = axes_of(y.shape, shapes)
    kept = [a for a in axes if a.strides[2]]
    summed = [a for a in axes if not a.strides[2]]
    addends = prod(a.count for a in summed)
    dy.data.bound(INT32_ROOM // (addends * (255 if other else 1)))
    exponent = math.frexp(abs(r.factor))[1]
    q15 = round(r.factor / 2.0**exponent * 32768)
    zero = other.zero_point if other else 0
    words = [*columns(kept, 3)[:12], *columns(summed, 3)[:12], zero, q15]
    row = kept[-1].count if kept else 1
    out, flags = back.error_out(x.index, dy, exponent, row)
    place = operand(back.low, other) if other else None
    params = Const(struct.pack("<26i", *words))
    back.emit(Code.REDUCE_GRAD_INPUT, op, params, dy.data, place, *out, flags=flags)


class Mean(Kind):
    """Over axes that lie side by side."""

    inputs = 2

    def check(self, graph: Graph, op: Operator) -> None:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        outer, n, inner = self._blocks(graph, op)
        if outer * inner != y.size or outer * n * inner != x.size:
            raise refuse(op, "takes the mean over axes that are not neighbours: not supported")
        if max(outer, inner) > 65535 or n > 1 << 22:
            raise refuse(op, f"has {outer} x {n} x {inner} elements: too large")

    def _blocks(self, graph: Graph, op: Operator) -> tuple[int, int, int]:
        """x as [outer, n, inner]; the axes between the first and the last one may be of size 1."""
        x, axes = graph.tensor(op.inputs[0]), graph.tensor(op.inputs[1]).data
        if axes is None or axes.dtype.kind != "i" or axes.size == 0:
            raise refuse(op, "has axes that are only known when it runs: fix them in the model")
        rank = len(x.shape)
        if not all(-rank <= a < rank for a in axes.ravel()):
            raise refuse(op, "has axes that its input has not: convert the model again")
        wanted = sorted({int(a) % rank for a in axes.ravel() if x.shape[int(a)] != 1})
        if not wanted:
            return 1, 1, x.size
        first, last = wanted[0], wanted[-1]
        n = prod(x.shape[a] for a in wanted)
        return prod(x.shape[:first]), n, prod(x.shape[last + 1 :])

    def clamps(self, graph: Graph, op: Operator) -> bool:
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
        return (x.scale, x.zero_point) != (y.scale, y.zero_point)

    def lower(self, low: Lowering, op: Operator) -> None:
        x, y = low.graph.tensor(op.inputs[0]), low.graph.tensor(op.outputs[0])
        outer, n, inner = self._blocks(low.graph, op)
        multiplier, shift = quantize_multiplier(x.scale / y.scale)
        bits = min(n.bit_length() - 1, 32, 31 + shift)  # as TFLite divides by n
        requant = (multiplier << bits) // n, shift - bits
        params = struct.pack("<7i", outer, n, inner, x.zero_point, y.zero_point, *requant)
        low.emit(Code.MEAN, op, Const(params), low.values[x.index], low.new_value(y.index))

    def differentiate(self, back: Backward, op: Operator) -> None:
        outer, n, inner = self._blocks(back.graph, op)
        dy = back.take(op)
        axes = [Axis(outer, (inner, 0, 0)), Axis(n, (0, 0, 0)), Axis(inner, (1, 0, 0))]
        exponent = math.frexp(1 / n)[1]
        q15 = round(2.0**-exponent / n * 32768)
        words = [*columns(axes, 3)[:12], *columns([], 3)[:12], 0, q15]
        out, flags = back.error_out(op.inputs[0], dy, exponent, inner)
        params = Const(struct.pack("<26i", *words))
        back.emit(Code.REDUCE_GRAD_INPUT, op, params, dy.data, None, *out, flags=flags)


KINDS: dict[str, Kind] = {"ADD": Add(), "SUB": Sub(), "MUL": Mul(), "MEAN": Mean()}
