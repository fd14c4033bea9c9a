"""Weight gradients of a model, measured with the twin's own kernels: what an update makes of
weights that were set to zero is their gradient at a known rate, in 16 bits. Then all is put back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import sparsetune_kernels as kernels
from sparsetune_device.engine import LABEL, RATE, Engine
from sparsetune_device.image import Image

from ..compile import build_program, source_of
from ..data import Dataset, target_bytes
from ..graph import Array, Graph, Operator, input_channels, output_channels, per_channel_scales
from ..image import Layout, lay_out
from ..numerics import rate
from ..plan import LayerPlan, UpdatePlan
from ..program import Buffer, Code, Op, Slot
from ..task import task_of

UPDATES = (Code.CONV2D_UPDATE, Code.DEPTHWISE_CONV2D_UPDATE)
FINE, COARSE = 16, 126  # largest step of a weight that tells enough, and that is not cut off
BIAS_BITS = 14  # of a bias' step that tell enough; with as many more it is not cut off
RESIDUAL = 256  # parts of a step
TRIES = 24  # at a rate, for each sample
NOTHING = 5  # in which nothing moves, though each rate is eight times the last: a gradient of zero
FIRST = 10  # power of two of the first rate

Run = Callable[[int, int], None]


@dataclass
class LayerGradient:
    """Sums over samples, in real units. weights [input channels, outputs of each, taps], bias
    [outputs]: of gradients. inputs: of the means of input channels."""

    weights: Array
    bias: Array
    inputs: Array

    def over(self, samples: int) -> LayerGradient:
        """Means over so many samples."""
        return LayerGradient(self.weights / samples, self.bias / samples, self.inputs / samples)

    def centred(self, inputs: Array, outputs_of_each: bool) -> Array:
        """The weights' gradients as they were if inputs had no mean. outputs_of_each: whether each
        input channel has outputs of its own."""
        bias = self.bias.reshape(len(inputs) if outputs_of_each else 1, -1, 1)
        gradients: Array = self.weights - inputs.reshape(-1, 1, 1) * bias
        return gradients


Gradients = dict[int, LayerGradient]  # by number of the operator


def measure_gradients(graph: Graph, operators: list[Operator], data: Dataset) -> Gradients:
    """Of the loss, for the weights and biases of these operators, summed over the samples."""
    layers = tuple(_whole(graph, op) for op in operators)
    plan = UpdatePlan(layers, residual=True, strips=False, scratch=False)
    layout = lay_out(build_program(graph, plan), source_of(graph))
    return _Meter(graph, layout).over(data)


def _whole(graph: Graph, op: Operator) -> LayerPlan:
    return LayerPlan(op.index, input_channels(graph, op), graph.bias_of(op) is not None)


class _Meter:
    """A program that trains all of the layers, run in pieces: up to an update, then it alone."""

    def __init__(self, graph: Graph, layout: Layout) -> None:
        self.task = task_of(graph)
        self.engine = Engine(Image(layout.image))
        self.clean = bytes(self.engine.state)
        ops = enumerate(layout.program.ops)
        self.updates = [_Update(graph, at, op) for at, op in ops if op.code in UPDATES]

    def over(self, data: Dataset) -> Gradients:
        for number in range(len(data)):
            self._load(data.part(slice(number, number + 1)))
            at = 0
            for update in self.updates:
                self._run(at, update.at)
                update.measure(self._run, self.engine, number)
                at = update.at + 1
        return {update.operator.index: update.sums for update in self.updates}

    def _load(self, sample: Dataset) -> None:
        engine = self.engine
        engine.state[:] = self.clean
        engine.sample[:] = sample.x.tobytes()
        if self.task.has_classes:
            assert sample.y is not None
            struct.pack_into("<i", engine.state, LABEL, int(sample.y[0]))
        elif self.task.target_bytes:
            engine.target[:] = target_bytes(sample, self.task)

    def _run(self, begin: int, end: int) -> None:
        engine = self.engine
        buffers = (engine.image.data, engine.state, engine.arena, engine.cold, engine.store)
        kernels.run(*buffers, begin, end, engine.how + 1)


@dataclass
class _Update:
    """One update of a program. power: of two, the rate that suited the sample before."""

    graph: Graph
    at: int
    op: Op
    power: int = FIRST
    sums: LayerGradient = field(init=False)

    def __post_init__(self) -> None:
        graph, op = self.graph, self.operator
        channels, outputs = input_channels(graph, op), output_channels(graph, op)
        of_each = outputs // channels if op.kind == "DEPTHWISE_CONV_2D" else outputs
        shape = channels, of_each, graph.tensor(op.inputs[1]).size // (channels * of_each)
        self.axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
        self.scales = per_channel_scales(graph, op)
        self.bias_unit = graph.tensor(op.inputs[0]).scale * self.scales
        self.sums = LayerGradient(np.zeros(shape), np.zeros(outputs), np.zeros(channels))

    @property
    def operator(self) -> Operator:
        return self.graph.operator(self.op.source)

    def measure(self, run: Run, engine: Engine, seed: int) -> None:
        """Adds this sample's gradients; the state is left as it was."""
        state = engine.state
        slots = [word for word in self.op.words[6:9] if isinstance(word, Slot)]
        before = [bytes(state[slot.offset : slot.offset + slot.size]) for slot in slots]
        steps = self._steps(run, state, slots, seed)
        self._add(*steps, self._inputs(engine.arena))
        for slot, data in zip(slots, before, strict=True):
            state[slot.offset : slot.offset + slot.size] = data

    def _steps(
        self, run: Run, state: bytearray, slots: list[Slot], seed: int
    ) -> tuple[Array, Array]:
        """Of the weights and the bias, over the rate: at one at which the largest of the weights is
        neither cut off nor lost in rounding."""
        first = self.power
        for number in range(TRIES):
            power = self.power
            self._update(run, state, slots, power, seed)
            weights = _read(state, slots[0], np.int8)
            peak = int(np.abs(weights).max())
            self.power += -3 if peak > COARSE else 3 if peak == 0 else peak < FINE
            if 0 < peak <= COARSE:
                break
            if number + 1 >= NOTHING and power == first + 3 * number and peak == 0:
                self.power = first
                break
        fine = weights + _read(state, slots[1], np.int8) / RESIDUAL
        return fine / 2.0**power, self._bias_steps(run, state, slots, power, seed)

    def _bias_steps(
        self, run: Run, state: bytearray, slots: list[Slot], power: int, seed: int
    ) -> Array:
        """Behind an update at the rate that suits the weights. Where the bias hardly moved, one at
        a larger rate follows."""
        if len(slots) < 3:
            return np.zeros(len(self.scales))
        if np.abs(_read(state, slots[2], np.int32)).max() < 1 << BIAS_BITS:
            power += BIAS_BITS
            self._update(run, state, slots, power, seed)
        return _read(state, slots[2], np.int32) / 2.0**power

    def _update(
        self, run: Run, state: bytearray, slots: list[Slot], power: int, seed: int
    ) -> None:
        """Of zeros, at a rate of 2^power."""
        struct.pack_into("<IiI", state, RATE, *rate(2.0**power), seed)
        for slot in slots:
            state[slot.offset : slot.offset + slot.size] = bytes(slot.size)
        run(self.at, self.at + 1)

    def _inputs(self, arena: bytearray) -> Array:
        """Means of the input's channels, in real units."""
        x, kept = self.graph.tensor(self.operator.inputs[0]), self.op.words[3]
        assert isinstance(kept, Buffer)
        stored = np.frombuffer(bytes(arena[kept.offset : kept.offset + x.size]), np.int8)
        means: Array = stored.reshape(-1, len(self.sums.inputs)).mean(axis=0)
        return x.scale * (means - x.zero_point)

    def _add(self, weights: Array, bias: Array, inputs: Array) -> None:
        """Steps in units of the stored integers, of which a real gradient is minus as many."""
        shape = self.graph.tensor(self.operator.inputs[1]).shape
        by_output = [-1 if axis == self.axis else 1 for axis in range(len(shape))]
        real = -weights.reshape(shape) * self.scales.reshape(by_output)
        self.sums.weights += _by_channels(real, self.operator).reshape(self.sums.weights.shape)
        self.sums.bias -= bias * self.bias_unit
        self.sums.inputs += inputs


def _by_channels(weights: Array, op: Operator) -> Array:
    """[input channels, outputs of each, taps] of a tensor that has outputs first, or (depthwise)
    last with the taps between."""
    if op.kind == "DEPTHWISE_CONV_2D":
        return np.transpose(weights.reshape(-1, weights.shape[-1]))
    return np.transpose(weights.reshape(len(weights), -1, weights.shape[-1]), (2, 0, 1))


def _read(state: bytearray, slot: Slot, dtype: type) -> Array:
    found: Array = np.frombuffer(bytes(state[slot.offset : slot.offset + slot.size]), dtype)
    return found.astype(np.float64)
