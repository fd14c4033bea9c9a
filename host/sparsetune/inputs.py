"""What a model takes, and samples brought into its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import SparsetuneError
from .graph import Array, Graph

MOST_OUTSIDE = 0.1  # share of a sample's values that may lie outside of the input's range
FEWEST_STEPS = 8  # that real samples must spread over: else they are in other units


@dataclass(frozen=True)
class Input:
    """shape: batch first. value = scale * (int8 - zero_point)."""

    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def range(self) -> tuple[float, float]:
        """The real values that it can hold."""
        return self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point)

    def stored(self, x: Array) -> Array:
        """Samples as int8. x: int8 as they are; uint8 of which 128 is taken off, as cameras and
        image files have it; real numbers as the float model took them. Raises SparsetuneError."""
        if x.dtype == np.int8:
            return x
        if x.dtype == np.uint8:
            return (x ^ 0x80).view(np.int8)
        if x.dtype.kind == "f":
            return self._quantised(x)
        raise SparsetuneError(
            f"samples are {x.dtype}: give int8 as the model's input takes it, uint8 pixels, or "
            "float32 as the float model took it"
        )

    def _quantised(self, x: Array) -> Array:
        if not np.isfinite(x).all():
            raise SparsetuneError("some samples are not finite numbers: leave those out")
        steps = np.rint(x.astype(np.float64) / self.scale) + self.zero_point
        self._check_units(x, steps)
        stored: Array = steps.clip(-128, 127).astype(np.int8)
        return stored

    def _check_units(self, x: Array, steps: Array) -> None:
        """0 ... 255 given to a model that takes 0 ... 1, or the other way round."""
        if not x.size:
            return
        outside = float(np.mean((steps < -129) | (steps > 128)))
        spread = float(np.ptp(steps))
        if outside > MOST_OUTSIDE or 0 < spread < FEWEST_STEPS:
            low, high = self.range
            raise SparsetuneError(
                f"samples go from {x.min():.4g} to {x.max():.4g}, the model takes {low:.4g} to "
                f"{high:.4g}: scale them as for the float model"
            )


def input_of(graph: Graph) -> Input:
    """What a model takes."""
    x = graph.tensor(graph.input)
    return Input(x.shape, x.scale, x.zero_point)


def as_file_takes(graph: Graph, x: Array) -> Array:
    """int8 samples in the type of the file's own input: real numbers where it begins with a
    QUANTIZE that simplify.py took off. Also brings them into the input's shape."""
    source = input_of(graph)
    x = x.reshape(len(x), *source.shape[1:])
    if graph.entry < 0:
        return x
    real: Array = (x.astype(np.float32) - source.zero_point) * np.float32(source.scale)
    return real


def as_graph_gives(graph: Graph, y: Array) -> Array:
    """The file's outputs in the integers of graph.output: where a DEQUANTIZE was taken off, they
    are real numbers."""
    if graph.exit < 0:
        return y
    t = graph.tensor(graph.output)
    steps = np.rint(y.astype(np.float64) / t.scale) + t.zero_point + graph.shift(graph.output)
    return steps.astype(np.uint8 if graph.shift(graph.output) else np.int8)
