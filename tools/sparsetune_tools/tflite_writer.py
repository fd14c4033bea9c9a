"""Writes an int8 .tflite file: tensors and operators in, bytes out.

Uses the flatbuffer schema that LiteRT ships, so that the file is what any TFLite tool expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

SCHEMA_VERSION = 3
# The operator versions that brought int8 with per-channel weights; LiteRT checks them.
OPERATOR_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "AVERAGE_POOL_2D": 2,
    "ADD": 2,
    "RESHAPE": 1,
    "SOFTMAX": 2,
}
_TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer that starts at a multiple of 16 bytes: the schema asks it, its Python drops it."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the schema's name)
        builder.Prep(16, len(self.data))
        data = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


@dataclass(frozen=True)
class Quantisation:
    """real = scale * (q - zero); one scale, or one for each slice along `axis` (zero 0)."""

    scale: npt.NDArray[np.float32]
    zero: int = 0
    axis: int = 0


@dataclass
class ModelWriter:
    """Collects one graph; `add_*` return the tensor's index for use in later operators."""

    description: str
    _tensors: list[Any] = field(default_factory=list)
    _buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    _operators: list[Any] = field(default_factory=list)
    _codes: list[str] = field(default_factory=list)

    def add_activation(self, name: str, shape: Sequence[int], q: Quantisation) -> int:
        """An int8 tensor without contents."""
        return self._add_tensor(name, shape, "int8", q)

    def add_constant(
        self, name: str, values: npt.NDArray[Any], q: Quantisation | None = None
    ) -> int:
        """A tensor with the int8 or int32 contents `values`."""
        index = self._add_tensor(name, values.shape, values.dtype.name, q)
        buffer = _AlignedBuffer()
        buffer.data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        self._tensors[index].buffer = len(self._buffers)
        self._buffers.append(buffer)
        return index

    def add_operator(
        self, kind: str, inputs: Sequence[int], output: int | list[int], options: Any = None
    ) -> None:
        """An operator such as "CONV_2D"; `options` is the schema's ...OptionsT object. output: one
        tensor, or a list of them."""
        if kind not in self._codes:
            self._codes.append(kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.index(kind)
        operator.inputs = list(inputs)
        operator.outputs = output if isinstance(output, list) else [output]
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = options
        self._operators.append(operator)

    def to_bytes(self, source: int, sink: int) -> bytes:
        """The .tflite file, with tensor `source` as input and `sink` as output."""
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = [source], [sink]
        model = schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, self.description
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [_operator_code(kind) for kind in self._codes]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add_tensor(
        self, name: str, shape: Sequence[int], kind: str, q: Quantisation | None
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), _TYPES[kind]
        if q is not None:
            tensor.quantization = _quantisation(q)
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def _quantisation(q: Quantisation) -> Any:
    packed = schema.QuantizationParametersT()
    packed.scale = [float(s) for s in q.scale]
    packed.zeroPoint = [q.zero] * len(q.scale)
    packed.quantizedDimension = q.axis
    return packed


def _operator_code(kind: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # a byte, from when there were fewer
    code.version = OPERATOR_VERSIONS[kind]
    return code
