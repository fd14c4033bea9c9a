"""Small random models for every operator, and how far our gradients are from the reference in
them. Shared by test_gradients.py and bench/gradients.py."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import permutations
from typing import Any

import numpy as np
import reference as ref
from gradients import Gradients, Reference, cosine, length_ratio, measure
from machine import Machine, litert_tensors
from small_models import NONE, RELU, RELU6, RELU_N1_TO_1, Array, Net
from sparsetune.graph import Graph, input_channels
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.tflite import parse_tflite

SIZES = (1, 3, 7, 8, 12, 17)
ZEROS = (-128, 0, 17, 127)
ACTIVATIONS = (NONE, RELU, RELU6, RELU_N1_TO_1)
RESIZINGS = ((False, False), (True, False), (False, True))  # align corners, half pixel centres
KERNELS = (1, 2, 3, 5, (1, 3), (5, 2))
STRIDES: tuple[Any, ...] = (1, 2, (2, 1), (1, 2))
DILATIONS: tuple[Any, ...] = (1, 1, 2, (2, 1))
CLASSES = 6


@dataclass(frozen=True)
class Distance:
    """Of one tensor's gradient from the reference. what: outputs, weights or biases."""

    operator: int
    kind: str
    what: str
    cosine: float
    length_ratio: float


def distances(graph: Graph, ours: Gradients, wanted: Gradients) -> Iterator[Distance]:
    """For every tensor that our program made a gradient of."""
    for what in ("outputs", "weights", "biases"):
        for index, values in getattr(ours, what).items():
            wanted_values = getattr(wanted, what)[index]
            yield Distance(
                index,
                graph.operator(index).kind,
                what,
                cosine(values, wanted_values),
                length_ratio(values, wanted_values),
            )


def train_all(graph: Graph) -> UpdatePlan:
    """Every layer, all channels, with residuals to measure by."""
    layers = [LayerPlan(op.index, input_channels(graph, op)) for op in graph.trainable]
    biased = [
        LayerPlan(p.operator, p.channels, graph.bias_of(op) is not None)
        for p, op in zip(layers, graph.trainable, strict=True)
    ]
    return UpdatePlan(tuple(biased), residual=True)


def compare(
    model: bytes, machine: Machine, x: Array, label: int | Array, smoothing: float = 0.0
) -> tuple[Gradients, Gradients]:
    """(ours, the reference's) for one sample; the forward pass of the reference is LiteRT's."""
    wanted = Reference(machine.graph, litert_tensors(model, x), label, smoothing).result
    return measure(machine, x, label, wanted), wanted


def compare_net(net: Net, label: int = 2) -> tuple[Machine, Gradients, Gradients]:
    model = net.to_bytes()
    graph = parse_tflite(model)
    machine = Machine(graph, train_all(graph))
    return machine, *compare(model, machine, net.sample(), label)


# One model around each operator. A trained layer stands before it, so that the gradient of its
# input is made, and a fully connected layer behind it spreads the gradient over its output.


def random_window(rng: Any, height: int, width: int) -> dict[str, Any]:
    """kernel, stride, dilation, padding that fit a map."""
    kernel, stride, dilation = (c[rng.integers(len(c))] for c in (KERNELS, STRIDES, DILATIONS))
    spans = [(k - 1) * d + 1 for k, d in zip(ref.pair(kernel), ref.pair(dilation), strict=True)]
    same = bool(rng.integers(2)) or spans[0] > height or spans[1] > width
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "same": same}


def random_output(rng: Any) -> dict[str, Any]:
    """Fused activation, zero point, and a scale for which the activation clamps something."""
    activation = ACTIVATIONS[rng.integers(4)]
    scale = float(rng.uniform(0.02, 0.08)) if activation > RELU else 0.0
    return {"activation": activation, "zero": int(rng.choice(ZEROS)), "scale": scale}


def random_map(rng: Any) -> Net:
    shape = (1, *(int(rng.choice(SIZES)) for _ in range(3)))
    return Net(shape, int(rng.choice(ZEROS)), int(rng.integers(1 << 30)))


def _finish(net: Net) -> Net:
    net.flatten()
    net.dense(CLASSES, scale=0.03)
    net.softmax()
    return net


def conv_case(rng: Any) -> Net:
    net = random_map(rng)
    net.conv(int(rng.choice(SIZES)), 1, zero=int(rng.choice(ZEROS)))
    net.conv(
        int(rng.choice(SIZES)), **random_window(rng, *net.shapes[net.at][1:3]), **random_output(rng)
    )
    return _finish(net)


