"""The share of the convolution weights that a step updates, DGSU's measure of a plan's sparseness
(2503.17959: 2 %), and the plan that has a given one."""

from __future__ import annotations

from .errors import SparsetuneError
from .graph import Graph, Operator, input_channels, output_channels
from .plan import LayerPlan, UpdatePlan, with_outputs

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
HALVINGS = 30  # of the ratio's interval: far beyond one channel of any layer


def convolution_weights(graph: Graph) -> int:
    """Of the whole model, without biases and without fully connected layers."""
    return sum(_weights(graph, op) for op in graph.trainable if op.kind in CONVOLUTIONS)


def updated_share(graph: Graph, plan: UpdatePlan) -> float:
    """Percent of the convolution weights that a step updates; 0 where there are none."""
    updated = sum(updated_weights(graph, layer) for layer in plan.layers)
    return 100 * updated / max(1, convolution_weights(graph))


def updated_weights(graph: Graph, layer: LayerPlan) -> int:
    """Convolution weights of a layer that a step updates."""
    op = graph.operator(layer.operator)
    if op.kind not in CONVOLUTIONS:
        return 0
    return moved_weights(graph, layer)


def moved_weights(graph: Graph, layer: LayerPlan) -> int:
    """Weights of a layer that a step updates."""
    op = graph.operator(layer.operator)
    updated = _weights(graph, op) * layer.channels // input_channels(graph, op)
    count = output_channels(graph, op)
    return updated * (layer.outputs or count) // count


def checked_share(percent: float) -> float:
    """Raises SparsetuneError for what is no share."""
    if not 0 < percent <= 100:
        raise SparsetuneError(f"--share {percent:g} is not in (0, 100]: try 2")
    return percent


def plan_of_share(graph: Graph, last: int, percent: float, outputs: float = 1.0) -> UpdatePlan:
    """Of the last layers, each convolution trains the same ratio of its input channels: the largest
    with which a step updates at most `percent` of the convolution weights. outputs: share of their
    output channels that it updates (with_outputs). Depthwise layers train their biases, fully
    connected ones all they have. Raises SparsetuneError where one channel each is more than
    that."""
    checked_share(percent)

    def of_ratio(ratio: float) -> UpdatePlan:
        return with_outputs(graph, _with_ratio(graph, last, ratio), outputs)

    if updated_share(graph, of_ratio(0.0)) > percent:
        raise SparsetuneError(
            f"one input channel of each convolution among the last {last} layers is "
            f"{updated_share(graph, of_ratio(0.0)):.3g} % of the convolution weights: train fewer "
            "layers (--last), or give a larger --share"
        )
    low, high = 0.0, 1.0
    if updated_share(graph, of_ratio(high)) <= percent:
        return of_ratio(high)
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        fits = updated_share(graph, of_ratio(ratio)) <= percent
        low, high = (ratio, high) if fits else (low, ratio)
    return of_ratio(low)


def _with_ratio(graph: Graph, last: int, ratio: float) -> UpdatePlan:
    return UpdatePlan(tuple(_layer(graph, op, ratio) for op in graph.trainable[-last:]))


def _layer(graph: Graph, op: Operator, ratio: float) -> LayerPlan:
    has_bias, channels = graph.bias_of(op) is not None, input_channels(graph, op)
    if op.kind == "CONV_2D":
        return LayerPlan(op.index, max(1, int(channels * ratio)), has_bias)
    return LayerPlan(op.index, channels if op.kind == "FULLY_CONNECTED" else 0, has_bias)


def _weights(graph: Graph, op: Operator) -> int:
    return graph.tensor(op.inputs[1]).size
