"""The compiled image: one file that the board runs. docs/FORMAT.md gives every byte."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from .arena import lifetimes, lower_bound, place_in_two
from .cut import Cut, cut_of
from .errors import SparsetuneError
from .files import write_whole
from .inputs import Input
from .program import Buffer, Code, Const, LimitOf, Op, Program, Slot, TrainedLayer, Word, WordsOf
from .task import LOSSES, Task

MAGIC = b"STIM"
VERSION = 6
HEADER_WORDS = 48
DIGEST = slice(80, 112)  # of the header: sha256 of the .tflite
CONTROL_BYTES = 64  # st_control_t
RULES_AT = 176  # of the header: 1 where updates have a velocity
MACS_AT = 180  # multiply-accumulates of a step
CRC_FROM = 16  # the checksum covers everything behind itself
IN_STATE, IN_ARENA, IN_COLD, NOWHERE = 1 << 29, 2 << 29, 3 << 29, 7 << 29
ABSENT = 0xFFFFFFFF
LAYER_WORDS = 20
LOSS_CODES = (Code.LOSS, Code.MSE, Code.BCE)


@dataclass(frozen=True)
class LayerRecord:
    """Where one trained layer lives in the state buffer; ABSENT where it has no such part. count:
    input channels that learn in all."""

    operator: int
    in_channels: int
    out_channels: int
    chosen: int
    channels_at: int
    weights_at: int
    weights_bytes: int
    residual_at: int
    bias_at: int
    table_at: int
    pool_at: int
    slots: int
    base_at: int
    column_bytes: int
    count: int
    visited_at: int
    scores_at: int


@dataclass(frozen=True)
class Image:
    """A parsed image. Sizes and offsets in bytes; digest: sha256 of the .tflite it came from.
    cut_at: the operator behind the frozen front, cut_bytes: of the tensor that it hands on; 0 where
    it has no such place."""

    data: bytes
    forward_ops: int
    ops: int
    arena_bytes: int
    state_bytes: int
    input_at: int
    input_bytes: int
    output_at: int
    output_bytes: int
    task: Task
    digest: bytes
    input: Input
    layers: tuple[LayerRecord, ...]
    cold_bytes: int
    cut_at: int
    cut_bytes: int
    has_velocity: bool = False

    @property
    def crc(self) -> int:
        return int(struct.unpack_from("<I", self.data, 12)[0])

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of a step's forward and of its full backward pass; 0, 0 where the
        plan does not have them counted."""
        forward, backward = struct.unpack_from("<2I", self.data, MACS_AT)
        return forward, backward

    @property
    def initial_bytes(self) -> int:
        """What the image holds of the state; the rest of it starts as zeros."""
        return int(struct.unpack_from("<I", self.data, 40)[0])

    def initial_state(self) -> bytes:
        at, size = struct.unpack_from("<2I", self.data, 36)
        return self.data[at : at + size] + bytes(self.state_bytes - size)


@dataclass(frozen=True)
class Layout:
    """Result of laying out a program: the image, the figures of its arena, and the program, whose
    buffers know their places now."""

    image: bytes
    arena_bytes: int
    arena_lower_bound: int
    cold_bytes: int
    program: Program


@dataclass(frozen=True)
class Source:
    """What the image says of the model it was made from. input: of at most four dimensions. rate:
    the learning rate to use where none is asked for, (mantissa, exponent)."""

    digest: bytes
    task: Task
    input: Input
    rate: tuple[int, int]


def lay_out(program: Program, source: Source, fast_bytes: int | None = None) -> Layout:
    """Places buffers, state and constants, and writes the image. fast_bytes: what the arena may
    take of fast memory, on boards that have slower memory for the rest."""
    lives = lifetimes(program)
    arena_bytes, cold_bytes = place_in_two(program, lives, fast_bytes)
    slots = state_slots(program)
    state_bytes = _place_slots(slots)
    writer = _Writer()
    for op in program.ops:
        writer.add_op(op)
    data = writer.finish(program, _initial(slots), (arena_bytes, state_bytes, cold_bytes), source)
    return Layout(data, arena_bytes, lower_bound(lives), cold_bytes, program)


def state_slots(program: Program) -> list[Slot]:
    """All of the state's, those that start as zeros last, so that the image need not hold them."""
    slots = dict.fromkeys(
        word for op in program.ops for word in op.words if isinstance(word, Slot)
    )
    # Only the device names these: operators find columns through their table.
    slots.update(dict.fromkeys(layer.columns.pool for layer in program.layers if layer.columns))
    slots.update(dict.fromkeys(layer.visited for layer in program.layers if layer.visited))
    return sorted(slots, key=lambda slot: (not slot.init, slot.align != 4))


