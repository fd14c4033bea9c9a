"""A model as a float network of PyTorch, on its dequantised weights. Imported only by a Python that
has torch: nothing of sparsetune but the graph is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph import TRAINABLE, Graph, Operator

Pads = tuple[int, int, int, int]  # left, right, top, bottom


class FloatNet(nn.Module):
    """The network on real numbers, NCHW; what it returns are the logits, or what a front ends with:
    then `is_front`. features: what the last layer reads."""

    def __init__(self, graph: Graph, is_front: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.is_front = is_front
        self.parts = [op for op in graph.operators if op is not graph.last or op.kind != "SOFTMAX"]
        for op in self.parts:
            if op.kind in TRAINABLE:
                self.register_parameter(f"w{op.index}", nn.Parameter(_weights(graph, op)))
                self.register_parameter(f"b{op.index}", nn.Parameter(_bias(graph, op)))

    def forward(self, x: Tensor) -> Tensor:
        values = {self.graph.input: x}
        for op in self.parts:
            inputs = [values[t] for t in op.inputs if t in values]
            y = getattr(self, op.kind.lower())(op, *inputs)
            values[op.outputs[0]] = self.activated(op, y)
        end = values[self.parts[-1].outputs[0]]
        if self.is_front:
            return end
        self.features = values[self.graph.trainable[-1].inputs[0]]
        return end.flatten(1)

    def activated(self, op: Operator, y: Tensor) -> Tensor:
        """An output that starts at zero has had a ReLU, also where the file does not say so."""
        out = self.graph.tensor(op.outputs[0])
        fused = op.options.get("fusedActivationFunction", 0)
        if fused == 1:
            return F.relu(y)
        if fused == 3 or (op.kind in TRAINABLE and out.zero_point == -128):
            return F.relu6(y) if fused else y.clamp(0, 255 * out.scale)
        return y

    def conv_2d(self, op: Operator, x: Tensor) -> Tensor:
        w, b = getattr(self, f"w{op.index}"), getattr(self, f"b{op.index}")
        o = op.options
        stride, dilation = (o["strideH"], o["strideW"]), _dilation(op)
        pads = self.pads(op, w.shape[2:])
        if pads[0] == pads[1] and pads[2] == pads[3]:  # PyTorch's own padding costs less
            inside: Any = (pads[2], pads[0])
        else:
            x, inside = F.pad(x, pads), 0
        return F.conv2d(x, w, b, stride, inside, dilation, x.shape[1] // w.shape[1])

    depthwise_conv_2d = conv_2d

    def fully_connected(self, op: Operator, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), getattr(self, f"w{op.index}"), getattr(self, f"b{op.index}"))

    def add(self, op: Operator, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def average_pool_2d(self, op: Operator, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, *_window(op))

    def max_pool_2d(self, op: Operator, x: Tensor) -> Tensor:
        return F.max_pool2d(x, *_window(op))

    def reshape(self, op: Operator, x: Tensor) -> Tensor:
        """To rows, in the file's order, where channels come last."""
        spatial = x.dim() == 4 and x.shape[2] * x.shape[3] > 1
        return (x.permute(0, 2, 3, 1) if spatial else x).flatten(1)

    def pads(self, op: Operator, kernel: Any) -> Pads:
        explicit = op.options.get("explicitPadding")
        if explicit:
            (top, bottom), (left, right) = explicit
            return left, right, top, bottom
        if op.options["padding"] != 0:
            return 0, 0, 0, 0
        x, y = (self.graph.tensor(t).shape[1:3] for t in (op.inputs[0], op.outputs[0]))
        strides, dilation = (op.options["strideH"], op.options["strideW"]), _dilation(op)
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        total = [max(0, (y[i] - 1) * strides[i] + spans[i] - x[i]) for i in (0, 1)]
        high, wide = total
        return wide // 2, wide - wide // 2, high // 2, high - high // 2


def _dilation(op: Operator) -> tuple[int, int]:
    return op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)


def _window(op: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    o = op.options
    return (o["filterHeight"], o["filterWidth"]), (o["strideH"], o["strideW"])


def _weights(graph: Graph, op: Operator) -> Tensor:
    """In real numbers, in PyTorch's order."""
    w = graph.tensor(op.inputs[1])
    assert w.data is not None
    values = w.data.reshape(w.shape).astype(np.float32) - w.zero_point
    scales = w.scales.astype(np.float32)
    if op.kind == "DEPTHWISE_CONV_2D":
        return torch.tensor((values * scales).transpose(3, 0, 1, 2).copy())
    values = values * scales.reshape(-1, *[1] * (values.ndim - 1))
    return torch.tensor(values.transpose(0, 3, 1, 2).copy() if values.ndim == 4 else values)


def _bias(graph: Graph, op: Operator) -> Tensor:
    bias, y = graph.bias_of(op), graph.tensor(op.outputs[0])
    if bias is None or bias.data is None:
        return torch.zeros(y.shape[-1])
    scales = graph.tensor(op.inputs[0]).scale * graph.tensor(op.inputs[1]).scales
    return torch.tensor((bias.data.reshape(-1) * scales).astype(np.float32))