def grouped_case(rng: Any) -> Net:
    net = random_map(rng)
    groups = int(rng.choice((2, 3, 4)))
    net.conv(groups * int(rng.choice((1, 2, 5))), 1, zero=int(rng.choice(ZEROS)))
    window = random_window(rng, *net.shapes[net.at][1:3])
    net.conv(groups * int(rng.choice((1, 3))), groups=groups, **window, **random_output(rng))
    return _finish(net)


def depthwise_case(rng: Any) -> Net:
    net = random_map(rng)
    net.conv(int(rng.choice(SIZES)), 1, zero=int(rng.choice(ZEROS)))
    multiplier = int(rng.choice((1, 1, 2, 3)))
    net.depthwise(multiplier, **random_window(rng, *net.shapes[net.at][1:3]), **random_output(rng))
    return _finish(net)


def fully_connected_case(rng: Any) -> Net:
    rows = int(rng.choice((1, 1, 3)))
    shape = (1, rows, int(rng.choice(SIZES)))
    net = Net(shape, int(rng.choice(ZEROS)), int(rng.integers(1 << 30)))
    net.dense(int(rng.choice(SIZES)), zero=int(rng.choice(ZEROS)))
    bias, per_channel = (bool(b) for b in rng.integers(2, size=2))
    net.dense(int(rng.choice(SIZES)), per_channel, bias=bias, **random_output(rng))
    return _finish(net)


def add_case(rng: Any) -> Net:
    net = random_map(rng)
    channels = int(rng.choice(SIZES))
    first = net.conv(channels, 1, zero=int(rng.choice(ZEROS)))
    net.conv(channels, 3, zero=int(rng.choice(ZEROS)))
    net.add(first, ACTIVATIONS[rng.integers(4)], int(rng.choice(ZEROS)))
    if rng.integers(2):
        net.add(net.at)
    return _finish(net)


def softmax_case(rng: Any) -> Net:
    rows, depth = int(rng.choice((1, 3))), int(rng.choice(SIZES))
    net = Net((1, rows, 12), int(rng.choice(ZEROS)), int(rng.integers(1 << 30)))
    net.dense(depth, zero=int(rng.choice(ZEROS)), scale=float(rng.choice((0.01, 0.03))))
    net.softmax()
    return _finish(net)


def pool_case(rng: Any, kind: str) -> Net:
    net = random_map(rng)
    net.conv(int(rng.choice(SIZES)), 1, zero=int(rng.choice(ZEROS)))
    height, width = net.shapes[net.at][1:3]
    window = random_window(rng, height, width)
    del window["dilation"]
    window["same"] |= bool((np.broadcast_to(window["kernel"], 2) > (height, width)).any())
    net.pool(**window, activation=ACTIVATIONS[rng.integers(4)], kind=kind)
    return _finish(net)


def resize_case(rng: Any, kind: str) -> Net:
    net = random_map(rng)
    net.conv(int(rng.choice(SIZES)), 1, zero=int(rng.choice(ZEROS)))
    net.resize(kind, tuple(int(n) for n in rng.choice(SIZES, 2)), *RESIZINGS[rng.integers(3)])
    return _finish(net)


def lookup_case(rng: Any, kind: str) -> Net:
    """A function of one value behind a convolution, whose output may have a second reader."""
    net = random_map(rng)
    channels = int(rng.choice(SIZES))
    zeros = (*ZEROS, -40)
    scale = float(rng.choice((0.01, 0.04, 0.1)))
    first = net.conv(channels, 1, zero=int(rng.choice(zeros)), scale=scale)
    zero, scale = int(rng.choice(zeros)), scale * float(rng.choice((0.7, 1.0, 1.6)))
    if kind == "LEAKY_RELU":
        net.leaky_relu(float(rng.choice((0.01, 0.3))), zero, scale)
    else:
        net.unary(kind, zero, scale)
    if rng.integers(2):
        net.add(first)
    return _finish(net)


