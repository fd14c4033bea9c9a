"""Functions of one value and the maximum of a window: bit for bit LiteRT's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradient_cases import ACTIVATIONS, ZEROS, random_map, random_window
from machine import Machine
from small_models import Net
from sparsetune.errors import SparsetuneError
from sparsetune.litert import predict
from sparsetune.tflite import parse_tflite
from test_kernels import assert_bit_exact, draws

KINDS = ("RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE", "HARD_SWISH", "LOGISTIC", "TANH")
ALL = np.arange(-128, 128, dtype=np.int8)[None]


def assert_all_256(net: Net) -> None:
    model = net.to_bytes()
    np.testing.assert_array_equal(Machine(model).infer(ALL[0]), predict(model, ALL)[0].ravel())


@pytest.mark.parametrize("kind", [*KINDS, "LEAKY_RELU"])
def test_every_input_of_a_function(kind: str) -> None:
    for rng in draws(len(kind), 400):
        scale = float(np.float32(10 ** rng.uniform(-4, 3)))
        net = Net((1, 256), int(rng.integers(-128, 128)), scale=scale)
        out = float(np.float32(scale * 10 ** rng.uniform(-0.7, 0.7)))
        zero = int(rng.integers(-128, 128))
        if kind == "LEAKY_RELU":
            net.leaky_relu(float(np.float32(rng.uniform(0, 1))), zero, out)
        else:
            net.unary(kind, zero, out)
        assert_all_256(net)


@pytest.mark.parametrize("kind", [*KINDS[:4], "LEAKY_RELU"])
@pytest.mark.parametrize("scales", [(0.1, 0.16), (0.04, 0.064), (0.5, 1.0), (0.25, 2), (1.0, 0.4)])
def test_ties(kind: str, scales: tuple[float, float]) -> None:
    for zero in (-128, -3, 17, 127):
        net = Net((1, 256), zero, scale=scales[0])
        if kind == "LEAKY_RELU":
            net.leaky_relu(0.3, 17, scales[1])
        else:
            net.unary(kind, 17, scales[1])
        assert_all_256(net)


def test_in_place_and_with_another_reader() -> None:
    """The value before the function is needed again: it must not be written over."""
    for again in (False, True):
        net = Net((1, 4, 4, 3), seed=2)
        x = net.conv(5, 1, scale=0.03)
        net.unary("HARD_SWISH")
        if again:
            net.add(x)
        assert_bit_exact(net)


def test_a_sigmoid_with_a_scale_of_its_own_is_refused() -> None:
    net = Net((1, 8))
    net.unary("LOGISTIC")
    q = net.writer._tensors[net.at].quantization
    q.scale = [0.01]
    with pytest.raises(SparsetuneError, match="LOGISTIC.*output scale"):
        parse_tflite(net.to_bytes())


@pytest.mark.parametrize("block", range(3))
def test_max_pool(block: int) -> None:
    for rng in draws(60 + block, 30):
        net = random_map(rng)
        window: dict[str, Any] = random_window(rng, *net.shapes[net.at][1:3])
        window.pop("dilation")
        sizes = np.broadcast_to(window["kernel"], 2)
        window["same"] |= bool((sizes > net.shapes[net.at][1:3]).any())
        net.pool(**window, activation=ACTIVATIONS[rng.integers(4)], kind="MAX")
        assert_bit_exact(net)


def test_max_pool_of_the_largest_window() -> None:
    net = Net((1, 16, 16, 3), zero=ZEROS[2])
    net.pool(16, kind="MAX")
    assert_bit_exact(net)
    net = Net((1, 1, 300, 3))
    net.pool((1, 257), kind="MAX")
    with pytest.raises(SparsetuneError, match="at most 256"):
        parse_tflite(net.to_bytes())
