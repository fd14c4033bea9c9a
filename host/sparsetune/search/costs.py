"""What plans take, as sums over their parts: bytes alive at each place of the program, state,
Python's objects, cycles, flash.

Nothing of it is worked out by hand. A few programs are built, of biases alone and of all layers at
one ratio, and each layer's part is read off: which buffers are its own, and from where to where
they live. What a sum leaves out (gaps between buffers, a map that two layers keep) is small, and is
found when the chosen plan is compiled (chosen.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from sparsetune_device.main import HOLD
from sparsetune_device.store import PAGE

from ..analytic import bias_bytes, input_bytes, kept_input_bytes, mask_bytes, weight_bytes
from ..arena import lifetimes, live_bytes, rounded
from ..compile import lean_program
from ..cycles import UPDATES, Clock, step_cycles
from ..graph import TRAINABLE, Array, Graph, Operator, input_channels
from ..image import CONTROL_BYTES, state_slots
from ..kept import in_codes
from ..memory import CHOICE, LAYER, VISITED
from ..plan import (
    LARGE_LAYER,
    WHOLE,
    WORTH_IT,
    LayerPlan,
    UpdatePlan,
    column_bytes,
    has_one_group,
    of_outputs,
)
from ..program import Buffer, Code, Op, Program, TrainedLayer
from ..share import updated_weights
from ..store_room import Kept

RATIOS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)  # of a layer's input channels
BESIDE = {  # what stands beside a layer's own operators, or is one of two
    Code.ENCODE_KEPT.name: "forward",
    Code.DECODE_KEPT.name: "update",
    Code.SELECT_ERRORS.name: "update",
    "update": "update",  # of the biases, and of the weights
}
FINER = (1 / 64, 1 / 32, 1 / 16, *RATIOS)
LARGEST = 8  # bytes of the state: the largest sum of SELECT_ERRORS
MOST_PAGES = 4  # of a column: longer ones take no turns
# Buffers of a layer's weights.
OWN = ("kept", "counts", "codes", "decoded", "urow", "orow", "filter")

Place = tuple[bool, int, str, int]  # (is forward, operator of the model, what is done, how often)


@dataclass(frozen=True)
class Cost:
    """live: bytes alive in the arena at each place. state, objects: bytes that live as long as the
    run. cycles: of a step, of kernels on one core. analytic: see analytic.py. pages: of the board's
    store. writes: bytes of flash a step. in_flash, takes_turns: whether columns.py, store.py are
    needed on the board. updated: convolution weights that a step updates. layers: 1 of a layer
    whose weights train, but of the head's."""

    live: Array
    state: int
    objects: int
    cycles: float
    analytic: int
    pages: int = 0
    writes: float = 0.0
    in_flash: bool = False
    takes_turns: bool = False
    updated: int = 0
    layers: int = 0


@dataclass(frozen=True)
class Offer:
    """As what layers may train. ratios: of their input channels. kept_bits: of each activation that
    is kept, where it is one of a map. outputs: share of the output channels that a step updates."""

    ratios: tuple[float, ...] = RATIOS
    kept_bits: int = WHOLE
    outputs: float = 1.0


@dataclass(frozen=True)
class Part:
    """Weights that a plan may train. layer: counted from the output, the last one 1."""

    layer: int
    plan: LayerPlan
    cost: Cost

    @property
    def is_static(self) -> bool:
        """Whether channels beside those of one step never learn."""
        return bool(self.plan.slots) and not self.plan.reach


@dataclass(frozen=True)
class Menu:
    """All that a plan can be made of. depths: of biases of the last 1, 2, ... layers, and of the
    gradients on the way there. base: what the plan is besides its layers."""

    graph: Graph
    base: UpdatePlan
    places: tuple[Place, ...]
    depths: tuple[Cost, ...]
    parts: tuple[Part, ...]

    def plan(self, depth: int, parts: list[Part]) -> UpdatePlan:
        """Biases of the last `depth` layers and these weights."""
        chosen = {part.plan.operator: part.plan for part in parts}
        biases = (
            LayerPlan(op.index, 0)
            for op in self.graph.trainable[-depth:]
            if self.graph.bias_of(op) and op.index not in chosen
        )
        layers = sorted((*biases, *chosen.values()), key=lambda layer: layer.operator)
        return replace(self.base, layers=tuple(layers))


def menu_of(
    graph: Graph,
    base: UpdatePlan,
    clock: Clock | None,
    store_bytes: int = 0,
    offer: Offer = Offer(),
) -> Menu:
    """base: a plan without layers, whose residual, scratch and loss all plans shall have."""
    biases = _Built(graph, _biases(graph, base, len(graph.trainable)), clock)
    places = tuple(biases.live)
    depths = tuple(
        _depth(_Built(graph, _biases(graph, base, n), clock), places, n)
        for n in range(1, len(graph.trainable) + 1)
    )
    return Menu(graph, base, places, depths, tuple(_parts(biases, places, store_bytes, offer)))


