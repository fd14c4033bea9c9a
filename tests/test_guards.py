"""No kernel touches a byte that is not its own, wherever its buffers lie (guards.py): a training
step runs operator by operator, and after each all guards must be as they were, and all buffers
that it does not name. What comes out must be what the packed arena gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from gradient_cases import CASES, draw, train_all
from guards import Job, Scattered, guarded
from machine import Machine
from patch_cases import in_codes, mixed, weights_only
from small_models import Net, wide_front
from sparsetune.graph import Graph
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.program import Buffer, Code, Slot
from sparsetune.strips import FUSABLE
from sparsetune.tflite import parse_tflite
from uint8_models import to_uint8

pytestmark = pytest.mark.usefixtures("each_version")

SHIFTS = range(16)


def check(job: Job, shift: int) -> None:
    for op, touched in guarded(job, shift):
        assert touched == 0, (shift, op.source, op.code)


def first_layer(graph: Graph) -> UpdatePlan:
    """All other weights stay in the image."""
    return UpdatePlan(train_all(graph).layers[:1], residual=False)


def swept(case: str, shift: int) -> Iterator[Job]:
    drawn = draw(case, shift)
    for plan in (train_all(drawn.graph), first_layer(drawn.graph)):
        yield Job(drawn.graph, plan, drawn.x, drawn.target)


@pytest.mark.parametrize("case", CASES)
def test_every_operator_at_every_alignment(case: str) -> None:
    for shift in SHIFTS:
        for job in swept(case, shift):
            check(job, shift)


def special(shift: int) -> Iterator[Job]:
    """Strips, columns, weights with a zero point, patches."""
    net = wide_front()
    for model in (net.to_bytes(), to_uint8(net, 90)):
        graph = parse_tflite(model)
        yield Job(graph, default_plan(graph, 1), net.sample(), 1)
        yield Job(graph, in_columns(graph), net.sample(), 1, bring)
    net = Net((1, 20), seed=6)
    net.dense(9)
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    yield Job(graph, in_columns(graph), net.sample(), shift % 5, bring)
    patched, mixed_graph, plan = mixed((2, 4, 7)[shift % 3])
    yield Job(mixed_graph, plan, patched.sample(), shift % 5)
    alone = weights_only(mixed_graph, 2, bool(shift % 2))
    yield Job(mixed_graph, alone, patched.sample(), shift % 5)
    yield Job(mixed_graph, in_codes(plan), patched.sample(), shift % 5)
    for case in ("CONV_2D", "CONV_2D: groups", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D"):
        yield half_of_the_channels(case, shift)
        half = half_of_the_channels(case, shift)
        yield replace(half, plan=replace(half.plan, velocity=True))
    yield Job(graph, replace(in_columns(graph), velocity=True), net.sample(), 1, bring)
    yield with_selection(case="DEPTHWISE_CONV_2D", shift=shift)


def in_columns(graph: Graph) -> UpdatePlan:
    layers = [
        LayerPlan(op.index, 2, True, 0 if op.kind == "DEPTHWISE_CONV_2D" else 3)
        for op in graph.trainable
    ]
    return UpdatePlan(tuple(layers), scores=True)


def bring(machine: Machine) -> None:
    """What device/columns.py does: the chosen channels in RAM, another in the store."""
    for layer in machine.program.layers:
        if layer.columns:
            columns = layer.columns
            machine.slot(columns.pool, np.int8)[:] = np.arange(columns.pool.size) % 251 - 125
            offset = len(machine.store)
            machine.store += bytes(i * 37 & 255 for i in range(columns.size))
            table = np.full(layer.in_channels, 7 << 29, np.uint32)
            assert layer.channels
            chosen = machine.slot(layer.channels, np.uint16)
            others = np.setdiff1d(np.arange(layer.in_channels), chosen)
            order = np.concatenate([chosen, others])
            table[order[: columns.slots]] = [
                1 << 29 | columns.pool.offset + i * columns.size for i in range(columns.slots)
            ]
            table[order[columns.slots :][:1]] = 4 << 29 | offset
            machine.slot(columns.table, np.uint8)[:] = table.view(np.uint8)


def half_of_the_channels(case: str, shift: int) -> Job:
    drawn = draw(case, shift)
    whole = train_all(drawn.graph).layers
    layers = [replace(layer, channels=(layer.channels + 1) // 2) for layer in whole]
    plan = UpdatePlan(tuple(layers), bool(shift % 2), scores=shift % 4 < 2)
    return Job(drawn.graph, plan, drawn.x, drawn.target)


def with_selection(case: str, shift: int) -> Job:
    """Of all layers, however few channels they have."""
    job = half_of_the_channels(case, shift)
    return replace(job, plan=replace(job.plan, tinyprop="0.2:0.7:0.9"))


@pytest.mark.parametrize("shift", SHIFTS)
def test_strips_columns_zero_points_chosen_channels(shift: int) -> None:
    for job in special(shift):
        check(job, shift)


def test_every_opcode_is_guarded() -> None:
    jobs = [job for case in CASES for shift in SHIFTS for job in swept(case, shift)]
    codes = {op.code for job in (*jobs, *special(0)) for op in Machine(job.graph, job.plan).ops}
    assert codes == set(Code)
    assert set(FUSABLE) <= codes


@pytest.mark.parametrize("shift", SHIFTS)
def test_things_stand_where_they_should(shift: int) -> None:
    """Bytes at every remainder of 16, in all four memories; halves and words as near as can be."""
    drawn = draw("CONV_2D", 3)
    machine = Scattered(drawn.graph, first_layer(drawn.graph), shift)
    weights = [w.offset for op in machine.ops if op.code == Code.CONV2D for w in op.words[2:3]]
    maps = [b for b in machine.homes if isinstance(b, Buffer) and b.name.startswith("t")]
    words = [s for s in machine.homes if isinstance(s, Slot) and s.align == 4]
    halves = [b for b in machine.homes if isinstance(b, Buffer) and b.name.startswith("d")]
    assert {b.is_cold for b in (*maps, *halves)} == {False, True}
    assert {b.offset % 16 for b in maps} == {shift} <= {at % 16 for at in weights}
    assert {b.offset % 16 for b in halves} == {shift // 2 * 2}
    assert {s.offset % 16 for s in words} == {shift // 4 * 4}


def test_a_byte_too_many_is_noticed() -> None:
    drawn = draw("CONV_2D", 3)
    for memory in range(3):
        machine = Scattered(drawn.graph, train_all(drawn.graph), 3)
        data, things = machine.memories()[memory]
        assert machine.touched_guards() == 0
        data[machine.homes[things[0]][0] - 1] ^= 1
        data[machine.homes[things[-1]][1]] ^= 1
        assert machine.touched_guards() == 2
