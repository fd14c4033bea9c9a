"""Momentum and accumulation: the velocity against its recursion in floats, and whole runs."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from gradients import Reference
from machine import Machine, litert_tensors
from small_models import Array, Net
from sparsetune import cli
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph, input_channels, per_channel_scales
from sparsetune.image import parse_image
from sparsetune.numerics import rate
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, load_plan
from sparsetune.program import Slot, TrainedLayer
from sparsetune.tflite import parse_tflite
from sparsetune_device.channels import POLICIES
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image as DeviceImage
from sparsetune_device.momentum import Groups, parse_momentum
from sparsetune_device.schedule import parse_rate

UPDATE, GAIN = 28, 48  # st_control_t
SIGMAS = 5.0
pytestmark = pytest.mark.usefixtures("each_version")


def net() -> Net:
    """Every kind of layer with weights, one of them in groups."""
    net = Net((1, 7, 7, 4), seed=11)
    net.conv(8, 3)
    net.depthwise(2, 3)
    net.conv(12, 1)
    net.conv(8, 3, stride=2, groups=2)
    net.flatten()
    net.dense(5, scale=0.03)
    return net


def plan_for(graph: Graph, share: float, **rules: Any) -> UpdatePlan:
    layers = [
        LayerPlan(op.index, max(1, int(input_channels(graph, op) * share)))
        for op in graph.trainable
    ]
    return UpdatePlan(tuple(layers), velocity=True, **rules)


def control(machine: Machine, waits: bool, momentum: float = 0.0) -> None:
    struct.pack_into("<2I", machine.state, UPDATE, waits, round(momentum * 32768))


def slot_of(machine: Machine, slot: Slot | None, dtype: Any) -> Array:
    assert slot is not None
    return machine.slot(slot, dtype)


def velocity_of(machine: Machine, layer: TrainedLayer) -> Array:
    """float64, as the gradient of the weights lies: [out, kernel, kernel, in] or, of a depthwise
    layer, [1, kernel, kernel, out]; 0 for channels that are not chosen."""
    assert layer.velocity
    op = machine.graph.operator(layer.operator)
    shape = machine.graph.tensor(op.inputs[1]).shape
    stored = slot_of(machine, layer.velocity.weights, np.int16).astype(float)
    if op.kind == "DEPTHWISE_CONV_2D":
        return stored.reshape(shape)
    whole = np.zeros((int(np.prod(shape[:-1])), shape[-1]))
    chosen = slot_of(machine, layer.channels, np.uint16) if layer.channels else np.arange(shape[-1])
    whole[:, chosen] = stored.reshape(len(whole), -1)
    return whole.reshape(shape)


def in_units(graph: Graph, op: int, gradient: Array, learning_rate: float) -> Array:
    """A step, in 1/256 of each weight's quantisation step."""
    operator = graph.operator(op)
    axis = -1 if operator.kind.startswith("D") else 0
    scales = per_channel_scales(graph, operator)
    steps = np.moveaxis(gradient, axis, -1) * 256 * learning_rate / scales
    result: Array = np.moveaxis(steps, -1, axis)
    return result


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_n_samples_add_up(share: float) -> None:
    """While a group waits nothing moves, and the velocity is the sum of the samples' steps."""
    some = net()
    model, graph = some.to_bytes(), parse_tflite(some.to_bytes())
    machine = Machine(graph, plan_for(graph, share))
    layers = {layer.operator: layer for layer in machine.program.layers}
    before = {op: bytes(slot_of(machine, v.weights, np.int8)) for op, v in layers.items()}
    wanted = {op: np.zeros(graph.tensor(graph.operator(op).inputs[1]).shape) for op in layers}
    biases = {op: np.zeros(v.out_channels) for op, v in layers.items()}
    learning_rate, count = 0.0005, 12
    for n in range(count):
        x = some.sample()
        truth = Reference(graph, litert_tensors(model, x), n % 5).result
        control(machine, waits=True, momentum=0.9)
        machine.step(x, n % 5, rate(learning_rate), seed=n)
        for op in layers:
            wanted[op] -= in_units(graph, op, truth.weights[op], learning_rate)
            unit = graph.tensor(graph.operator(op).inputs[0]).scale * per_channel_scales(
                graph, graph.operator(op)
            )
            biases[op] -= truth.biases[op] * learning_rate / unit
    for op, layer in layers.items():
        assert layer.velocity
        ours = velocity_of(machine, layer)
        if layer.channels:
            chosen = slot_of(machine, layer.channels, np.uint16)
            of = np.arange(wanted[op].shape[-1])
            inputs = of // 2 if graph.operator(op).kind.startswith("D") else of
            wanted[op][..., ~np.isin(inputs, chosen)] = 0
        size = np.sqrt((wanted[op] ** 2).mean())
        noise = np.sqrt(((ours - wanted[op]) ** 2).mean())
        assert size > 3 and noise < np.sqrt(count / 4) + 0.1 * size, (op, size, noise)
        bias = slot_of(machine, layer.velocity.biases, np.int32)
        assert np.abs(bias - biases[op]).max() < count + 0.03 * np.abs(biases[op]).max()
        assert bytes(slot_of(machine, layer.weights, np.int8)) == before[op]


