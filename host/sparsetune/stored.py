"""A .tflite, float or int8, as bytes and as a graph; real numbers in the terms of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import Array, Graph, Tensor
from .tflite import parse_as_stored


@dataclass(frozen=True)
class Stored:
    """A model as bytes, and what they hold."""

    data: bytes
    graph: Graph

    @classmethod
    def of(cls, data: bytes) -> Stored:
        return cls(data, parse_as_stored(data))

    def stored_input(self, x: Array) -> Array:
        """Real samples in the type of the model's input: floats as they are, else quantised."""
        return quantise(x, self.graph.tensor(self.graph.input))


def quantise(x: Array, tensor: Tensor) -> Array:
    """Real values as `tensor` stores them: int8, rounded to the nearest and clamped, or float32."""
    if tensor.dtype == "float32":
        return x.astype(np.float32)
    steps: Array = np.rint(x / np.float32(tensor.scale)) + tensor.zero_point
    return steps.clip(-128, 127).astype(np.int8)


def dequantise(values: Array, tensor: Tensor) -> Array:
    """float64: real values of what `tensor` stores."""
    real: Array = values.astype(np.float64)
    return real if tensor.dtype == "float32" else (real - tensor.zero_point) * tensor.scale
