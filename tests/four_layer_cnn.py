"""The four-layer CNN of issue 4: 28x28x1 in, trained in full. It stands in for the network of the
one training step that is published for an RP2040 (Deutel et al.), whose layer list we do not have.

Weights and input are random: what a step costs hangs on shapes and on which gradients are zero.
"""

from __future__ import annotations

from small_models import RELU, Net
from sparsetune.graph import Graph, input_channels
from sparsetune.plan import LayerPlan, UpdatePlan

CLASSES = 10


def four_layer_cnn(seed: int = 1) -> Net:
    """conv 3x3x16, max-pool 2, conv 3x3x32, max-pool 2, dense 64, dense 10, softmax; ReLU behind
    all but the last. 1.1 million multiply-accumulates."""
    relu = {"activation": RELU, "zero": -128}
    net = Net((1, 28, 28, 1), seed=seed)
    for channels in (16, 32):
        net.conv(channels, 3, **relu)
        net.pool((2, 2), 2, kind="MAX")
    net.flatten()
    net.dense(64, **relu)
    net.dense(CLASSES)
    net.softmax()
    return net


def train_in_full(graph: Graph) -> UpdatePlan:
    """Every layer, all of its input channels, and its bias where it has one."""
    return UpdatePlan(
        tuple(
            LayerPlan(op.index, input_channels(graph, op), graph.bias_of(op) is not None)
            for op in graph.trainable
        )
    )
