"""Layers that stay in flash learn exactly what they would learn in RAM."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sparsetune_kernels as kernels
from machine import Machine
from small_models import RELU, Net
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.export import export_tflite, parse_checkpoint
from sparsetune.graph import input_channels
from sparsetune.image import Image, parse_image
from sparsetune.plan import LayerPlan, UpdatePlan, check_plan
from sparsetune.program import Code
from sparsetune.tflite import parse_tflite
from sparsetune.twin import Twin
from test_guards import bring, in_columns
from uint8_models import to_uint8

pytestmark = pytest.mark.usefixtures("each_version")


def a_net(seed: int) -> Net:
    net = Net((1, 7, 6, 3), zero=9, seed=seed, unevenness=1.0)
    net.conv(12, 3, activation=RELU, zero=-128)
    net.conv(8, 3, stride=2, zero=4)
    net.depthwise(1, 3)
    net.conv(10, 1, activation=RELU, zero=-128)
    net.flatten()
    net.dense(5, scale=0.03)
    net.softmax()
    return net


def plan_of(model: bytes, slots: bool, spare: int = 0) -> UpdatePlan:
    """Half of the channels of every layer; slots for as many, and some more."""
    graph = parse_tflite(model)
    layers = []
    for op in graph.trainable:
        channels = input_channels(graph, op)
        chosen = max(1, channels // 2)
        room = min(channels, chosen + spare) if slots and op.kind != "DEPTHWISE_CONV_2D" else 0
        layers.append(LayerPlan(op.index, chosen, True, room))
    return UpdatePlan(tuple(layers))


def train(model: bytes, plan: UpdatePlan, samples: Any, policy: str) -> tuple[list[str], bytes]:
    """(step lines, trained model)"""
    graph = parse_tflite(model)
    image: Image = parse_image(compile_image(graph, plan, "0.02").image)
    lines: list[str] = []
    with Twin(image.data, sample_file(samples, image.task)) as twin:
        checkpoint = twin.train(lines.append, steps=40, policy=policy, schedule="constant")
    steps = [line.split(",ms:")[0] for line in lines if line.startswith("loss")]
    return steps, export_tflite(model, image, parse_checkpoint(checkpoint, image))


@pytest.mark.parametrize("policy, spare", [("static", 0), ("cyclic", 999), ("random", 999)])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_the_same_as_in_ram(policy: str, spare: int, kind: str) -> None:
    for seed in range(3):
        net = a_net(seed)
        model = net.to_bytes() if kind == "int8" else to_uint8(net, 110)
        x = np.stack([net.sample()[0] for _ in range(10)])
        data = Dataset(x, np.arange(10) % 5)
        in_ram = train(model, plan_of(model, False), data, policy)
        in_flash = train(model, plan_of(model, True, spare), data, policy)
        assert in_flash == in_ram
        assert in_ram[1] != model


def test_state_holds_only_the_columns() -> None:
    net = Net((1, 64), seed=2)
    net.dense(200, scale=0.05)
    graph = parse_tflite(net.to_bytes())

    def state(slots: int) -> int:
        plan = UpdatePlan((LayerPlan(0, 8, True, slots),))
        return parse_image(compile_image(graph, plan).image).state_bytes

    whole, columns = state(0), state(8)
    assert whole - columns == 64 * 200 - 8 * 200 - 4 * 64


@pytest.mark.parametrize("policy", ["static", "cyclic", "random"])
def test_only_channels_that_have_room_learn(policy: str) -> None:
    net = a_net(1)
    model = net.to_bytes()
    x = np.stack([net.sample()[0] for _ in range(10)])
    plan = plan_of(model, True, 1)
    _, trained = train(model, plan, Dataset(x, np.arange(10) % 5), policy)
    before, after = parse_tflite(model), parse_tflite(trained)
    moved_on = False
    for layer in plan.layers:
        if not layer.slots:
            continue
        tensor = before.operator(layer.operator).inputs[1]
        changed = np.asarray(before.tensor(tensor).data != after.tensor(tensor).data)
        channels = set(np.flatnonzero(changed.any(axis=tuple(range(changed.ndim - 1)))).tolist())
        allowed = layer.channels if policy == "static" else layer.slots
        assert channels and channels <= set(range(allowed))
        moved_on |= max(channels) >= layer.channels
    assert moved_on == (policy != "static")


def test_plans_that_cannot_be() -> None:
    graph = parse_tflite(a_net(0).to_bytes())
    plan = plan_of(a_net(0).to_bytes(), True)
    for layer, message in (
        (replace(plan.layers[0], slots=99), "99 slots"),
        (replace(plan.layers[1], channels=5, slots=4), "4 slots for 5"),
        (replace(plan.layers[2], slots=8), "cannot stay in flash"),
    ):
        with pytest.raises(SparsetuneError, match=message):
            check_plan(graph, UpdatePlan((layer,)))


def test_a_table_outside_of_the_state_is_refused() -> None:
    """Kernels write to the arena while they use the table: no image may put it there."""
    net = Net((1, 20), seed=6)
    net.dense(9)
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, in_columns(graph))
    bring(machine)
    x = np.zeros(graph.tensor(graph.input).size, np.int8)
    machine.step(x, 1, (0, 0))
    image = bytearray(machine.image.data)
    table = struct.pack("<I", 1 << 29 | machine.program.layers[0].columns.table.offset)
    places = [i for i in range(0, len(image), 4) if image[i : i + 4] == table]
    assert len(places) == 2  # forward and update of the first layer
    for at in places:
        image[at : at + 4] = struct.pack("<I", 2 << 29)
    buffers = (bytes(image), machine.state, machine.arena, machine.cold, machine.store)
    refused = 0
    for i in range(len(machine.ops)):
        try:
            kernels.run(*buffers, i, i + 1, 1)
        except ValueError as error:
            assert "outside its buffers" in str(error)
            refused += 1
    assert refused == 2


@pytest.mark.parametrize("at", [0, 12, 60, 63])
def test_a_chosen_column_over_the_control_block_is_refused(at: int) -> None:
    """There stand the rate and the seed: a damaged table must not have them trained."""
    net = Net((1, 20), seed=6)
    net.dense(9)
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, in_columns(graph))
    bring(machine)
    machine.step(np.zeros(graph.tensor(graph.input).size, np.int8), 1, (40000, -16))
    layer = machine.program.layers[0]
    assert layer.columns and layer.channels
    channel = machine.slot(layer.channels, np.uint16)[0]
    machine.slot(layer.columns.table, np.uint32)[channel] = 1 << 29 | at
    before = bytes(machine.state)
    (update,) = (
        i for i, op in enumerate(machine.ops)
        if op.code == Code.CONV2D_COLUMNS_UPDATE and op.source == layer.operator
    )  # fmt: skip
    with pytest.raises(ValueError, match="outside its buffers"):
        machine.run(update, update + 1)
    assert machine.state == before
    machine.slot(layer.columns.table, np.uint32)[channel] = 1 << 29 | 64
    machine.run(update, update + 1)
