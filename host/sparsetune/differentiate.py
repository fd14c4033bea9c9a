"""Reverse-mode differentiation at compile time, pruned to what the plan updates.

Gradients are taken in real units (see docs/DESIGN.md, Numerics). An operator's input gradient is
made before its weights move, and the weight gradient is applied as it is made."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from .errors import SparsetuneError
from .graph import Graph, Operator, input_channels, output_channels, per_channel_scales
from .lower import Geometry, Layer, Lowering
from .numerics import rate, softmax_scaling
from .plan import UpdatePlan
from .program import Buffer, Code, Const, Flag, LimitOf, Op, Slot, TrainedLayer, Word

INT32_ROOM = (1 << 31) - (1 << 20)  # leaves room for the rounding of every addend


@dataclass(eq=False)
class Error:
    """The gradient of the loss with respect to one tensor: int16 elements, shared exponent."""

    data: Buffer
    exponent: Slot


def active_operators(graph: Graph, plan: UpdatePlan) -> set[int]:
    """Operators whose output gradient is needed: the trained ones and all between them and the
    loss."""
    active: set[int] = set()
    reached: set[int] = set()
    for op in graph.operators:
        if plan.layer(op.index) or any(t in reached for t in op.inputs):
            active.add(op.index)
            reached.update(op.outputs)
    return active


def held_tensors(graph: Graph, plan: UpdatePlan, active: set[int]) -> set[int]:
    """Tensors that backward reads whole."""
    held = graph.logits_aliases if plan.layers else set()
    for op in graph.operators:
        layer = plan.layer(op.index)
        if layer and layer.channels == input_channels(graph, op):
            held.add(op.inputs[0])
        if op.kind == "SOFTMAX" and op.index in active:
            held.add(op.outputs[0])
    return held


def differentiate(low: Lowering) -> None:
    """Appends loss, backward pass and updates to a program that holds the forward pass."""
    Backward(low).run()


class Backward:
    """Walks the operators from the loss to the first trained layer."""

    def __init__(self, low: Lowering) -> None:
        self.low = low
        self.graph = low.graph
        self.errors: dict[int, Error] = {}
        producers = {op.outputs[0]: op.index for op in self.graph.operators}
        self.wanted = {t for t, index in producers.items() if index in low.active}

    def run(self) -> None:
        self._loss()
        for op in reversed(self.graph.operators):
            if op.index in self.low.active and op.outputs[0] in self.errors:
                self._operator(op)
        for index in sorted(self.low.layers):
            self._record(index)

    # Error tensors ----------------------------------------------------------------------------

    def _error_out(
        self, tensor: int, dy: Error | None, exponent: int, row: int
    ) -> tuple[tuple[Word, ...], Flag]:
        """Words of st_error_out_t for the gradient of `tensor`. exponent: of the int32 sums
        relative to dy's. row: int32 elements of scratch."""
        flags = Flag.ACCUMULATE if tensor in self.errors else Flag.NONE
        if tensor not in self.errors:
            size = 2 * self.graph.tensor(tensor).size
            self.errors[tensor] = Error(Buffer(f"d{tensor}", size), Slot(2, 2))
        out = self.errors[tensor]
        scratch = Buffer(f"row{tensor}", 4 * row) if row else None
        dy_exponent = dy.exponent if dy else None
        words = (out.data, out.exponent, Slot(2, 2), dy_exponent, scratch)
        return (*words, LimitOf(out.data), exponent), flags

    def _emit(self, code: Code, op: Operator, *words: Word, flags: Flag = Flag.NONE) -> None:
        self.low.program.ops.append(Op(code, words, flags | Flag.TRAINING_ONLY, op.index))

    # Operators --------------------------------------------------------------------------------

    def _loss(self) -> None:
        logits = self.graph.tensor(self.graph.logits)
        last = self.graph.last
        beta = last.options["beta"] if last.kind == "SOFTMAX" else 1.0
        if beta != 1.0 or logits.size != logits.shape[-1]:
            raise SparsetuneError(
                "training needs one row of class scores and a SOFTMAX with beta 1: "
                f"this model has shape {logits.shape}, beta {beta}"
            )
        params = Const(struct.pack("<5i", 1, logits.size, *softmax_scaling(beta, logits.scale)))
        out, flags = self._error_out(logits.index, None, -30, logits.size)
        self._emit(Code.LOSS, last, params, self.low.values[logits.index], *out, flags=flags)

    def _operator(self, op: Operator) -> None:
        dy = self.errors.pop(op.outputs[0])
        mask = self.low.masks.get(op.index)
        if mask:
            self._emit(Code.APPLY_MASK, op, dy.data, mask, self._count(op.outputs[0]))
        if op.kind == "ADD":
            self._add(op, dy)
        elif op.kind == "RESHAPE":
            self._hand_on(op, dy, op.inputs[0], may_keep=True)
        elif op.kind == "AVERAGE_POOL_2D":
            self._avg_pool(op, dy)
        elif op.kind == "SOFTMAX":
            self._softmax(op, dy)
        else:
            self._conv(op, dy)

    def _count(self, tensor: int) -> int:
        return self.graph.tensor(tensor).size

    def _hand_on(self, op: Operator, dy: Error, tensor: int, may_keep: bool) -> None:
        """Gives dy unchanged to another tensor: as it is if nobody else needs its memory."""
        if tensor not in self.errors and may_keep:
            self.errors[tensor] = dy
            return
        out, flags = self._error_out(tensor, dy, 0, 0)
        self._emit(Code.ERROR_ADD, op, dy.data, self._count(tensor), *out, flags=flags)

    def _add(self, op: Operator, dy: Error) -> None:
        targets = [t for t in op.inputs[:2] if t in self.wanted]
        # Those that need a copy anyway come first, so that the last may take dy itself.
        targets.sort(key=lambda t: t not in self.errors)
        for i, tensor in enumerate(targets):
            last = i == len(targets) - 1
            self._hand_on(op, dy, tensor, may_keep=last and targets.count(tensor) == 1)

    def _avg_pool(self, op: Operator, dy: Error) -> None:
        geometry, const = self.low.pools[op.index]
        smallest = _smallest_window(geometry)
        count_log2 = smallest.bit_length() - 1
        dy.data.bound(INT32_ROOM // (_overlap(geometry) << 15))
        out, flags = self._error_out(op.inputs[0], dy, -(count_log2 + 15), geometry.in_c)
        self._emit(
            Code.AVG_POOL_GRAD_INPUT, op, const, dy.data, count_log2, *out, flags=flags
        )

    def _softmax(self, op: Operator, dy: Error) -> None:
        if op.options["beta"] != 1.0:
            raise SparsetuneError(f"SOFTMAX (operator {op.index}) has a beta other than 1")
        depth = self.graph.tensor(op.inputs[0]).shape[-1]
        dy.data.bound(INT32_ROOM // (256 * 3 * 256))
        y = self.low.values[op.outputs[0]]
        out, flags = self._error_out(op.inputs[0], dy, -16, depth)
        params = self.low.softmaxes[op.index]
        self._emit(Code.SOFTMAX_GRAD_INPUT, op, params, y, dy.data, *out, flags=flags)

    def _conv(self, op: Operator, dy: Error) -> None:
        layer = self.low.layers[op.index]
        if op.inputs[0] in self.wanted:
            self._conv_grad_input(op, layer, dy)
        if layer.plan:
            self._update(op, layer, dy)

    def _conv_grad_input(self, op: Operator, layer: Layer, dy: Error) -> None:
        g = layer.geometry
        depthwise = op.kind == "DEPTHWISE_CONV_2D"
        addends = g.kernel_h * g.kernel_w * (g.out_c // g.in_c if depthwise else g.out_c)
        dy.data.bound(INT32_ROOM // (addends * 128))
        row = g.in_c * (2 if depthwise else 1)
        out, flags = self._error_out(op.inputs[0], dy, layer.weight_exponent, row)
        code = Code.DEPTHWISE_CONV2D_GRAD_INPUT if depthwise else Code.CONV2D_GRAD_INPUT
        words = (layer.geometry_const, dy.data, layer.weights, layer.scale_q15)
        self._emit(code, op, *words, *out, flags=flags)

    def _update(self, op: Operator, layer: Layer, dy: Error) -> None:
        assert layer.plan is not None
        dy.data.bound(INT32_ROOM // (layer.geometry.out_positions * 256))
        chosen = layer.plan.channels
        row = Buffer(f"urow{op.index}", 4 * chosen) if chosen else None
        weight_rate, bias_rate = self._rates(op, layer)
        depthwise = op.kind == "DEPTHWISE_CONV_2D"
        self._emit(
            Code.DEPTHWISE_CONV2D_UPDATE if depthwise else Code.CONV2D_UPDATE,
            op,
            *(layer.geometry_const, dy.data, dy.exponent),
            *(layer.kept, layer.channels, chosen),
            *(layer.weights if chosen else None, layer.residual),
            layer.bias if layer.plan.bias else None,
            *(weight_rate, bias_rate, row, op.index),
        )

    def _rates(self, op: Operator, layer: Layer) -> tuple[Const, Const]:
        """Steps for a learning rate of 1, in units of the stored integers: QAS."""
        x_scale = self.graph.tensor(op.inputs[0]).scale
        scales = per_channel_scales(self.graph, op)
        unit = 256.0 if layer.residual else 1.0
        return _rate_table(unit * x_scale / scales), _rate_table(1.0 / (x_scale * scales))

    def _record(self, index: int) -> None:
        layer = self.low.layers[index]
        if layer.plan is None:
            return
        op = self.graph.operators[index]
        self.low.program.layers.append(
            TrainedLayer(
                index,
                input_channels(self.graph, op),
                output_channels(self.graph, op),
                layer.plan.channels,
                _slot(layer.channels),
                _slot(layer.weights),
                layer.residual,
                _slot(layer.bias),
            )
        )


def _slot(place: object) -> Slot | None:
    return place if isinstance(place, Slot) else None


def _rate_table(reals: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Const:
    return Const(b"".join(struct.pack("<Hh", *rate(float(real))) for real in reals))


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
