"""What a plan costs, in figures: which operators train, what lies in flash and in RAM, and how long
each layer takes. peak.py says what makes the arena as large as it is; plan_text.py prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .compile import active_operators
from .cycles import UPDATES, Clock, patches_of, step_cycles
from .graph import Graph
from .image import Image
from .kept import kept_step
from .plan import LayerPlan, UpdatePlan
from .program import Buffer, Code, Const, Op, Program, Slot
from .share import moved_weights

COPIES = ("kept", "means")  # buffers of chosen channels, of patches
FORWARD_WEIGHTED = (
    *(Code.CONV2D, Code.DEPTHWISE_CONV2D, Code.FULLY_CONNECTED),
    *(Code.CONV2D_COLUMNS, Code.FULLY_CONNECTED_COLUMNS),
)


@dataclass(frozen=True)
class Partition:
    """Operators of the model, by number. frozen: no gradient reaches them. tail: all others.
    strips: those of each strip, which run row by row."""

    frozen: tuple[int, ...]
    tail: tuple[int, ...]
    strips: tuple[tuple[int, ...], ...]

    def is_in_strip(self, operator: int) -> bool:
        return any(operator in strip for strip in self.strips)


def partition(graph: Graph, plan: UpdatePlan, program: Program) -> Partition:
    active = active_operators(graph, plan)
    numbers = [op.index for op in graph.operators]
    return Partition(
        tuple(i for i in numbers if i not in active),
        tuple(i for i in numbers if i in active),
        tuple(_strips(program.ops)),
    )


def _strips(ops: list[Op]) -> Iterable[tuple[int, ...]]:
    for at, op in enumerate(ops):
        if op.code == Code.STRIP:
            count = op.words[0]
            assert isinstance(count, int)
            sources = [inside.source for inside in ops[at + 1 : at + 1 + count]]
            yield tuple(dict.fromkeys(sources))


def trained_weights(graph: Graph, plan: UpdatePlan) -> int:
    """Weights and biases that a step updates."""
    return sum(_trained_in(graph, layer) for layer in plan.layers)


def _trained_in(graph: Graph, layer: LayerPlan) -> int:
    op = graph.operator(layer.operator)
    bias = graph.bias_of(op) if layer.bias else None
    return moved_weights(graph, layer) + (bias.size if bias else 0)


def all_weights(graph: Graph) -> int:
    """Weights and biases of the whole model."""
    sizes = [
        graph.tensor(op.inputs[1]).size + (bias.size if (bias := graph.bias_of(op)) else 0)
        for op in graph.trainable
    ]
    return sum(sizes)


# Bytes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlashUse:
    """Bytes of the image. frozen: weights and biases that do not train. initial: where those that
    do start from. tables: factors, shapes and the program."""

    frozen: int
    initial: int
    tables: int


def flash_use(program: Program, image: Image) -> FlashUse:
    constants = {
        word.data
        for op in program.ops
        if op.code in FORWARD_WEIGHTED
        for word in op.words[2:4]
        if isinstance(word, Const)
    }
    frozen = sum(len(data) for data in constants)
    initial = image.initial_bytes
    return FlashUse(frozen, initial, len(image.data) - frozen - initial)


@dataclass(frozen=True)
class StateUse:
    """Bytes of the state: trained weights (with their residuals), trained biases, their velocities,
    and the rest: exponents, lists of channels, the control block."""

    weights: int
    biases: int
    velocities: int
    rest: int


def state_use(program: Program, image: Image) -> StateUse:
    layers = program.layers
    weights = sum(_size(layer.weights) + _size(layer.residual) for layer in layers)
    weights += sum(_size(layer.columns.pool) for layer in layers if layer.columns)
    biases = sum(_size(layer.bias) for layer in layers)
    velocities = sum(
        _size(v.weights) + _size(v.biases) for layer in layers if (v := layer.velocity)
    )
    rest = image.state_bytes - weights - biases - velocities
    return StateUse(weights, biases, velocities, rest)


def _size(slot: Slot | None) -> int:
    return slot.size if slot else 0


def kept_use(program: Program) -> tuple[int, int]:
    """Bytes of activations that are kept for the weights' gradients: as they are, and if no
    gradient were filtered and no activation encoded."""
    updates = {op.words[3]: op for op in program.ops if op.code in UPDATES}
    codes = {op.words[0]: op.words[1] for op in program.ops if op.code == Code.DECODE_KEPT}
    sources = {op.words[1]: op.words[0] for op in program.ops if op.code == Code.ENCODE_KEPT}
    patches = dict(_patch_sizes(program))
    kept = exact = 0
    for read, update in updates.items():
        stored = codes.get(read, read)
        source = sources.get(stored, stored)
        if isinstance(stored, Buffer) and isinstance(source, Buffer):
            kept += stored.size
            padded = source.size if source is stored else _with_padding(source, update)
            exact += round(padded * patches.get(source, 1.0))
    return kept, exact


def _with_padding(source: Buffer, update: Op) -> int:
    """Bytes of what is encoded if it were kept as it is: rows of chosen channels are padded."""
    chosen, is_depthwise = update.words[5], update.code == Code.DEPTHWISE_CONV2D_UPDATE
    assert isinstance(chosen, int)
    if is_depthwise or not source.name.startswith(COPIES):  # the map itself
        return source.size
    return source.size // chosen * kept_step("CONV_2D", chosen)


def _patch_sizes(program: Program) -> Iterator[tuple[Buffer, float]]:
    """Elements of the map for each one that is kept."""
    for op in program.ops:
        if op.code == Code.PATCH_VALUES and isinstance(buffer := op.words[3], Buffer):
            patches = patches_of(op)
            yield buffer, patches.h * patches.w / patches.count


# Time -----------------------------------------------------------------------------------------


@dataclass
class LayerTime:
    """Estimated seconds of a training step that one operator of the model takes. gradient: of its
    input, with all that carries it on."""

    forward: float = 0.0
    gradient: float = 0.0
    update: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.gradient + self.update


@dataclass(frozen=True)
class StepTime:
    """Estimated seconds of a step on one core. layers: by number of the operator. python: beside
    the kernels. both: see Clock."""

    layers: dict[int, LayerTime]
    python: float
    both: float | None = None

    @property
    def kernels(self) -> LayerTime:
        """Of all layers together."""
        found = self.layers.values()
        return LayerTime(
            sum(t.forward for t in found), sum(t.gradient for t in found),
            sum(t.update for t in found),
        )

    @property
    def total(self) -> float:
        return self.kernels.total + self.python

    @property
    def on_both_cores(self) -> float | None:
        return self.both and self.both * self.kernels.total + self.python


def step_time(program: Program, graph: Graph, clock: Clock) -> StepTime:
    layers = {op.index: LayerTime() for op in graph.operators}
    for i, (op, cycles) in enumerate(
        zip(program.ops, step_cycles(program, graph, clock), strict=True)
    ):
        time, seconds = layers[op.source], cycles / clock.hertz
        if op.code in UPDATES:
            time.update += seconds
        elif i < program.forward:
            time.forward += seconds
        else:
            time.gradient += seconds
    return StepTime(layers, clock.step / clock.hertz, clock.both)
