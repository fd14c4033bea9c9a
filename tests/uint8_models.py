"""Models as TensorFlow 1 wrote them: uint8 throughout, weights with a zero point of their own."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from small_models import Net

UINT8 = schema.TensorType.UINT8


def to_uint8(net: Net, weight_zero: int = 128) -> bytes:
    """The same model in uint8: every int8 number 128 more. weight_zero: of all weights, 128 is that
    of symmetric ones."""
    model = schema.ModelT.InitFromPackedBuf(net.to_bytes(), 0)
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        if tensor.type == schema.TensorType.INT8:
            _shift(model, tensor, weight_zero)
    for code in model.operatorCodes:
        code.version = 1 if _name(code) != "FULLY_CONNECTED" else 4
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _name(code: Any) -> str:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return str(names[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _shift(model: Any, tensor: Any, weight_zero: int) -> None:
    tensor.type = UINT8
    data = model.buffers[tensor.buffer].data
    is_weights = data is not None and len(data) > 0
    q = tensor.quantization
    q.zeroPoint = [weight_zero if is_weights else int(q.zeroPoint[0]) + 128]
    q.scale, q.quantizedDimension = [float(q.scale[0])], 0
    if is_weights:
        values = np.asarray(data, np.uint8).view(np.int8).astype(np.int16) + 128
        model.buffers[tensor.buffer].data = values.astype(np.uint8)
