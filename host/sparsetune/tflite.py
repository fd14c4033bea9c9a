"""Reads and rewrites .tflite files. The only file that knows the TFLite schema."""

from __future__ import annotations

import hashlib
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SparsetuneError
from .graph import SUPPORTED, Array, Graph, Operator, Tensor

_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8"}
_SCHEMA = "ai_edge_litert.schema_py_generated"  # tflite-runtime's wheel has none
_PARSE_ERRORS = (
    *(struct.error, IndexError, ValueError, TypeError, KeyError),
    *(AttributeError, OverflowError, MemoryError, UnicodeDecodeError),
)


def read_tflite(path: Path) -> Graph:
    """The model in a file. Raises SparsetuneError when it cannot be trained here."""
    try:
        return parse_tflite(path.read_bytes(), str(path))
    except OSError as error:
        raise SparsetuneError(f"{path}: {error.strerror}: give the path of a .tflite") from error


def parse_tflite(data: bytes, name: str = "model") -> Graph:
    """The model in `data`; `name` is for messages."""
    model = _unpack(data, name)
    try:
        graph = _graph(model, hashlib.sha256(data).digest())
    except _PARSE_ERRORS as error:
        raise _damaged(name) from error
    _check(graph, name)
    return graph


def patch_tflite(data: bytes, values: dict[int, bytes]) -> bytes:
    """The model with the contents of some constant tensors replaced.

    values: tensor index -> bytes of the same length. Everything else stays as it is.
    """
    schema = _schema()
    model = _unpack(data, "model")
    tensors = model.subgraphs[0].tensors
    users = [t.buffer for t in tensors]
    for index, content in values.items():
        tensor = tensors[index]
        if users.count(tensor.buffer) > 1:  # equal constants may share a buffer
            model.buffers.append(schema.BufferT())
            tensor.buffer = len(model.buffers) - 1
        model.buffers[tensor.buffer].data = np.frombuffer(content, dtype=np.uint8)
    flatbuffers = importlib.import_module("flatbuffers")
    builder = flatbuffers.Builder(len(data) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _schema() -> Any:
    try:
        return importlib.import_module(_SCHEMA)
    except ImportError:
        raise SparsetuneError("the TFLite schema is missing: pip install ai-edge-litert") from None


def _damaged(name: str) -> SparsetuneError:
    return SparsetuneError(f"{name} is truncated or damaged: convert or copy the model again")


def _unpack(data: bytes, name: str) -> Any:
    if data[4:8] != b"TFL3":
        raise SparsetuneError(f"{name} is not a .tflite model: give the file your converter wrote")
    try:
        return _schema().ModelT.InitFromPackedBuf(data, 0)
    except _PARSE_ERRORS as error:
        raise _damaged(name) from error


def _graph(model: Any, digest: bytes) -> Graph:
    if len(model.subgraphs) != 1:
        raise SparsetuneError(
            f"the model has {len(model.subgraphs)} subgraphs (control flow): one is supported"
        )
    sub = model.subgraphs[0]
    for what, indices in (("inputs", sub.inputs), ("outputs", sub.outputs)):
        if len(indices) != 1:
            raise SparsetuneError(f"the model has {len(indices)} {what}: exactly one is supported")
    tensors = tuple(_tensor(model, i, t) for i, t in enumerate(sub.tensors))
    operators = tuple(_operator(model, i, o) for i, o in enumerate(sub.operators))
    return Graph(tensors, operators, int(sub.inputs[0]), int(sub.outputs[0]), digest)


def _tensor(model: Any, index: int, t: Any) -> Tensor:
    dtype = _DTYPES.get(t.type, f"type {t.type}")
    shape = tuple(int(n) for n in t.shape) if t.shape is not None else ()
    q = t.quantization
    has_scale = q is not None and q.scale is not None and len(q.scale)
    scales = np.asarray(q.scale, np.float32) if has_scale else np.ones(1, np.float32)
    zeros = np.asarray(q.zeroPoint) if has_scale and q.zeroPoint is not None else np.zeros(1, int)
    if len(set(zeros.tolist())) > 1:
        raise SparsetuneError(f"tensor {index} has several zero points: symmetric weights only")
    name = t.name.decode() if t.name else f"tensor {index}"
    data = _constant(model, t, dtype, shape)
    return Tensor(index, name, shape, dtype, scales, int(zeros[0]), data)


def _constant(model: Any, t: Any, dtype: str, shape: tuple[int, ...]) -> Array | None:
    raw = model.buffers[t.buffer].data
    if raw is None or len(raw) == 0 or dtype.startswith("type"):
        return None
    values: Array = np.frombuffer(np.asarray(raw, np.uint8).tobytes(), np.dtype(dtype))
    return values.reshape(shape)


def _operator(model: Any, index: int, o: Any) -> Operator:
    code = model.operatorCodes[o.opcodeIndex]
    number = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
    names = {v: k for k, v in vars(_schema().BuiltinOperator).items() if isinstance(v, int)}
    kind = names.get(number, f"operator code {number}")
    options = {} if o.builtinOptions is None else dict(vars(o.builtinOptions))
    inputs = () if o.inputs is None else tuple(int(i) for i in o.inputs)
    outputs = () if o.outputs is None else tuple(int(i) for i in o.outputs)
    return Operator(index, kind, inputs, outputs, options)


# What can be run ------------------------------------------------------------------------------


def _check(graph: Graph, name: str) -> None:
    if not graph.operators:
        raise SparsetuneError(f"{name} has no operators: there is nothing to train")
    if graph.tensor(graph.input).dtype.startswith("float"):
        raise SparsetuneError(
            f"{name} is a float model (input {graph.tensor(graph.input).dtype}): "
            "convert it with full int8 quantisation, input and output included"
        )
    if len(graph.tensor(graph.input).shape) > 4:
        raise SparsetuneError(f"{name} has an input of more than four dimensions: not supported")
    defined = {graph.input}
    for op in graph.operators:
        _check_operator(graph, op, defined)
        defined.update(op.outputs)
    if graph.output not in defined - {graph.input}:
        raise SparsetuneError(f"no operator of {name} makes its output: convert the model again")


def _refuse(op: Operator, what: str) -> SparsetuneError:
    return SparsetuneError(f"operator {op.index} ({op.kind}) {what}")


def _check_operator(graph: Graph, op: Operator, defined: set[int]) -> None:
    if op.kind not in SUPPORTED:
        raise _refuse(op, f"is not supported; supported are {', '.join(SUPPORTED)}")
    if len(op.outputs) != 1 or not op.inputs or not _indices_ok(graph, op):
        raise _refuse(op, "has missing inputs or outputs: convert the model again")
    moving = op.inputs[:2] if op.kind == "ADD" else op.inputs[:1]
    if not set(moving) <= defined:
        raise _refuse(op, "takes a constant where an activation is expected: not supported")
    for index in (*moving, *op.outputs):
        _check_activation(graph.tensor(index), op)
    try:
        _CHECK[op.kind](graph, op)
    except KeyError as error:
        raise _refuse(op, f"lacks its option {error}: convert the model again") from error


def _indices_ok(graph: Graph, op: Operator) -> bool:
    within = all(-1 <= i < len(graph.tensors) for i in (*op.inputs, *op.outputs))
    needed = {"ADD": 2, "CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2}
    count = needed.get(op.kind, 1)
    return within and len(op.inputs) >= count and min(*op.inputs[:count], *op.outputs) >= 0


def _check_activation(tensor: Tensor, op: Operator) -> None:
    if tensor.dtype != "int8":
        raise _refuse(op, f"works on {tensor.dtype}: convert the model with full int8 quantisation")
    if not tensor.shape or tensor.shape[0] != 1 or min(tensor.shape) < 1:
        raise _refuse(op, f"has shape {list(tensor.shape)}: the batch must be 1, all sizes fixed")
    if len(tensor.scales) != 1 or not 0 < tensor.scale < np.inf:
        raise _refuse(op, "has an activation without one scale: convert the model again")
    if not -128 <= tensor.zero_point <= 127:
        raise _refuse(op, f"has the zero point {tensor.zero_point}: convert the model again")


def _check_weights(graph: Graph, op: Operator) -> None:
    w, bias = graph.tensor(op.inputs[1]), graph.bias_of(op)
    if w.data is None or w.dtype != "int8" or w.zero_point != 0:
        raise _refuse(op, "needs constant symmetric int8 weights")
    if not (np.isfinite(w.scales) & (w.scales > 0)).all():
        raise _refuse(op, "has weight scales that are no positive numbers: convert it again")
    if bias is not None and (bias.data is None or bias.dtype != "int32"):
        raise _refuse(op, "needs a constant int32 bias")
    _check_fused(op)


def _check_fused(op: Operator) -> None:
    if op.options.get("fusedActivationFunction", 0) not in (0, 1, 2, 3):
        raise _refuse(op, "has a fused activation other than RELU, RELU6 or RELU_N1_TO_1")


def _check_conv(graph: Graph, op: Operator) -> None:
    _check_weights(graph, op)
    x, w, y = (graph.tensor(i) for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    if len(x.shape) != 4 or len(w.shape) != 4 or len(y.shape) != 4:
        raise _refuse(op, "needs tensors of four dimensions")
    if op.kind == "CONV_2D" and (w.shape[3] != x.shape[3] or w.shape[0] != y.shape[3]):
        raise _refuse(op, f"has groups or wrong shapes ({x.shape}, {w.shape}): not supported")
    if op.kind == "DEPTHWISE_CONV_2D" and (w.shape[3] != y.shape[3] or y.shape[3] % x.shape[3]):
        raise _refuse(op, f"has wrong shapes ({x.shape}, {w.shape})")
    channels = y.shape[3]
    bias = graph.bias_of(op)
    if len(w.scales) not in (1, channels) or (bias is not None and bias.size != channels):
        raise _refuse(op, "has scales or a bias that do not match its output channels")
    _check_window(graph, op, (w.shape[1], w.shape[2]))


def _check_window(graph: Graph, op: Operator, kernel: tuple[int, int]) -> None:
    """The output's shape must follow from input, window, stride and padding."""
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    strides = op.options["strideH"], op.options["strideW"]
    dilations = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    for i in (0, 1):
        span = (kernel[i] - 1) * dilations[i] + 1
        lost = 1 if op.options["padding"] == 0 else span
        room = x.shape[1 + i] + strides[i] - lost
        if min(strides[i], dilations[i]) < 1 or room // strides[i] != y.shape[1 + i]:
            raise _refuse(op, f"has an output of shape {list(y.shape)} that its window cannot give")


def _check_fully_connected(graph: Graph, op: Operator) -> None:
    _check_weights(graph, op)
    x, w, y = (graph.tensor(i) for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    bias = graph.bias_of(op)
    fits = len(w.shape) == 2 and x.size % w.shape[1] == 0
    if not fits or y.size != x.size // w.shape[1] * w.shape[0] or op.options["weightsFormat"] != 0:
        raise _refuse(op, f"has shapes {list(x.shape)} x {list(w.shape)} that do not fit")
    if len(w.scales) not in (1, w.shape[0]) or (bias is not None and bias.size != w.shape[0]):
        raise _refuse(op, "has scales or a bias that do not match its outputs")


def _check_pool(graph: Graph, op: Operator) -> None:
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    if len(x.shape) != 4 or len(y.shape) != 4 or x.shape[3] != y.shape[3]:
        raise _refuse(op, f"has wrong shapes ({x.shape}, {y.shape})")
    if (x.scale, x.zero_point) != (y.scale, y.zero_point):
        raise _refuse(op, "changes the scale of its input: not supported")
    _check_fused(op)
    _check_window(graph, op, (op.options["filterHeight"], op.options["filterWidth"]))


def _check_add(graph: Graph, op: Operator) -> None:
    a, b, y = (graph.tensor(i) for i in (*op.inputs[:2], op.outputs[0]))
    if not a.shape == b.shape == y.shape:
        raise _refuse(op, f"broadcasts {list(a.shape)} + {list(b.shape)}: not supported")
    _check_fused(op)


def _check_reshape(graph: Graph, op: Operator) -> None:
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    same_numbers = (x.scale, x.zero_point) == (y.scale, y.zero_point)
    if x.size != y.size or not same_numbers:
        raise _refuse(op, "changes the number or the scale of its elements")


def _check_softmax(graph: Graph, op: Operator) -> None:
    y = graph.tensor(op.outputs[0])
    if graph.tensor(op.inputs[0]).shape != y.shape:
        raise _refuse(op, "has different shapes in and out")
    if y.zero_point != -128 or abs(y.scale * 256 - 1) > 1e-3:
        raise _refuse(op, "must have an output scale of 1/256 and zero point -128")


_CHECK: dict[str, Callable[[Graph, Operator], None]] = {
    "CONV_2D": _check_conv,
    "DEPTHWISE_CONV_2D": _check_conv,
    "FULLY_CONNECTED": _check_fully_connected,
    "AVERAGE_POOL_2D": _check_pool,
    "ADD": _check_add,
    "RESHAPE": _check_reshape,
    "SOFTMAX": _check_softmax,
}
