"""Our integer gradients against the float64 reference, for every tensor that has one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import reference as ref
from gradient_cases import (
    ACTIVATIONS,
    CASES,
    DILATIONS,
    KERNELS,
    SIZES,
    STRIDES,
    ZEROS,
    Distance,
    compare,
    compare_net,
    distances,
    draw,
    sweep,
    train_all,
    worst_case,
)
from gradients import Gradients, Reference, cosine
from machine import Machine, litert_tensors
from real_models import NAMES, real_model
from small_models import RELU, Net
from sparsetune.graph import Graph, Operator, input_channels
from sparsetune.operators import KINDS
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.tflite import parse_tflite

pytestmark = pytest.mark.usefixtures("each_version")

COSINE = 0.99  # the bar of the issue
LENGTH = 0.05  # how far a gradient's length may be off, relative: some sums nearly cancel
LOSS = 1e-3  # relative where the loss is above 1
MODELS = 60  # of each case
ROWS = ("FULLY_CONNECTED", "SOFTMAX")  # work on rows, not on maps


def assert_close(graph: Graph, ours: Gradients, wanted: Gradients, hint: object) -> list[Distance]:
    found = list(distances(graph, ours, wanted))
    for d in found:
        assert d.cosine >= COSINE, (hint, d)
        assert abs(d.length_ratio - 1) <= LENGTH, (hint, d)
    assert abs(ours.loss - wanted.loss) < LOSS * max(1.0, wanted.loss), hint
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_operator(case: str) -> None:
    for seed, machine, ours, wanted in sweep(case, MODELS):
        found = assert_close(machine.graph, ours, wanted, seed)
        assert {d.what for d in found if d.kind in ("CONV_2D", "FULLY_CONNECTED")} == {
            "outputs",
            "weights",
            "biases",
        }
        trained = {op.index for op in machine.graph.trainable}
        assert trained == set(ours.weights) == set(ours.outputs) & trained


def test_the_sweep_is_not_all_zeros() -> None:
    """A gradient that is zero on both sides passes: see that this is not the rule."""
    means = []
    for case in CASES:
        alive = [bool(w.any()) for _, _, _, g in sweep(case, 10) for w in g.weights.values()]
        means.append(np.mean(alive))
        assert means[-1] > 0.4, case  # behind a RELU much is
    assert np.mean(means) > 0.75


def drawn_operators(kind: str) -> Iterator[tuple[Graph, Operator]]:
    """All operators of a kind in the models of test_every_operator."""
    for case in CASES:
        for seed in range(MODELS):
            graph = draw(case, seed).graph
            yield from ((graph, op) for op in graph.operators if op.kind == kind)


def test_every_kind_of_operator_is_swept_over_what_the_sweep_is_for() -> None:
    """A new kind cannot be forgotten; nor does chance leave out a size or a zero point."""
    for kind in KINDS:
        channels, extents, zeros = set(), set(), set()
        for graph, op in drawn_operators(kind):
            for index in (*KINDS[kind].activations(graph, op), *op.outputs):
                tensor = graph.tensor(index)
                channels.add(tensor.shape[-1])
                extents.update(tensor.shape[1:-1])
                zeros.add(tensor.zero_point)
        assert set(SIZES) <= channels, kind
        assert set(SIZES) <= extents or kind in ROWS, kind
        assert set(ZEROS) <= zeros, kind


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_windows_are_swept_over_strides_paddings_dilations_kernels(kind: str) -> None:
    found = defaultdict(set)
    for graph, op in drawn_operators(kind):
        o = op.options
        found["stride"].add((o["strideH"], o["strideW"]))
        found["padding"].add(o["padding"])
        found["activation"].add(o["fusedActivationFunction"])
        found["dilation"].add((o.get("dilationHFactor", 1), o.get("dilationWFactor", 1)))
        found["kernel"].add(
            graph.tensor(op.inputs[1]).shape[1:3]
            if "CONV" in kind
            else (o["filterHeight"], o["filterWidth"])
        )
    assert found["stride"] == {ref.pair(s) for s in STRIDES}
    assert found["padding"] == {0, 1}
    assert found["activation"] == set(ACTIVATIONS)
    assert found["dilation"] == ({ref.pair(d) for d in DILATIONS} if "CONV" in kind else {(1, 1)})
    assert found["kernel"] == {ref.pair(k) for k in KERNELS}


@pytest.mark.parametrize("unevenness", [1.0, 30.0, 1000.0])
def test_scales_that_differ_from_channel_to_channel(unevenness: float) -> None:
    net = Net((1, 8, 8, 3), seed=5, unevenness=unevenness)
    net.conv(12, 3, activation=RELU, zero=-128)
    net.depthwise(1, 3)
    net.conv(8, 1)
    net.flatten()
    net.dense(5, scales=[0.002], scale=0.03 if unevenness < 100 else 3.0)
    net.softmax()
    machine, ours, wanted = compare_net(net)
    assert_close(machine.graph, ours, wanted, unevenness)


@pytest.mark.parametrize("size", [32, 64, 112])
def test_large_maps(size: int) -> None:
    """The more positions a map has, the fewer bits an error tensor may use."""
    net = Net((1, size, size, 3), seed=12)
    net.conv(4, 1)
    net.conv(6, 3, activation=RELU, zero=-128)
    net.depthwise(1, 3)
    net.pool(size // 4, size // 4)
    net.flatten()
    net.dense(5, scale=0.03)
    net.softmax()
    machine, ours, wanted = compare_net(net)
    assert_close(machine.graph, ours, wanted, size)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "pool"])
def test_the_largest_sums_do_not_overflow(kind: str) -> None:
    net, x = worst_case(kind)
    model = net.to_bytes()
    graph = parse_tflite(model)
    ours, wanted = compare(model, Machine(graph, train_all(graph)), x, 0)
    assert min(np.abs(g).min() for g in wanted.outputs.values()) > 1e-3
    assert_close(graph, ours, wanted, kind)


def test_gradients_of_a_tensor_with_three_readers_add_up() -> None:
    net = Net((1, 5, 5, 4), seed=6)
    net.conv(6, 1)
    a = net.conv(6, 3)
    b = net.conv(6, 3)
    net.conv(6, 1)
    net.add(a)
    net.add(b)
    net.add(a)
    net.pool(2, 2)
    net.flatten()
    net.dense(5, scale=0.03)
    machine, ours, wanted = compare_net(net)
    assert_close(machine.graph, ours, wanted, None)


def test_a_branch_without_gradient_leaves_the_other_alone() -> None:
    """All of one branch is clamped away; the shortcut's gradient must come through unharmed."""
    net = Net((1, 6, 6, 4), seed=7)
    a = net.conv(8, 1)
    net.conv(8, 3, weights=np.full((8, 3, 3, 8), -127), activation=RELU, zero=-128, scale=1e-4)
    net.add(a)
    net.flatten()
    net.dense(5, scale=0.03)
    machine, ours, wanted = compare_net(net)
    assert_close(machine.graph, ours, wanted, None)