def broadcast_shape(rng: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that can be broadcast to `shape`: over space, over channels, a scalar."""
    masks = ((0, 1, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0), (0, 1, 1, 1), (0, 0, 0, 0), (0, 1, 0, 1))
    mask = masks[int(rng.integers(len(masks)))]
    return tuple(1 if m else n for m, n in zip(mask, shape, strict=True))


def elementwise_case(rng: Any, kind: str) -> Net:
    """Two trained branches, one of which may be broadcast, or a constant."""
    net = random_map(rng)
    channels, source = int(rng.choice(SIZES)), net.at
    a = net.conv(channels, 1, zero=int(rng.choice(ZEROS)))
    shape = broadcast_shape(rng, net.shapes[a])
    if rng.integers(3) == 0:
        other = net.constant(shape, int(rng.choice(ZEROS)))
    else:
        net.at = source
        other = net.conv(shape[3], 1, zero=int(rng.choice(ZEROS)))
        axes = tuple(i for i in (1, 2) if shape[i] == 1 and net.shapes[other][i] != 1)
        other = net.mean(axes, True) if axes else other
    net.at = a
    rest = {"activation": ACTIVATIONS[rng.integers(4)], "swapped": bool(rng.integers(2))}
    net.binary(kind, other, int(rng.choice(ZEROS)), **rest)
    return _finish(net)


def mean_case(rng: Any) -> Net:
    net = random_map(rng)
    net.conv(int(rng.choice(SIZES)), 1, zero=int(rng.choice(ZEROS)))
    axes = ((1, 2), (1,), (2,), (3,), (2, 3), (1, 2, 3))[int(rng.integers(6))]
    net.mean(axes, bool(rng.integers(2)), None if rng.integers(2) else int(rng.choice(ZEROS)))
    return _finish(net)


def moved_case(rng: Any, kind: str) -> Net:
    """A convolution whose output is cut, turned, joined or padded."""
    net = random_map(rng)
    channels = int(rng.choice(SIZES)) * (2 if kind == "SPLIT" else 1)
    window = random_window(rng, *net.shapes[net.at][1:3])
    net.conv(channels + (kind == "SPLIT_V"), **window, zero=int(rng.choice(ZEROS)), scale=0.05)
    MOVES[kind](net, rng)
    return _finish(net)


def _split(net: Net, rng: Any) -> None:
    _some_of(net, rng, net.split(2, 3))


def _split_v(net: Net, rng: Any) -> None:
    _some_of(net, rng, net.split_v([1, net.shapes[net.at][3] - 1], 3))


def _some_of(net: Net, rng: Any, parts: list[int]) -> None:
    """Not all outputs of an operator need be read."""
    net.at = parts[int(rng.integers(2))]
    net.concat(parts[::-1] if rng.integers(2) else [], 3)


def _transpose(net: Net, rng: Any) -> None:
    """Where it can, one that moves something: all others are made a RESHAPE of."""
    long = [axis for axis in (1, 2, 3) if net.shapes[net.at][axis] > 1]
    moving = [o for o in permutations((1, 2, 3)) if [a for a in o if a in long] != long]
    order = moving[int(rng.integers(len(moving)))] if moving else (1, 2, 3)
    net.transpose((0, *order))


def _pad(net: Net, rng: Any, value: int | None = None) -> None:
    ends = [(0, 0), *(tuple(int(n) for n in rng.integers(0, 3, 2)) for _ in range(3))]
    net.pad(ends, value)


def _padv2(net: Net, rng: Any) -> None:
    _pad(net, rng, int(rng.integers(-128, 128)))


def _concatenation(net: Net, rng: Any) -> None:
    """Along any axis, of an output that is read twice and another."""
    a, axis, q = net.at, int(rng.integers(1, 4)), net.q[net.at]
    channels = int(rng.choice(SIZES)) if axis == 3 else net.shapes[a][3]
    b = net.conv(channels, 1, zero=q.zero, scale=float(q.scale[0]))
    net.concat([a, b] if rng.integers(2) else [a], axis)


def _slice(net: Net, rng: Any) -> None:
    shape = net.shapes[net.at]
    begin = [int(rng.integers(0, n)) for n in shape]
    net.slice(begin, [int(rng.integers(1, n - b + 1)) for n, b in zip(shape, begin, strict=True)])


def _strided_slice(net: Net, rng: Any) -> None:
    shape = net.shapes[net.at]
    begin = [int(rng.integers(0, n)) for n in shape]
    steps = [1, *(int(s) for s in rng.integers(1, 3, 3))]
    net.strided_slice(begin, list(shape), steps, (int(rng.integers(16)), 15, 0))


def _reshape(net: Net, rng: Any) -> None:
    """To rows of another length, which the layer behind it reads one by one."""
    shape = net.shapes[net.at]
    net.reshape((1, shape[1] * shape[3], shape[2]))
    net.dense(int(rng.choice(SIZES)), zero=int(rng.choice(ZEROS)))


MOVES: dict[str, Callable[[Net, Any], None]] = {
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concatenation,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "PAD": _pad,
    "PADV2": _padv2,
    "RESHAPE": _reshape,
}
CURVES = (
    *("RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE"),
    *("HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "TANH"),
)


def loss_case(rng: Any, smallest: int = 1) -> Net:
    """A head of any width whose outputs may lie at the ends of their range."""
    rows = int(rng.choice(SIZES))
    net = Net((1, rows), int(rng.choice(ZEROS)), int(rng.integers(1 << 30)))
    net.dense(int(rng.choice(SIZES)), activation=RELU, zero=-128)
    net.dense(max(smallest, int(rng.choice(SIZES))), zero=int(rng.choice(ZEROS)))
    return net


# By the kind of operator that the models are made around. Behind a colon, what is special.
CASES: dict[str, Callable[[Any], Net]] = {
    "CONV_2D": conv_case,
    "CONV_2D: groups": grouped_case,
    "DEPTHWISE_CONV_2D": depthwise_case,
    "FULLY_CONNECTED": fully_connected_case,
    "AVERAGE_POOL_2D": partial(pool_case, kind="AVERAGE"),
    "MAX_POOL_2D": partial(pool_case, kind="MAX"),
    "RESIZE_BILINEAR": partial(resize_case, kind="BILINEAR"),
    "RESIZE_NEAREST_NEIGHBOR": partial(resize_case, kind="NEAREST_NEIGHBOR"),
    "ADD": add_case,
    "ADD: broadcast": partial(elementwise_case, kind="ADD"),
    "SUB": partial(elementwise_case, kind="SUB"),
    "MUL": partial(elementwise_case, kind="MUL"),
    "MEAN": mean_case,
    "SOFTMAX": softmax_case,
    **{kind: partial(lookup_case, kind=kind) for kind in CURVES},
    **{kind: partial(moved_case, kind=kind) for kind in MOVES},
    "loss: softmax": partial(loss_case, smallest=2),
    "loss: mse": loss_case,
    "loss: bce": loss_case,
}


@dataclass(frozen=True)
class Drawn:
    """A random model, one sample, and a class number or the targets in real numbers."""

    model: bytes
    graph: Graph
    x: Array
    target: int | Array


@cache
def draw(case: str, seed: int) -> Drawn:
    """Every fourth sample is of extremes only."""
    rng = np.random.default_rng((zlib.crc32(case.encode()), seed))
    net = CASES[case](rng)
    model, x = net.to_bytes(), net.sample()
    if seed % 4 == 3:
        x = rng.choice(np.array([-128, 127], np.int8), x.shape)
    graph = parse_tflite(model)
    if case.startswith("loss: "):
        graph = replace(graph, loss=case.removeprefix("loss: "))
    return Drawn(model, graph, x, _target(rng, graph))


def _target(rng: Any, graph: Graph) -> int | Array:
    y = graph.tensor(graph.logits)
    if graph.loss_name == "bce":
        return rng.integers(0, 2, y.size).astype(float)
    if graph.loss_name == "mse":
        return y.scale * (rng.integers(-128, 128, y.size) - float(y.zero_point))
    return int(rng.integers(y.size))


def sweep(case: str, count: int) -> Iterator[tuple[int, Machine, Gradients, Gradients]]:
    """(seed, machine, ours, reference) for `count` random models around an operator."""
    for seed in range(count):
        drawn = draw(case, seed)
        machine = Machine(drawn.graph, train_all(drawn.graph))
        yield seed, machine, *compare(drawn.model, machine, drawn.x, drawn.target)


def worst_case(kind: str) -> tuple[Net, Array]:
    """A model and an input for which all addends of the sums around an operator have one sign and
    are as large as they get: what the limits of error tensors are derived for."""
    net = Net((1, 12, 12, 4), zero=127)
    _extreme(net, net.conv, (8, 1), (8, 1, 1, 4))
    if kind == "conv":
        _extreme(net, net.conv, (64, 5), (64, 5, 5, 8))
    elif kind == "depthwise":
        _extreme(net, net.depthwise, (24, 5), (1, 5, 5, 192))
    elif kind == "pool":
        net.pool(7, 1, same=True)
    net.flatten()
    weights = np.repeat([[127], [-127]], int(np.prod(net.shapes[net.at])), axis=1)
    net.dense(2, weights=weights, scales=[1e-4], bias=False, scale=0.05)
    return net, np.full(net.shapes[net.source], -128, np.int8)


def _extreme(net: Net, add: Any, arguments: Any, shape: tuple[int, ...]) -> None:
    """A layer with all weights at 127 that gives -126 everywhere, with its zero point at 127."""
    channels = shape[3] if shape[0] == 1 else shape[0]
    addends = np.prod(shape) / channels
    scale = 0.002 * float(net.q[net.at].scale[0]) * 127 * addends * (255 / 253)
    add(
        *arguments,
        weights=np.full(shape, 127),
        scales=np.full(channels, 0.002),
        bias=np.zeros(channels, np.int32),
        scale=scale,
        zero=127,
        same=False,
    )
