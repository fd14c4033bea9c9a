"""From what the board learnt back to a .tflite."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from sparsetune_device.checkpoint import VERSION

from .errors import SparsetuneError
from .graph import Graph, Operator
from .image import ABSENT, Image, LayerRecord
from .pulled import Columns, split
from .tflite import parse_tflite, patch_tflite

IN_STATE, IN_STORE = 1, 4  # upper three bits of a table entry


@dataclass(frozen=True)
class Checkpoint:
    """What a board learnt: steps done, the state buffer, and the columns that were in flash."""

    steps: int
    state: bytes
    columns: Columns = field(default_factory=dict)


def parse_checkpoint(data: bytes, image: Image, name: str = "this one") -> Checkpoint:
    """Raises SparsetuneError when the checkpoint is damaged or belongs to another image. name: of
    the image, for the message."""
    parts = split(data)
    _, version, image_crc, steps, size = parts.head[:5]
    if version != VERSION or image_crc != image.crc or size != image.state_bytes:
        raise SparsetuneError(
            f"the checkpoint belongs to another image than {name}: name the one it ran on with "
            "--image"
        )
    return Checkpoint(steps, parts.state, parts.columns)


def export_tflite(model: bytes, image: Image, checkpoint: Checkpoint) -> bytes:
    """The model with its trained weights and biases; everything else as it was."""
    graph = parse_tflite(model)
    if graph.digest != image.digest:
        raise SparsetuneError("the image was built from another model: give the original .tflite")
    return patch_tflite(model, trained_tensors(graph, image, checkpoint))


def trained_tensors(graph: Graph, image: Image, checkpoint: Checkpoint) -> dict[int, bytes]:
    """Tensor index -> trained contents, as the .tflite stores them."""
    values: dict[int, bytes] = {}
    state = checkpoint.state
    for layer in image.layers:
        op = graph.operator(layer.operator)
        if layer.weights_at != ABSENT:
            end = layer.weights_at + layer.weights_bytes
            weights = np.frombuffer(state[layer.weights_at : end], np.int8).astype(np.int16)
            values[op.inputs[1]] = (weights + graph.shift(op.inputs[1])).astype(np.uint8).tobytes()
        if layer.table_at != ABSENT:
            values[op.inputs[1]] = _with_columns(graph, layer, op, checkpoint)
        if layer.bias_at != ABSENT:
            end = layer.bias_at + 4 * layer.out_channels
            values[op.inputs[2]] = state[layer.bias_at : end]
    return values


def _with_columns(
    graph: Graph, layer: LayerRecord, op: Operator, checkpoint: Checkpoint
) -> bytes:
    """Weights of a layer that stayed in flash, with its trained columns."""
    tensor = graph.tensor(op.inputs[1])
    assert tensor.data is not None
    weights = tensor.data.astype(np.int16).reshape(layer.out_channels, -1, layer.in_channels)
    table = struct.unpack_from(f"<{layer.in_channels}I", checkpoint.state, layer.table_at)
    for channel, ref in enumerate(table):
        column = _column(layer, checkpoint, channel, ref)
        if column is not None:
            values = np.frombuffer(column, np.int8)
            weights[:, :, channel] = values.reshape(-1, layer.out_channels).T
    return (weights + graph.shift(tensor.index)).astype(np.uint8).tobytes()


def _column(
    layer: LayerRecord, checkpoint: Checkpoint, channel: int, ref: int
) -> bytes | None:
    """The trained weights of a channel; None where it is as it came. ref: its table entry."""
    at, space = ref & 0x1FFFFFFF, ref >> 29
    if space == IN_STATE:
        return checkpoint.state[at : at + layer.column_bytes]
    if space != IN_STORE and (layer.operator, channel) not in checkpoint.columns:
        return None
    column = checkpoint.columns.get((layer.operator, channel), b"")
    if len(column) != layer.column_bytes:
        raise SparsetuneError(
            "the checkpoint lacks channels that the board keeps in flash: get it with "
            "`sparsetune pull`"
        )
    return column
