"""Error tensors while the backward pass is written, operator by operator from the loss on.

Gradients are taken in real units (see docs/DESIGN.md, Numerics)."""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Graph, Operator
from .lowering import Lowering
from .program import Buffer, Code, Flag, LimitOf, Op, Slot, Word

INT32_ROOM = (1 << 31) - (1 << 20)  # leaves room for the rounding of every addend


@dataclass(eq=False)
class Error:
    """The gradient of the loss with respect to one tensor: int16 elements, shared exponent."""

    data: Buffer
    exponent: Slot


class Backward:
    """The error tensors alive at this point of the walk, and the program so far."""

    def __init__(self, low: Lowering) -> None:
        self.low = low
        self.graph: Graph = low.graph
        self.errors: dict[int, Error] = {}
        self.layers_behind = 0  # those with weights, up to the loss
        # Tensors whose gradient somebody needs.
        self.wanted = {t for op in low.graph.operators if op.index in low.active
                       for t in op.outputs}

    def take(self, op: Operator) -> Error:
        """The gradient of op's output, nobody else's any more, behind its clamp."""
        dy = self.errors.pop(op.outputs[0])
        mask = self.low.masks.get(op.index)
        if mask:
            count = self.graph.tensor(op.outputs[0]).size
            self.emit(Code.APPLY_MASK, op, dy.data, mask, count)
        return dy

    def error_out(
        self, tensor: int, dy: Error | None, exponent: int, row: int
    ) -> tuple[tuple[Word, ...], Flag]:
        """Words of st_error_out_t for the gradient of `tensor`. exponent: of the int32 sums
        relative to dy's. row: int32 elements of scratch."""
        flags = Flag.ACCUMULATE if tensor in self.errors else Flag.NONE
        if tensor not in self.errors:
            size = 2 * self.graph.tensor(tensor).size
            self.errors[tensor] = Error(Buffer(f"d{tensor}", size), Slot(2, 2))
        scratch = Buffer(f"row{tensor}", 4 * row) if row else None
        return self._written(self.errors[tensor], dy, exponent, scratch), flags

    def between(
        self, name: str, count: int, dy: Error, exponent: int, scratch: Buffer
    ) -> tuple[Error, tuple[Word, ...]]:
        """An error tensor of `count` elements that is no tensor's gradient, made from dy, and its
        words as of error_out."""
        error = Error(Buffer(name, 2 * count), Slot(2, 2))
        return error, self._written(error, dy, exponent, scratch)

    def _written(
        self, out: Error, dy: Error | None, exponent: int, scratch: Buffer | None
    ) -> tuple[Word, ...]:
        """Words of st_error_out_t."""
        dy_exponent = dy.exponent if dy else None
        words = (out.data, out.exponent, Slot(2, 2), dy_exponent, scratch)
        most = (1 << (self.low.plan.error_bits - 1)) - 1
        return (*words, LimitOf(out.data, most), exponent)

    def emit(self, code: Code, op: Operator, *words: Word, flags: Flag = Flag.NONE) -> None:
        self.low.program.ops.append(Op(code, words, flags | Flag.TRAINING_ONLY, op.index))

    def hand_on(self, op: Operator, dy: Error, tensor: int, may_keep: bool) -> None:
        """Gives dy unchanged to another tensor: as it is if nobody else needs its memory."""
        if tensor not in self.errors and may_keep:
            self.errors[tensor] = dy
            return
        out, flags = self.error_out(tensor, dy, 0, 0)
        self.emit(Code.ERROR_ADD, op, dy.data, self.graph.tensor(tensor).size, *out, flags=flags)
