"""Refuses what cannot be run, by name, before anything else looks at it."""

from __future__ import annotations

from .errors import SparsetuneError
from .graph import Graph, Operator
from .operators import KINDS
from .operators.kind import check_activation, refuse
from .simplify import RENAMED

_CURVE = "RELU, HARD_SWISH or LEAKY_RELU do in its place"
_NORM = "it normalises by the sample's own mean, batch norm does in its place"
# What to do about an operator that is not supported.
ADVICE = {
    "LOG_SOFTMAX": "leave it out, the loss does it",
    "TRANSPOSE_CONV": "RESIZE_NEAREST_NEIGHBOR and a convolution do in its place",
    **dict.fromkeys(("ELU", "GELU", "EXP"), _CURVE),
    **dict.fromkeys(("RSQRT", "SQUARED_DIFFERENCE"), _NORM),
}

SUPPORTED = (*KINDS, *RENAMED)  # in an int8 model's file


def check_kinds(graph: Graph) -> None:
    """Raises SparsetuneError where an operator is of a kind that cannot be run."""
    unknown = [op for op in graph.operators if op.kind not in KINDS]
    if unknown:
        op = next((op for op in unknown if op.kind in ADVICE), unknown[0])
        advice = ADVICE.get(op.kind, "build the model without it")
        raise refuse(op, f"is not supported: {advice} (supported are {', '.join(SUPPORTED)})")


def check_indices(graph: Graph) -> None:
    """Raises SparsetuneError where an operator names a tensor that is not there. Everything that
    looks at a graph relies on it."""
    count = len(graph.tensors)
    if not (0 <= graph.input < count and 0 <= graph.output < count):
        raise SparsetuneError("the model's input or output is no tensor of it: convert it again")
    for op in graph.operators:
        if not all(-1 <= i < count for i in op.inputs) or not all(
            0 <= i < count for i in op.outputs
        ):
            raise refuse(op, "has missing inputs or outputs: convert the model again")


def check_graph(graph: Graph, name: str) -> None:
    """Raises SparsetuneError when a model cannot be run; `name` is for the message."""
    if not graph.operators:
        raise SparsetuneError(f"{name} has no operators: there is nothing to train")
    if graph.tensor(graph.input).dtype.startswith("float"):
        raise SparsetuneError(
            f"{name} is a float model (input {graph.tensor(graph.input).dtype}): "
            "make it int8 with `sparsetune quantize`"
        )
    if len(graph.tensor(graph.input).shape) > 4:
        raise SparsetuneError(f"{name} has an input of more than four dimensions: not supported")
    check_kinds(graph)
    defined = {graph.input}
    for op in graph.operators:
        _check_operator(graph, op, defined)
        defined.update(op.outputs)
    if graph.output not in defined - {graph.input}:
        raise SparsetuneError(f"no operator of {name} makes its output: convert the model again")


def _check_operator(graph: Graph, op: Operator, defined: set[int]) -> None:
    kind = KINDS[op.kind]
    if len(op.outputs) < kind.outputs or not _indices_ok(op, kind.inputs):
        raise refuse(op, "has missing inputs or outputs: convert the model again")
    moving = kind.activations(graph, op)
    if not set(moving) <= defined:
        raise refuse(op, "takes a constant where an activation is expected: not supported")
    for index in (*moving, *op.outputs):
        check_activation(graph.tensor(index), op)
    try:
        kind.check(graph, op)
    except KeyError as error:
        raise refuse(op, f"lacks its option {error}: convert the model again") from error


def _indices_ok(op: Operator, needed: int) -> bool:
    return len(op.inputs) >= needed and min(op.inputs[:needed]) >= 0
