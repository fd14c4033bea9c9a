"""Reads and rewrites .tflite files. The only file that knows the TFLite schema."""

from __future__ import annotations

import functools
import hashlib
import importlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .check import check_graph, check_indices
from .errors import SparsetuneError
from .graph import Array, Graph, Operator, Tensor
from .simplify import simplify

_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8"}
_SCHEMA = "ai_edge_litert.schema_py_generated"  # tflite-runtime's wheel has none
# Options of operators that store_graph can add: the schema's name for them.
_NEW_OPTIONS = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "MAX_POOL_2D": "Pool2D"}
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
    graph = parse_as_stored(data, name)
    check_indices(graph)
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
    return _pack(model)


def repair_quantisation(data: bytes) -> bytes:
    """The model as LiteRT takes it: one-dimensional tensors whose scales are said to lie along
    another axis (TFLM's person_detect has such biases) get axis 0."""
    model = _unpack(data, "model")
    for tensor in model.subgraphs[0].tensors:
        rank = 0 if tensor.shape is None else len(tensor.shape)
        if tensor.quantization is not None and tensor.quantization.quantizedDimension >= rank:
            tensor.quantization.quantizedDimension = 0
    return _pack(model)


def parse_as_stored(data: bytes, name: str = "model") -> Graph:
    """The model as it is in the file, float or not, neither simplified nor checked."""
    model = _unpack(data, name)
    try:
        return _graph(model, hashlib.sha256(data).digest())
    except _PARSE_ERRORS as error:
        raise _damaged(name) from error


def store_graph(data: bytes, graph: Graph) -> bytes:
    """The model in `data` with the operators, constants, names and ends of `graph`.

    graph: from parse_as_stored(data), with operators changed or left out, and tensors and operators
    (_NEW_OPTIONS) added behind its own. An operator made a RESHAPE takes the shape of its output.
    Metadata and signatures, which name what may be gone, are dropped.
    """
    schema, model = _schema(), _unpack(data, "model")
    sub = model.subgraphs[0]
    # An empty list of signatures, not none: litert-quantizer walks through it.
    model.buffers, model.metadata, model.signatureDefs = [schema.BufferT()], None, []
    stored = [*sub.tensors, *(schema.TensorT() for _ in graph.tensors[len(sub.tensors) :])]
    for tensor, target in zip(graph.tensors, stored, strict=True):
        _store_tensor(model, tensor, target)
    kinds = sorted({op.kind for op in graph.operators})
    versions = _versions(model)
    model.operatorCodes = [_operator_code(kind, versions.get(kind, 1)) for kind in kinds]
    sub.operators = [_stored_operator(sub, graph, op, kinds) for op in graph.operators]
    sub.tensors, sub.inputs, sub.outputs = stored, [graph.input], [graph.output]
    return _pack(model)


def _store_tensor(model: Any, tensor: Tensor, target: Any) -> None:
    schema = _schema()
    types = {name: number for number, name in _DTYPES.items()}
    target.name, target.shape, target.shapeSignature = tensor.name, list(tensor.shape), None
    target.type, target.buffer = types.get(tensor.dtype, target.type), 0
    if tensor.data is not None:
        target.buffer = len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        model.buffers.append(buffer)


def _stored_operator(sub: Any, graph: Graph, op: Operator, kinds: list[str]) -> Any:
    is_new = op.index >= len(sub.operators)
    stored = _new_stored(op) if is_new else sub.operators[op.index]
    stored.opcodeIndex = kinds.index(op.kind)
    stored.inputs, stored.outputs = list(op.inputs), list(op.outputs)
    if op.kind == "RESHAPE" and len(op.inputs) == 1:
        schema = _schema()
        stored.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        stored.builtinOptions = schema.ReshapeOptionsT()
        stored.builtinOptions.newShape = list(graph.tensor(op.outputs[0]).shape)
    elif "fusedActivationFunction" in op.options:
        stored.builtinOptions.fusedActivationFunction = op.options["fusedActivationFunction"]
    return stored


def _new_stored(op: Operator) -> Any:
    schema = _schema()
    stored = schema.OperatorT()
    if op.kind in _NEW_OPTIONS:
        name = _NEW_OPTIONS[op.kind] + "Options"
        stored.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        stored.builtinOptions = getattr(schema, name + "T")()
        vars(stored.builtinOptions).update(op.options)
    return stored


def _versions(model: Any) -> dict[str, int]:
    """The newest version of each kind of operator that the file has."""
    found: dict[str, int] = {}
    for code in model.operatorCodes:
        kind = _kind(code)
        found[kind] = max(found.get(kind, 1), int(code.version))
    return found