@pytest.mark.parametrize("channels", [1, 3, 11])
def test_chosen_channels_get_the_gradient_of_the_dense_update(channels: int) -> None:
    """The rest of the weights gets none."""
    net = Net((1, 7, 9, 12), zero=17, seed=8)
    net.conv(12, 3)
    net.depthwise(2, 3, zero=127)
    net.flatten()
    net.dense(5, scale=0.03)
    model = net.to_bytes()
    graph = parse_tflite(model)
    layers = [
        LayerPlan(op.index, min(channels, input_channels(graph, op))) for op in graph.trainable
    ]
    machine = Machine(graph, UpdatePlan(tuple(layers), residual=True))
    chosen = {}
    for layer in machine.program.layers:
        order = net.rng.permutation(layer.in_channels)[: layer.chosen]
        chosen[layer.operator] = np.sort(order)
        machine.slot(layer.channels, np.uint16)[:] = chosen[layer.operator]
    ours, wanted = compare(model, machine, net.sample(), 1)
    for index, gradient in wanted.weights.items():
        of = np.arange(gradient.shape[-1]) // (
            2 if graph.operator(index).kind.startswith("D") else 1
        )
        gradient[..., ~np.isin(of, chosen[index])] = 0
    assert_close(graph, ours, wanted, channels)


