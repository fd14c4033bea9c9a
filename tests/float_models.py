"""The float32 models that int8 test models could have been made of."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from small_models import Net

FLOAT32, INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8


def to_float(net: Net, keep: frozenset[str] = frozenset()) -> bytes:
    """The same operators on real numbers: constants have the values that the integers stand for.
    keep: names of constants that stay int8, as weights are in models "of dynamic range"."""
    model = schema.ModelT.InitFromPackedBuf(net.to_bytes(), 0)
    for tensor in model.subgraphs[0].tensors:
        is_int8 = tensor.quantization is not None and tensor.quantization.scale is not None
        if is_int8 and tensor.name.decode() not in keep:
            _widen(model, tensor)
    for code in model.operatorCodes:
        code.version = 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _widen(model: Any, tensor: Any) -> None:
    q, data = tensor.quantization, model.buffers[tensor.buffer].data
    if data is not None and len(data):
        stored = np.asarray(data, np.uint8).view(np.int8 if tensor.type == INT8 else np.int32)
        shape = [1] * len(tensor.shape)
        shape[q.quantizedDimension] = -1
        scales = np.asarray(q.scale, np.float64).reshape(shape)
        zeros = np.asarray(q.zeroPoint, np.float64).reshape(shape)
        real = (stored.reshape(tensor.shape) - zeros) * scales
        model.buffers[tensor.buffer].data = real.astype("<f4").tobytes()
    tensor.type, tensor.quantization = FLOAT32, None
