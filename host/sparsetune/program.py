"""A program of operators before it is laid out: what the differentiator writes and image.py
turns into bytes. The numbers are those of ulab_kernels/program.c and docs/FORMAT.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TypeAlias


class Code(IntEnum):
    CONV2D = 1
    DEPTHWISE_CONV2D = 2
    AVG_POOL = 3
    ADD = 4
    SOFTMAX = 5
    FULLY_CONNECTED = 6
    COPY = 7
    SUB = 8
    MUL = 9
    MEAN = 10
    LOOKUP = 11
    MAX_POOL = 12
    RESIZE = 13
    CLAMP_MASK = 16
    KEEP_CHANNELS = 17
    STRIP = 18
    FILL = 19
    CONV2D_COLUMNS = 20
    FULLY_CONNECTED_COLUMNS = 21
    PATCH_VALUES = 22
    ENCODE_KEPT = 23
    LOSS = 32
    APPLY_MASK = 33
    ERROR_ADD = 34
    CONV2D_GRAD_INPUT = 35
    DEPTHWISE_CONV2D_GRAD_INPUT = 36
    AVG_POOL_GRAD_INPUT = 37
    SOFTMAX_GRAD_INPUT = 38
    COPY_GRAD_INPUT = 39
    REDUCE_GRAD_INPUT = 40
    LOOKUP_GRAD_INPUT = 43
    MAX_POOL_GRAD_INPUT = 44
    RESIZE_GRAD_INPUT = 45
    CONV2D_COLUMNS_GRAD_INPUT = 47
    CONV2D_UPDATE = 48
    DEPTHWISE_CONV2D_UPDATE = 49
    MSE = 50
    BCE = 51
    CONV2D_COLUMNS_UPDATE = 52
    SELECT_ERRORS = 54
    PATCH_ERRORS = 55
    SPREAD_ERRORS = 56
    DECODE_KEPT = 57
    SCORES = 59


class Flag(IntFlag):
    NONE = 0
    TRAINING_ONLY = 1
    INFERENCE_ONLY = 2
    ACCUMULATE = 4
    IN_STRIP = 8
    PACKED = 16
    TWO_ROWS = 32


@dataclass(eq=False)
class Const:
    """Bytes in the image (flash)."""

    data: bytes
    offset: int = -1


@dataclass(eq=False)
class Slot:
    """A place in the state buffer (RAM that lives as long as the training run).

    init: what it holds at the start; align: in bytes."""

    size: int
    align: int
    init: bytes = b""
    offset: int = -1


@dataclass(eq=False)
class Buffer:
    """A place in the arena, alive from the first to the last operator that names it. limit: for
    error tensors, the largest magnitude that keeps every consumer's int32 sums from overflow.
    is_cold: in the arena of slower memory. wanted: of scratch, bytes up to which more is of use."""

    name: str
    size: int
    limit: int = 32767
    offset: int = -1
    is_cold: bool = False
    wanted: int = 0

    def bound(self, limit: int) -> None:
        self.limit = min(self.limit, limit)


@dataclass(frozen=True)
class LimitOf:
    """Stands for a buffer's limit, which is only known when the whole program is. most: what it may
    be for other reasons than its consumers'."""

    buffer: Buffer
    most: int = 32767


@dataclass(frozen=True)
class WordsOf:
    """Stands for the int32 words of a buffer that may still grow; 0 for none."""

    buffer: Buffer | None


Place: TypeAlias = "Const | Slot | Buffer | None"
Word: TypeAlias = "int | Const | Slot | Buffer | LimitOf | WordsOf | None"


@dataclass(frozen=True)
class Op:
    """One operator of the program; source: index of the model's operator it comes from."""

    code: Code
    words: tuple[Word, ...]
    flags: Flag = Flag.NONE
    source: int = -1

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(w for w in self.words if isinstance(w, Buffer))

    @property
    def has_scratch(self) -> bool:
        """Of the forward pass: whether it may go a faster way, for which weights are packed."""
        return any(isinstance(word, WordsOf) and word.buffer for word in self.words)


@dataclass(frozen=True)
class Columns:
    """Of a layer that stays in flash (ulab_kernels/columns.h): where its trained channels are, room
    for `slots` columns of `size` bytes in the state, and its weights as they came. count: channels
    that learn in all."""

    table: Slot
    pool: Slot
    slots: int
    size: int
    base: Const
    count: int


@dataclass(frozen=True)
class Velocity:
    """What the steps of an update go into (ulab_kernels/velocity.h): int16 for each weight of the
    chosen channels, those channels where they take turns, int32 for each bias."""

    weights: Slot | None
    channels: Slot | None
    biases: Slot | None


@dataclass(frozen=True)
class TrainedLayer:
    """What the device and the exporter know of one trained layer. visited: a bit for each input
    channel, where not all are chosen; scores: see ulab_kernels/scores.h."""

    operator: int
    in_channels: int
    out_channels: int
    chosen: int
    channels: Slot | None
    weights: Slot | None
    residual: Slot | None
    bias: Slot | None
    columns: Columns | None = None
    velocity: Velocity | None = None
    visited: Slot | None = None
    scores: Slot | None = None


@dataclass
class StepMacs:
    """Multiply-accumulates of a step, none outside of the maps. forward: of the forward pass.
    backward: of both gradients, were no error zero."""

    forward: int = 0
    backward: int = 0


@dataclass
class Program:
    """ops[:forward] are the forward pass; the rest is the backward pass with its updates, the first
    of it the loss. target: what the loss compares with, written before the step; None for a class
    number, or where it is the input. macs: multiply-accumulates of a step where they are counted,
    else nothing."""

    ops: list[Op] = field(default_factory=list)
    forward: int = 0
    layers: list[TrainedLayer] = field(default_factory=list)
    input: Buffer | None = None
    output: Buffer | None = None
    target: Buffer | None = None
    macs: StepMacs | None = None

    @property
    def has_scratch(self) -> bool:
        return any(op.has_scratch for op in self.ops[: self.forward])
