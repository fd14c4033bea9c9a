"""Rewrites of the model that leave its numbers as they are: what converters leave behind and the
board need not do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .graph import Graph, Operator, Tensor

RENAMED = ("SQUEEZE", "EXPAND_DIMS")  # kinds that are RESHAPEs
EXPLICIT_PADDING = "explicitPadding"  # option: ((rows above, below), (columns left, right))


def simplify(graph: Graph) -> Graph:
    """The same function of the input, in fewer or simpler operators. Operators and tensors keep
    the numbers that they have in the file."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return graph


def from_uint8(graph: Graph) -> Graph:
    """Models of TensorFlow 1 hold uint8: 128 less of value and zero point is the same in int8."""
    tensors = tuple(_int8(t) if t.dtype == "uint8" else t for t in graph.tensors)
    shifted = frozenset(t.index for t in graph.tensors if t.dtype == "uint8")
    return replace(graph, tensors=tensors, shifted=shifted)


def _int8(t: Tensor) -> Tensor:
    data = None if t.data is None else (t.data.astype(np.int16) - 128).astype(np.int8)
    return replace(t, dtype="int8", data=data, zero_point=t.zero_point - 128)


def take_off_ends(graph: Graph) -> Graph:
    """A QUANTIZE of real numbers at the input and a DEQUANTIZE at the output: samples come as
    integers, and the loss knows the output's scale."""
    first = [op for op in graph.operators if graph.input in op.inputs]
    if len(first) == 1 and _changes_type(graph, first[0], "QUANTIZE", "float32", "int8"):
        operators = tuple(op for op in graph.operators if op is not first[0])
        graph = replace(
            graph, operators=operators, entry=graph.input, input=first[0].outputs[0]
        )
    last = graph.producer(graph.output)
    if last and _changes_type(graph, last, "DEQUANTIZE", "int8", "float32"):
        operators = tuple(op for op in graph.operators if op is not last)
        graph = replace(graph, operators=operators, exit=graph.output, output=last.inputs[0])
    return graph


def _changes_type(graph: Graph, op: Operator, kind: str, source: str, target: str) -> bool:
    if op.kind != kind or len(op.inputs) != 1 or len(op.outputs) != 1 or min(op.inputs) < 0:
        return False
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    return (x.dtype, y.dtype, x.shape) == (source, target, y.shape)


def rename(graph: Graph) -> Graph:
    """What moves nothing is a RESHAPE: SQUEEZE, EXPAND_DIMS, a TRANSPOSE of axes of size 1, a
    QUANTIZE from uint8 to int8."""
    operators = [
        replace(op, kind="RESHAPE", inputs=op.inputs[:1]) if _only_renames(graph, op) else op
        for op in graph.operators
    ]
    return replace(graph, operators=tuple(operators))


def _only_renames(graph: Graph, op: Operator) -> bool:
    if op.kind == "QUANTIZE" and op.inputs and op.outputs and min(op.inputs) >= 0:
        return _same_numbers(graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0]))
    if op.kind != "TRANSPOSE" or len(op.inputs) < 2 or min(op.inputs) < 0:
        return op.kind in RENAMED
    order, shape = graph.tensor(op.inputs[1]).data, graph.tensor(op.inputs[0]).shape
    if order is None or sorted(order.ravel().tolist()) != list(range(len(shape))):
        return False
    moved = [axis for axis in order.ravel().tolist() if shape[axis] != 1]
    return moved == sorted(moved)


def fold_pad(graph: Graph) -> Graph:
    """PAD in front of a VALID convolution becomes the convolution's own padding: PAD writes the
    zero point, which is what a convolution takes for whatever lies outside of its input."""
    operators = list(graph.operators)
    for pad in graph.operators:
        readers = [op for op in operators if pad.outputs and pad.outputs[0] in op.inputs]
        if len(readers) == 1 and graph.output not in pad.outputs:
            folded = _folded(graph, pad, readers[0])
            if folded:
                operators[operators.index(readers[0])] = folded
                operators.remove(pad)
    return replace(graph, operators=tuple(operators))


def _folded(graph: Graph, pad: Operator, conv: Operator) -> Operator | None:
    """The convolution that does the padding too; None where that would not be the same."""
    amounts = pad_amounts(graph, pad)
    is_conv = conv.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and len(conv.inputs) > 1
    if not is_conv or amounts is None or len(amounts) != 4 or any(amounts[0] + amounts[3]):
        return None
    x, y = graph.tensor(pad.inputs[0]), graph.tensor(pad.outputs[0])
    window = graph.tensor(conv.inputs[1]).shape[1:3]
    dilations = [conv.options.get(f"dilation{axis}Factor", 1) for axis in "HW"]
    reach = [(k - 1) * d for k, d in zip(window, dilations, strict=False)]
    within = len(reach) == 2 and all(
        0 <= end <= most for ends, most in zip(amounts[1:3], reach, strict=True) for end in ends
    )
    if not within or conv.options.get("padding") != 1 or not _same_numbers(x, y):
        return None
    options = {**conv.options, EXPLICIT_PADDING: (tuple(amounts[1]), tuple(amounts[2]))}
    return replace(conv, inputs=(pad.inputs[0], *conv.inputs[1:]), options=options)


def pad_amounts(graph: Graph, pad: Operator) -> list[list[int]] | None:
    """[before, behind] of each axis of a PAD; None where it is none, or not a constant one."""
    if pad.kind != "PAD" or len(pad.inputs) < 2:
        return None
    data = graph.tensor(pad.inputs[1]).data
    if data is None or data.ndim != 2 or data.shape[1] != 2:
        return None
    return [[int(n) for n in pair] for pair in data]


def _same_numbers(a: Tensor, b: Tensor) -> bool:
    return (a.dtype, a.scale, a.zero_point) == (b.dtype, b.scale, b.zero_point)


PASSES: tuple[Callable[[Graph], Graph], ...] = (from_uint8, take_off_ends, rename, fold_pad)
