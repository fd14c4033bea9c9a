"""Graphs that are not a plain chain: forks, tensors used twice, outputs in odd places."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_cases import compare_net
from machine import Machine
from small_models import RELU, Net
from sparsetune.litert import predict
from sparsetune.plan import default_plan
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
