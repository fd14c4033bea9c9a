"""One operator of a program, alone in an image of its own, with the bytes that it meets in a step.

So every layer can be measured on the board, also of programs that are too large for it. The state
it starts from is settled: error tensors have found their exponents, as they have after a few steps.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import sparsetune_kernels as kernels
from emulated import CONTROL_BYTES, Case
from machine import Machine
from small_models import Array
from sparsetune.compile import source_of
from sparsetune.cycles import UPDATES, WINDOWS
from sparsetune.geometry import Geometry
from sparsetune.image import lay_out, parse_image
from sparsetune.program import Buffer, Code, Const, Flag, LimitOf, Op, Program, Slot, Word, WordsOf
from whole_program import WARM_STEPS, settle

PARTS_OF_ROWS = (1, 2, 4, 8, 16)  # of a map that has no room on the board
CONTROL_RATE = slice(12, 20)  # in st_control_t

Places = list[tuple[Buffer | Slot, Buffer | Slot]]


class Replay:
    """A training step of a model on the twin, whose operators are taken out one by one.

    cases[i]: operator i alone, as the step met it; dense[i]: the same with a gradient without a
    zero. places[i]: its operands in the step, and in the case. shares[i]: of the gradients that it
    read, those that were not zero (1 where it reads none). ops[i]: the operator as it is in the
    case: with the first rows of its map alone where all have no room on the board. codes: of the
    operators that are taken; all, if there are none."""

    def __init__(self, machine: Machine, x: Array, codes: tuple[Code, ...] = ()) -> None:
        self.machine = machine
        self.cases: dict[int, Case] = {}
        self.places: dict[int, Places] = {}
        self.dense: dict[int, Case] = {}
        self.shares: dict[int, float] = {}
        self.ops: dict[int, Op] = {}
        settle(machine, x)
        for i, op in enumerate(machine.ops):
            if not op.flags & (Flag.IN_STRIP | Flag.INFERENCE_ONLY):
                if not codes or op.code in codes:
                    self._take(i, op)
                machine.run(i, i + 1)

    def _take(self, i: int, op: Op) -> None:
        for parts in PARTS_OF_ROWS:
            self.cases[i], self.places[i] = alone(self.machine, with_fewer_rows(op, parts))
            if self.cases[i].fits or not can_be_cut(op, 2 * parts):
                break
        op = self.ops[i] = with_fewer_rows(op, parts)
        dy = gradient_of(op)
        self.shares[i] = 1.0
        if dy is not None:
            self.shares[i] = float((self.machine.read(dy, np.int16) != 0).mean())
            self.dense[i] = alone(self.machine, op, no_zeros(dy))[0]


def geometry_of(op: Op) -> Geometry | None:
    """Of an operator with a window."""
    first = op.words[0]
    is_window = op.code in WINDOWS + UPDATES and isinstance(first, Const)
    return Geometry(*struct.unpack("<20i", first.data)) if is_window else None


def can_be_cut(op: Op, parts: int) -> bool:
    g = geometry_of(op)
    return g is not None and parts <= PARTS_OF_ROWS[-1] and not (g.in_h % parts or g.out_h % parts)


def with_fewer_rows(op: Op, parts: int) -> Op:
    """The operator on the first of so many equal parts of its map's rows."""
    g = geometry_of(op)
    if g is None or parts == 1:
        return op
    maps = {
        n * size for n in (1, 2) for size in (g.in_positions * g.in_c, g.out_positions * g.out_c)
    }

    def cut(word: Word) -> Word:
        is_map = isinstance(word, Buffer) and word.size in maps
        return replace(word, size=word.size // parts) if is_map else word

    fewer = replace(g, in_h=g.in_h // parts, out_h=g.out_h // parts)
    return replace(op, words=(fewer.const(), *map(cut, op.words[1:])))


def gradient_of(op: Op) -> Buffer | None:
    """The error tensor that a backward operator of a layer with weights reads."""
    reads = op.code.name.endswith(("GRAD_INPUT", "UPDATE")) and op.flags & Flag.TRAINING_ONLY
    dy = op.words[1] if reads else None
    return dy if isinstance(dy, Buffer) else None


def no_zeros(dy: Buffer) -> Array:
    """A gradient without a zero, within the tensor's limit."""
    rng = np.random.default_rng(dy.size)
    size = rng.integers(1, dy.limit + 1, dy.size // 2)
    return (size * rng.choice((-1, 1), size.shape)).astype(np.int16)


def alone(machine: Machine, op: Op, dy: Array | None = None) -> tuple[Case, Places]:
    """The operator with its operands as they stand in the machine, and where those are; dy: instead
    of that gradient."""
    copy, places = _copied(op)
    buffers = copy.buffers
    program = Program([copy], 1, [], buffers[0], buffers[0])
    layout = lay_out(program, source_of(machine.graph))
    image = parse_image(layout.image)
    arena, state = bytearray(image.arena_bytes), bytearray(image.initial_state())
    state[:CONTROL_BYTES] = machine.state[:CONTROL_BYTES]
    for old, new in places:
        into, source = (state, machine.state) if isinstance(old, Slot) else (arena, machine.arena)
        into[new.offset : new.offset + new.size] = source[old.offset : old.offset + new.size]
    gradient = gradient_of(copy)
    if dy is not None and gradient is not None:
        arena[gradient.offset : gradient.offset + gradient.size] = dy.tobytes()
    _settle(image.data, bytes(arena), state)
    return Case(image.data, bytes(arena), bytes(state), ((0, 1),)), places


def _copied(op: Op) -> tuple[Op, Places]:
    """The operator with buffers and slots of its own, which laying out will move."""
    copies: dict[Buffer | Slot, Buffer | Slot] = {}

    def copied(word: Word) -> Word:
        if isinstance(word, LimitOf):
            return min(word.buffer.limit, word.most)
        if isinstance(word, WordsOf):
            return word.buffer.size // 4 if word.buffer else 0
        if isinstance(word, Buffer | Slot):
            return copies.setdefault(word, replace(word))
        return word

    words = tuple(copied(word) for word in op.words)
    return replace(op, words=words), list(copies.items())


def _settle(image: bytes, arena: bytes, state: bytearray) -> None:
    """Runs it with learning rate 0 until its error tensor's exponent stays."""
    rate_now = bytes(state[CONTROL_RATE])
    state[CONTROL_RATE] = bytes(8)
    for _ in range(WARM_STEPS):
        kernels.run(image, state, bytearray(arena), bytearray(), b"", 0, 1, 1)
    state[CONTROL_RATE] = rate_now
