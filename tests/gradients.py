"""Gradients of a model two ways: from its int8 activations in float64, and as our kernels make
them. Both in real units, by operator: of its output before the clamp, its weights, its bias."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import reference as ref
from machine import UPDATES, Array, Machine, gradient_read_by
from sparsetune.graph import Graph, Operator, Tensor
from sparsetune.numerics import rate
from sparsetune.program import Op, Slot

RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
CURVES = ("LOGISTIC", "TANH", "LEAKY_RELU", "HARD_SWISH")
WEIGHT_STEPS, BIAS_STEPS = 100, 1_000_000  # the largest step that a measurement provokes


@dataclass
class Gradients:
    """loss: natural logarithm. The rest: operator index -> gradient in the tensor's own shape."""

    loss: float = 0.0
    outputs: dict[int, Array] = field(default_factory=dict)
    weights: dict[int, Array] = field(default_factory=dict)
    biases: dict[int, Array] = field(default_factory=dict)


def cosine(a: Array, b: Array) -> float:
    """1 for two zero vectors, 0 if only one of them is zero."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if not all(norms):
        return float(norms[0] == norms[1])
    return float(a @ b / norms[0] / norms[1])


def length_ratio(ours: Array, wanted: Array) -> float:
    norm = np.linalg.norm(wanted)
    return float(np.linalg.norm(ours) / norm) if norm else 1.0


# The reference --------------------------------------------------------------------------------


def real(tensor: Tensor, stored: Array, axis: int | None = None) -> Array:
    """What stored integers stand for. axis: of the channels, where each has a scale."""
    scales = tensor.scales.astype(np.float64)
    if axis is not None:
        scales = scales.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
    return (stored.astype(np.float64) - tensor.zero_point) * scales


def clamp_limits(tensor: Tensor, activation: int) -> tuple[float, float]:
    """int8 limits of the output: the range's ends, or what the fused activation clamps to."""
    lowest, highest = {0: (-np.inf, np.inf), 1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}[activation]
    stored = [tensor.zero_point + np.rint(v / tensor.scale) for v in (lowest, highest)]
    return max(-128.0, float(stored[0])), min(127.0, float(stored[1]))


