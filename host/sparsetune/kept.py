"""What is kept of activations for the weights' gradients, and the codes and patches with which that
is at most a share of what exact gradients keep (`--kept`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from .errors import SparsetuneError
from .graph import Graph, Operator, input_channels
from .plan import (
    CODED,
    MOST_CODES,
    SMALLEST_MAP,
    WHOLE,
    LayerPlan,
    UpdatePlan,
    exact,
    kept_count,
)

SMALL, LARGE = 2, 4  # patches
BLOCK = 8  # channels that ulab_kernels/add_rows.c adds at once; fewer go by rows of errors
LEVELS = 4  # of codes: ulab_kernels/activation.h
WORD = 4  # channels: of more than a block those kept are padded to whole words

Growth = Callable[[Graph, Operator, LayerPlan], "LayerPlan | None"]


def kept_step(kind: str, chosen: int) -> int:
    """Bytes from position to position of chosen channels that are kept."""
    is_padded = chosen >= BLOCK and kind != "DEPTHWISE_CONV_2D"
    return -(-chosen // WORD) * WORD if is_padded else chosen


def code_bytes(count: int) -> int:
    """Bytes of as many activations in codes of 2 bits, with their levels."""
    return LEVELS + -(-count // 4)


def kept_bytes(graph: Graph, layer: LayerPlan) -> int:
    """Of activations that a layer keeps for its weights' gradient."""
    op = graph.operator(layer.operator)
    count = kept_count(graph, op, layer)
    if layer.kept_bits < WHOLE:
        return code_bytes(count)
    are_all = layer.channels == input_channels(graph, op)
    if layer.patch == 1 and are_all and not layer.slots:  # the map itself
        return count
    return count // max(1, layer.channels) * kept_step(op.kind, layer.channels)


def kept_share(graph: Graph, plan: UpdatePlan) -> float:
    """Percent of what exact gradients would keep."""
    kept = sum(kept_bytes(graph, layer) for layer in plan.layers)
    whole = sum(kept_bytes(graph, exact(layer)) for layer in plan.layers)
    return 100 * kept / max(1, whole)


def with_kept(graph: Graph, plan: UpdatePlan, percent: float) -> UpdatePlan:
    """The plan with codes of what it keeps, and patches for its weights' gradients where these do
    not do: no more of them than it takes to keep at most `percent` of the bytes. Raises
    SparsetuneError where both do not do."""
    if not 0 < percent <= 100:
        raise SparsetuneError(f"--kept {percent:g} is not in (0, 100]: try 30")
    found = with_fewer_kept(graph, plan, percent)
    least = kept_share(graph, found)
    if least > percent:
        raise SparsetuneError(
            f"--kept {percent:g}: codes and patches leave {least:.3g} % of what is kept for the "
            "weights' gradients at least: give a larger share, or train other layers"
        )
    return found


def with_fewer_kept(graph: Graph, plan: UpdatePlan, percent: float) -> UpdatePlan:
    """The same as far as it goes. What costs least accuracy comes first (docs/DESIGN.md), and of
    that the layers that keep most. A plan that does with what it has is left as it is."""
    if kept_share(graph, plan) <= percent:
        return plan
    layers = {layer.operator: exact(layer) for layer in plan.layers}
    order = sorted(layers.values(), key=lambda layer: -kept_bytes(graph, layer))
    for grow in GROWTHS:
        for layer in order:
            found = replace(plan, layers=tuple(layers.values()))
            if kept_share(graph, found) <= percent:
                return found
            op = graph.operator(layer.operator)
            if layer.channels and op.kind != "FULLY_CONNECTED":
                so_far = layers[layer.operator]
                layers[layer.operator] = grow(graph, op, so_far) or so_far
    return replace(plan, layers=tuple(layers.values()))


def in_codes(graph: Graph, op: Operator, layer: LayerPlan) -> LayerPlan | None:
    """Of maps: a layer behind a pool keeps little, and is most often the head."""
    is_map = prod(graph.tensor(op.inputs[0]).shape[1:3]) > 1
    has_room = kept_count(graph, op, layer) <= MOST_CODES
    return replace(layer, kept_bits=CODED) if is_map and has_room else None


def _small_squares(graph: Graph, op: Operator, layer: LayerPlan) -> LayerPlan | None:
    is_large = _is_large(graph, op)
    return replace(layer, patch=SMALL, weights_only=True) if is_large else None


def _rows(graph: Graph, op: Operator, layer: LayerPlan) -> LayerPlan | None:
    """Of small maps: most of their positions lie at a border, where columns differ more."""
    if _is_large(graph, op) or graph.tensor(op.outputs[0]).shape[2] < SMALL:
        return None
    return replace(layer, patch=SMALL, weights_only=True, wide=True)


def _large_squares(graph: Graph, op: Operator, layer: LayerPlan) -> LayerPlan | None:
    """Not in front of a stride, whose gradients differ from one position to the next."""
    if not _is_large(graph, op) or _feeds_a_stride(graph, op):
        return None
    return replace(layer, patch=LARGE, weights_only=True)


GROWTHS: tuple[Growth, ...] = (in_codes, _small_squares, _rows, _large_squares)


def _is_large(graph: Graph, op: Operator) -> bool:
    height, width = graph.tensor(op.outputs[0]).shape[1:3]
    return height * width >= SMALLEST_MAP and min(height, width) > LARGE


def _feeds_a_stride(graph: Graph, op: Operator) -> bool:
    readers = [other for other in graph.operators if op.outputs[0] in other.inputs]
    return any(max(other.options.get(s, 1) for s in ("strideH", "strideW")) > 1
               for other in readers)  # fmt: skip
