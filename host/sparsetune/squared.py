"""The squared error of int8 outputs against targets as the user gave them."""

from __future__ import annotations

import numpy as np

from .data import Dataset
from .errors import SparsetuneError
from .inputs import Input
from .task import Task

SQUARED = ("mse", "autoencoder")  # losses that are one


def squared_error(outputs: bytes, data: Dataset, task: Task, source: Input) -> float:
    """The mean, in real units, over all samples and values. outputs: int8, one sample's after the
    other's. Targets are neither rounded nor clipped to what the output can hold. Raises
    SparsetuneError where some outputs are missing."""
    if len(outputs) != len(data) * task.outputs:
        raise SparsetuneError(
            f"the board told {len(outputs)} bytes of output, not {len(data) * task.outputs}: try "
            "again"
        )
    stored = np.frombuffer(outputs, np.int8).astype(np.float64)
    real = (stored - task.zero_point) * task.scale
    if task.loss == "autoencoder":
        wanted = (data.x.astype(np.float64).ravel() - source.zero_point) * source.scale
    else:
        wanted = np.asarray(data.y, np.float64).ravel()
    return float(np.mean((real - wanted) ** 2))
