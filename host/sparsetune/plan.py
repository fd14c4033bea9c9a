"""The update plan: which layers train, and how many of their input channels at a time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from sparsetune_device.schedule import parse_rate
from sparsetune_device.store import PAGE

from .errors import SparsetuneError
from .geometry import conv_geometry
from .graph import Graph, Operator, input_channels, output_channels
from .patches import filtering_of, kept_positions
from .store_room import Kept, fits
from .tinyprop import parse_tinyprop

_Plan = TypeVar("_Plan")
WORTH_IT = 1.25  # as many times the channels that have room in RAM
FEWEST_BITS, MOST_BITS = 4, 16  # of an error's mantissa, with its sign
SMALLEST_MAP = 64  # outputs of a channel: patches of smaller maps cost accuracy (docs/DESIGN.md)
WHOLE, CODED = 8, 2  # bits of an activation that is kept
MOST_CODES = 1 << 20  # ulab_kernels/activation.h
FEWEST_OUTPUTS = 16  # of which a step may leave out some: of fewer all learn
MOST_ERRORS = (1 << 17) - 1  # of an output channel: ulab_kernels/run_select.c
LARGE_LAYER = 4096  # weights: smaller ones are worth their place in RAM


@dataclass(frozen=True)
class LayerPlan:
    """One trained layer. operator: its index in the model. channels: input channels whose weights
    a step updates (0: only the bias). bias: whether the bias is trained. slots: 0 for all of its
    weights in RAM; else the layer stays in flash, and RAM holds those of so many channels. reach:
    channels that learn in all, where that are more than slots: they take turns, and what has left
    RAM is in the board's store in flash. patch: the gradients of a convolution see its outputs in
    patches of so many rows and columns (patches.py; 1: exact). With no channels and no bias that is
    all it says: of a layer that does not train, but that a gradient passes. coarse: has none of the
    plan's residuals. weights_only: patches are for the weights' gradient, the one that is passed on
    is exact. wide: patches have one row and patch * patch columns. kept_bits: of an activation that
    is kept for the weights' gradient, 8 or 2 (codes: ulab_kernels/activation.h). outputs: 0, or
    output channels whose weights a step updates, those with its sample's largest errors
    (selection.py)."""

    operator: int
    channels: int
    bias: bool = True
    slots: int = 0
    reach: int = 0
    patch: int = 1
    coarse: bool = False
    weights_only: bool = False
    wide: bool = False
    kept_bits: int = WHOLE
    outputs: int = 0

    @property
    def trains(self) -> bool:
        return self.channels > 0 or self.bias


@dataclass(frozen=True)
class UpdatePlan:
    """layers: in the model's order. residual: keep 8 more fractional bits for each trained weight
    (one byte of RAM each), so that small steps are not left to chance alone. strips: run frozen
    operators row by row where that saves memory (strips.py). loss: one of task.LOSSES, empty for
    what the model suggests. model: sha256 of the .tflite that it was made for, or empty. rate:
    the learning rate that was measured for it, as decimal text, or empty. scratch: give kernels the
    room in which they pack weights and run several times as fast (lanes.h). qas: steps in real
    units, which is quantisation-aware scaling (MCUNetV3, 2206.15472, 2.1); without it, plain
    gradient descent on the stored integers. error_bits: of an error tensor's mantissas, with their
    sign. smoothing: share of a label's probability that all classes get alike, in [0, 1), of losses
    on classes. velocity: what momentum and accumulation need, two bytes of RAM for each weight of
    the chosen channels and four for each bias. tinyprop: how many channels of an error tensor stay,
    as text (tinyprop.py), or empty for all. scores: measure how much the weights of each
    input channel would still learn, which the policy `importance` draws by."""

    layers: tuple[LayerPlan, ...]
    residual: bool = False
    strips: bool = True
    loss: str = ""
    model: str = ""
    rate: str = ""
    scratch: bool = True
    qas: bool = True
    error_bits: int = 16
    smoothing: float = 0.0
    velocity: bool = False
    tinyprop: str = ""
    scores: bool = False

    def layer(self, operator: int) -> LayerPlan | None:
        return next((p for p in self.layers if p.operator == operator), None)


def default_plan(
    graph: Graph, last: int, ratio: float = 0.5, residual: bool = False
) -> UpdatePlan:
    """Trains the last layers: `ratio` of the input channels of each convolution a step, all of a
    depthwise or fully connected layer (there they cost next to nothing).

    last: how many of the trainable layers, counted from the output. ratio: in (0, 1].
    """
    if last < 1:
        raise SparsetuneError("a plan trains at least one layer: use --last 1 or more")
    if not 0 < ratio <= 1:
        raise SparsetuneError(f"--ratio {ratio} is not in (0, 1]: try 0.5")
    if not graph.trainable:
        raise SparsetuneError("the model has no layer to train: it needs weights of its own")
    layers = [_layer(graph, op, ratio) for op in graph.trainable[-last:]]
    return UpdatePlan(tuple(layers), residual)


def with_biases(graph: Graph, plan: UpdatePlan, last: int) -> UpdatePlan:
    """The plan, and the biases of the last layers beside (2007.11622): for them next to nothing is
    kept for backward."""
    biases = [
        LayerPlan(op.index, 0)
        for op in graph.trainable[-last:]
        if graph.bias_of(op) and not plan.layer(op.index)
    ]
    return replace(plan, layers=(*biases, *plan.layers))


def with_patches(graph: Graph, plan: UpdatePlan, size: int) -> UpdatePlan:
    """The plan with the gradients of its convolutions in patches of size x size, where weights
    train and the map is large enough."""
    layers = (
        replace(layer, patch=size) if layer.channels and _has_room(graph, layer, size) else layer
        for layer in plan.layers
    )
    return replace(plan, layers=tuple(layers))


def with_outputs(graph: Graph, plan: UpdatePlan, share: float) -> UpdatePlan:
    """The plan whose steps update the weights of `share` of the output channels alone, in (0, 1],
    of convolutions over all channels with enough of them."""
    return replace(plan, layers=tuple(of_outputs(graph, layer, share) for layer in plan.layers))


def of_outputs(graph: Graph, layer: LayerPlan, share: float) -> LayerPlan:
    """The layer as with_outputs leaves it."""
    op = graph.operator(layer.operator)
    count = output_channels(graph, op)
    if op.kind != "CONV_2D" or not layer.channels or layer.patch > 1 or count < FEWEST_OUTPUTS:
        return layer
    chosen = max(1, round(count * share))
    return replace(layer, outputs=chosen if chosen < count else 0)


def exact(layer: LayerPlan) -> LayerPlan:
    """The layer without patches or codes."""
    return replace(layer, patch=1, weights_only=False, wide=False, kept_bits=WHOLE)


def _has_room(graph: Graph, layer: LayerPlan, size: int) -> bool:
    """Whether the map that a convolution makes is worth patches: two at least along either axis."""
    op = graph.operator(layer.operator)
    if op.kind == "FULLY_CONNECTED":
        return False
    height, width = graph.tensor(op.outputs[0]).shape[1:3]
    return height * width >= SMALLEST_MAP and min(height, width) > size


def _layer(graph: Graph, op: Operator, ratio: float) -> LayerPlan:
    channels = input_channels(graph, op)
    chosen = channels if op.kind != "CONV_2D" else max(1, round(channels * ratio))
    return LayerPlan(op.index, chosen, graph.bias_of(op) is not None)


def check_plan(graph: Graph, plan: UpdatePlan) -> None:
    """Raises SparsetuneError when the plan does not fit the model."""
    if not any(layer.trains for layer in plan.layers):
        raise SparsetuneError("the plan trains no layer: add one under `layers`")
    if not FEWEST_BITS <= plan.error_bits <= MOST_BITS:
        raise SparsetuneError(
            f"the plan has errors of {plan.error_bits} bits: choose {FEWEST_BITS} to {MOST_BITS}"
        )
    if plan.model and plan.model != graph.digest.hex():
        raise SparsetuneError(
            "the plan was made for another model: make one with `sparsetune plan`, or take the "
            'line "model" out of it'
        )
    _check_smoothing(graph, plan.smoothing)
    if parse_tinyprop(plan.tinyprop) and any(layer.patch > 1 for layer in plan.layers):
        raise SparsetuneError(
            "the plan has patches and a tinyprop, whose effort is counted for exact gradients: "
            "leave out one"
        )
    by_index = {op.index: op for op in graph.trainable}
    if len({layer.operator for layer in plan.layers}) < len(plan.layers):
        raise SparsetuneError("the plan names an operator twice: take one of them out")
    for layer in plan.layers:
        op = by_index.get(layer.operator)
        if op is None:
            raise SparsetuneError(
                f"the plan trains operator {layer.operator}, which has no weights of its own "
                f"that the output depends on: choose among {sorted(by_index)}"
            )
        _check_layer(graph, op, layer)
        _check_patch(graph, op, layer)
        _check_kept_bits(graph, op, layer)
        _check_outputs(graph, op, layer)


def _check_smoothing(graph: Graph, smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise SparsetuneError(f"a smoothing of {smoothing:g} is not in [0, 1): try 0.1")
    if smoothing and graph.loss_name not in ("softmax", "bce"):
        raise SparsetuneError(
            f"label smoothing is for losses on classes, this one is {graph.loss_name}: leave it out"
        )


def _check_layer(graph: Graph, op: Operator, layer: LayerPlan) -> None:
    channels = input_channels(graph, op)
    if not 0 <= layer.channels <= channels:
        raise SparsetuneError(
            f"the plan updates {layer.channels} input channels of operator {op.index}, "
            f"which has {channels}: choose 0 to {channels}"
        )
    if layer.slots and (op.kind == "DEPTHWISE_CONV_2D" or not has_one_group(graph, op)):
        raise SparsetuneError(
            f"operator {op.index} ({op.kind}) cannot stay in flash: give it no slots"
        )
    if layer.slots and not 0 < layer.channels <= layer.slots <= channels:
        raise SparsetuneError(
            f"the plan gives operator {op.index} {layer.slots} slots for {layer.channels} channels "
            f"a step: choose {max(1, layer.channels)} to {channels}"
        )
    if layer.reach and not 0 < layer.slots < layer.reach <= channels:
        raise SparsetuneError(
            f"the plan gives operator {op.index} a reach of {layer.reach} channels: choose more "
            f"than its slots and at most {channels}, or 0"
        )
    if layer.bias and graph.bias_of(op) is None:
        raise SparsetuneError(
            f"the plan trains the bias of operator {op.index}, which has none: set bias to false"
        )


def _check_patch(graph: Graph, op: Operator, layer: LayerPlan) -> None:
    if layer.patch == 1:
        _check_no_patch(op, layer)
        return
    if layer.patch < 1:
        raise SparsetuneError(
            f"the plan gives operator {op.index} patches of {layer.patch}: choose 1 (exact) or more"
        )
    if op.kind == "FULLY_CONNECTED":
        raise SparsetuneError(
            f"the plan gives operator {op.index} ({op.kind}) patches, which has no map: choose 1"
        )
    filtering_of(conv_geometry(graph, op), layer.patch, layer.wide)
    if layer.weights_only and not layer.channels:
        raise SparsetuneError(
            f"the plan gives operator {op.index} patches for its weights' gradient alone, but no "
            "channels that learn: set weights_only to false"
        )


def kept_count(graph: Graph, op: Operator, layer: LayerPlan) -> int:
    """Activations that a layer keeps for its weights' gradient, or their means."""
    geometry = conv_geometry(graph, op)
    positions = kept_positions(geometry, layer.patch, layer.wide) * geometry.groups
    return positions * layer.channels