def moved(machine: Machine, momentum: float, seed: int) -> None:
    """A step that makes no gradient, behind which the group ends."""
    control(machine, waits=False, momentum=momentum)
    machine.step(np.zeros(machine.image.input_bytes, np.int8), 1, (0, 0), seed)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 29491 / 32768, 32767 / 32768])
def test_a_move_is_unbiased_saturates_and_keeps_its_share(
    residual: bool, share: float, momentum: float
) -> None:
    """Of random velocities, the extremes among them; those of channels that are not chosen move
    nothing."""
    graph = parse_tflite(net().to_bytes())
    machine = Machine(graph, plan_for(graph, share, residual=residual))
    rng = np.random.default_rng(5)
    off, kept_off, moves, keeps = 0.0, 0.0, 0, 0
    for seed in range(20):
        for layer in machine.program.layers:
            assert layer.velocity
            if layer.velocity.channels:
                slot_of(machine, layer.velocity.channels, np.uint16)[:] = slot_of(
                    machine, layer.channels, np.uint16
                )
            v = slot_of(machine, layer.velocity.weights, np.int16)
            v[:] = rng.choice((-32768, 32767, -1, 1, 0, 128, -300, 77, 1000), v.size)
            if residual:
                slot_of(machine, layer.residual, np.int8)[:] = 0
            slot_of(machine, layer.weights, np.int8)[:] = rng.choice(
                (-127, 127, 0, 5, -100, 126), slot_of(machine, layer.weights, np.int8).size
            )
        before = {
            layer.operator: (
                slot_of(machine, layer.weights, np.int8).astype(float),
                slot_of(machine, layer.residual, np.int8).astype(float) if residual else 0.0,
                velocity_of(machine, layer),
            )
            for layer in machine.program.layers
        }
        moved(machine, momentum, seed)
        for layer in machine.program.layers:
            weights, fine, v = before[layer.operator]
            shape = v.shape
            got = slot_of(machine, layer.weights, np.int8).astype(float).reshape(shape)
            if graph.operator(layer.operator).kind.startswith("D") and layer.channels:
                chosen = slot_of(machine, layer.channels, np.uint16)
                v = np.where(np.isin(np.arange(shape[-1]) // 2, chosen), v, 0)
                keeps_of = np.isin(np.arange(shape[-1]) // 2, chosen)
            else:
                keeps_of = np.ones(shape[-1], bool)
            exact = weights.reshape(shape) + v / 256
            if residual:
                got = got + slot_of(machine, layer.residual, np.int8).reshape(shape) / 256
                exact = exact + np.reshape(fine, (-1,)).reshape(shape) / 256
            wanted = np.clip(exact, -127, 127)
            assert (np.abs(got - wanted) < (1e-9 if residual else 1)).all()
            inside = (np.abs(exact) < 126) & (v != 0)
            off, moves = off + float((got - exact)[inside].sum()), moves + int(inside.sum())
            left = velocity_of(machine, layer)
            share_left = np.where(keeps_of, v * momentum, velocity_of(machine, layer))
            assert (np.abs(left - share_left)[..., keeps_of] < 1).all()
            kept_off += float((left - share_left)[..., keeps_of].sum())
            keeps += left[..., keeps_of].size
    assert moves > 5000 and abs(off) < SIGMAS * 0.5 * np.sqrt(moves)
    assert abs(kept_off) < SIGMAS * 0.5 * np.sqrt(keeps)


TINY = (1 << 15, -75)  # a learning rate whose steps leave a velocity as it is


def standardised(v: Array, chosen: Array, is_depthwise: bool) -> Array:
    """float64, of velocities as the weights lie; chosen: which of them are."""
    moves = np.zeros(v.shape)
    for oc in range(v.shape[-1 if is_depthwise else 0]):
        at = (..., oc) if is_depthwise else (oc, ...)
        some = v[at][chosen[at]]
        if some.size and some.std():
            moves[at][chosen[at]] = (some - some.mean()) / some.std()
    return moves


def chosen_of(machine: Machine, layer: TrainedLayer, shape: tuple[int, ...]) -> Array:
    """Where the weights of chosen channels lie."""
    if not layer.channels:
        return np.ones(shape, bool)
    multiplier = shape[-1] // layer.in_channels
    of = np.arange(shape[-1]) // max(1, multiplier)
    return np.broadcast_to(np.isin(of, slot_of(machine, layer.channels, np.uint16)), shape)


def fill_velocities(machine: Machine, size: int) -> None:
    rng = np.random.default_rng(size)
    for layer in machine.program.layers:
        assert layer.velocity
        if layer.velocity.channels:
            chosen = slot_of(machine, layer.channels, np.uint16)
            slot_of(machine, layer.velocity.channels, np.uint16)[:] = chosen
        v = slot_of(machine, layer.velocity.weights, np.int16)
        v[:] = np.clip(np.rint(rng.normal(size / 9, size / 3, v.size)), -size, size)
        for slot in (layer.weights, layer.residual):
            slot_of(machine, slot, np.int8)[:] = 0


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("size", [3, 300, 32767])
@pytest.mark.parametrize("steps", [0.004, 0.3, 20.0])
def test_standardised_moves(share: float, size: int, steps: float) -> None:
    """(v - mean) / deviation of each filter, times what is asked for, of all kinds of layers: each
    move to a unit, their mean closer."""
    graph = parse_tflite(net().to_bytes())
    machine = Machine(graph, plan_for(graph, share, residual=True))
    fill_velocities(machine, size)
    start, times = bytes(machine.state), 40
    total = {layer.operator: np.zeros(0) for layer in machine.program.layers}
    mantissa, exponent = rate(steps)
    for seed in range(times):
        machine.state[:] = start
        struct.pack_into("<I", machine.state, UPDATE, 2)
        struct.pack_into("<Hh", machine.state, GAIN, mantissa, exponent + 60)
        machine.step(np.zeros(machine.image.input_bytes, np.int8), 1, TINY, seed)
        for layer in machine.program.layers:
            got = slot_of(machine, layer.weights, np.int8).astype(float) * 256
            got = got + slot_of(machine, layer.residual, np.int8)
            known = total[layer.operator]
            total[layer.operator] = known + got if known.size else got
    machine.state[:] = start
    for layer in machine.program.layers:
        v = velocity_of(machine, layer)
        is_depthwise = graph.operator(layer.operator).kind.startswith("D")
        wanted = standardised(v, chosen_of(machine, layer, v.shape), is_depthwise) * steps * 256
        off = total[layer.operator].reshape(v.shape) / times - wanted
        room = 0.04 + 0.01 * np.abs(wanted) + 4.5 * 0.5 / np.sqrt(times)
        room += 9 * steps / size  # 1/256 of a mean, of deviations from about size / 6 on
        assert np.abs(wanted).max() > steps * 256
        assert (np.abs(off) < room).all(), (layer.operator, np.abs(off - room).max())
        assert abs(off.mean()) < 0.02 + 0.01 * steps * 256


@pytest.mark.parametrize("residual", [False, True])
def test_standardised_moves_saturate(residual: bool) -> None:
    """However far they would go."""
    graph = parse_tflite(net().to_bytes())
    machine = Machine(graph, plan_for(graph, 1.0, residual=residual))
    for layer in machine.program.layers:
        assert layer.velocity
        v = slot_of(machine, layer.velocity.weights, np.int16)
        v[:] = np.random.default_rng(1).choice((-3000, 3000, 2000), v.size)
        slot_of(machine, layer.weights, np.int8)[:] = 1
    struct.pack_into("<I", machine.state, UPDATE, 2)
    struct.pack_into("<Hh", machine.state, GAIN, 1 << 15, 60 + 20)
    before = {layer.operator: velocity_of(machine, layer) for layer in machine.program.layers}
    machine.step(np.zeros(machine.image.input_bytes, np.int8), 1, TINY, 1)
    for layer in machine.program.layers:
        v = before[layer.operator]
        is_depthwise = graph.operator(layer.operator).kind.startswith("D")
        wanted = 127 * np.sign(standardised(v, np.ones(v.shape, bool), is_depthwise))
        got = slot_of(machine, layer.weights, np.int8).reshape(v.shape)
        assert (got[wanted != 0] == wanted[wanted != 0]).all()


def test_a_filter_that_is_all_alike_stays_where_it_is() -> None:
    graph = parse_tflite(net().to_bytes())
    machine = Machine(graph, plan_for(graph, 1.0, residual=True))
    fill_velocities(machine, 300)
    for layer in machine.program.layers:
        assert layer.velocity
        slot_of(machine, layer.velocity.weights, np.int16)[:] = 77
    struct.pack_into("<I", machine.state, UPDATE, 2)
    struct.pack_into("<Hh", machine.state, GAIN, 1 << 15, 60)
    machine.step(np.zeros(machine.image.input_bytes, np.int8), 1, TINY, 1)
    for layer in machine.program.layers:
        assert not slot_of(machine, layer.weights, np.int8).any()
        assert not slot_of(machine, layer.residual, np.int8).any()


def test_biases_move_by_their_velocity_and_saturate() -> None:
    graph = parse_tflite(net().to_bytes())
    machine = Machine(graph, plan_for(graph, 0.5))
    layer = machine.program.layers[0]
    assert layer.velocity
    bias, v = (slot_of(machine, s, np.int32) for s in (layer.bias, layer.velocity.biases))
    limit = 2**30
    bias[:6] = (5, -7, limit, -limit, limit - 3, 2**31 - 1)
    v[:6] = (1000001, -limit, limit, -limit, 2, 2**31 - 1)
    moved(machine, 0.5, 1)
    assert bias[:6].tolist() == [1000006, -7 - limit + 7, limit, -limit, limit - 1, limit]
    assert (np.abs(v[:6] - np.array([1000001, -limit, limit, -limit, 2, 2**31 - 1]) / 2) < 1).all()


def constant_gradient() -> Net:
    """Logits so coarse that small steps do not change them."""
    some = Net((1, 40), scale=0.02, seed=3)
    some.dense(6, scale=6.0)
    return some


@pytest.mark.parametrize(("momentum", "group"), [(0.9, 1), (0.5, 3), (0.0, 4), (0.99, 2)])
def test_the_recursion_over_many_steps(momentum: float, group: int) -> None:
    """With a gradient that stays as it is: v = v + step; where a group ends, w = w + v, v = m v."""
    some = constant_gradient()
    model, x = some.to_bytes(), some.sample()
    graph = parse_tflite(model)
    machine = Machine(graph, plan_for(graph, 1.0, residual=True))
    (layer,) = machine.program.layers
    truth = Reference(graph, litert_tensors(model, x), 2).result
    learning_rate = (
        0.3 / np.abs(in_units(graph, layer.operator, truth.weights[layer.operator], 1)).mean()
    )
    step = -in_units(graph, layer.operator, truth.weights[layer.operator], learning_rate).ravel()
    first = slot_of(machine, layer.weights, np.int8).astype(float) * 256
    w, v, losses = first.copy(), np.zeros(first.size), set()
    steps = 60
    noise_v = noise_w = 0.0  # variances of what rounding adds, at most
    for n in range(steps):
        ends = (n + 1) % group == 0
        control(machine, not ends, momentum)
        losses.add(machine.step(x, 2, rate(learning_rate), seed=n))
        v += step
        noise_v += 0.25
        if ends:
            w, v = w + v, v * momentum
            noise_w = (np.sqrt(noise_w) + np.sqrt(noise_v)) ** 2
            noise_v = noise_v * momentum**2 + 0.25 * (momentum > 0)
    assert len(losses) == 1, "the gradient did not stay as it was"
    fine = slot_of(machine, layer.residual, np.int8)
    got = slot_of(machine, layer.weights, np.int8).astype(float) * 256 + fine
    inside = np.abs(w) < 126 * 256
    error = (got - np.clip(w, -127 * 256, 127 * 256))[inside]
    moves = np.abs(w - first)[inside]
    assert moves.mean() > 5
    assert np.abs(error).max() < SIGMAS * np.sqrt(noise_w) + 0.02 * moves.max()
    assert abs(error.mean()) < SIGMAS * np.sqrt(noise_w / error.size) + 0.01 * moves.mean()


@pytest.mark.parametrize("total", [30000.0, -30000.0])
def test_a_velocity_saturates(total: float) -> None:
    some = constant_gradient()
    graph = parse_tflite(some.to_bytes())
    machine = Machine(graph, plan_for(graph, 1.0))
    (layer,) = machine.program.layers
    assert layer.velocity
    for n in range(3):
        control(machine, True, 0.9)
        machine.step(some.sample(), n, rate(abs(total)), seed=n)
    v = slot_of(machine, layer.velocity.weights, np.int16)
    assert set(np.abs(v.astype(int)).tolist()) >= {32767} and v.min() >= -32767


# Runs -------------------------------------------------------------------------------------------


def task_with(share: float = 0.5, **options: Any) -> runs.Task:
    task = runs.digits_task(steps=24)
    plan = replace(default_plan(task.graph, 6, share), velocity=True)
    image = parse_image(runs.compile_image(task.graph, plan).image)
    return replace(task, image=image, options={**task.options, **options})


def test_without_momentum_a_velocity_is_the_ordinary_rule_but_for_its_roundings() -> None:
    """What was there keeps its losses, nearly."""
    plain, with_velocity = runs.digits_task(steps=200), task_with(steps=200)
    means = []
    for task in (plain, with_velocity):
        lines = runs.losses(runs.twin_train(task)[0])
        means.append(np.mean([float(line.split(",")[0][5:]) for line in lines[-100:]]))
    assert means[1] == pytest.approx(means[0], rel=0.15)


def test_standardised_a_run_hangs_on_no_rate_but_of_its_biases() -> None:
    """Whatever the gradients are multiplied by: the moves of weights are what was asked for."""
    task = task_with(1.0, accumulate=8, standardise="0.4", steps=8, schedule="constant")
    moves = []
    for learning_rate in ("0.01", "0.05"):
        run = replace(task, options={**task.options, "rate": learning_rate})
        checkpoint = runs.twin_train(run)[1]
        state = checkpoint[32 : 32 + task.image.state_bytes]
        layer, weights = task.image.layers[-1], task.graph.trainable[-1].inputs[1]
        before = task.graph.tensor(weights).data
        assert before is not None
        after = np.frombuffer(state, np.int8, layer.weights_bytes, layer.weights_at)
        after = after.astype(float)[: before.size].reshape(before.shape)
        moves.append(np.sqrt(((after - before) ** 2).mean()))
    # Of a normal variable of deviation 0.4, rounded to whole steps by chance: sqrt(E|x|).
    expected = np.sqrt(0.4 * np.sqrt(2 / np.pi))
    assert moves == pytest.approx([expected] * 2, rel=0.15)


@pytest.mark.parametrize("policy", sorted(POLICIES.keys() - {"importance"}))  # needs scores
def test_other_channels_start_from_nothing(policy: str) -> None:
    """Where a layer's choice stays, its velocity does."""
    task = task_with(policy=policy, momentum="0.9", steps=33, hold=16)
    states = []
    for steps in (16, 17):
        checkpoint = runs.twin_train(replace(task, options={**task.options, "steps": steps}))[1]
        states.append(checkpoint[32 : 32 + task.image.state_bytes])
    machine = Machine(task.graph, replace(default_plan(task.graph, 6, 0.5), velocity=True))
    changed = []
    for layer in machine.program.layers:
        if not layer.channels:
            continue
        v: list[Array] = []
        for state in states:
            machine.state[:] = state
            v.append(velocity_of(machine, layer))
        lists = [state[layer.channels.offset :][: layer.channels.size] for state in states]
        before, after = (np.abs(each).sum() for each in v)
        changed.append(lists[0] != lists[1])
        ratio = float(after / before)
        assert ratio < 0.6 if changed[-1] else ratio > 0.6, (layer.operator, ratio)
    assert changed and all(changed) == (policy not in ("static", "magnitude"))


@pytest.mark.parametrize("standardise", ["0", "0.1"])
def test_resuming_within_a_group_equals_an_unbroken_run(standardise: str) -> None:
    options = {"momentum": "0.9", "accumulate": 4, "standardise": standardise}
    task = task_with(schedule="constant", steps=40, **options)
    unbroken = runs.twin_train(task)[1]
    with runs.Twin(task.image.data, task.samples) as twin:
        twin.train(print, **{**task.options, "steps": 22})
        assert twin.train(print, resume=True, steps=40) == unbroken


@pytest.mark.parametrize(
    "before", [{"momentum": "0.9"}, {"accumulate": 4}, {"accumulate": 4, "standardise": "0.1"}]
)
def test_what_a_resumed_run_does_without_is_over(before: dict[str, Any]) -> None:
    """Broken off within a group, or with momentum: the velocities move the weights once more, and
    then each step is one by itself."""
    none = {"momentum": "0", "accumulate": 1, "standardise": "0"}
    task = task_with(policy="static", schedule="constant", **before)
    machine = Machine(task.graph, replace(default_plan(task.graph, 6, 0.5), velocity=True))
    layers, weights, left = machine.program.layers, [], []
    with runs.Twin(task.image.data, task.samples) as twin:
        for steps, more in ((22, {}), (40, {"resume": True, **none})):
            checkpoint = twin.train(print, **{**task.options, **more, "steps": steps})
            machine.state[:] = checkpoint[32 : 32 + task.image.state_bytes]
            at = [(32 + of.weights_at, of.weights_bytes) for of in task.image.layers]
            weights.append([checkpoint[start : start + size] for start, size in at])
            left.append([np.abs(velocity_of(machine, layer)).max() for layer in layers])
    assert all(left[0]) and not any(left[1])
    assert all(a != b for a, b in zip(*weights, strict=True))


def test_layers_in_flash_have_velocities_too() -> None:
    """Their columns move as the weights of layers in RAM do."""
    task = runs.digits_task(steps=1)
    lines = []
    for in_flash in (False, True):
        layers = tuple(
            LayerPlan(op.index, 4, slots=4 * in_flash)
            if op.kind != "DEPTHWISE_CONV_2D"
            else LayerPlan(op.index, input_channels(task.graph, op))
            for op in task.graph.trainable[-4:]
        )
        image = parse_image(runs.compile_image(task.graph, UpdatePlan(layers, velocity=True)).image)
        options = {"policy": "static", "momentum": "0.5", "accumulate": 3, "steps": 60}
        run = replace(task, image=image, options={**task.options, **options})
        lines.append(runs.losses(runs.twin_train(run)[0]))
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"momentum": "1"}, "not below 1"),
        ({"momentum": "1.5"}, "not below 1"),
        ({"momentum": "x"}, "not a decimal number"),
        ({"accumulate": 0}, "choose 1 to"),
        ({"accumulate": 5000, "steps": 9999}, "choose 1 to"),
        ({"accumulate": 11, "steps": 10}, "accumulate 11: no group .* ends within 10 steps"),
        ({"standardise": "much"}, "not a decimal number"),
        ({"accumulate": 4, "hold": 6}, "hold 6 is no multiple of accumulate 4"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SparsetuneError, match=complaint):
        runs.twin_train(task_with(**options))


@pytest.mark.parametrize(
    ("samples", "options", "steps"),
    [(20, {"accumulate": 4}, 20), (22, {"accumulate": 4}, 24), (20, {"momentum": "0.9"}, 20),
     (5, {"momentum": "0.9"}, 5), (20, {"standardise": "0.1", "accumulate": 8}, 24)],
)  # fmt: skip
def test_a_choice_may_stay_for_an_epoch(
    samples: int, options: dict[str, Any], steps: int
) -> None:
    """Or as many whole groups as have an epoch's samples: as a hold of that number."""
    task = task_with(steps=60, policy="cyclic", **options)
    task = replace(task, train=task.train.part(slice(samples)))
    lines = [
        runs.losses(runs.twin_train(replace(task, options={**task.options, "hold": hold}))[0])
        for hold in ("epoch", steps)
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"accumulate": 4}, 4), ({"accumulate": 4, "momentum": "0.9"}, 64), ({"momentum": "0.9"}, 16)],
)
def test_with_momentum_a_choice_stays_for_16_groups(options: dict[str, Any], steps: int) -> None:
    """Else for one (docs/DESIGN.md): as a hold of that number, and as none of half of it."""
    task = task_with(steps=128, policy="cyclic", **options)
    unsaid, said, half = (
        runs.losses(runs.twin_train(replace(task, options={**task.options, "hold": hold}))[0])
        for hold in (0, steps, steps // 2 if steps > 4 else 2 * steps)
    )
    assert unsaid == said != half


@pytest.mark.parametrize("size", [1, 2, 3, 6, 48, 100, 600, 1000, 2500, 3000, 4095, 4096])
def test_the_rate_is_divided_by_the_size_of_a_group(size: int) -> None:
    task = task_with()
    groups = Groups(Engine(DeviceImage(task.image.data)), size, "0")
    for text in ("0.01", "0.0003", "0.7"):
        mantissa, exponent = groups.rate(parse_rate(text))
        assert 1 << 15 <= mantissa < 1 << 16
        exact = float(text) / size
        assert mantissa * 2.0**exponent == pytest.approx(exact, rel=2**-14)
    assert groups.rate((0, 0))[0] == 0


def test_a_zero_is_a_zero_however_it_is_written() -> None:
    """Nothing that a plan has no velocity for, or that a policy could not stand."""
    task = runs.digits_task(steps=10)
    task = replace(task, options={**task.options, "policy": "static"})
    plain = runs.losses(runs.twin_train(task)[0])
    for options in ({"momentum": 0.0}, {"standardise": "0.00"}, {"decay": 0.0}, {"decay": "0.000"}):
        zero = replace(task, options={**task.options, **options})
        assert runs.losses(runs.twin_train(zero)[0]) == plain


def test_a_plan_without_velocity_says_what_to_do() -> None:
    task = runs.digits_task(steps=3)
    for options in ({"momentum": "0.9"}, {"accumulate": 2}, {"standardise": "0.1"}):
        with pytest.raises(SparsetuneError, match="plan again with --velocity"):
            runs.twin_train(replace(task, options={**task.options, **options}))


def test_momentum_in_fixed_point() -> None:
    assert [parse_momentum(m) for m in ("0", "0.5", "0.9", "0.999", "0.000000001")] == [
        0, 16384, 29491, 32735, 0
    ]  # fmt: skip


def test_the_plan_counts_its_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, fast = tmp_path / "plain.json", tmp_path / "fast.json"
    base = ["plan", str(runs.DIGITS), "--last", "4"]
    assert cli.main([*base, "-o", str(plain)]) == 0
    without = capsys.readouterr().out
    assert cli.main([*base, "--velocity", "-o", str(fast)]) == 0
    told = capsys.readouterr().out
    assert "velocities" not in without and load_plan(fast).velocity
    graph = runs.read_tflite(runs.DIGITS)
    expected = 0
    for layer in load_plan(fast).layers:
        op = graph.operator(layer.operator)
        weights = graph.tensor(op.inputs[1]).size
        outputs = graph.tensor(op.outputs[0]).shape[-1]
        expected += 2 * weights * layer.channels // input_channels(graph, op) + 4 * outputs
    assert f"their velocities {expected:,}," in told
