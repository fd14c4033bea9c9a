"""Graphs that are not a plain chain: forks, tensors used twice, outputs in odd places."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from gradient_cases import compare_net
from machine import Machine
from small_models import RELU, Net
from sparsetune.compile import compile_image
from sparsetune.errors import SparsetuneError
from sparsetune.litert import predict
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.tflite import parse_tflite
from test_gradients import assert_close


def check(net: Net) -> None:
    """Gradients against the reference, and inference against LiteRT with the training plan."""
    machine, ours, wanted = compare_net(net)
    assert_close(machine.graph, ours, wanted, "graph")
    model = net.to_bytes()
    trained = Machine(model, default_plan(parse_tflite(model), 2))
    x = net.sample()
    np.testing.assert_array_equal(trained.infer(x[0]), predict(model, x).ravel())


def classify(net: Net) -> Net:
    net.flatten()
    net.dense(5)
    net.softmax()
    return net


def test_add_of_a_tensor_to_itself() -> None:
    net = Net((1, 6, 6, 4), zero=3)
    net.conv(4, 3, activation=RELU, zero=-128)
    net.add(net.at)
    check(classify(net))


def test_fork_before_trained_branches_of_different_depth() -> None:
    net = Net((1, 6, 6, 4))
    fork = net.conv(6, 3, activation=RELU, zero=-128)
    net.conv(6, 3)
    net.conv(6, 1)
    long = net.at
    net.at = fork
    net.depthwise(1, 3)
    net.add(long, activation=RELU, zero=-128)
    net.add(fork)
    check(classify(net))


def test_add_of_the_input() -> None:
    """The model's input is an operand of ADD: its memory must not be written over too early."""
    net = Net((1, 5, 5, 4))
    source = net.at
    net.conv(4, 3)
    net.add(source)
    net.conv(4, 3)
    net.add(source)
    check(classify(net))


def test_reshapes_in_a_row_and_back() -> None:
    net = Net((1, 4, 4, 4))
    net.conv(8, 1, activation=RELU, zero=-128)
    net.reshape((1, 16, 8, 1))
    net.reshape((1, 4, 4, 8))
    net.conv(4, 3)
    check(classify(net))


def test_no_softmax_at_the_end() -> None:
    net = Net((1, 4, 4, 4))
    net.conv(8, 3, activation=RELU, zero=-128)
    net.flatten()
    net.dense(5)
    check(net)


def test_an_output_that_is_not_the_last_operators() -> None:
    """Operators behind the one that makes the output must not write over it."""
    net = Net((1, 4, 4, 4))
    net.conv(8, 3)
    net.flatten()
    net.dense(5)
    output = net.softmax()
    net.at = net.source
    for _ in range(3):
        net.conv(4, 3)
    net.at = output
    model, x = net.to_bytes(), net.sample()
    np.testing.assert_array_equal(Machine(model).infer(x[0]), predict(model, x).ravel())


@pytest.mark.parametrize("logit", [-128, 127])
def test_saturated_logits_behind_a_reshape_come_back(logit: int) -> None:
    """All logits at one end: the label's (or the others') must still get a gradient."""
    net = Net((1, 1, 1, 3))
    bias = np.full(4, logit * 1_000_000, np.int32)
    net.conv(4, 1, weights=np.ones((4, 1, 1, 3)), bias=bias, scale=0.05)
    net.reshape((1, 4))
    net.softmax()
    model = net.to_bytes()
    machine = Machine(model, default_plan(parse_tflite(model), 1, 1.0))
    layer = machine.program.layers[0]
    assert layer.bias
    before = machine.slot(layer.bias, np.int32).copy()
    machine.step(net.sample()[0], 2, (1 << 15, -15))
    moved = machine.slot(layer.bias, np.int32) - before
    inward = moved > 0 if logit < 0 else moved < 0
    assert inward.any() and not (moved[~inward] != 0).any()


def test_softmax_in_front_of_a_reshape_is_the_loss() -> None:
    net = Net((1, 4, 4, 4))
    net.conv(8, 3, activation=RELU, zero=-128)
    net.flatten()
    net.dense(6)
    net.softmax()
    plain = Machine(net.to_bytes(), default_plan(parse_tflite(net.to_bytes()), 1))
    net.reshape((1, 2, 3))
    shaped = Machine(net.to_bytes(), default_plan(parse_tflite(net.to_bytes()), 1))
    x = net.sample()[0]
    assert shaped.step(x, 2, (0, 0)) == plain.step(x, 2, (0, 0))
    check(net)


def test_operators_behind_the_logits_do_not_write_over_them() -> None:
    net = Net((1, 8))
    logits = net.dense(5)
    output = net.softmax()
    net.at = logits
    net.add(logits)  # would like to work in place
    net.at = output
    check(net)


def with_tensors(model: bytes, operator: int, inputs: dict[int, int]) -> bytes:
    """The model with some inputs of an operator replaced: position -> tensor."""
    unpacked = schema.ModelT.InitFromPackedBuf(model, 0)
    op = unpacked.subgraphs[0].operators[operator]
    op.inputs = [inputs.get(i, int(tensor)) for i, tensor in enumerate(op.inputs)]
    builder = Builder(1024)
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_layers_that_share_weights_stay_frozen() -> None:
    """The file has one place for what both would learn."""
    net = Net((1, 4, 4, 4))
    net.conv(4, 1)
    net.conv(4, 1)
    classify(net)
    first = parse_tflite(net.to_bytes()).operators[0].inputs[1]
    graph = parse_tflite(with_tensors(net.to_bytes(), 1, {1: first}))
    assert [op.kind for op in graph.trainable] == ["FULLY_CONNECTED"]
    with pytest.raises(SparsetuneError, match="no weights of its own"):
        compile_image(graph, UpdatePlan((LayerPlan(1, 4),)))


LAYERS = {"conv": {"channels": 3}, "depthwise": {"kernel": 3}, "dense": {"outputs": 3}}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_factor_that_no_kernel_takes_is_refused(kind: str) -> None:
    net = Net((1, 8) if kind == "dense" else (1, 4, 4, 8))
    getattr(net, kind)(**LAYERS[kind], scale=1e-14)
    with pytest.raises(SparsetuneError, match="output scale far below its inputs'"):
        Machine(net.to_bytes())


def test_sums_beyond_32_bits_are_refused() -> None:
    """LiteRT's FULLY_CONNECTED saturates there, ours wraps; short of it both are equal."""
    x = np.random.default_rng(4).integers(-128, 128, (100, 64), np.int8)
    models = {}
    for scale in (5e-8, 1e-9):
        net = Net((1, 64), seed=3)
        net.dense(6, scale=scale)
        models[scale] = net.to_bytes()
    machine = Machine(models[5e-8])
    ours = np.concatenate([machine.infer(sample[None]).reshape(1, -1) for sample in x])
    np.testing.assert_array_equal(ours, predict(models[5e-8], x))
    assert set(np.unique(ours)) == {-128, 127}
    with pytest.raises(SparsetuneError, match="sums beyond 32 bits"):
        Machine(models[1e-9])


def test_a_layer_that_the_output_does_not_depend_on_is_refused() -> None:
    net = Net((1, 8))
    net.dense(5)
    output = net.softmax()
    net.at = net.source
    aside = net.operators
    net.dense(4)
    net.at = output
    graph = parse_tflite(net.to_bytes())
    assert [op.index for op in graph.trainable] == [0]
    with pytest.raises(SparsetuneError, match="the output depends on"):
        compile_image(graph, UpdatePlan((LayerPlan(aside, 8),)))
