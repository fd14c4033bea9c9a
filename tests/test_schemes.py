"""Published schemes load as plans, and our count of their memory is their makers'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shared_tasks import shared_folder
from small_models import RELU, Net
from sparsetune import cli
from sparsetune.analytic import Analytic, analytic_memory
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.plan import LayerPlan, UpdatePlan, check_plan
from sparsetune.schemes import load_scheme, scheme_names, scheme_plan
from sparsetune.tflite import parse_tflite

MBV2 = "models/tiny_training/mobilenet_v2_w0.35_128_int8.tflite"
OF_MBV2 = [name for name in scheme_names() if name.startswith("mbv2")]


@pytest.fixture(scope="module")
def mbv2() -> Graph:
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    return parse_tflite(with_new_head((shared / MBV2).read_bytes(), HeadRequest(10)))


@pytest.mark.parametrize("name", OF_MBV2)
def test_our_count_is_its_makers(mbv2: Graph, name: str) -> None:
    """To a kilobyte. Of MCUNet and ProxylessNAS there is no network file to count with."""
    scheme = load_scheme(name)
    plan = scheme_plan(mbv2, scheme)
    check_plan(mbv2, plan)
    counted = analytic_memory(mbv2, plan).total / 1024
    print(f"{name}: {counted:.2f} KB counted, {scheme.kilobytes} KB published")
    assert abs(counted - scheme.kilobytes) <= 1


def test_share_of_the_weights_is_its_makers(mbv2: Graph) -> None:
    """Updated weights of all convolutions': 9.4, 16.4, 23.4, 30.3 and 34.3 %."""
    convolutions = sum(mbv2.tensor(op.inputs[1]).size for op in mbv2.trainable[:-1])
    plans = (scheme_plan(mbv2, load_scheme(name)) for name in OF_MBV2)
    shares = [100 * analytic_memory(mbv2, plan).weights / convolutions for plan in plans]
    assert shares == pytest.approx([9.4, 16.4, 23.4, 30.3, 34.3], abs=0.06)


def small() -> Net:
    """4x4x2 -> 3x3 -> 4x4x4 -> depthwise -> 4x4x4 -> 1x1 -> 4x4x4 -> 3 classes."""
    net = Net((1, 4, 4, 2), seed=1)
    for layer in (lambda: net.conv(4, 3), lambda: net.depthwise(1, 3), lambda: net.conv(4, 1)):
        layer()
    net.flatten()
    net.dense(3)
    net.softmax()
    return net


def test_analytic_memory_by_hand() -> None:
    """2 of 4 channels of a depthwise layer: 2 * 9 weights, 2 * 16 kept; biases of two layers of 4;
    a bit for each of 2 * 64 outputs; the head's input of 64."""
    graph = parse_tflite(small().to_bytes())
    depthwise, pointwise, head = graph.trainable[1:]
    layers = (LayerPlan(depthwise.index, 2), LayerPlan(pointwise.index, 0))
    plan = UpdatePlan((*layers, LayerPlan(head.index, 64)))
    assert analytic_memory(graph, plan) == Analytic(18, 32, 32, 16, 64)
    dense = UpdatePlan((LayerPlan(pointwise.index, 3, bias=False),))
    assert analytic_memory(graph, dense) == Analytic(12, 0, 48, 8, 0)
    assert analytic_memory(graph, UpdatePlan((LayerPlan(head.index, 64),))).total == 64


def test_analytic_memory_of_patches_by_hand() -> None:
    """Maps of 6x10, then 3x5 by a stride of 2: of 2 channels a byte for each patch. Squares of 2
    are 3x5 and 2x3, of 4 there are 2x3 and 1x2; rows of 1x4 are 6x3 and 3x2."""
    net = Net((1, 6, 10, 2), seed=1)
    net.conv(4, 1)
    net.conv(4, 3, stride=2)
    net.flatten()
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    first, second, _ = (op.index for op in graph.trainable)
    for patch, wide, positions in ((2, False, (15, 6)), (4, False, (6, 2)), (2, True, (18, 6))):
        for operator, count in zip((first, second), positions, strict=True):
            layer = LayerPlan(operator, 2, False, patch=patch, wide=wide)
            for weights_only in (False, True):
                plan = UpdatePlan((replace(layer, weights_only=weights_only),))
                assert analytic_memory(graph, plan).inputs == 2 * count


def test_schemes_of_other_networks() -> None:
    """Those whose network we have want just that; others what their numbers need."""
    net = Net((1, 4, 4, 2), seed=1)
    for _ in range(44):
        net.conv(2, 1, activation=RELU, zero=-128)
    net.flatten()
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    check_plan(graph, scheme_plan(graph, load_scheme("mcunet-99")))
    for name in ("mbv2-49", "proxyless-98"):
        with pytest.raises(SparsetuneError, match="convolutions and a head, this one has 44"):
            scheme_plan(graph, load_scheme(name))


def test_plan_command(
    mbv2: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = shared_folder()
    assert shared
    model = tmp_path / "m.tflite"
    model.write_bytes(with_new_head((shared / MBV2).read_bytes(), HeadRequest(10)))
    assert cli.main(["plan", str(model), "--scheme", "mbv2-49"]) == 0
    assert "analytic memory, as MCUNetV3 counts it: 49.8 KB" in capsys.readouterr().out
    for wrong, said in (
        (["--scheme", "mbv2-50"], "choose mbv2-49"),
        (["--scheme", "mbv2-49", "--last", "3"], "leave out --last"),
    ):
        assert cli.main(["plan", str(model), *wrong]) == 1
        assert said in capsys.readouterr().err

