"""Reads and rewrites .tflite files. The only file that knows the TFLite schema."""

from __future__ import annotations

import hashlib
import importlib
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .check import check_graph
from .errors import SparsetuneError
from .graph import Array, Graph, Operator, Tensor
from .simplify import simplify

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
    graph = simplify(graph)
    check_graph(graph, name)
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