def _place_slots(slots: list[Slot]) -> int:
    at = CONTROL_BYTES
    for slot in slots:
        at = _align(at, slot.align)
        slot.offset = at
        at += slot.size
    return _align(at, 4)


def _initial(slots: list[Slot]) -> bytes:
    end = max((s.offset + s.size for s in slots if s.init), default=CONTROL_BYTES)
    blob = bytearray(end)
    for slot in slots:
        blob[slot.offset : slot.offset + len(slot.init)] = slot.init
    return bytes(blob)


def _align(at: int, to: int) -> int:
    return (at + to - 1) // to * to


class _Writer:
    """Collects constants and operators behind the header."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.shared: dict[bytes, int] = {}
        self.op_offsets: list[int] = []

    def add_op(self, op: Op) -> None:
        words = [self._word(word) for word in op.words]
        head = int(op.code) | int(op.flags) << 8 | (len(words) + 1) << 16
        self.op_offsets.append(self._append(struct.pack(f"<{len(words) + 1}I", head, *words)))

    def _word(self, word: Word) -> int:
        if word is None:
            return NOWHERE
        if isinstance(word, Const):
            word.offset = self._const(word.data)
            return word.offset
        if isinstance(word, Slot):
            return IN_STATE | word.offset
        if isinstance(word, Buffer):
            return _ref(word)
        if isinstance(word, WordsOf):
            return word.buffer.size // 4 if word.buffer else 0
        if isinstance(word, LimitOf):
            return min(_checked_limit(word.buffer), word.most)
        return word & 0xFFFFFFFF

    def _const(self, data: bytes) -> int:
        if data not in self.shared:
            self.shared[data] = self._append(data)
        return self.shared[data]

    def _append(self, data: bytes) -> int:
        """Offset in the image of data, appended on a 4-byte boundary."""
        self.body.extend(bytes(_align(len(self.body), 4) - len(self.body)))
        at = HEADER_WORDS * 4 + len(self.body)
        self.body.extend(data)
        return at

    def finish(
        self, program: Program, initial: bytes, sizes: tuple[int, int, int], source: Source
    ) -> bytes:
        assert program.input and program.output
        ops_at = self._append(struct.pack(f"<{len(self.op_offsets)}I", *self.op_offsets))
        layers_at = self._append(b"".join(_layer_record(layer) for layer in program.layers))
        init_at = self._append(initial)
        self._append(b"")
        words = [
            *(ops_at, len(self.op_offsets), program.forward, *sizes[:2]),
            *(init_at, len(initial), program.input.offset, program.input.size),
            *(program.output.offset, program.output.size, source.task.outputs),
            *(layers_at, len(program.layers)),
            *(source.rate[0], source.rate[1] & 0xFFFFFFFF),
        ]
        return _with_header(words, program, source, sizes[2], bytes(self.body))


def _checked_limit(buffer: Buffer) -> int:
    if buffer.limit < 255:
        raise SparsetuneError(
            f"the gradient {buffer.name} has too many addends for 32-bit sums: "
            "train a later layer, or one with a smaller map"
        )
    return buffer.limit


def _layer_record(layer: TrainedLayer) -> bytes:
    def at(slot: Slot | None) -> int:
        return ABSENT if slot is None else slot.offset

    size = layer.weights.size if layer.weights else 0
    words = [
        *(layer.operator, layer.in_channels, layer.out_channels, layer.chosen),
        *(at(layer.channels), at(layer.weights), size, at(layer.residual), at(layer.bias)),
    ]
    c = layer.columns
    words += [c.table.offset, c.pool.offset, c.slots, c.base.offset, c.size] if c else [ABSENT] * 5
    words.append(c.count if c else layer.in_channels)
    words += [at(layer.visited), at(layer.scores)]
    return struct.pack(f"<{LAYER_WORDS}I", *words, *[0] * (LAYER_WORDS - len(words)))


def _with_header(
    words: list[int], program: Program, source: Source, cold_bytes: int, body: bytes
) -> bytes:
    """MAGIC, version, size, crc, the words, digest and input shape from word 20, more from 32."""
    size = HEADER_WORDS * 4 + len(body)
    head = struct.pack(f"<{len(words)}I", *words).ljust(64, b"\0") + source.digest
    head += struct.pack(f"<{len(source.input.shape)}I", *source.input.shape)
    head = head.ljust(32 * 4 - CRC_FROM, b"\0") + _task_words(program, source.task)
    head += struct.pack("<I", cold_bytes)
    for end in (source.task, source.input):
        head += struct.pack("<fi", end.scale, end.zero_point)
    head += _cut_words(cut_of(program))
    has_velocity = any(layer.velocity for layer in program.layers)
    head += struct.pack("<I", has_velocity) + _macs_words(program)
    rest = head.ljust(HEADER_WORDS * 4 - CRC_FROM, b"\0") + body
    return MAGIC + struct.pack("<3I", VERSION, size, zlib.crc32(rest)) + rest


def _cut_words(cut: Cut | None) -> bytes:
    """Words 41 to 43: the first operator behind the frozen front, where the tensor that crosses
    stands, its bytes."""
    if cut is None:
        return bytes(12)
    return struct.pack("<3I", cut.at, _ref(cut.buffer), cut.buffer.size)


def _ref(buffer: Buffer) -> int:
    return (IN_COLD if buffer.is_cold else IN_ARENA) | buffer.offset


def _macs_words(program: Program) -> bytes:
    """Words 45 and 46; what has no room in one saturates."""
    counts = (program.macs.forward, program.macs.backward) if program.macs else (0, 0)
    return struct.pack("<2I", *(min(count, 0xFFFFFFFF) for count in counts))


def _task_words(program: Program, task: Task) -> bytes:
    """Words 32 to 35: loss, where a target goes, its bytes, operators up to the loss."""
    to_loss = next((i for i, op in enumerate(program.ops) if op.code in LOSS_CODES), -1) + 1
    target_at = program.target.offset if program.target else 0
    words = (LOSSES.index(task.loss), target_at, task.target_bytes, to_loss)
    return struct.pack("<4I", *words)


def parse_ends(data: bytes, name: str = "image") -> tuple[Input, Task]:
    """What an image takes and what it learns, of its first HEADER_WORDS words. Raises
    SparsetuneError where they are of no image, or of another version."""
    if len(data) < HEADER_WORDS * 4 or data[:4] != MAGIC:
        raise SparsetuneError(f"{name} is not a sparsetune image: make one with `sparsetune build`")
    version = struct.unpack_from("<I", data, 4)[0]
    if version != VERSION:
        raise SparsetuneError(
            f"{name} has format {version}, this sparsetune reads {VERSION}: build it again"
        )
    outputs = struct.unpack_from("<I", data, 60)[0]
    shape = tuple(n for n in struct.unpack_from("<4I", data, 112) if n)
    loss, _, _, _, _, scale, zero, *steps = struct.unpack_from("<5Ififi", data, 128)
    name = LOSSES[loss] if loss < len(LOSSES) else ""
    return Input(shape, *steps), Task(name, outputs, scale, zero)


def parse_image(data: bytes, name: str = "image") -> Image:
    """Checks and reads an image. Raises SparsetuneError when it cannot be run."""
    source, task = parse_ends(data, name)
    size, crc = struct.unpack_from("<2I", data, 8)
    if size != len(data) or crc != zlib.crc32(data[CRC_FROM:]):
        raise SparsetuneError(f"{name} is damaged (size or checksum): build it again")
    w = struct.unpack_from("<14I", data, CRC_FROM)
    records = [
        LayerRecord(*struct.unpack_from("<17I", data, w[12] + 4 * LAYER_WORDS * i))
        for i in range(w[13])
    ]
    sizes = (w[2], w[1], w[3], w[4], w[7], w[8], w[9], w[10])
    cold_bytes = struct.unpack_from("<I", data, 144)[0]
    cut_at, _, cut_bytes = struct.unpack_from("<3I", data, 164)
    has_velocity = bool(data[RULES_AT] & 1)
    ends = (task, data[80:112], source)
    return Image(data, *sizes, *ends, tuple(records), cold_bytes, cut_at, cut_bytes, has_velocity)


def write_image(path: Path, data: bytes) -> str:
    """Writes an image and returns what to say of the one whose place it takes, if any. Raises
    SparsetuneError where that is a file of something else."""
    before = refuse_no_image(path)
    write_whole(path, data)
    if before[DIGEST] != data[DIGEST] and before:
        return ", in the place of an image of another model"
    return ", in the place of another plan's" if before[12:16] != data[12:16] and before else ""


def refuse_no_image(path: Path) -> bytes:
    """The header of the image that lies there, if any. Raises SparsetuneError where it is a file of
    something else."""
    before = path.read_bytes()[: 4 * HEADER_WORDS] if path.is_file() else b""
    if before and before[:4] != MAGIC:
        raise SparsetuneError(f"{path} is there and no image of sparsetune's: name another with -o")
    return before


def read_image(path: Path) -> Image:
    try:
        return parse_image(path.read_bytes(), str(path))
    except OSError as error:
        raise SparsetuneError(f"{path}: {error.strerror}: give the path of an image") from error