def _check_kept_bits(graph: Graph, op: Operator, layer: LayerPlan) -> None:
    if layer.kept_bits not in (WHOLE, CODED):
        raise SparsetuneError(
            f"the plan keeps {layer.kept_bits} bits of the activations of operator {op.index}: "
            f"choose {CODED} or {WHOLE}"
        )
    if layer.kept_bits == CODED and not layer.channels:
        raise SparsetuneError(
            f"the plan keeps codes of the activations of operator {op.index}, whose weights do "
            f"not learn: set kept_bits to {WHOLE}"
        )
    if layer.kept_bits == CODED and kept_count(graph, op, layer) > MOST_CODES:
        raise SparsetuneError(
            f"operator {op.index} keeps more than {MOST_CODES:,} activations, too many for codes: "
            f"train fewer of its channels, or set kept_bits of the plan to {WHOLE}"
        )


def _check_outputs(graph: Graph, op: Operator, layer: LayerPlan) -> None:
    count = output_channels(graph, op)
    if not 0 <= layer.outputs < count:
        raise SparsetuneError(
            f"the plan updates {layer.outputs} output channels of operator {op.index}, which has "
            f"{count}: choose fewer, or 0 for all"
        )
    if layer.outputs and (op.kind == "DEPTHWISE_CONV_2D" or not layer.channels):
        raise SparsetuneError(
            f"the plan chooses among the outputs of operator {op.index} ({op.kind}), which has no "
            "filters over channels that learn: set outputs to 0"
        )
    if layer.outputs and (layer.patch > 1 or conv_geometry(graph, op).out_positions > MOST_ERRORS):
        raise SparsetuneError(
            f"the plan chooses among the outputs of operator {op.index}, whose errors are summed "
            f"over patches or over more than {MOST_ERRORS:,} places: set outputs to 0"
        )


