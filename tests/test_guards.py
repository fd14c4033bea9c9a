"""No kernel touches a byte that is not its own, wherever its buffers lie.

Every buffer of the arena and every slot of the state gets a place of its own, at an offset from 0
to 15 behind a 16-byte boundary (as its elements allow), with guard bytes on both sides. A training
step then runs operator by operator; after each all guards must be as they were, and all buffers
that it does not name. The results must be those of the packed arena.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from gradient_cases import CASES, CLASSES, train_all
from machine import Machine
from small_models import RELU, Array, Net, wide_front
from sparsetune.arena import Lifetime
from sparsetune.compile import source_of
from sparsetune.graph import Graph
from sparsetune.image import CONTROL_BYTES, Layout, lay_out
from sparsetune.numerics import rate
from sparsetune.operators import KINDS
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.program import Buffer, Code, Op, Program, Slot
from sparsetune.strips import FUSABLE
from sparsetune.tflite import parse_tflite

GUARD, PATTERN = 48, 0xA5
ALIGNMENTS = {"d": 2, "row": 4, "urow": 4}  # of int16 and int32; all else is bytes
RATE = rate(0.05)


class Scattered(Machine):
    """shift: 0 to 15, where every buffer begins behind a 16-byte boundary."""

    def __init__(self, model: bytes | Graph, plan: UpdatePlan, shift: int) -> None:
        self.shift = shift
        self.homes: dict[Buffer | Slot, tuple[int, int]] = {}
        super().__init__(model, plan)
        self.guards = [self._guard(self.arena, Buffer), self._guard(self.state, Slot)]

    def lay_out(self) -> Layout:
        with (
            patch("sparsetune.image.place_in_two", self._scatter_arena),
            patch("sparsetune.image._place_slots", self._scatter_state),
        ):
            return lay_out(self.program, source_of(self.graph))

    def _scatter_arena(
        self, program: Program, lives: list[Lifetime], fast_bytes: int | None
    ) -> tuple[int, int]:
        return self._scatter([(life.buffer, _alignment(life.buffer)) for life in lives], 0), 0

    def _scatter_state(self, slots: list[Slot]) -> int:
        return self._scatter([(slot, slot.align) for slot in slots], CONTROL_BYTES)

    def _scatter(self, things: list[tuple[Any, int]], at: int) -> int:
        for thing, alignment in things:
            boundary = (at + GUARD + 15) // 16 * 16
            thing.offset = boundary + self.shift - self.shift % alignment
            at = thing.offset + thing.size
            self.homes[thing] = thing.offset, at
        return (at + GUARD + 15) // 16 * 16

    def _guard(self, memory: bytearray, kind: type) -> Array:
        """Which bytes nobody owns; they get the pattern."""
        free = np.ones(len(memory), bool)
        if kind is Slot:
            free[:CONTROL_BYTES] = False
        for thing, (begin, end) in self.homes.items():
            if isinstance(thing, kind):
                free[begin:end] = False
        np.frombuffer(memory, np.uint8)[free] = PATTERN
        return free

    def check_guards(self, hint: object) -> None:
        for memory, free in zip((self.arena, self.state), self.guards, strict=True):
            assert (np.frombuffer(memory, np.uint8)[free] == PATTERN).all(), hint

    def others(self, ops: list[Op]) -> dict[Buffer, bytes]:
        """What stands in the buffers that these operators do not name."""
        named = {buffer for op in ops for buffer in op.buffers}
        return {
            thing: bytes(self.arena[begin:end])
            for thing, (begin, end) in self.homes.items()
            if isinstance(thing, Buffer) and thing not in named
        }


def _alignment(buffer: Buffer) -> int:
    return ALIGNMENTS.get(buffer.name.rstrip("0123456789"), 1)


def together(ops: list[Op], at: int) -> list[Op]:
    """The operator, with those that a STRIP runs."""
    return ops[at : at + 1 + (int(str(ops[at].words[0])) if ops[at].code == Code.STRIP else 0)]


def slots_of(machine: Machine) -> list[bytes]:
    slots = {w: None for op in machine.ops for w in op.words if isinstance(w, Slot)}
    return [bytes(machine.state[s.offset : s.offset + s.size]) for s in slots]


def check(make: Any, x: Array, target: Any, columns: bool = False) -> None:
    """make: Machine or Scattered, with a shift. Two training steps, the second guarded."""
    packed, scattered = make(None), make(0)
    machines = (packed, scattered)
    for machine in machines:
        for step in range(2):
            load(machine, x, target, step)
            if step == 0 or machine is packed:
                machine.run(0, len(machine.ops))
    for i, op in enumerate(scattered.ops):
        before = scattered.others(together(scattered.ops, i))
        scattered.run(i, i + 1)
        scattered.check_guards((i, op.code))
        assert scattered.others(together(scattered.ops, i)) == before, (i, op.code)
    assert scattered.loss == packed.loss
    if not columns:  # their tables hold offsets
        assert slots_of(scattered) == slots_of(packed)


def load(machine: Machine, x: Array, target: Any, seed: int) -> None:
    machine.load(x)
    if isinstance(target, int):
        machine.control(target, RATE, seed)
    else:
        machine.control(0, RATE, seed)
        machine.set_target(target)


def maker(graph: Graph, plan: UpdatePlan, shift: int, prepare: Any = None) -> Any:
    def make(scattered: int | None) -> Machine:
        machine = Machine(graph, plan) if scattered is None else Scattered(graph, plan, shift)
        if prepare:
            prepare(machine)
        return machine

    return make


@cache
def swept(kind: str, shift: int) -> tuple[Graph, Array]:
    rng = np.random.default_rng((len(kind), shift, 77))
    net = CASES[kind](rng)
    return parse_tflite(net.to_bytes()), net.sample()


@pytest.mark.parametrize("kind", CASES)
def test_every_operator_at_every_alignment(kind: str) -> None:
    for shift in range(16):
        graph, x = swept(kind, shift)
        check(maker(graph, train_all(graph), shift), x, shift % CLASSES)


@pytest.mark.parametrize("shift", range(16))
def test_strips_and_columns(shift: int) -> None:
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    check(maker(graph, default_plan(graph, 1), shift), net.sample(), 1)
    check(maker(graph, in_columns(graph), shift, bring), net.sample(), 1, columns=True)
    graph, plan = dense_in_columns()
    check(maker(graph, plan, shift, bring), net.rng.integers(-128, 128, 20, np.int8), 1, True)


@pytest.mark.parametrize("shift", range(16))
def test_losses(shift: int) -> None:
    for loss in ("mse", "bce"):
        graph, net = ending(loss)
        target = np.arange(7) % 2
        check(maker(graph, train_all(graph), shift), net.sample(), target)


def ending(loss: str) -> tuple[Graph, Net]:
    net = Net((1, 5, 4, 3), seed=5)
    net.conv(6, 3, activation=RELU, zero=-128)
    net.flatten()
    net.dense(7, scale=0.03)
    return replace(parse_tflite(net.to_bytes()), loss=loss), net


def in_columns(graph: Graph) -> UpdatePlan:
    layers = [
        LayerPlan(op.index, 2, True, 0 if op.kind == "DEPTHWISE_CONV_2D" else 3)
        for op in graph.trainable
    ]
    return UpdatePlan(tuple(layers))


def dense_in_columns() -> tuple[Graph, UpdatePlan]:
    net = Net((1, 20), seed=6)
    net.dense(9)
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    return graph, in_columns(graph)


def bring(machine: Machine) -> None:
    """What device/columns.py does, once."""
    for layer in machine.program.layers:
        if layer.columns:
            table = np.zeros(layer.in_channels, np.uint32) + (7 << 29)
            for i in range(layer.columns.slots):
                table[i] = 1 << 29 | layer.columns.pool.offset + i * layer.columns.size
            machine.slot(layer.columns.table, np.uint8)[:] = table.view(np.uint8)
        if layer.channels:
            chosen = np.arange(layer.chosen, dtype=np.uint16)
            machine.slot(layer.channels, np.uint8)[:] = chosen.view(np.uint8)


# Nothing is left out ------------------------------------------------------------------------------


def all_graphs() -> Iterator[tuple[Graph, UpdatePlan]]:
    for kind in CASES:
        for shift in range(16):
            graph, _ = swept(kind, shift)
            yield graph, train_all(graph)
    graph = parse_tflite(wide_front().to_bytes())
    yield graph, default_plan(graph, 1)
    yield graph, in_columns(graph)
    yield dense_in_columns()
    for loss in ("mse", "bce"):
        graph, _ = ending(loss)
        yield graph, train_all(graph)


def test_every_opcode_is_guarded() -> None:
    codes = {op.code for graph, plan in all_graphs() for op in Machine(graph, plan).ops}
    assert codes == set(Code)
    assert set(FUSABLE) <= codes


def test_every_kind_with_a_gradient_is_swept() -> None:
    """By test_gradients.py, which draws the same models."""
    nets = (CASES[k](np.random.default_rng((len(k), seed))) for k in CASES for seed in range(60))
    found = {op.kind for net in nets for op in parse_tflite(net.to_bytes()).operators}
    assert found == set(KINDS)


def test_a_byte_too_many_is_noticed() -> None:
    graph, x = swept("CONV_2D", 3)
    machine = Scattered(graph, train_all(graph), 3)
    load(machine, x, 1, 0)
    machine.run(0, len(machine.ops))
    machine.check_guards("")
    begin, end = machine.homes[next(b for b in machine.homes if isinstance(b, Buffer))]
    machine.arena[end] ^= 1
    with pytest.raises(AssertionError):
        machine.check_guards("")
