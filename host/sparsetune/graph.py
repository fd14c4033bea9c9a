"""The model as sparsetune sees it: tensors and operators in execution order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# A last operator of this kind -> the loss that it is part of.
OWN_LOSS = {"SOFTMAX": "softmax", "LOGISTIC": "bce"}
TRAINABLE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Tensor:
    """One tensor. value = scale * (stored - zero_point); scales has one entry, or one a channel.

    shape: as in the file, batch first. data: the constant's values, or None.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: Array
    zero_point: int
    data: Array | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def scale(self) -> float:
        return float(self.scales[0])


@dataclass(frozen=True)
class Operator:
    """One operator; inputs and outputs are tensor indices (-1: absent), options TFLite's names."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A whole model with one input and one output. digest: sha256 of the file. loss: the name of
    the loss to train with (task.py), empty for what the model suggests. shifted: tensors that are
    uint8 in the file, 128 more than here. entry, exit: the file's own input and output where those
    are real numbers, which simplify.py takes off; else -1."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    input: int
    output: int
    digest: bytes
    loss: str = ""
    shifted: frozenset[int] = frozenset()
    entry: int = -1
    exit: int = -1

    def tensor(self, index: int) -> Tensor:
        return self.tensors[index]

    def shift(self, tensor: int) -> int:
        """What the file's numbers of a tensor are more than ours."""
        return 128 if tensor in self.shifted else 0

    def operator(self, index: int) -> Operator:
        """The operator with that number in the file; simplify.py may have taken others out."""
        return next(op for op in self.operators if op.index == index)

    def bias_of(self, op: Operator) -> Tensor | None:
        """The bias of a convolution or fully connected operator, if it has one."""
        if len(op.inputs) < 3 or op.inputs[2] < 0:
            return None
        return self.tensors[op.inputs[2]]

    def producer(self, tensor: int) -> Operator | None:
        """The operator that makes a tensor; None for the input and for constants."""
        return next((op for op in self.operators if tensor in op.outputs), None)

    @property
    def last(self) -> Operator:
        """The operator that makes the output, before it was reshaped."""
        tensor = self.output
        while True:
            op = self.producer(tensor)
            assert op is not None  # tflite.py refuses models whose output nothing makes
            if op.kind != "RESHAPE" or self.producer(op.inputs[0]) is None:
                return op
            tensor = op.inputs[0]

    @property
    def loss_name(self) -> str:
        """The loss asked for, else by the model: classes unless its end or its shape says
        otherwise."""
        if self.loss or self.last.kind in OWN_LOSS:
            return self.loss or OWN_LOSS[self.last.kind]
        outputs = self.tensor(self.output).size
        if outputs == 1:
            return "mse"
        return "autoencoder" if outputs == self.tensor(self.input).size else "softmax"

    @property
    def logits(self) -> int:
        """The tensor that the loss looks at: what goes into a last SOFTMAX or LOGISTIC that is part
        of the loss, else the output."""
        is_part_of_loss = OWN_LOSS.get(self.last.kind) == self.loss_name
        return self.last.inputs[0] if is_part_of_loss else self.output

    @cached_property
    def leading_to_logits(self) -> set[int]:
        """Operators whose output the loss depends on."""
        wanted = {self.logits}
        found = set()
        for op in reversed(self.operators):
            if wanted & set(op.outputs):
                found.add(op.index)
                wanted.update(op.inputs)
        return found

    @cached_property
    def logits_aliases(self) -> set[int]:
        """The logits, and what they were before a RESHAPE, if nothing else reads that."""
        aliases = {self.logits}
        for op in reversed(self.operators):
            readers = sum(op.inputs[0] in other.inputs for other in self.operators)
            if op.kind == "RESHAPE" and op.outputs[0] in aliases and readers == 1:
                aliases.add(op.inputs[0])
        return aliases

    @cached_property
    def trainable(self) -> tuple[Operator, ...]:
        """Operators with weights that can be trained: the loss depends on them, and nobody else
        uses their constants."""
        path = self.leading_to_logits
        return tuple(
            op
            for op in self.operators
            if op.kind in TRAINABLE and op.index in path and not self._shares_constants(op)
        )

    def _shares_constants(self, op: Operator) -> bool:
        mine = set(op.inputs[1:3]) - {-1}
        return any(mine & set(other.inputs) for other in self.operators if other is not op)


def input_channels(graph: Graph, op: Operator) -> int:
    """Input channels of a trainable operator."""
    weights = graph.tensor(op.inputs[1])
    if op.kind == "DEPTHWISE_CONV_2D":
        return graph.tensor(op.inputs[0]).shape[-1]
    return weights.shape[-1]


def output_channels(graph: Graph, op: Operator) -> int:
    """Output channels of a trainable operator."""
    shape = graph.tensor(op.inputs[1]).shape
    return shape[-1] if op.kind == "DEPTHWISE_CONV_2D" else shape[0]


def per_channel_scales(graph: Graph, op: Operator) -> Array:
    """float64 [out channels]: scale of each output channel's weights."""
    scales = graph.tensor(op.inputs[1]).scales.astype(np.float64)
    channels = output_channels(graph, op)
    return np.full(channels, scales[0]) if len(scales) == 1 else scales
