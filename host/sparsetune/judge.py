"""How good a model is on held-out samples, by LiteRT: accuracy, or the mean squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data import Dataset
from .graph import Array, Graph
from .inputs import as_file_takes, as_graph_gives
from .litert import predict
from .task import task_of


@dataclass(frozen=True)
class Score:
    """name: "accuracy" (a share) or "mean squared error" (in real units)."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.value:.1%}" if self.name == "accuracy" else f"{self.value:.4g}"

    @property
    def may_improve(self) -> bool:
        return self.name != "accuracy" or self.value < 1

    def is_worse_than(self, other: Score) -> bool:
        return self.value < other.value if self.name == "accuracy" else self.value > other.value


def judge(model: bytes, data: Dataset, graph: Graph) -> Score:
    """The score of a model on samples. graph: that of the original, for shapes and task."""
    task = task_of(graph)
    x = as_file_takes(graph, data.x)
    outputs = as_graph_gives(graph, predict(model, x)).reshape(len(data), -1)
    if task.loss == "softmax":
        assert data.y is not None
        return Score("accuracy", float(np.mean(outputs.argmax(axis=1) == data.y)))
    real = _real(graph, graph.output, outputs)
    if task.loss == "bce":
        assert data.y is not None
        middle = 0.5 if graph.logits != graph.output else 0.0
        wanted = np.asarray(data.y).reshape(real.shape) != 0
        return Score("accuracy", float(np.mean(((real > middle) == wanted).all(axis=1))))
    targets = data.x.reshape(len(x), -1) if task.loss == "autoencoder" else data.y
    wanted = np.asarray(targets, np.float64).reshape(real.shape)
    if task.loss == "autoencoder":
        wanted = _real(graph, graph.input, wanted + graph.shift(graph.input))
    return Score("mean squared error", float(np.mean((real - wanted) ** 2)))


def _real(graph: Graph, tensor: int, stored: Array) -> Array:
    t = graph.tensor(tensor)
    real: Array = (stored.astype(np.float64) - t.zero_point - graph.shift(tensor)) * t.scale
    return real