def _operator_code(kind: str, version: int) -> Any:
    schema = _schema()
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, kind)
    # Tools read one field or the other: files older than 2020 have only the byte.
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = version
    return code


def _pack(model: Any) -> bytes:
    """The bytes of a model; each buffer starts at a multiple of 16, as the schema asks."""
    flatbuffers = importlib.import_module("flatbuffers")
    for buffer in model.buffers:
        buffer.Pack = functools.partial(_pack_buffer, buffer)  # the schema's Python does not align
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _pack_buffer(buffer: Any, builder: Any) -> int:
    schema = _schema()
    content = b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
    if content:
        builder.Prep(16, len(content))
        data = builder.CreateByteVector(content)
    schema.BufferStart(builder)
    if content:
        schema.BufferAddData(builder, data)
    return int(schema.BufferEnd(builder))


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
    schema = _schema()
    try:
        with _bounded_vectors(len(data)):
            model = schema.ModelT.InitFromPackedBuf(data, 0)
        _take_in(model, data)
        return model
    except _PARSE_ERRORS as error:
        raise _damaged(name) from error


@contextmanager
def _bounded_vectors(size: int) -> Iterator[None]:
    """Within this context a file of `size` bytes cannot make the reader count to four billion: it
    believes every length that it finds. flatbuffers has no verifier in Python, hence this one."""
    table = importlib.import_module("flatbuffers.table").Table
    original, left = table.VectorLen, [64 * size + (1 << 16)]

    def vector_len(self: Any, offset: int) -> int:
        length = int(original(self, offset))
        left[0] -= length
        if length > size or left[0] < 0:
            raise ValueError("a vector is longer than the file")
        return length

    table.VectorLen = vector_len
    try:
        yield
    finally:
        table.VectorLen = original


def _take_in(model: Any, data: bytes) -> None:
    """Makes contents that lie behind the flatbuffer part of it; some writers put them there."""
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 are none
            content = data[buffer.offset : buffer.offset + buffer.size]
            if len(content) != buffer.size:
                raise ValueError("a buffer ends behind the file")
            buffer.data = np.frombuffer(content, np.uint8)
            buffer.offset = buffer.size = 0


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
    kind = _kind(model.operatorCodes[o.opcodeIndex])
    options = {} if o.builtinOptions is None else dict(vars(o.builtinOptions))
    inputs = () if o.inputs is None else tuple(int(i) for i in o.inputs)
    outputs = () if o.outputs is None else tuple(int(i) for i in o.outputs)
    return Operator(index, kind, inputs, outputs, options)


def _kind(code: Any) -> str:
    number = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
    names = {v: k for k, v in vars(_schema().BuiltinOperator).items() if isinstance(v, int)}
    return str(names.get(number, f"operator code {number}"))


# A new head -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewHead:
    """weights: int8 [classes, inputs] with one scale. logit_scale: of the int8 scores around 0."""

    weights: Array
    scale: float
    logit_scale: float

    @property
    def classes(self) -> int:
        return len(self.weights)


def replace_head(data: bytes, operator: int, head: NewHead) -> bytes:
    """The model with new weights in the layer that makes the class scores; what follows it
    (RESHAPE, SOFTMAX) is made to fit."""
    model = _unpack(data, "model")
    graph = model.subgraphs[0]
    op = graph.operators[operator]
    old = int(graph.tensors[op.inputs[1]].shape[0])
    weights, y = graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]]
    _set_constant(model, weights, head.weights, [head.classes, *list(weights.shape)[1:]])
    _set_scale(weights, [head.scale] * head.classes, 0)
    x_scale = float(graph.tensors[op.inputs[0]].quantization.scale[0])
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        bias = graph.tensors[op.inputs[2]]
        _set_constant(model, bias, np.zeros(head.classes, np.int32), [head.classes])
        _set_scale(bias, [head.scale * x_scale] * head.classes, 0)
    _set_scale(y, [head.logit_scale], 0)
    _follow(model, operator, old, head)
    return _pack(model)


def _follow(model: Any, operator: int, old: int, head: NewHead) -> None:
    """Gives the operators from the head to the output their new shapes and scales."""
    graph = model.subgraphs[0]
    reached = {int(graph.operators[operator].outputs[0])}
    _resize(graph.tensors[graph.operators[operator].outputs[0]], old, head.classes)
    for op in graph.operators[operator + 1 :]:
        if not reached & {int(i) for i in op.inputs}:
            continue
        y = graph.tensors[op.outputs[0]]
        _resize(y, old, head.classes)
        reached.add(int(op.outputs[0]))
        kind = _kind(model.operatorCodes[op.opcodeIndex])
        if kind == "QUANTIZE":
            _set_scale(y, [head.logit_scale], 128 if _DTYPES.get(y.type) == "uint8" else 0)
        if kind == "RESHAPE":
            _set_scale(y, [head.logit_scale], 0)
            _resize_target(model, op, old, head.classes)


