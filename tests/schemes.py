"""Plans that others have published."""

from __future__ import annotations

from sparsetune.graph import Graph, input_channels
from sparsetune.plan import LayerPlan, UpdatePlan

# MCUNetV3's scheme for MobileNetV2-w0.35 at 100 KB of analytic memory, "MbV2-99" (2206.15472):
# biases of the last 25 convolutions, and shares of the input channels of some of them.
MBV2_99 = (25, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 1 / 8, 45: 1 / 2, 48: 1})


def published(graph: Graph, scheme: tuple[int, dict[int, float]]) -> UpdatePlan:
    """biases: of so many convolutions, the last ones; shares: of the input channels, by number of
    the convolution, counted from 0. The last layer, the head, trains whole."""
    biases, shares = scheme
    layers = []
    *convolutions, head = graph.trainable
    for i, op in enumerate(convolutions):
        if i >= len(convolutions) - biases:
            layers.append(LayerPlan(op.index, int(input_channels(graph, op) * shares.get(i, 0))))
    layers.append(LayerPlan(head.index, input_channels(graph, head)))
    return UpdatePlan(tuple(layers))