def _biases(graph: Graph, base: UpdatePlan, depth: int) -> UpdatePlan:
    """Also a layer without a bias is in it, so that gradients go as far as to its weights."""
    layers = (
        LayerPlan(op.index, 0, graph.bias_of(op) is not None) for op in graph.trainable[-depth:]
    )
    return replace(base, layers=tuple(layers), strips=base.strips and depth < len(graph.trainable))


class _Built:
    """A program of a plan, and what is alive at its places."""

    def __init__(self, graph: Graph, plan: UpdatePlan, clock: Clock | None) -> None:
        self.graph, self.plan, self.clock = graph, plan, clock
        self.program = lean_program(graph, plan)
        self.places = list(places_of(self.program))
        self.lives = lifetimes(self.program)
        self.live = dict(zip(self.places, live_bytes(self.lives), strict=True))
        each = step_cycles(self.program, graph, clock) if clock else [0.0] * len(self.places)
        self.cycles: Counter[int] = Counter()
        for op, cycles in zip(self.program.ops, each, strict=True):
            self.cycles[op.source] += cycles  # type: ignore[assignment]

    def where(self, buffer: Buffer) -> set[Place]:
        """Places at which a buffer is alive."""
        life = next(life for life in self.lives if life.buffer is buffer)
        return set(self.places[life.first : life.last + 1])

    def forward(self, operator: int) -> Op:
        """That makes the output of one of the model's layers with weights."""
        return next(op for op in self.program.ops if op.source == operator and _is_layer(op))


def places_of(program: Program) -> Iterator[Place]:
    """A name for each operator of a program: the same in all programs of a model."""
    met: Counter[tuple[bool, int, str]] = Counter()
    for at, op in enumerate(program.ops):
        key = (at < program.forward, op.source, _deed(op))
        yield (*key, met[key])
        met[key] += 1


def _is_layer(op: Op) -> bool:
    return _deed(op) == "forward"


def _deed(op: Op) -> str:
    """The same for a layer in RAM and in flash."""
    if op.code in UPDATES:
        return "update"
    name = op.code.name
    if name.startswith(("CONV2D", "FULLY_CONNECTED", "DEPTHWISE_CONV2D")):
        return "gradient" if name.endswith("GRAD_INPUT") else "forward"
    return name


def _depth(built: _Built, places: tuple[Place, ...], depth: int) -> Cost:
    graph, layers = built.graph, built.graph.trainable[-depth:]
    live = np.array([built.live.get(place, 0) for place in places], float)
    state = CONTROL_BYTES + sum(rounded(slot.size) for slot in state_slots(built.program))
    *others, head = layers
    counted = input_bytes(graph, head, input_channels(graph, head))
    counted += sum(mask_bytes(graph, op) + bias_bytes(graph, op) for op in others)
    objects = LAYER * depth + VISITED  # where all channels of all layers train, none of the latter
    return Cost(live, state, objects, sum(built.cycles.values()), counted)


def _parts(
    biases: _Built, places: tuple[Place, ...], store_bytes: int, offer: Offer
) -> Iterator[Part]:
    """One program for each ratio and each place of the weights, with all layers that can."""
    graph, base = biases.graph, biases.plan
    for ratio in offer.ratios:
        for way in (_in_ram, _in_flash, _in_turns if store_bytes else _nothing):
            found = (way(graph, op, ratio) for op in graph.trainable)
            layers = {layer.operator: _as_offered(graph, layer, offer) for layer in found if layer}
            if layers:
                mixed = (layers.get(layer.operator, layer) for layer in base.layers)
                built = _Built(graph, replace(base, layers=tuple(mixed)), biases.clock)
                yield from (_part(biases, built, places, layer) for layer in layers.values())


def _as_offered(graph: Graph, layer: LayerPlan, offer: Offer) -> LayerPlan:
    layer = of_outputs(graph, layer, offer.outputs)
    if offer.kept_bits == WHOLE:
        return layer
    return in_codes(graph, graph.operator(layer.operator), layer) or layer


def _in_ram(graph: Graph, op: Operator, ratio: float) -> LayerPlan | None:
    """Of the head all or nothing: there a share costs more than it saves."""
    channels = input_channels(graph, op)
    if ratio < 1 and (op is graph.trainable[-1] or round(channels * ratio) < 1):
        return None
    return LayerPlan(op.index, round(channels * ratio), graph.bias_of(op) is not None)


