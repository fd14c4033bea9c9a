"""Kept activations in codes of 2 bits (ulab_kernels/activation.c), against float64."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from gradient_cases import train_all
from gradients import Reference, measure
from machine import Array, Machine, litert_tensors
from small_models import Net
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph
from sparsetune.kept import kept_share, with_kept
from sparsetune.plan import LayerPlan, UpdatePlan, check_plan, default_plan
from sparsetune.program import Buffer, Code
from sparsetune.tflite import parse_tflite
from test_gradients import assert_close
from test_patches import held, walked

LABEL = 1
SHAPES = ((1, 1, 1, 1), (1, 1, 2, 3), (1, 3, 3, 5), (1, 5, 4, 9), (1, 8, 8, 24), (1, 17, 13, 31))
FILLS = ("normal", "skewed", "few", "ends", "constant", "lowest")


def filled(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng((len(kind), seed))
    if kind == "normal":
        values = rng.normal(rng.integers(-40, 40), rng.uniform(1, 50), shape)
    elif kind == "skewed":  # as behind a ReLU
        values = np.maximum(rng.normal(-150, 60, shape), -128)
    elif kind == "few":
        values = rng.integers(-2, 2, shape) + 9.0
    elif kind == "ends":
        values = rng.choice((-128.0, 127.0), shape)
    else:
        values = np.full(shape, -128.0 if kind == "lowest" else 5.0)
    return np.clip(np.rint(values), -128, 127).astype(np.int8)


def reference_levels(x: Array) -> Array:
    """What each value is read as, by the words of activation.h."""
    x = x.astype(np.float64)
    mean = np.floor(x.mean() + 0.5)
    distance = np.abs(x - mean).sum()
    far = (distance + distance // 4 + x.size // 2) // x.size
    codes = np.select([x < mean - far, x < mean, x <= mean + far], [0, 1, 2], 3)
    levels = np.array([np.floor(x[codes == k].mean() + 0.5) if (codes == k).any() else mean
                       for k in range(4)])  # fmt: skip
    return levels[codes]


def coded(net: Net, channels: int, operator: int = 0) -> UpdatePlan:
    """The first layer keeps codes of so many channels; all that is behind it learns as it does."""
    graph = parse_tflite(net.to_bytes())
    layers = [replace(p, channels=channels, kept_bits=2) if p.operator == operator else p
              for p in train_all(graph).layers]  # fmt: skip
    return replace(train_all(graph), layers=tuple(layers), residual=True)


def first_layer(kind: str, shape: tuple[int, ...], seed: int) -> Net:
    net = Net(shape, -7, seed)
    if kind == "depthwise":
        net.depthwise(1, 3)
    else:
        net.conv(6, 3 if kind == "conv 3x3" else 1)
    net.flatten()
    net.dense(4, scale=0.03)
    return net


def decoded(machine: Machine, x: Array) -> tuple[Array, Array]:
    """What was encoded in the first layer, and what is read for it."""
    encodes = walked(machine, x, LABEL, Code.ENCODE_KEPT)
    ((op, values),) = [(op, held(before, op.words[0], np.int8)) for op, before in encodes]
    return values, read_again(machine, x, op.source)


def read_again(machine: Machine, x: Array, source: int) -> Array:
    decodes = walked(machine, x, LABEL, Code.DECODE_KEPT)
    for op, _ in decodes:
        if op.source == source:
            assert isinstance(op.words[0], Buffer)
            return machine.read(op.words[0], np.int8)
    raise AssertionError("nothing was decoded")


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_is_read_as_the_mean_of_its_code(shape: tuple[int, ...], fill: str) -> None:
    for channels in sorted({1, (shape[-1] + 1) // 2, shape[-1]}):
        net = first_layer("conv 1x1", shape, channels)
        machine = Machine(parse_tflite(net.to_bytes()), coded(net, channels))
        values, ours = decoded(machine, filled(fill, shape, channels))
        assert values.size == np.prod(shape[:3]) * channels
        np.testing.assert_array_equal(ours, reference_levels(values))


def test_little_is_lost_of_a_normal_distribution() -> None:
    """Four levels lose 0.1175 of the variance at best (Max 1960); what is lost adds up to nothing
    along what is kept, so that a gradient keeps its direction."""
    net = first_layer("conv 1x1", (1, 32, 32, 16), 3)
    machine = Machine(parse_tflite(net.to_bytes()), coded(net, 16))
    x = np.clip(np.rint(np.random.default_rng(1).normal(3, 30, net.shapes[0])), -128, 127)
    values, ours = decoded(machine, x.astype(np.int8))
    lost = ours - values
    assert 0.1 < lost.var() / values.var() < 0.13
    centred = ours - ours.mean()
    assert abs((lost * centred).mean()) < 0.01 * values.var()


@pytest.mark.parametrize("kind", ["conv 1x1", "conv 3x3", "depthwise"])
def test_weights_gradients_are_those_of_what_is_read(kind: str) -> None:
    """All else is exact."""
    for seed in range(12):
        shape = (1, 5 + seed % 3, 6, 8 + seed)
        net = first_layer(kind, shape, seed)
        model, x = net.to_bytes(), filled("normal", shape, seed)
        graph = parse_tflite(model)
        machine = Machine(graph, coded(net, shape[-1]))
        values = litert_tensors(model, x)
        exact = Reference(graph, values, LABEL).result
        tensor = graph.operators[0].inputs[0]
        values[tensor] = reference_levels(x).reshape(shape).astype(np.int8)
        wanted = Reference(graph, values, LABEL).result
        assert_close(machine.graph, measure(machine, x, LABEL, wanted), wanted, (kind, seed))
        np.testing.assert_allclose(wanted.biases[0], exact.biases[0])
        assert not np.allclose(wanted.weights[0], exact.weights[0])


def huge() -> Graph:
    """Its first layer's four channels are more than codes are made for, three are not."""
    net = Net((1, 520, 520, 4), seed=1)
    net.depthwise(1, 3, stride=2)
    net.conv(6, 3, stride=2)
    net.mean((1, 2), False)
    net.dense(3)
    return parse_tflite(net.to_bytes())


