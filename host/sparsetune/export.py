"""From what the board learnt back to a .tflite."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from .errors import SparsetuneError
from .graph import Graph, Operator
from .image import ABSENT, Image, LayerRecord
from .tflite import parse_tflite, patch_tflite

_HEADER = "<4s6I4x"  # device/sparsetune_device/checkpoint.py
_HEADER_BYTES = 32


@dataclass(frozen=True)
class Checkpoint:
    """What a board learnt: steps done and the state buffer."""

    steps: int
    state: bytes


def parse_checkpoint(data: bytes, image: Image) -> Checkpoint:
    """Raises SparsetuneError when the checkpoint is damaged or belongs to another image."""
    if len(data) < _HEADER_BYTES or data[:4] != b"STCK":
        raise SparsetuneError("this is not a checkpoint: get one with `sparsetune pull`")
    _, version, image_crc, steps, size, crc, more = struct.unpack_from(_HEADER, data)
    body = data[_HEADER_BYTES:]
    if version != 1 or image_crc != image.crc or size != image.state_bytes:
        raise SparsetuneError("the checkpoint belongs to another image: give the one it ran on")
    if len(body) != size + more or zlib.crc32(body) != crc:
        raise SparsetuneError("the checkpoint is damaged: pull it again")
    return Checkpoint(steps, body[:size])


def export_tflite(model: bytes, image: Image, checkpoint: Checkpoint) -> bytes:
    """The model with its trained weights and biases; everything else as it was."""
    graph = parse_tflite(model)
    if graph.digest != image.digest:
        raise SparsetuneError("the image was built from another model: give the original .tflite")
    return patch_tflite(model, trained_tensors(graph, image, checkpoint.state))


def trained_tensors(graph: Graph, image: Image, state: bytes) -> dict[int, bytes]:
    """Tensor index -> trained contents, as the .tflite stores them."""
    values: dict[int, bytes] = {}
    for layer in image.layers:
        op = graph.operator(layer.operator)
        if layer.weights_at != ABSENT:
            end = layer.weights_at + layer.weights_bytes
            weights = np.frombuffer(state[layer.weights_at : end], np.int8).astype(np.int16)
            values[op.inputs[1]] = (weights + graph.shift(op.inputs[1])).astype(np.uint8).tobytes()
        if layer.table_at != ABSENT:
            values[op.inputs[1]] = _with_columns(graph, layer, op, state)
        if layer.bias_at != ABSENT:
            end = layer.bias_at + 4 * layer.out_channels
            values[op.inputs[2]] = state[layer.bias_at : end]
    return values


def _with_columns(graph: Graph, layer: LayerRecord, op: Operator, state: bytes) -> bytes:
    """Weights of a layer that stayed in flash, with its trained columns."""
    tensor = graph.tensor(op.inputs[1])
    assert tensor.data is not None
    weights = tensor.data.astype(np.int16).reshape(layer.out_channels, -1, layer.in_channels)
    table = struct.unpack_from(f"<{layer.in_channels}I", state, layer.table_at)
    for channel, ref in enumerate(table):
        if ref >> 29 == 1:
            at = ref & 0x1FFFFFFF
            column = np.frombuffer(state[at : at + layer.column_bytes], np.int8)
            weights[:, :, channel] = column.reshape(-1, layer.out_channels).T
    return (weights + graph.shift(tensor.index)).astype(np.uint8).tobytes()
