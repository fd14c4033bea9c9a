"""SELECT_ERRORS against float64 NumPy: which channels stay, what the errors left cost, the decaying
maximum; and the effort of whole steps, counted anew from the errors that the gradients read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from gradient_cases import draw, train_all
from machine import Machine
from small_models import Array, Net
from sparsetune import selection
from sparsetune.errors import SparsetuneError
from sparsetune.geometry import Geometry, conv_geometry
from sparsetune.graph import Graph, Operator, input_channels
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.program import Buffer, Code, Op, Slot
from sparsetune.tflite import parse_tflite
from sparsetune.tinyprop import parse_tinyprop

NORM, EFFORT = 24, 36  # byte offsets in the control block
FORGOTTEN = 1 - 2.0**-10
SHARE = 2.0**-14  # of rounding twice to 1/32768
WEIGHTED = ("CONV_2D", "CONV_2D: groups", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FEWEST_CHANNELS", 2)


def effort_of(machine: Machine) -> int:
    return int(struct.unpack_from("<I", machine.state, EFFORT)[0])


@dataclass
class Selection:
    """One SELECT_ERRORS of a machine, fed with errors of the test's own."""

    machine: Machine
    at: int

    @property
    def op(self) -> Op:
        return self.machine.ops[self.at]

    @property
    def geometry(self) -> Geometry:
        const: Any = self.op.words[0]
        return Geometry(*struct.unpack("<20i", const.data))

    def run(self, dy: Array, exponent: int) -> tuple[Array, int]:
        """(errors left, their cost). dy: int16 [positions, channels]."""
        buffer, slot = self.op.words[1:3]
        assert isinstance(buffer, Buffer) and isinstance(slot, Slot)
        machine = self.machine
        machine.arena[buffer.offset : buffer.offset + buffer.size] = dy.astype("<i2").tobytes()
        machine.slot(slot, np.int16)[0] = exponent
        struct.pack_into("<I", machine.state, EFFORT, 0)
        machine.run(self.at, self.at + 1)
        return machine.read(buffer, np.int16).reshape(dy.shape), effort_of(machine)


def one_layer(
    channels: int, policy: str, side: int = 3, *, kernel: int = 3, stride: int = 1
) -> Selection:
    """A convolution of 5 channels and one of `channels`, of which one channel learns."""
    net = Net((1, 2 * side, side, 2), seed=channels)
    net.conv(5, 1)
    net.conv(channels, kernel, stride=stride)
    net.mean((1, 2), False)
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    first, second, head = (op.index for op in graph.trainable)
    plan = UpdatePlan((LayerPlan(first, 2), LayerPlan(second, 1)), tinyprop=policy)
    machine = Machine(graph, plan)
    found = [i for i, op in enumerate(machine.ops) if op.code == Code.SELECT_ERRORS]
    return Selection(machine, next(i for i in found if machine.ops[i].source == second))


def taps_inside(g: Geometry) -> Array:
    """[out_h, out_w]: taps of each position's window that lie in the input, by looking."""

    def along(size: int, out: int, kernel: int, stride: int, dilation: int, pad: int) -> Array:
        at = np.arange(out)[:, None] * stride - pad + np.arange(kernel) * dilation
        return np.asarray(((at >= 0) & (at < size)).sum(1))

    rows = along(g.in_h, g.out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_h)
    columns = along(g.in_w, g.out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_w)
    return np.outer(rows, columns)


