"""ADD, SUB, MUL with broadcasting and MEAN: bit for bit LiteRT's."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_cases import ACTIVATIONS, SIZES, ZEROS, broadcast_shape, compare_net, random_map
from small_models import RELU, Net
from sparsetune.errors import SparsetuneError
from sparsetune.operators.elementwise import Axis, axes_of
from sparsetune.tflite import parse_tflite
from test_gradients import assert_close
from test_kernels import assert_bit_exact, draws

pytestmark = pytest.mark.usefixtures("each_version")


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("other", ["tensor", "constant"])
def test_two_operands(kind: str, other: str) -> None:
    for rng in draws(ord(kind[0]) + len(other), 40):
        net = random_map(rng)
        x = net.at
        shape = broadcast_shape(rng, net.shapes[x])
        if other == "constant":
            second = net.constant(shape, int(rng.choice(ZEROS)), float(rng.choice((0.001, 0.3))))
        else:
            axes = tuple(i for i in (1, 2) if shape[i] == 1)
            net.conv(shape[3], 1, zero=int(rng.choice(ZEROS)))
            second = net.mean(axes, True) if axes else net.at
        net.at = x
        scale = float(rng.choice((0.0, 0.004, 0.05, 2.0)))
        activation = ACTIVATIONS[rng.integers(4)]
        rest = {"scale": scale, "activation": activation, "swapped": bool(rng.integers(2))}
        net.binary(kind, second, int(rng.choice(ZEROS)), **rest)
        assert_bit_exact(net)


def test_operands_of_lower_rank() -> None:
    for shape in ((5,), (1,), (4, 5), (3, 1, 5)):
        net = Net((1, 3, 4, 5), zero=9)
        net.binary("MUL", net.constant(shape, -3))
        assert_bit_exact(net)


def test_mean() -> None:
    for rng in draws(70, 80):
        net = random_map(rng)
        axes = ((1, 2), (1,), (2,), (3,), (2, 3), (1, 2, 3), (-1,), (2, 1))[rng.integers(8)]
        zero = None if rng.integers(2) else int(rng.choice(ZEROS))
        net.mean(axes, bool(rng.integers(2)), zero)
        assert_bit_exact(net)


def test_mean_of_large_maps() -> None:
    for shape in ((1, 128, 128, 3), (1, 255, 1, 2)):
        net = Net(shape, zero=-100)
        net.mean((1, 2), True, 20)
        assert_bit_exact(net)


def test_axes_that_are_not_neighbours_are_refused() -> None:
    net = Net((1, 3, 4, 5))
    net.mean((1, 3), True)
    with pytest.raises(SparsetuneError, match="not neighbours"):
        parse_tflite(net.to_bytes())


def test_axes_by_hand() -> None:
    assert axes_of((1, 4, 5, 6), ((1, 4, 5, 6), (1, 4, 5, 6))) == [Axis(120, (1, 1))]
    per_channel = axes_of((1, 4, 5, 6), ((1, 4, 5, 6), (1, 1, 1, 6)))
    assert per_channel == [Axis(20, (6, 0)), Axis(6, (1, 1))]
    per_pixel = axes_of((1, 4, 5, 6), ((1, 4, 5, 6), (1, 4, 5, 1)))
    assert per_pixel == [Axis(20, (6, 1)), Axis(6, (1, 0))]


def squeeze_and_excite(seed: int) -> Net:
    """The block of MobileNetV3."""
    net = Net((1, 9, 7, 3), zero=5, seed=seed)
    net.conv(int(SIZES[seed % 6]) + 3, 3, activation=RELU, zero=-128)
    x = net.unary("HARD_SWISH", scale=0.03)
    net.mean((1, 2), True)
    net.conv(4, 1, activation=RELU, zero=-128)
    net.conv(net.shapes[x][3], 1, scale=0.05)
    gate = net.unary("LOGISTIC")
    net.at = x
    net.binary("MUL", gate, zero=-20)
    net.conv(6, 1)
    net.mean((1, 2), False)
    net.dense(5, scale=0.03)
    net.softmax()
    return net


@pytest.mark.parametrize("seed", range(6))
def test_squeeze_and_excite_runs_and_trains(seed: int) -> None:
    assert_bit_exact(squeeze_and_excite(seed))
    machine, ours, wanted = compare_net(squeeze_and_excite(seed))
    found = assert_close(machine.graph, ours, wanted, seed)
    assert {d.operator for d in found if d.what == "weights"} == {
        op.index for op in machine.graph.trainable
    }
    assert all(np.any(w) for w in wanted.weights.values())
