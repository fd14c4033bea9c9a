"""One operator of a program, alone in an image of its own, with the bytes that it meets in a step.

So every layer can be measured on the board, also of programs that are too large for it. The state
it starts from is settled: error tensors have found their exponents, as they have after a few steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import sparsetune_kernels as kernels
from emulated import CONTROL_BYTES, Case
from machine import Machine
from small_models import Array
from sparsetune.compile import source_of
from sparsetune.image import lay_out, parse_image
from sparsetune.program import Buffer, Flag, LimitOf, Op, Program, Slot, Word, WordsOf
from whole_program import WARM_STEPS, settle

CONTROL_RATE = slice(12, 20)  # in st_control_t

Places = list[tuple[Buffer | Slot, Buffer | Slot]]


class Replay:
    """A training step of a model on the twin, whose operators are taken out one by one.

    cases[i]: operator i alone, as the step met it; dense[i]: the same with a gradient without a
    zero. places[i]: its operands in the step, and in the case. shares[i]: of the gradients that it
    read, those that were not zero (1 where it reads none)."""

    def __init__(self, machine: Machine, x: Array) -> None:
        self.machine = machine
        self.cases: dict[int, Case] = {}
        self.places: dict[int, Places] = {}
        self.dense: dict[int, Case] = {}
        self.shares: dict[int, float] = {}
        settle(machine, x)
        for i, op in enumerate(machine.ops):
            if not op.flags & (Flag.IN_STRIP | Flag.INFERENCE_ONLY):
                self._take(i, op)
                machine.run(i, i + 1)

    def _take(self, i: int, op: Op) -> None:
        self.cases[i], self.places[i] = alone(self.machine, op)
        dy = gradient_of(op)
        self.shares[i] = 1.0
        if dy is not None:
            self.shares[i] = float((self.machine.read(dy, np.int16) != 0).mean())
            self.dense[i] = alone(self.machine, op, no_zeros(dy))[0]


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
        into[new.offset : new.offset + new.size] = source[old.offset : old.offset + old.size]
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
            return word.buffer.limit
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
