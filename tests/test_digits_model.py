"""The tool that makes the demo's model: its gradients, its quantisation, its file."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="SKIP: scikit-learn is not installed (extra: demo)")

from ai_edge_litert import schema_py_generated as schema
from sparsetune.litert import predict
from sparsetune_tools import digits_model
from sparsetune_tools import numpy_net as net
from sparsetune_tools.quantise import to_tflite


@pytest.fixture()
def network() -> net.Network:
    made = digits_model.build(np.random.default_rng(3))
    for layer in made.trainable():
        layer.bias += np.linspace(-0.1, 0.2, len(layer.bias), dtype=np.float32)
    return made


@pytest.fixture()
def images() -> net.Array:
    return np.random.default_rng(4).random((8, 16, 16, 1), np.float32)


def test_gradients_agree_with_finite_differences(network: net.Network, images: net.Array) -> None:
    y = np.arange(8, dtype=np.uint8)
    _to_float64(network)
    images = images.astype(np.float64)
    _, gradient = net.softmax_gradient(network.forward(images), y, 0.1)
    network.backward(gradient)
    rng = np.random.default_rng(5)
    for index, layer in enumerate(network.trainable()):
        for name in ("weights", "bias"):
            direction = rng.standard_normal(getattr(layer, name).shape)
            analytic = float((getattr(layer, name + "_gradient") * direction).sum())
            slope = _slope(network, index, name, direction, images, y)
            assert analytic == pytest.approx(slope, rel=1e-4, abs=1e-8), (index, name)


def test_int8_file_computes_what_the_float_network_does(
    network: net.Network, images: net.Array
) -> None:
    x = np.rint(images * 255 - 128).astype(np.int8)
    logits = network.forward(digits_model.to_real(x))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    scores = predict(to_tflite(network, images, "test"), x)
    np.testing.assert_allclose((scores.astype(float) + 128) / 256, p, atol=0.05)


def test_buffers_start_at_multiples_of_16(network: net.Network, images: net.Array) -> None:
    content = to_tflite(network, images, "test")
    model = schema.Model.GetRootAsModel(content, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(starts) == 17
    assert not any(start % 16 for start in starts)


def test_few_batches_lower_the_loss(network: net.Network) -> None:
    raw, labels = digits_model.digits.load()
    x = digits_model.digits.photograph(raw[:32], digits_model.digits.NORMAL) / np.float32(255)
    optimiser, losses = net.Adam(network.trainable()), []
    for _ in range(15):
        loss, gradient = net.softmax_gradient(network.forward(x), labels[:32])
        network.backward(gradient)
        optimiser.step(3e-3)
        losses.append(loss)
    assert losses[-1] < 0.8 * losses[0]


def _slope(
    network: net.Network,
    index: int,
    name: str,
    direction: net.Array,
    images: net.Array,
    y: np.ndarray,
    step: float = 1e-6,
) -> float:
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        layer = moved.trainable()[index]
        setattr(layer, name, getattr(layer, name) + sign * step * direction)
        losses.append(net.softmax_gradient(moved.forward(images), y, 0.1)[0])
    return (losses[0] - losses[1]) / (2 * step)


def _to_float64(network: net.Network) -> None:
    for layer in network.trainable():
        layer.weights = layer.weights.astype(np.float64)
        layer.bias = layer.bias.astype(np.float64)