@pytest.mark.parametrize("residual", [True, False])
def test_bias_only_plan(residual: bool) -> None:
    net = Net((1, 4, 4, 3), seed=9)
    net.conv(4, 3)
    net.flatten()
    net.dense(5, scale=0.03)
    model = net.to_bytes()
    graph = parse_tflite(model)
    plan = UpdatePlan(tuple(LayerPlan(op.index, 0) for op in graph.trainable), residual)
    machine = Machine(graph, plan)
    ours, wanted = compare(model, machine, net.sample(), 3)
    assert not ours.weights and set(ours.biases) == {op.index for op in graph.trainable}
    assert_close(graph, ours, wanted, None)


def test_saturated_logits_are_pulled_back_but_not_pushed_out() -> None:
    net = Net((1, 20), seed=10)
    net.dense(4, scale=0.002)
    model = net.to_bytes()
    graph = parse_tflite(model)
    machine, x = Machine(graph, train_all(graph)), net.sample()
    logits = litert_tensors(model, x)[graph.logits].ravel()
    assert {-128, 127} <= set(logits.tolist())
    for label in range(4):
        ours, wanted = compare(model, machine, x, label)
        assert_close(graph, ours, wanted, label)


@pytest.mark.parametrize(
    "logits", [[127, 127, -128, 0], [-128, -128, -128, -128], [127, -128, -128, -127]]
)
@pytest.mark.parametrize("scale", [1e-3, 0.1, 0.25, 3.0, 20.0])
def test_loss_values(logits: list[int], scale: float) -> None:
    """From nothing to thousands of nats."""
    net = Net((1, 4), scale=1.0)
    net.dense(4, weights=np.eye(4), scales=[1.0], bias=False, scale=1.0)
    net.writer._tensors[net.at].quantization.scale = [scale]
    net.writer._tensors[1].quantization.scale = [scale]
    graph = replace(parse_tflite(net.to_bytes()), loss="softmax")
    machine = Machine(graph, train_all(graph))
    for label in range(4):
        x = np.array(logits, np.int8)
        values = {graph.input: x[None], graph.logits: x[None]}
        wanted = Reference(graph, values, label).result.loss
        assert abs(machine.step(x, label, (0, 0)) - wanted) < max(LOSS, 1e-6 * wanted)


@pytest.mark.parametrize("name", NAMES)
def test_whole_models_at_real_samples(name: str) -> None:
    """Every tensor from the loss to the first layer, sample after sample with the state (where
    the scales of error tensors start) that the last one left."""
    task = real_model(name, 8)
    graph = parse_tflite(task.model)
    machine = Machine(graph, train_all(graph))
    for i, (x, label) in enumerate(zip(task.x, task.y, strict=True)):
        ours, wanted = compare(task.model, machine, x, int(label))
        found = assert_close(graph, ours, wanted, (name, i))
        assert {d.operator for d in found} == {
            op.index for op in graph.operators if op.kind not in ("RESHAPE", "SOFTMAX")
        }


@pytest.mark.parametrize("name", NAMES)
def test_confident_and_lost_samples_in_turn(name: str) -> None:
    """The scale of one sample's gradient must not spoil the next one's."""
    task = real_model(name, 40)
    graph = parse_tflite(task.model)
    machine = Machine(graph, train_all(graph))
    losses = [machine.step(x, int(y), (0, 0)) for x, y in zip(task.x, task.y, strict=True)]
    order = np.argsort(losses)
    for i in (order[-1], order[0], order[-2], order[1]):
        ours, wanted = compare(task.model, machine, task.x[i], int(task.y[i]))
        assert_close(graph, ours, wanted, (name, losses[i]))


def test_a_wrong_gradient_is_noticed() -> None:
    """The measurement itself: a reference for another label is far away."""
    machine, ours, _ = compare_net(CASES["CONV_2D"](np.random.default_rng(3)), 2)
    _, other, _ = compare_net(CASES["CONV_2D"](np.random.default_rng(3)), 4)
    assert max(cosine(ours.weights[i], other.weights[i]) for i in ours.weights) < COSINE
