"""Old uint8 models: converted on import where that is exact, else refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gradient_cases import (
    CASES,
    SIZES,
    compare,
    distances,
    random_map,
    random_output,
    random_window,
    train_all,
)
from machine import Machine
from shared_tasks import shared_folder
from small_models import RELU, Net
from sparsetune.errors import SparsetuneError
from sparsetune.litert import predict
from sparsetune.tflite import parse_tflite
from sparsetune_device.telemetry import parse
from test_kernels import draws
from uint8_models import to_uint8


def assert_exact(net: Net, weight_zero: int) -> None:
    model = to_uint8(net, weight_zero)
    machine = Machine(model)
    shape = net.shapes[net.source]
    for value in (None, 0, 255):
        x = net.rng.integers(0, 256, shape) if value is None else np.full(shape, value)
        wanted = predict(model, x.astype(np.uint8))[0].ravel()
        ours = machine.infer((x - 128).astype(np.int8)).astype(np.int16) + 128
        np.testing.assert_array_equal(ours, wanted)


def one_operator(kind: str, rng: Any) -> Net:
    net = random_map(rng)
    net.unevenness = 1.0
    window = random_window(rng, *net.shapes[net.at][1:3])
    if kind == "conv":
        net.conv(int(rng.choice(SIZES)), **window, **random_output(rng))
    elif kind == "depthwise":
        net.depthwise(int(rng.choice((1, 2))), **window, **random_output(rng))
    elif kind == "dense":
        net.flatten()
        net.dense(int(rng.choice(SIZES)), **random_output(rng))
    elif kind == "add":
        x = net.at
        net.conv(net.shapes[x][3], 1, zero=3)
        net.add(x, RELU, -20)
    elif kind == "softmax":
        net.flatten()
        net.dense(7)
        net.softmax()
    elif kind in ("AVERAGE", "MAX"):
        del window["dilation"]
        sizes = np.broadcast_to(window["kernel"], 2)
        window["same"] |= bool((sizes > net.shapes[net.at][1:3]).any())
        net.pool(**window, kind=kind)
    elif kind == "concat":
        q = net.q[net.at]
        x = net.at
        net.conv(3, 1, zero=q.zero, scale=float(q.scale[0]))
        net.concat([x], 3)
    elif kind == "pad":
        net.pad(((0, 0), (1, 2), (0, 1), (0, 0)))
        net.pool(2)
    elif kind == "mean":
        net.mean((1, 2), True)
    elif kind == "MUL":
        net.binary("MUL", net.at)
    else:
        net.unary(kind, scale=0.02)
    return net


KINDS = ("conv", "depthwise", "dense", "add", "softmax", "AVERAGE", "MAX", "concat", "pad", "mean")
KINDS += ("MUL", "RELU", "RELU6", "LOGISTIC", "TANH")


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator(kind: str) -> None:
    for rng in draws(len(kind) + ord(kind[0]), 25):
        assert_exact(one_operator(kind, rng), int(rng.choice((128, 1, 97, 255))))


def test_a_scale_for_each_channel_is_refused_by_name() -> None:
    net = Net((1, 4, 4, 3))
    net.conv(5, 1)
    model = to_uint8(net)
    graph = parse_tflite(model)
    weights = graph.operators[0].inputs[1]
    bad = replace(graph.tensor(weights), scales=np.full(5, 0.01, np.float32), zero_point=3)
    from sparsetune.check import check_graph

    tensors = tuple(bad if t.index == weights else t for t in graph.tensors)
    with pytest.raises(SparsetuneError, match="CONV_2D.*symmetric weights only"):
        check_graph(replace(graph, tensors=tensors), "model")


def trainable_net() -> Net:
    net = Net((1, 6, 5, 3), zero=9, unevenness=1.0)
    net.conv(8, 3, activation=RELU, zero=-128)
    net.depthwise(1, 3)
    net.conv(6, 1)
    net.pool((6, 5))
    net.flatten()
    net.dense(4, scale=0.03)
    net.softmax()
    return net


@pytest.mark.parametrize("weight_zero", [128, 60, 200])
def test_gradients_with_a_zero_point_of_the_weights(weight_zero: int) -> None:
    net = trainable_net()
    model = to_uint8(net, weight_zero)
    graph = parse_tflite(model)
    machine = Machine(graph, train_all(graph))
    ours, wanted = compare(model, machine, net.sample(), 2)
    for d in distances(graph, ours, wanted):
        assert d.cosine >= 0.999, d


SHIFTED = ("CONV_2D", "CONV_2D: groups", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D")


@pytest.mark.parametrize("case", SHIFTED)
def test_gradients_of_swept_models(case: str) -> None:
    """With scales and clamps that are the int8 model's no more: all but one of each is taken."""
    for seed in range(20):
        rng = np.random.default_rng((9, seed))
        model = to_uint8(CASES[case](rng), int(rng.choice((128, 1, 97, 255))))
        graph = parse_tflite(model)
        x = rng.integers(-128, 128, graph.tensor(graph.input).shape).astype(np.int8)
        ours, wanted = compare(model, Machine(graph, train_all(graph)), x, 2)
        for d in distances(graph, ours, wanted):
            assert d.cosine >= 0.999, (seed, d)


def test_the_trained_model_is_uint8_again() -> None:
    from sparsetune.compile import compile_image
    from sparsetune.data import Dataset, sample_file
    from sparsetune.export import export_tflite, parse_checkpoint
    from sparsetune.image import parse_image
    from sparsetune.plan import default_plan
    from sparsetune.twin import Twin

    net = trainable_net()
    model = to_uint8(net, 90)
    graph = parse_tflite(model)
    image = parse_image(compile_image(graph, default_plan(graph, 3), "0.01").image)
    x = np.stack([net.sample()[0] for _ in range(8)])
    data = Dataset(x, np.arange(8) % 4)
    outputs: list[str] = []
    with Twin(image.data, sample_file(data, image.task)) as twin:
        checkpoint = twin.train(lambda line: None, steps=20)
        twin.evaluate(outputs.append, sample_file(data, image.task), True, outputs=True)
    trained = export_tflite(model, image, parse_checkpoint(checkpoint, image))
    assert trained != model
    events = [parse(line) for line in outputs]
    told = [bytes.fromhex(fields["hex"][1:]) for kind, fields in events if kind == "output"]
    ours = np.frombuffer(b"".join(told), np.int8).reshape(8, -1).astype(np.int16) + 128
    wanted = predict(trained, x)
    assert wanted.dtype == np.uint8
    np.testing.assert_array_equal(ours, wanted.reshape(8, -1))


def test_a_real_one() -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    name = "coral/mobilenet_v1_0.25_128_quant"
    machine = Machine((folder / "models" / f"{name}.tflite").read_bytes())
    golden = np.load(folder / "golden" / f"litert_ref__{name.replace('/', '__')}.npz")
    for x, y in zip(golden["x"], golden["y0"], strict=True):
        ours = machine.infer((x.astype(np.int16) - 128).astype(np.int8))
        np.testing.assert_array_equal(ours.astype(np.int16) + 128, y.ravel())
