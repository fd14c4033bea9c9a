"""Rewrites of a float model so that all of it can become int8, and of what a quantiser leaves.

They take out what has no int8 kernel, or no meaning once shapes are fixed: converters leave
activations as operators of their own, shapes computed at run time, weights stored in float16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .decompose import decompose
from .graph import TRAINABLE, Graph, Operator, Tensor

# Activations that operators can apply themselves, by their TFLite number.
FUSIBLE = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
CAN_FUSE = (*TRAINABLE, "ADD", "SUB", "MUL")
RESHAPING = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
# Operators that have int8 kernels, but that litert-quantizer 0.11 leaves in floats.
LEFT_IN_FLOATS = ("RELU6", "RELU_N1_TO_1", "LEAKY_RELU")


def prepare(graph: Graph) -> Graph:
    """The same float function of the input, ready to be quantised. Tensors get unique names."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return _with_unique_names(graph)


def widen_weights(graph: Graph) -> Graph:
    """DEQUANTIZE of a constant (float16 models) becomes a float32 constant."""
    tensors, operators = list(graph.tensors), []
    for op in graph.operators:
        source = graph.tensor(op.inputs[0]) if op.kind == "DEQUANTIZE" else None
        if source is None or source.data is None or len(source.scales) > 1:
            operators.append(op)
            continue
        values = (source.data.astype(np.float32) - source.zero_point) * np.float32(source.scale)
        tensors[op.outputs[0]] = replace(tensors[op.outputs[0]], data=values)
    return replace(graph, tensors=tuple(tensors), operators=tuple(operators))


def fuse_activations(graph: Graph) -> Graph:
    """RELU and its kin behind an operator that can do them, and that nobody else reads."""
    for op in graph.operators:
        maker = graph.producer(op.inputs[0]) if op.kind in FUSIBLE else None
        if maker is not None and _can_fuse(graph, maker):
            options = {**maker.options, "fusedActivationFunction": FUSIBLE[op.kind]}
            fused = replace(maker, outputs=op.outputs, options=options)
            operators = tuple(fused if o is maker else o for o in graph.operators if o is not op)
            graph = replace(graph, operators=operators)
    return graph


def _can_fuse(graph: Graph, maker: Operator) -> bool:
    free = maker.kind in CAN_FUSE and maker.options.get("fusedActivationFunction") == 0
    return free and len(_readers(graph, maker.outputs[0])) == 1


def _readers(graph: Graph, tensor: int) -> list[Operator | None]:
    """The operators that read a tensor, and None where it is the model's output."""
    ends: list[Operator | None] = [None] if tensor == graph.output else []
    return ends + [op for op in graph.operators if tensor in op.inputs]


def fix_shapes(graph: Graph) -> Graph:
    """SQUEEZE, EXPAND_DIMS, and RESHAPE to a computed shape: RESHAPE to the shape in the file."""
    operators = [
        replace(op, kind="RESHAPE", inputs=op.inputs[:1]) if _only_reshapes(graph, op) else op
        for op in graph.operators
    ]
    return replace(graph, operators=tuple(operators))


def _only_reshapes(graph: Graph, op: Operator) -> bool:
    if op.kind == "RESHAPE":
        return len(op.inputs) > 1 and graph.tensor(op.inputs[1]).data is None
    return op.kind in RESHAPING


def drop_unread(graph: Graph) -> Graph:
    """Without the operators that do not lead to the output."""
    wanted, operators = {graph.output}, []
    for op in reversed(graph.operators):
        if wanted & set(op.outputs):
            wanted.update(op.inputs)
            operators.append(op)
    return replace(graph, operators=tuple(reversed(operators)))


def add_biases(graph: Graph) -> Graph:
    """A bias of zeros where an operator with weights has none: LiteRT's int8 kernels want one, and
    there the error of rounded weights can be put right."""
    tensors, operators = list(graph.tensors), []
    for op in graph.operators:
        if op.kind in TRAINABLE and graph.bias_of(op) is None:
            channels = graph.tensor(op.outputs[0]).shape[-1]
            zeros = np.zeros(channels, np.float32)
            name = f"bias of operator {op.index}"
            bias = Tensor(
                len(tensors), name, zeros.shape, "float32", np.ones(1, np.float32), 0, zeros
            )
            tensors.append(bias)
            op = replace(op, inputs=(*op.inputs[:2], bias.index))
        operators.append(op)
    return replace(graph, tensors=tuple(tensors), operators=tuple(operators))


def _with_unique_names(graph: Graph) -> Graph:
    """litert-quantizer and we find tensors by their names."""
    seen: set[str] = set()
    tensors = []
    for tensor in graph.tensors:
        name = tensor.name if tensor.name not in seen else f"{tensor.name}#{tensor.index}"
        seen.add(name)
        tensors.append(replace(tensor, name=name))
    return replace(graph, tensors=tuple(tensors))


def join_islands(graph: Graph) -> Graph:
    """DEQUANTIZE, an operator that was left in floats, QUANTIZE: the operator in int8.

    Its output takes the name that it had in floats.
    """
    tensors, operators = list(graph.tensors), list(graph.operators)
    for op in graph.operators:
        before = graph.producer(op.inputs[0]) if op.kind in LEFT_IN_FLOATS else None
        readers = _readers(graph, op.outputs[0])
        behind = readers[0] if len(readers) == 1 else None
        if before is None or behind is None:
            continue
        if (before.kind, behind.kind) == ("DEQUANTIZE", "QUANTIZE"):
            was, now = op.outputs[0], behind.outputs[0]
            tensors[now] = replace(tensors[now], name=tensors[was].name)
            tensors[was] = replace(tensors[was], name=tensors[was].name + " in floats")
            operators[operators.index(op)] = replace(op, inputs=before.inputs, outputs=(now,))
            operators.remove(behind)
    return drop_unread(replace(graph, tensors=tuple(tensors), operators=tuple(operators)))


PASSES: tuple[Callable[[Graph], Graph], ...] = (
    *(widen_weights, decompose, fuse_activations, fix_shapes, drop_unread, add_biases),
)