def _resize(tensor: Any, old: int, new: int) -> None:
    shape = [int(n) for n in tensor.shape]
    tensor.shape = [*shape[:-1], new] if shape[-1] == old else shape
    tensor.shapeSignature = None


def _resize_target(model: Any, op: Any, old: int, new: int) -> None:
    """The shape that a RESHAPE is told, as an option and as a constant."""
    if op.builtinOptions is not None and op.builtinOptions.newShape is not None:
        told = op.builtinOptions.newShape
        op.builtinOptions.newShape = [new if n == old else int(n) for n in told]
    if len(op.inputs) > 1 and op.inputs[1] >= 0:
        tensor = model.subgraphs[0].tensors[op.inputs[1]]
        shape = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8), np.int32)
        target = np.where(shape == old, new, shape).astype(np.int32)
        _set_constant(model, tensor, target, [len(target)])


def append_head(data: bytes, source: int, head: NewHead) -> bytes:
    """The model with a FULLY_CONNECTED and a SOFTMAX behind a tensor, whose scores are the new
    output."""
    schema, model = _schema(), _unpack(data, "model")
    graph = model.subgraphs[0]
    old = int(graph.outputs[0])
    if old != source:  # a change of type behind it
        graph.operators = [op for op in graph.operators if old not in list(op.outputs)]
    x = graph.tensors[source]
    weights = _new_tensor(model, "head/weights", head.weights, [head.scale])
    bias = np.zeros(head.classes, np.int32)
    biases = _new_tensor(model, "head/bias", bias, [head.scale * float(x.quantization.scale[0])])
    logits = _new_tensor(model, "head/logits", (1, head.classes), [head.logit_scale])
    scores = _new_tensor(model, "head/scores", (1, head.classes), [1 / 256], -128)
    softmax, dense = schema.SoftmaxOptionsT(), schema.FullyConnectedOptionsT()
    softmax.beta = 1.0
    _new_operator(model, "FULLY_CONNECTED", [source, weights, biases], logits, dense)
    _new_operator(model, "SOFTMAX", [logits], scores, softmax)
    graph.outputs = [scores]
    for signature in model.signatureDefs or []:
        for output in signature.outputs or []:
            output.tensorIndex = scores
    return _pack(model)


def _new_tensor(
    model: Any, name: str, content: Array | tuple[int, ...], scales: list[float], zero: int = 0
) -> int:
    """A tensor: constant values, or the shape of an int8 activation."""
    schema = _schema()
    tensor = schema.TensorT()
    tensor.name, tensor.quantization = name, schema.QuantizationParametersT()
    tensor.buffer = 0
    if isinstance(content, tuple):
        tensor.shape, tensor.type = list(content), schema.TensorType.INT8
    else:
        _set_constant(model, tensor, content, list(content.shape))
        kind = schema.TensorType
        tensor.type = kind.INT8 if content.dtype == np.int8 else kind.INT32
    _set_scale(tensor, scales, zero)
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1


def _new_operator(model: Any, kind: str, inputs: list[int], output: int, options: Any) -> None:
    schema = _schema()
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, kind)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = {"FULLY_CONNECTED": 4, "SOFTMAX": 2}[kind]  # the first of each with int8
    model.operatorCodes.append(code)
    op = schema.OperatorT()
    op.opcodeIndex = len(model.operatorCodes) - 1
    op.inputs, op.outputs = inputs, [output]
    op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    op.builtinOptions = options
    model.subgraphs[0].operators.append(op)


def _set_constant(model: Any, tensor: Any, values: Array, shape: list[int]) -> None:
    """In a buffer of its own: equal constants may share one."""
    model.buffers.append(_schema().BufferT())
    model.buffers[-1].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    tensor.buffer, tensor.shape = len(model.buffers) - 1, shape


def _set_scale(tensor: Any, scales: list[float], zero: int) -> None:
    q = tensor.quantization
    if q.scale is not None and len(q.scale) == 1:
        scales = scales[:1]
    q.scale, q.zeroPoint = [float(s) for s in scales], [zero] * len(scales)
    q.min = q.max = None
    q.quantizedDimension = 0
