"""A machine whose buffers stand apart: every buffer of its arenas, slot of its state and constant
of its image has a place of its own, 0 to 15 bytes behind a 16-byte boundary (as its elements
allow), with guard bytes on both sides."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from machine import Array, Machine
from sparsetune.arena import Lifetime
from sparsetune.compile import source_of
from sparsetune.graph import Graph
from sparsetune.image import CONTROL_BYTES, CRC_FROM, HEADER_WORDS, Layout, _Writer, lay_out
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan
from sparsetune.program import Buffer, Code, Const, Flag, Op, Program, Slot, Word

GUARD, PATTERN = 48, 0xA5
RATE = rate(0.05)
# Of int16 and int32; all other buffers are bytes.
ALIGNMENTS = {"d": 2, "sums": 2, "shares": 2, "row": 4, "urow": 4, "srow": 4, "lanes": 4,
              "norms": 4, "counts": 4}
# Where an operator names bytes that may stand in the image: weights, tables, constant operands.
BYTES = {
    Code.LOOKUP: (0,),
    **dict.fromkeys((Code.ADD, Code.SUB, Code.MUL), (1, 2)),
    **dict.fromkeys((Code.CONV2D, Code.DEPTHWISE_CONV2D, Code.FULLY_CONNECTED), (2,)),
    **dict.fromkeys((Code.CONV2D_COLUMNS, Code.FULLY_CONNECTED_COLUMNS), (2,)),
}
Prepare = Callable[[Machine], None]


class Scattered(Machine):
    """shift: 0 to 15, where everything begins behind a 16-byte boundary. Of the arena's buffers
    every third is in slower memory."""

    def __init__(self, model: bytes | Graph, plan: UpdatePlan, shift: int) -> None:
        self.shift = shift
        self.homes: dict[Buffer | Slot, tuple[int, int]] = {}
        super().__init__(model, plan)
        self.free = [self._guard(*pair) for pair in self.memories()]

    def lay_out(self) -> Layout:
        loose = {
            id(op.words[i])
            for op in self.ops
            for i in BYTES.get(op.code, ())
            if not op.flags & Flag.PACKED  # which has words among them
        }
        with (
            patch("sparsetune.image.place_in_two", self._scatter_arenas),
            patch("sparsetune.image._place_slots", self._scatter_state),
            patch("sparsetune.image._Writer", partial(_ScatteredWriter, self.shift, loose)),
        ):
            return lay_out(self.program, source_of(self.graph))

    def touched_by(self, index: int) -> int:
        """Runs an operator. Bytes that changed though they are not its own: guards, buffers that
        it does not name, the image."""
        others = self._others(together(self.ops, index))
        before = [self._bytes_of(thing) for thing in others]
        self.run(index, index + 1)
        changed = sum(
            int(np.count_nonzero(self._bytes_of(thing) != values))
            for thing, values in zip(others, before, strict=True)
        )
        is_whole = zlib.crc32(self.image.data[CRC_FROM:]) == self.image.crc
        return changed + self.touched_guards() + (not is_whole)

    def touched_guards(self) -> int:
        return sum(
            int(np.count_nonzero(np.frombuffer(memory, np.uint8)[free] != PATTERN))
            for (memory, _), free in zip(self.memories(), self.free, strict=True)
        )

    def memories(self) -> list[tuple[bytearray, list[Any]]]:
        """Each with what lies in it."""
        buffers = [thing for thing in self.homes if isinstance(thing, Buffer)]
        return [
            (self.arena, [b for b in buffers if not b.is_cold]),
            (self.cold, [b for b in buffers if b.is_cold]),
            (self.state, [thing for thing in self.homes if isinstance(thing, Slot)]),
        ]

    def _scatter_arenas(
        self, program: Program, lives: list[Lifetime], fast_bytes: int | None
    ) -> tuple[int, int]:
        fixed = (program.input, program.output, program.target)
        for i, life in enumerate(lives):
            life.buffer.is_cold = i % 3 == 2 and life.buffer not in fixed
        things = [(life.buffer, alignment(life.buffer)) for life in lives]
        fast = self._scatter([(b, a) for b, a in things if not b.is_cold], 0)
        return fast, self._scatter([(b, a) for b, a in things if b.is_cold], 0)

    def _scatter_state(self, slots: list[Slot]) -> int:
        return self._scatter([(slot, slot.align) for slot in slots], CONTROL_BYTES)

    def _scatter(self, things: list[tuple[Any, int]], at: int) -> int:
        for thing, aligned in things:
            thing.offset = scattered(at, self.shift, aligned)
            at = thing.offset + thing.size
            self.homes[thing] = thing.offset, at
        return (at + GUARD + 15) // 16 * 16

    def _guard(self, memory: bytearray, things: list[Any]) -> Array:
        """Which bytes nobody owns; they get the pattern."""
        free = np.ones(len(memory), bool)
        if memory is self.state:
            free[:CONTROL_BYTES] = False
        for thing in things:
            free[slice(*self.homes[thing])] = False
        np.frombuffer(memory, np.uint8)[free] = PATTERN
        return free

    def _others(self, ops: list[Op]) -> list[Buffer]:
        """The buffers that these operators do not name."""
        named = {buffer for op in ops for buffer in op.buffers}
        return [b for b in self.homes if isinstance(b, Buffer) and b not in named]

    def _bytes_of(self, buffer: Buffer) -> Array:
        memory = self.cold if buffer.is_cold else self.arena
        return np.frombuffer(bytes(memory[slice(*self.homes[buffer])]), np.uint8)


class _ScatteredWriter(_Writer):
    """loose: the constants that are bytes, by id."""

    def __init__(self, shift: int, loose: set[int]) -> None:
        super().__init__()
        self.shift, self.loose = shift, loose

    def _word(self, word: Word) -> int:
        if not isinstance(word, Const):
            return super()._word(word)
        if word.offset < 0:
            end = HEADER_WORDS * 4 + len(self.body)
            word.offset = scattered(end, self.shift, 1 if id(word) in self.loose else 4)
            self.body.extend(bytes([PATTERN]) * (word.offset - end))
            self.body.extend(word.data + bytes([PATTERN]) * GUARD)
        return word.offset


def scattered(at: int, shift: int, aligned: int) -> int:
    """The next place for something, behind guard bytes."""
    return (at + GUARD + 15) // 16 * 16 + shift - shift % aligned


def alignment(buffer: Buffer) -> int:
    return ALIGNMENTS.get(buffer.name.rstrip("0123456789"), 1)


def together(ops: list[Op], at: int) -> list[Op]:
    """The operator, with those that a STRIP runs."""
    return ops[at : at + 1 + (int(str(ops[at].words[0])) if ops[at].code == Code.STRIP else 0)]


# A guarded step ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What two machines do alike. prepare: called with each machine before its first step."""

    graph: Graph
    plan: UpdatePlan
    x: Array
    target: int | Array
    prepare: Prepare | None = None

    def load(self, machine: Machine, seed: int) -> None:
        machine.load(self.x)
        if isinstance(self.target, int):
            machine.control(self.target, RATE, seed)
        else:
            machine.control(0, RATE, seed)
            machine.set_target(machine.stored_target(self.target))

    def start(self, machine: Machine) -> None:
        if self.prepare:
            self.prepare(machine)
        self.load(machine, 0)
        machine.run(0, len(machine.ops))
        self.load(machine, 1)


def guarded(job: Job, shift: int) -> Iterator[tuple[Op, int]]:
    """(operator, bytes that it touched and must not) for each of a training step, the second one.
    Raises AssertionError where a buffer's place changes what comes out."""
    packed, apart = Machine(job.graph, job.plan), Scattered(job.graph, job.plan, shift)
    for machine in (packed, apart):
        job.start(machine)
    packed.run(0, len(packed.ops))
    for i, op in enumerate(apart.ops):
        yield op, apart.touched_by(i)
    assert apart.loss == packed.loss
    assert learnt(apart) == learnt(packed)


def learnt(machine: Machine) -> list[bytes]:
    """What the state holds, without the tables of columns: they hold offsets."""
    columns = [layer.columns for layer in machine.program.layers if layer.columns]
    slots = {w: None for op in machine.ops for w in op.words if isinstance(w, Slot)}
    slots.update({c.pool: None for c in columns})
    tables = {c.table for c in columns}
    return [bytes(machine.slot(s, np.uint8)) for s in slots if s not in tables]