def test_what_is_too_much_for_codes_has_patches() -> None:
    graph = huge()
    check_plan(graph, UpdatePlan((LayerPlan(0, 3, kept_bits=2),)))
    plan = with_kept(graph, default_plan(graph, 3, 1.0), 20)
    first, second, _ = plan.layers
    assert (first.kept_bits, first.patch) == (8, 2) and second.kept_bits == 2
    check_plan(graph, plan)
    assert kept_share(graph, plan) <= 20


@pytest.mark.parametrize("count", [0, -1, -(2**31), 2**20 + 1, 2**31 - 1])
@pytest.mark.parametrize("code", [Code.ENCODE_KEPT, Code.DECODE_KEPT])
def test_counts_that_no_codes_have(code: Code, count: int) -> None:
    """Of nothing there is no mean; beyond 2^20 sums would overflow."""
    shape = (1, 5, 7, 13)
    net = first_layer("conv 1x1", shape, 1)
    machine = Machine(parse_tflite(net.to_bytes()), coded(net, 13))
    data = bytearray(machine.image.data)
    words = struct.pack("<i", int(np.prod(shape)))
    (at,) = (i for i in range(0, len(data) - 20, 4)
             if data[i] == code and data[i + 16 : i + 20] == words)  # fmt: skip
    struct.pack_into("<i", data, at + 16, count)
    machine.image = replace(machine.image, data=bytes(data))
    machine.arena = bytearray(4 << 20)  # has room for the larger ones
    machine.control(LABEL)
    machine.load(filled("normal", shape, 1))
    with pytest.raises(ValueError, match="impossible parameters|outside its buffers") as error:
        machine.run(0, len(machine.ops))
    if count in (0, 2**20 + 1):  # which nothing else would notice
        assert "impossible parameters" in str(error.value)


def test_what_codes_take() -> None:
    """1 KB of counts while codes are made, and whatever is read while the weights learn."""
    net = first_layer("conv 1x1", (1, 5, 7, 13), 1)
    machine = Machine(parse_tflite(net.to_bytes()), coded(net, 6))
    words = {op.code: op.words for op in machine.ops}
    sizes = [[word.size for word in words[code] if isinstance(word, Buffer)]
             for code in (Code.ENCODE_KEPT, Code.DECODE_KEPT)]  # fmt: skip
    kept, codes = 5 * 7 * 6, 4 + -(-5 * 7 * 6 // 4)
    assert sizes == [[kept, codes, 1024], [kept, codes]]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (LayerPlan(0, 4, kept_bits=4), "keeps 4 bits .* choose 2 or 8"),
        (LayerPlan(0, 0, kept_bits=2), "do not learn: set kept_bits to 8"),
        (LayerPlan(0, 4, kept_bits=2), "keeps more than 1,048,576 activations, too many for codes"),
    ],
)
def test_what_cannot_be_is_refused(layer: LayerPlan, words: str) -> None:
    graph = huge()
    with pytest.raises(SparsetuneError, match=words):
        check_plan(graph, UpdatePlan((layer,)))