class Reference:
    """Backpropagation in float64 through the int8 values of one sample (tensor -> int8).
    smoothing: of its label, all classes' share together."""

    def __init__(
        self, graph: Graph, values: dict[int, Array], label: int | Array, smoothing: float = 0.0
    ) -> None:
        self.graph, self.values, self.smoothing = graph, values, smoothing
        self.result = Gradients()
        self.arriving: dict[int, Array] = {}
        self._loss(label)
        for op in reversed(graph.operators):
            if op.kind in ref.MOVES and any(t in self.arriving for t in op.outputs):
                self._move(op)
            elif op.outputs[0] in self.arriving:
                self._operator(op)

    def _loss(self, label: int | Array) -> None:
        """label: class number, or the targets in real numbers."""
        tensor = self.graph.tensor(self.graph.logits)
        if not isinstance(label, int):
            return self._target_loss(tensor, np.asarray(label, np.float64))
        stored = self.values[tensor.index]
        logits = real(tensor, stored).ravel()
        self.result.loss = ref.cross_entropy(logits, label)
        gradient = ref.cross_entropy_backward(logits, label)
        gradient += self.smoothing * (np.eye(logits.size)[label] - 1 / logits.size)
        gradient = gradient.reshape(stored.shape)
        outward = ((stored == -128) & (gradient > 0)) | ((stored == 127) & (gradient < 0))
        self.arriving[tensor.index] = np.where(outward, 0.0, gradient)

    def _target_loss(self, tensor: Tensor, target: Array) -> None:
        stored = self.values[tensor.index]
        y = real(tensor, stored)
        target = target.reshape(y.shape)
        if self.graph.loss_name == "bce":
            self.result.loss = float((np.logaddexp(0, y) - target * y).mean())
            smoothed = (1 - self.smoothing) * target + self.smoothing / 2
            gradient = (1 / (1 + np.exp(-y)) - smoothed) / y.size
        else:
            self.result.loss = float(((y - target) ** 2).mean())
            gradient = 2 * (y - target) / y.size
        outward = ((stored == -128) & (gradient > 0)) | ((stored == 127) & (gradient < 0))
        self.arriving[tensor.index] = np.where(outward, 0.0, gradient)

    def _operator(self, op: Operator) -> None:
        y = op.outputs[0]
        dy = self.arriving.pop(y) * self._passes(op)
        self.result.outputs[op.index] = dy
        backward = getattr(self, "_" + op.kind.lower())
        for tensor, dx in backward(op, dy):
            self.arriving[tensor] = self.arriving.get(tensor, 0.0) + dx

    def _move(self, op: Operator) -> None:
        """Where each element went is found by moving the numbers 0, 1, 2 ... of the elements."""
        numbers, at = {}, 0
        for tensor in self._moving(op):
            shape = self.graph.tensor(tensor).shape
            size = int(np.prod(shape))
            numbers[tensor] = np.arange(at, at + size).reshape(shape)
            at += size
        constants = [self.graph.tensor(t).data for t in op.inputs if t not in numbers]
        moved = ref.MOVES[op.kind](
            [numbers[t] for t in op.inputs if t in numbers], constants, op.options
        )
        gradient = np.zeros(at + 1)  # the last one: of what was filled in
        for tensor, where in zip(op.outputs, moved, strict=True):
            if tensor in self.arriving:
                dy = self.arriving.pop(tensor)
                self.result.outputs.setdefault(op.index, dy)
                np.add.at(gradient, where.ravel(), dy.ravel())
        for tensor, places in numbers.items():
            self.arriving[tensor] = self.arriving.get(tensor, 0.0) + gradient[places]

    def _moving(self, op: Operator) -> list[int]:
        return list(dict.fromkeys(t for t in op.inputs if self.graph.tensor(t).data is None))

    def _passes(self, op: Operator) -> Array:
        """Straight through all but the clamp. The loss looks after the ends of its own range."""
        tensor = self.graph.tensor(op.outputs[0])
        alone = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
        activation = op.options.get("fusedActivationFunction", alone.get(op.kind, 0))
        limits = clamp_limits(tensor, activation)
        inside = ("RESHAPE", "SOFTMAX", "AVERAGE_POOL_2D", "MAX_POOL_2D", *RESIZES, *CURVES)
        if op.kind == "MEAN":
            x = self.graph.tensor(op.inputs[0])
            inside += ("MEAN",) * ((x.scale, x.zero_point) == (tensor.scale, tensor.zero_point))
        clamps = op.kind not in inside or activation
        if not clamps or (tensor.index == self.graph.logits and limits == (-128, 127)):
            return np.ones(tensor.shape)
        return ref.clamp_passes(self.values[tensor.index], *limits)

    def _real(self, tensor: int) -> Array:
        return real(self.graph.tensor(tensor), self.values[tensor])

    def _weights(self, op: Operator, axis: int) -> Array:
        tensor = self.graph.tensor(op.inputs[1])
        assert tensor.data is not None
        return real(tensor, tensor.data, axis)

    def _window(self, op: Operator, kernel: tuple[int, int]) -> ref.Window:
        shape = self.graph.tensor(op.inputs[0]).shape[1:3]
        options = op.options
        stride = options["strideH"], options["strideW"]
        dilation = options.get("dilationHFactor", 1), options.get("dilationWFactor", 1)
        if "explicitPadding" in options:  # a folded PAD
            pad = tuple(ends[0] for ends in options["explicitPadding"])
            out = self.graph.tensor(op.outputs[0]).shape[1:3]
            return ref.Window(kernel, stride, dilation, pad, out)
        return ref.window_of(shape, kernel, stride, dilation, options["padding"] == 0)

    def _conv_2d(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        weights = self._weights(op, 0)
        window = self._window(op, weights.shape[1:3])
        x = self._real(op.inputs[0])[0]
        return self._trainable(op, ref.grouped_conv_backward(dy[0], x, weights, window))

    def _depthwise_conv_2d(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        weights = self._weights(op, 3)
        window = self._window(op, weights.shape[1:3])
        x = self._real(op.inputs[0])[0]
        return self._trainable(op, ref.depthwise_backward(dy[0], x, weights, window))

    def _fully_connected(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        weights = self._weights(op, 0)
        outputs, inputs = weights.shape
        x = self._real(op.inputs[0]).reshape(-1, inputs)
        return self._trainable(op, ref.dense_backward(dy.reshape(-1, outputs), x, weights))

    def _trainable(
        self, op: Operator, gradients: tuple[Array, Array, Array]
    ) -> list[tuple[int, Array]]:
        dx, self.result.weights[op.index], self.result.biases[op.index] = gradients
        return [(op.inputs[0], dx.reshape(self.graph.tensor(op.inputs[0]).shape))]

    def _average_pool_2d(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        window = self._window(op, (op.options["filterHeight"], op.options["filterWidth"]))
        x = self._real(op.inputs[0])[0]
        return [(op.inputs[0], ref.average_pool_backward(dy[0], x, window)[None])]

    def _max_pool_2d(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        window = self._window(op, (op.options["filterHeight"], op.options["filterWidth"]))
        x = self.values[op.inputs[0]][0].astype(np.float64)
        return [(op.inputs[0], ref.max_pool_backward(dy[0], x, window)[None])]

    def _resize(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        x, y = self.graph.tensor(op.inputs[0]).shape, self.graph.tensor(op.outputs[0]).shape
        nearest = op.kind == "RESIZE_NEAREST_NEIGHBOR"
        rows, columns = (ref.resize_matrix(x[i], y[i], op.options, nearest) for i in (1, 2))
        return [(op.inputs[0], np.einsum("or,zopc,px->zrxc", rows, dy, columns))]

    _resize_bilinear = _resize_nearest_neighbor = _resize

    def _identity(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        return [(op.inputs[0], dy)]

    _relu = _relu6 = _relu_n1_to_1 = _quantize = _identity

    def _curve(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        x, y = self._real(op.inputs[0]), self.values[op.outputs[0]]
        if op.kind in ("LEAKY_RELU", "HARD_SWISH"):  # clamped; the clamp is part of their slope
            dy = dy * ref.clamp_passes(y, -128, 127)
        return [(op.inputs[0], dy * ref.slope(op.kind, x, op.options.get("alpha", 0.0)))]

    _logistic = _tanh = _hard_swish = _leaky_relu = _curve

    def _add(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        return self._both(op, dy, dy)

    def _sub(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        return self._both(op, dy, -dy)

    def _mul(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        a, b = (self._operand(t) for t in op.inputs[:2])
        return self._both(op, dy * b, dy * a)

    def _operand(self, tensor: int) -> Array:
        t = self.graph.tensor(tensor)
        return self._real(tensor) if t.data is None else real(t, t.data)

    def _both(self, op: Operator, da: Array, db: Array) -> list[tuple[int, Array]]:
        """The gradients of two operands, summed over what was broadcast."""
        shapes = [self.graph.tensor(t).shape for t in op.inputs[:2]]
        return [
            (t, ref.unbroadcast(d, shape))
            for t, d, shape in zip(op.inputs[:2], (da, db), shapes, strict=True)
        ]

    def _mean(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        x, axes = self.graph.tensor(op.inputs[0]), self.graph.tensor(op.inputs[1]).data
        assert axes is not None
        kept = np.zeros(x.shape).sum(axis=tuple(axes.ravel()), keepdims=True).shape
        n = x.size / np.prod(kept)
        return [(x.index, np.broadcast_to(dy.reshape(kept) / n, x.shape))]

    def _reshape(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        return [(op.inputs[0], dy.reshape(self.graph.tensor(op.inputs[0]).shape))]

    def _softmax(self, op: Operator, dy: Array) -> list[tuple[int, Array]]:
        return [(op.inputs[0], ref.softmax_backward(dy, self._real(op.outputs[0])))]


# Ours -----------------------------------------------------------------------------------------


def measure(machine: Machine, x: Array, label: int | Array, wanted: Gradients) -> Gradients:
    """One training step, operator by operator, that changes no weight. wanted: the reference's
    gradients, only for the learning rates at which the updates are measured."""
    ours = Gradients()
    for i, op in machine.walk(x, label):
        gradient = gradient_read_by(machine, op)
        if gradient is not None:
            shape = machine.graph.tensor(gradient.tensor).shape
            ours.outputs[op.source] = gradient.values.reshape(shape)
        if op.code in UPDATES:
            _measure_update(machine, i, op, wanted, ours)
    ours.loss = machine.loss
    return ours


def _measure_update(
    machine: Machine, index: int, op: Op, wanted: Gradients, ours: Gradients
) -> None:
    graph, source = machine.graph, machine.graph.operator(op.source)
    weights = graph.tensor(source.inputs[1])
    x_scale = graph.tensor(source.inputs[0]).scale
    axis = 3 if source.kind == "DEPTHWISE_CONV_2D" else 0
    shape = [-1 if i == axis else 1 for i in range(len(weights.shape))]
    scales = weights.scales.astype(np.float64)
    slots = op.words[6], op.words[7], op.words[8]
    if slots[0] is not None:
        steps = wanted.weights[op.source] / scales.reshape(shape)
        learning_rate = _rate_for(steps, WEIGHT_STEPS)
        fine = _update_of_zeros(machine, index, slots, learning_rate)[0].reshape(weights.shape)
        ours.weights[op.source] = -fine * scales.reshape(shape) / _value(learning_rate)
    if slots[2] is not None:
        unit = np.broadcast_to(x_scale * scales, wanted.biases[op.source].shape)
        learning_rate = _rate_for(wanted.biases[op.source] / unit, BIAS_STEPS)
        steps = _update_of_zeros(machine, index, slots, learning_rate)[1]
        ours.biases[op.source] = -steps * unit / _value(learning_rate)


def _rate_for(steps: Array, largest: int) -> tuple[int, int]:
    peak = float(np.abs(steps).max())
    return rate(largest / peak if peak else 1.0)


def _value(pair: tuple[int, int]) -> float:
    return pair[0] * 2.0 ** pair[1]


def _update_of_zeros(
    machine: Machine, index: int, slots: tuple[object, ...], learning_rate: tuple[int, int]
) -> tuple[Array, Array]:
    """What an update makes of zeros: (weights in steps, biases in steps). All else is put back."""
    before = bytes(machine.state)
    label = int(np.frombuffer(machine.state, np.int32, 1)[0])  # unused where targets are vectors
    weights, residual, bias = (
        machine.slot(s, t) if isinstance(s, Slot) else np.zeros(1, t)
        for s, t in zip(slots, (np.int8, np.int8, np.int32), strict=True)
    )
    for values in (weights, residual, bias):
        values[:] = 0
    machine.control(label, learning_rate)
    machine.run(index, index + 1)
    result = weights + residual / 256, bias.astype(np.float64)
    machine.state[:] = before
    return result