def _check_no_patch(op: Operator, layer: LayerPlan) -> None:
    for name in ("weights_only", "wide"):
        if getattr(layer, name):
            raise SparsetuneError(
                f"the plan sets {name} of operator {op.index}, which has no patches: choose a patch"
            )


def leave_in_flash(graph: Graph, plan: UpdatePlan, store_bytes: int = 0) -> UpdatePlan:
    """The plan with its large layers in flash, and RAM for the channels of one step alone. Of a
    fully connected layer that is an eighth, as it has no ratio. Other channels learn too, the last
    layers' first, as far as the board's store has room for them."""
    layers = []
    for layer in plan.layers:
        op = graph.operator(layer.operator)
        large = graph.tensor(op.inputs[1]).size >= LARGE_LAYER
        if large and op.kind != "DEPTHWISE_CONV_2D" and has_one_group(graph, op):
            whole = layer.channels == input_channels(graph, op)
            slots = max(1, layer.channels // 8 if whole else layer.channels)
            layer = replace(layer, channels=slots, slots=slots)
        layers.append(layer)
    return _reaching(graph, replace(plan, layers=tuple(layers)), store_bytes)


def _reaching(graph: Graph, plan: UpdatePlan, store_bytes: int) -> UpdatePlan:
    """The store's room goes to layers with small columns first: there more channels have room."""
    kept: dict[int, Kept] = {}
    in_flash = [layer for layer in reversed(plan.layers) if layer.slots]
    for layer in sorted(in_flash, key=lambda p: Kept(1, column_bytes(graph, p)).column_pages):
        channels = input_channels(graph, graph.operator(layer.operator))
        size = column_bytes(graph, layer)
        for count in range(channels, int(layer.slots * WORTH_IT), -1):
            if fits([*kept.values(), Kept(count, size)], store_bytes):
                kept[layer.operator] = Kept(count, size)
                break
    layers = (
        replace(p, reach=kept[p.operator].channels) if p.operator in kept else p
        for p in plan.layers
    )
    return replace(plan, layers=tuple(layers))


def column_bytes(graph: Graph, layer: LayerPlan) -> int:
    """Of the weights of one input channel."""
    op = graph.operator(layer.operator)
    return graph.tensor(op.inputs[1]).size // input_channels(graph, op)


def check_store(graph: Graph, plan: UpdatePlan, store_bytes: int) -> None:
    """Raises SparsetuneError when what is to learn has no room in the board's store."""
    kept = [Kept(p.reach, column_bytes(graph, p)) for p in plan.layers if p.reach]
    if not fits(kept, store_bytes):
        need = sum(k.pages for k in kept) * PAGE
        raise SparsetuneError(
            f"the plan keeps up to {need:,} bytes of trained channels in flash, the board's store "
            f"of {store_bytes:,} has no room for that: give its layers a smaller reach"
        )


def has_one_group(graph: Graph, op: Operator) -> bool:
    """Whether each output of a layer reads all of its input channels."""
    if op.kind == "FULLY_CONNECTED":
        return True
    return graph.tensor(op.inputs[0]).shape[-1] == input_channels(graph, op)


def save_plan(plan: UpdatePlan) -> bytes:
    """The plan as JSON."""
    return (json.dumps(asdict(plan), indent=2) + "\n").encode()


def load_plan(path: Path) -> UpdatePlan:
    try:
        return _from_json(json.loads(path.read_text()))
    except OSError as error:
        raise SparsetuneError(f"{path}: {error.strerror}: give the path of a plan") from error
    except UnicodeDecodeError:
        raise SparsetuneError(
            f"{path} is not an update plan, which is text: make one with `sparsetune plan`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SparsetuneError(
            f"{path} is not an update plan ({error}): make one with `sparsetune plan`"
        ) from error


def _from_json(data: dict[str, Any]) -> UpdatePlan:
    layers = sorted((_checked(LayerPlan, p) for p in data["layers"]), key=lambda p: p.operator)
    plan = _checked(UpdatePlan, {**data, "layers": tuple(layers)})
    parse_rate(plan.rate or "0")
    return plan


def _checked(kind: type[_Plan], values: dict[str, Any]) -> _Plan:
    """A LayerPlan or an UpdatePlan, of values that have the type of its fields."""
    types = get_type_hints(kind)
    for name, value in values.items():
        if name not in types:
            raise TypeError(f"{name} is unknown")
        if type(value) is not (get_origin(types[name]) or types[name]):
            raise TypeError(f"{name} is {value!r}")
    return kind(**values)
