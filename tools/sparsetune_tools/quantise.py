"""Turns a trained float network into an int8 .tflite by TFLite's conventions.

Weights: symmetric, one scale an output channel (one scale for the tensor in a dense layer).
Activations: asymmetric, their range measured on calibration images. Bias: int32 of scale
s_input * s_weights. Softmax: scale 1/256, zero -128.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from sparsetune_tools import numpy_net as net
from sparsetune_tools.numpy_net import Array
from sparsetune_tools.tflite_writer import ModelWriter, Quantisation

PIXEL = Quantisation(np.array([1 / 255], np.float32), -128)
PROBABILITY = Quantisation(np.array([1 / 256], np.float32), -128)


def to_tflite(network: net.Network, calibration: Array, description: str) -> bytes:
    """The int8 .tflite of `network` with a softmax at its end.

    calibration: [N, h, w, c] images in 0..1; their activations give the ranges.
    """
    export = _Export(ModelWriter(description), calibration)
    source = export.index
    for layer in network.layers:
        export.add(layer)
    sink = export.add_softmax()
    return export.writer.to_bytes(source, sink)


class _Export:
    """Walks the network with the calibration images, one operator at a time."""

    def __init__(self, writer: ModelWriter, x: Array) -> None:
        self.writer, self.x, self.q, self.count = writer, x, PIXEL, 0
        self.index = writer.add_activation("image", (1, *x.shape[1:]), PIXEL)

    def add(self, layer: net.Layer) -> None:
        """Emit `layer`, and go on from its output."""
        if isinstance(layer, net.Residual):
            self._add_residual(layer)
        elif isinstance(layer, net.Conv):
            self._add_weighted(layer, "CONV_2D", _conv_options(layer), axis=0)
        elif isinstance(layer, net.Depthwise):
            self._add_weighted(layer, "DEPTHWISE_CONV_2D", _depthwise_options(layer), axis=3)
        elif isinstance(layer, net.Dense):
            options = schema.FullyConnectedOptionsT()
            self._add_weighted(layer, "FULLY_CONNECTED", options, axis=None)
        elif isinstance(layer, net.AveragePool):
            self._emit("AVERAGE_POOL_2D", [], layer.forward(self.x), self.q, _pool_options(layer))
        elif isinstance(layer, net.Reshape):
            self._add_reshape(layer)
        else:
            raise TypeError(f"no TFLite operator for {type(layer).__name__}")

    def add_softmax(self) -> int:
        """Emit the softmax; returns the index of its output."""
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        self._emit("SOFTMAX", [], self.x, PROBABILITY, options)
        return self.index

    def _add_weighted(self, layer: net.Layer, kind: str, options: Any, axis: int | None) -> None:
        weights = _weights_quantisation(layer.weights, axis)
        bias = Quantisation(self.q.scale * weights.scale)
        shape = [1] * layer.weights.ndim
        shape[weights.axis] = -1
        w = np.rint(layer.weights / weights.scale.reshape(shape)).astype(np.int8)
        b = np.rint(layer.bias / bias.scale).astype(np.int32)
        constants = [
            self.writer.add_constant(f"weights{self.count}", w, weights),
            self.writer.add_constant(f"bias{self.count}", b, bias),
        ]
        y = layer.forward(self.x)
        self._emit(kind, constants, y, _activation_quantisation(y), options)

    def _add_residual(self, layer: net.Residual) -> None:
        shortcut, x = self.index, self.x
        for inner in layer.branch:
            self.add(inner)
        y = layer.forward(x)
        options = schema.AddOptionsT()
        options.fusedActivationFunction = _activation(layer)
        options.potScaleInt16 = False
        branch, self.index = self.index, shortcut
        self._emit("ADD", [branch], y, _activation_quantisation(y), options)

    def _add_reshape(self, layer: net.Reshape) -> None:
        y = layer.forward(self.x)
        shape = np.array([1, y.shape[1]], np.int32)
        options = schema.ReshapeOptionsT()
        options.newShape = [int(n) for n in shape]
        constant = self.writer.add_constant(f"shape{self.count}", shape)
        self._emit("RESHAPE", [constant], y, self.q, options)

    def _emit(
        self, kind: str, more_inputs: list[int], y: Array, q: Quantisation, options: Any
    ) -> None:
        name = f"{kind.lower()}{self.count}"
        output = self.writer.add_activation(name, (1, *y.shape[1:]), q)
        self.writer.add_operator(kind, [self.index, *more_inputs], output, options)
        self.index, self.x, self.q = output, y, q
        self.count += 1


def _weights_quantisation(weights: Array, axis: int | None) -> Quantisation:
    others = tuple(i for i in range(weights.ndim) if i != axis)
    peak = np.abs(weights).max(axis=others, keepdims=False).reshape(-1)
    return Quantisation((np.maximum(peak, 1e-6) / 127).astype(np.float32), 0, axis or 0)


def _activation_quantisation(y: Array) -> Quantisation:
    low, high = min(0.0, float(y.min())), max(0.0, float(y.max()))
    scale = max(high - low, 1e-6) / 255
    return Quantisation(np.array([scale], np.float32), int(np.rint(-128 - low / scale)))


def _activation(layer: net.Layer) -> int:
    kinds = schema.ActivationFunctionType
    return int(kinds.RELU if layer.relu else kinds.NONE)


def _conv_options(layer: net.Conv) -> Any:
    return _strided(schema.Conv2DOptionsT(), layer.stride, _activation(layer))


def _depthwise_options(layer: net.Depthwise) -> Any:
    options = _strided(schema.DepthwiseConv2DOptionsT(), layer.stride, _activation(layer))
    options.depthMultiplier = 1
    return options


def _pool_options(layer: net.AveragePool) -> Any:
    options = _strided(schema.Pool2DOptionsT(), layer.size, int(_activation(layer)))
    options.padding = schema.Padding.VALID
    options.filterHeight = options.filterWidth = layer.size
    return options


def _strided(options: Any, stride: int, activation: int) -> Any:
    options.padding = schema.Padding.SAME
    options.strideH = options.strideW = stride
    options.fusedActivationFunction = activation
    return options
