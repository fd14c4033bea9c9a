"""How one kind of operator is checked, run and differentiated, and checks that many share."""

from __future__ import annotations

import numpy as np

from ..backward import Backward
from ..errors import SparsetuneError
from ..geometry import output_limits
from ..graph import Graph, Operator, Tensor
from ..lowering import Lowering
from ..plan import UpdatePlan
from ..simplify import EXPLICIT_PADDING


class Kind:
    """One kind of operator. The methods are called in this order, each for every operator of the
    kind: check, holds, lower, differentiate."""

    inputs = 1  # that it needs at least
    outputs = 1

    def activations(self, graph: Graph, op: Operator) -> tuple[int, ...]:
        """Inputs that must be activations; all others are constants or shapes."""
        return op.inputs[:1]

    def check(self, graph: Graph, op: Operator) -> None:
        """Raises SparsetuneError for what cannot be run."""
        raise NotImplementedError

    def has_gradient(self, graph: Graph, op: Operator) -> bool:
        """Whether layers in front of it can be trained through it."""
        return True

    def holds(self, graph: Graph, op: Operator, plan: UpdatePlan) -> set[int]:
        """Tensors that its gradient reads whole."""
        return set()

    def clamps(self, graph: Graph, op: Operator) -> bool:
        """Whether the output can lie beyond the ends of its range or of its fused activation,
        where no gradient passes."""
        return False

    def limits(self, graph: Graph, op: Operator) -> tuple[int, int]:
        """The int8 ends of its output, of its fused activation or of the range."""
        return output_limits(graph, op)

    def lower(self, low: Lowering, op: Operator) -> None:
        """Appends its forward pass to the program."""
        raise NotImplementedError

    def differentiate(self, back: Backward, op: Operator) -> None:
        """Appends its backward pass. At least one output has an error tensor; back.take(op) hands
        out the first one's."""
        raise NotImplementedError


def refuse(op: Operator, what: str) -> SparsetuneError:
    return SparsetuneError(f"operator {op.index} ({op.kind}) {what}")


def check_activation(tensor: Tensor, op: Operator) -> None:
    if tensor.dtype != "int8":
        raise refuse(op, f"works on {tensor.dtype}: convert the model with full int8 quantisation")
    if not tensor.shape or tensor.shape[0] != 1 or min(tensor.shape) < 1:
        raise refuse(op, f"has shape {list(tensor.shape)}: the batch must be 1, all sizes fixed")
    if len(tensor.scales) != 1 or not 0 < tensor.scale < np.inf:
        raise refuse(op, "has an activation without one scale: convert the model again")
    if not -128 <= tensor.zero_point <= 127:
        raise refuse(op, f"has the zero point {tensor.zero_point}: convert the model again")


def check_same_numbers(op: Operator, x: Tensor, y: Tensor) -> None:
    if (x.scale, x.zero_point) != (y.scale, y.zero_point):
        raise refuse(op, "changes the scale of its input: not supported")


def check_maps(graph: Graph, op: Operator) -> None:
    """From a map to a map of as many channels, in the same numbers."""
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    if len(x.shape) != 4 or len(y.shape) != 4 or x.shape[3] != y.shape[3]:
        raise refuse(op, f"has wrong shapes ({x.shape}, {y.shape})")
    check_same_numbers(op, x, y)


def check_fused(op: Operator) -> None:
    if op.options.get("fusedActivationFunction", 0) not in (0, 1, 2, 3):
        raise refuse(op, "has a fused activation other than RELU, RELU6 or RELU_N1_TO_1")


def check_window(graph: Graph, op: Operator, kernel: tuple[int, int]) -> None:
    """The output's shape must follow from input, window, stride and padding."""
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    strides = op.options["strideH"], op.options["strideW"]
    dilations = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    for i in (0, 1):
        span = (kernel[i] - 1) * dilations[i] + 1
        lost = 1 if op.options["padding"] == 0 else span
        padding = op.options.get(EXPLICIT_PADDING, ((0, 0), (0, 0)))[i]
        room = x.shape[1 + i] + sum(padding) + strides[i] - lost
        if min(strides[i], dilations[i]) < 1 or room // strides[i] != y.shape[1 + i]:
            raise refuse(op, f"has an output of shape {list(y.shape)} that its window cannot give")