def drawn_errors(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> Array:
    if kind == "zeros":
        return np.zeros(shape, np.int16)
    if kind == "ends":
        return rng.choice(np.array([-32768, 32767, 0], np.int16), shape)
    if kind == "ties":
        return np.tile(rng.choice(np.array([-3, 3], np.int16), (shape[0], 1)), (1, shape[1]))
    if kind == "few":
        return np.where(rng.random(shape) < 0.02, rng.integers(-9, 9, shape), 0).astype(np.int16)
    drawn = rng.normal(size=shape) * rng.lognormal(4, 2, shape[1])
    return drawn.clip(-32767, 32767).astype(np.int16)


@pytest.mark.parametrize("channels", [2, 3, 16, 17, 40, 129])
@pytest.mark.parametrize("policy", ["0.05:0.5:0.9", "0:1:1", "0.3:0.3:0.7", "0:0.001:1"])
def test_the_channels_that_numpy_chooses_stay(channels: int, policy: str) -> None:
    """Over a run of samples, whose errors differ by many binary orders."""
    wanted = parse_tinyprop(policy)
    assert wanted
    rng = np.random.default_rng(channels)
    chosen = one_layer(channels, policy, stride=1 + channels % 2)
    g = chosen.geometry
    taps = taps_inside(g).reshape(-1, 1)
    largest = 0.0
    kinds = ("drawn", "ties", "zeros", "ends", "few", "drawn", "drawn", "few")
    damped = float(wanted.damping)  # the head is between it and the loss
    for i, kind in enumerate(kinds * 4):
        dy = drawn_errors(rng, kind, (g.out_positions, channels))
        exponent = int(rng.integers(-40, -20)) - i
        left, cost = chosen.run(dy, exponent)
        norms = np.abs(dy.astype(np.float64)).sum(0) * 2.0**exponent
        largest = max(largest * FORGOTTEN, norms.sum())
        part = norms.sum() / largest if largest else 0.0
        share = damped * (float(wanted.least) + part * float(wanted.most - wanted.least))
        count = int(left.any(0).sum())
        off = count - np.clip(channels * share, 1, channels)
        assert off <= 0.5 + channels * SHARE, (kind, i)
        if count < (norms > 0).sum():  # channels of zeros may stay, which nobody sees
            assert off >= -0.5 - channels * SHARE, (kind, i)
        order = np.argsort(-norms, kind="stable")[:count]
        mask = np.isin(np.arange(channels), order)
        np.testing.assert_array_equal(left, np.where(mask, dy, 0))
        assert cost == (np.count_nonzero(left, 1)[:, None] * taps).sum() * (5 + 1)


def test_of_equals_the_first_ones_stay() -> None:
    chosen = one_layer(16, "0.25:0.25:1")
    dy = np.full((chosen.geometry.out_positions, 16), -7, np.int16)
    dy[0, 5] = 8
    left, _ = chosen.run(dy, 0)
    assert np.flatnonzero(left.any(0)).tolist() == [0, 1, 2, 5]


def test_the_maximum_decays_and_survives_in_the_state() -> None:
    chosen = one_layer(16, "0:1:1")
    dy = np.full((chosen.geometry.out_positions, 16), 1000, np.int16)
    chosen.run(dy, 5)
    for _ in range(710):  # which halve it
        chosen.run(np.zeros_like(dy), -300)
    left, _ = chosen.run(dy // 4, 5)
    assert left.any(0).sum() == round(16 * 0.25 / FORGOTTEN**711)


def test_whatever_stands_in_the_state_is_a_number() -> None:
    chosen = one_layer(16, "0:1:1")
    slot: Any = chosen.op.words[3]
    dy = np.full((chosen.geometry.out_positions, 16), 3, np.int16)
    ends = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    for mantissa in ends:
        for exponent in ends:
            chosen.machine.slot(slot, np.uint32)[:] = mantissa, exponent
            left, _ = chosen.run(dy, 32767)
            assert 1 <= left.any(0).sum() <= 16


# Effort of whole steps ----------------------------------------------------------------------------


def counted(machine: Machine, plan: UpdatePlan, op: Operator, dy: Array) -> int:
    """Multiply-accumulates of both gradients that the errors dy cause, from the model alone."""
    graph = machine.graph
    g = conv_geometry(graph, op)
    dy = dy.reshape(g.out_h, g.out_w, g.out_c)
    costs = ((dy != 0) * taps_inside(g)[:, :, None]).sum((0, 1))  # of each output channel
    total = 0
    makes = {o.source for o in machine.ops if o.code.name.endswith("GRAD_INPUT")}
    weights = graph.tensor(op.inputs[1]).shape
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    if op.index in makes:
        whole = int(taps_inside(g).sum()) * g.out_c  # zeros too: kernels pass over none there
        total += whole if depthwise else int(costs.sum()) * weights[-1]
    layer = plan.layer(op.index)
    if layer and depthwise:
        record = next(r for r in machine.image.layers if r.operator == op.index)
        at, size = record.channels_at, 2 * layer.channels
        whole = layer.channels == input_channels(graph, op)
        chosen = (
            np.arange(layer.channels)
            if whole
            else np.frombuffer(bytes(machine.state[at : at + size]), np.uint16)
        )
        learns = np.isin(np.arange(g.out_c) // (g.out_c // g.in_c), chosen)
        total += int(costs[learns].sum())
    elif layer:
        total += int(costs.sum()) * layer.channels
    return total


def steps(case: str, seed: int) -> Iterator[tuple[Machine, UpdatePlan, Array, Any]]:
    """All channels and half of them; with a selection, and one that only counts."""
    drawn = draw(case, seed)
    whole = train_all(drawn.graph).layers
    half = tuple(replace(layer, channels=(layer.channels + 1) // 2) for layer in whole)
    biases = (*(replace(layer, channels=0) for layer in whole[:-1]), whole[-1])
    for layers in (whole, half, biases[1:], biases):
        for policy in ("0.1:0.6:0.9", "1:1:1"):
            plan = UpdatePlan(layers, tinyprop=policy)
            if layers and any(layer.channels or layer.bias for layer in layers):
                yield Machine(drawn.graph, plan), plan, drawn.x, drawn.target


@pytest.mark.parametrize("case", WEIGHTED)
def test_effort_is_what_numpy_counts(case: str) -> None:
    seen = 0
    for seed in range(12):
        for machine, plan, x, target in steps(case, seed):
            done = full = 0
            before: Op | None = None
            for _, op in machine.walk(x, target):
                if before and before.code == Code.SELECT_ERRORS:
                    source, buffer = machine.graph.operator(before.source), before.words[1]
                    assert isinstance(buffer, Buffer)
                    dy = machine.read(buffer, np.int16)
                    done += counted(machine, plan, source, dy)
                    full += counted(machine, plan, source, np.ones_like(dy))
                    seen += 1
                before = op
            assert effort_of(machine) == done
            assert machine.image.macs[1] == full
            assert machine.image.macs[0] == forward_macs(machine.graph)
    assert seen > 50


def forward_macs(graph: Graph) -> int:
    total = 0
    for op in graph.trainable:
        g, weights = conv_geometry(graph, op), graph.tensor(op.inputs[1]).shape
        each = 1 if op.kind == "DEPTHWISE_CONV_2D" else weights[-1]
        total += int(taps_inside(g).sum()) * g.out_c * each
    return total


@pytest.mark.parametrize("channels", [15, 16])
def test_errors_of_few_channels_stay(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the policy: they cost little (docs/DESIGN.md). Of 16 one is left of 0:0:1."""
    monkeypatch.undo()
    chosen = one_layer(channels, "0:0:1")
    dy = np.random.default_rng(channels).integers(1, 30000, (18, channels)).astype(np.int16)
    left, _ = chosen.run(dy, 0)
    assert (left != 0).any(0).sum() == (15 if channels == 15 else 1)


def test_counting_alone_changes_nothing_that_is_learnt() -> None:
    drawn = draw("CONV_2D", 3)
    learnt = []
    for policy in ("", "1:1:1"):
        machine = Machine(drawn.graph, replace(train_all(drawn.graph), tinyprop=policy))
        label = drawn.target if isinstance(drawn.target, int) else 1
        for i in range(5):
            machine.step(drawn.x, label, (40000, -22), i)
        weights: Any = [layer.weights for layer in machine.program.layers]
        learnt.append([machine.slot(slot, np.int8).tolist() for slot in weights])
    assert learnt[0] == learnt[1]


def test_a_bias_learns_from_all_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from those that are dropped, as in TinyProp: of a layer the biases move as they would
    without a selection, when nothing behind it was dropped."""
    monkeypatch.setattr(selection, "FEWEST_CHANNELS", 16)
    moved = []
    for policy in ("", "0:0:1"):
        chosen = one_layer(32, policy or "1:1:1")
        machine, second = chosen.machine, chosen.op.source
        machine.step(np.full((6, 3, 2), 50, np.int8), 1, (40000, -14))
        slot = next(layer.bias for layer in machine.program.layers if layer.operator == second)
        assert slot
        moved.append(machine.slot(slot, np.int32).tolist())
    assert moved[0] == moved[1]


def test_the_loss_tells_the_norm_of_its_gradient() -> None:
    net = Net((1, 20), seed=6)
    net.dense(7, scale=0.05)
    net.softmax()
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, UpdatePlan((LayerPlan(0, 20),)))
    for label in range(7):
        loss = machine.step(net.sample(), label, (0, 0))
        norm = struct.unpack_from("<i", machine.state, NORM)[0] / 65536
        assert abs(norm - 2 * (1 - np.exp(-loss))) < 1e-3


BAD = ("0.1", "0.1:0.5", "a:b:c", "0.5:0.1:1", "0:1:0", "0:1.1:1", "-1:1:1", "0:1:1/0", "1:1:1:1")


@pytest.mark.parametrize("text", BAD)
def test_other_policies_are_refused(text: str) -> None:
    with pytest.raises(SparsetuneError, match="give LEAST:MOST:DAMPING"):
        parse_tinyprop(text)
