"""Plans whose gradients go by patches, for the tests that look at every operator."""

from __future__ import annotations

from dataclasses import replace

from gradient_cases import draw, train_all
from small_models import RELU, Array, Net
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph
from sparsetune.plan import LayerPlan, UpdatePlan, check_plan
from sparsetune.tflite import parse_tflite

SIZES = (2, 4, 7)
MODELS = ("CONV_2D", "CONV_2D: groups", "DEPTHWISE_CONV_2D", "ADD", "AVERAGE_POOL_2D")


def filtered(graph: Graph, size: int) -> UpdatePlan:
    """Every layer, all channels; every convolution in patches, where the kernels take them."""
    return in_patches(graph, train_all(graph), size)


def in_patches(graph: Graph, plan: UpdatePlan, size: int) -> UpdatePlan:
    layers = [replace(p, patch=size if _can_be(graph, p, size) else 1) for p in plan.layers]
    return replace(plan, layers=tuple(layers))


def weights_only(graph: Graph, size: int, wide: bool = False) -> UpdatePlan:
    """The same for the weights' gradients alone."""
    plan = filtered(graph, size)
    return replace(plan, layers=tuple(
        replace(p, weights_only=p.patch > 1, wide=wide and p.patch > 1) for p in plan.layers
    ))


def sparse(graph: Graph, size: int) -> UpdatePlan:
    """Two thirds of the channels learn, without residuals."""
    plan = filtered(graph, size)
    layers = [replace(p, channels=max(1, p.channels * 2 // 3)) for p in plan.layers]
    return UpdatePlan(tuple(layers))


def in_codes(plan: UpdatePlan) -> UpdatePlan:
    """With codes of 2 bits of all that is kept."""
    return replace(plan, layers=tuple(
        replace(p, kept_bits=2 if p.channels else 8) for p in plan.layers
    ))


def drawn_plan(case: str, seed: int) -> tuple[Graph, UpdatePlan, Array, int | Array]:
    """One of the random models, in patches of each size in turn, all channels or some; of every
    other one codes are kept."""
    drawn = draw(case, seed)
    plan = (filtered, sparse, weights_only)[seed % 3](drawn.graph, SIZES[seed // 3 % 3])
    return drawn.graph, in_codes(plan) if seed % 2 else plan, drawn.x, drawn.target


def mixed_net() -> Net:
    """3x3 and 1x1, a stride, ragged borders, a branch, channels that make rows of words."""
    net = Net((1, 13, 10, 5), zero=-9, seed=6)
    a = net.conv(12, 3, activation=RELU, zero=-128)
    net.depthwise(1, 3)
    net.conv(12, 1)
    net.add(a)
    net.depthwise(2, 3, stride=2, activation=RELU, zero=-128)
    net.conv(24, 3, stride=2, same=False)
    net.flatten()
    net.dense(5, scale=0.03)
    return net


def mixed_plan(graph: Graph, size: int, passed: int = 3) -> UpdatePlan:
    """Of mixed_net: half of the channels, one layer only passed through."""
    layers = [
        replace(p, channels=(p.channels + 1) // 2)
        if p.operator != passed
        else LayerPlan(passed, 0, False)
        for p in train_all(graph).layers
    ]
    return in_patches(graph, UpdatePlan(tuple(layers)), size)


def mixed(size: int) -> tuple[Net, Graph, UpdatePlan]:
    net = mixed_net()
    graph = parse_tflite(net.to_bytes())
    return net, graph, mixed_plan(graph, size)


def _can_be(graph: Graph, layer: LayerPlan, size: int) -> bool:
    try:
        check_plan(graph, UpdatePlan((LayerPlan(layer.operator, 1, False, patch=size),)))
    except SparsetuneError:
        return False
    return True
