"""Which input channels have the largest weights: those that MCUNetV3 updates (2206.15472, 3.3)."""

from __future__ import annotations

import numpy as np

from .graph import Array, Graph, Operator, input_channels, per_channel_scales


def by_magnitude(graph: Graph, op: Operator) -> Array:
    """Numbers of the input channels of a layer with weights, int64 [channels] (within a group),
    those first whose weights have the largest L2 norm in real units; of equal ones the first."""
    tensor = graph.tensor(op.inputs[1])
    assert tensor.data is not None  # tflite.py refuses models whose weights are not constant
    scales = np.asarray(per_channel_scales(graph, op), np.float64)
    weights = tensor.data.astype(np.float64) - tensor.zero_point
    if op.kind == "DEPTHWISE_CONV_2D":  # [1, h, w, outputs], an input's outputs side by side
        outputs = ((weights * scales).reshape(-1, weights.shape[-1]) ** 2).sum(0)
        norms = outputs.reshape(input_channels(graph, op), -1).sum(1)
    else:
        weights = weights * scales.reshape(-1, *[1] * (weights.ndim - 1))
        norms = (weights**2).reshape(-1, weights.shape[-1]).sum(0)
    order: Array = np.argsort(-norms, kind="stable")
    return order