def _in_flash(graph: Graph, op: Operator, ratio: float) -> LayerPlan | None:
    """The channels of a step, and no others."""
    layer = _in_ram(graph, op, ratio)
    if op is graph.trainable[-1] and ratio < 1:
        channels = max(1, round(input_channels(graph, op) * ratio))
        layer = LayerPlan(op.index, channels, graph.bias_of(op) is not None)
    is_large = graph.tensor(op.inputs[1]).size >= LARGE_LAYER
    dense = op.kind != "DEPTHWISE_CONV_2D" and has_one_group(graph, op)
    if layer is None or ratio == 1 or not (is_large and dense):
        return None
    return replace(layer, slots=layer.channels)


def _in_turns(graph: Graph, op: Operator, ratio: float) -> LayerPlan | None:
    """All channels, by turns."""
    layer, channels = _in_flash(graph, op, ratio), input_channels(graph, op)
    if layer is None or channels <= layer.slots * WORTH_IT:
        return None
    pages = Kept(1, column_bytes(graph, layer)).column_pages
    return replace(layer, reach=channels) if pages <= MOST_PAGES else None


def _nothing(graph: Graph, op: Operator, ratio: float) -> LayerPlan | None:
    return None


def _part(biases: _Built, built: _Built, places: tuple[Place, ...], layer: LayerPlan) -> Part:
    graph = built.graph
    op = graph.operator(layer.operator)
    live: Counter[Place] = Counter()
    for buffer, where in _own_buffers(biases, built, layer):
        for place in where:
            live[place] += rounded(buffer.size)
    record = next(r for r in built.program.layers if r.operator == layer.operator)
    channels, kept = input_channels(graph, op), Kept(layer.reach, column_bytes(graph, layer))
    has_choice = record.channels is not None
    order = 2 * max(layer.reach, layer.slots or channels) if has_choice else 0
    known = 2 * (2 * channels + layer.slots) if layer.slots else 0
    cost = Cost(
        np.array([live[place] for place in places], float),
        _state_of(record) + LARGEST * bool(layer.outputs),
        CHOICE * has_choice + order + known,
        built.cycles[op.index] - biases.cycles[op.index],
        _analytic(graph, op, layer),
        kept.pages,
        PAGE * kept.column_pages * layer.slots / HOLD if layer.reach else 0.0,
        bool(layer.slots),
        bool(layer.reach),
        updated_weights(graph, layer),
        int(op is not graph.trainable[-1]),
    )
    order_from_end = len(graph.trainable) - graph.trainable.index(op)
    return Part(order_from_end, layer, cost)


def _analytic(graph: Graph, op: Operator, layer: LayerPlan) -> int:
    if op is graph.trainable[-1]:  # whose input is counted with the biases, its weights never
        return 0
    return weight_bytes(graph, op, layer.channels) + kept_input_bytes(graph, op, layer)


def _state_of(record: TrainedLayer) -> int:
    """Slots of a layer's weights; its bias is counted with the biases."""
    columns, velocity = record.columns, record.velocity
    slots = [record.weights, record.residual, record.channels, record.visited, record.scores]
    slots += [velocity.weights, velocity.channels] if velocity else []
    slots += [columns.table, columns.pool] if columns else []
    return sum(rounded(slot.size) for slot in slots if slot)


def _own_buffers(
    biases: _Built, built: _Built, layer: LayerPlan
) -> Iterator[tuple[Buffer, set[Place]]]:
    """Buffers that are there for a layer's weights alone, and where they are alive."""
    names = {f"{name}{layer.operator}" for name in OWN}
    for life in built.lives:
        if life.buffer.name in names:
            yield life.buffer, {_known(place) for place in built.where(life.buffer)}
    are_all = layer.channels == input_channels(built.graph, built.graph.operator(layer.operator))
    if are_all and not layer.slots and layer.kept_bits == WHOLE:
        yield _held_input(built, layer.operator)


def _known(place: Place) -> Place:
    """One that every program has: what is alive while codes are made or read, or errors selected,
    counts where their layer runs or learns."""
    forward, operator, deed, _ = place
    deed = BESIDE.get(deed, "")
    return (forward, operator, deed, 0) if deed else place


def _held_input(built: _Built, operator: int) -> tuple[Buffer, set[Place]]:
    """The input of a layer that trains all its channels, from where it would be done with."""
    buffer = built.forward(operator).words[1]
    assert isinstance(buffer, Buffer)
    graph = built.graph
    tensor = graph.operator(operator).inputs[0]
    last = [op for op in graph.operators if tensor in op.inputs][-1]
    upto = last.index if last.kind in TRAINABLE else last.index - 1  # others may write over it
    alive = {place for place in built.where(buffer) if not (place[0] and place[1] <= upto)}
    return buffer, alive
