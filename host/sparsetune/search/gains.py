"""What training a layer is worth: of each layer, share of its channels, and depth of biases.

`proxy`, one pass over some samples: the gradient of the weights, less what the bias can do. The
part of a weight's gradient that goes with its input's mean is the bias' gradient times that mean,
and the bias trains anyway; layers behind a ReLU, whose inputs have large means, look worth most
without this, and are worth nothing or less (docs/DESIGN.md). The head is trained first: behind
random weights there is nothing to measure.

Short runs of whole plans tell more, and take minutes: learnt.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ..cores import core_count
from ..data import Dataset
from ..graph import Graph, Operator, input_channels, output_channels
from ..plan import LayerPlan, UpdatePlan, default_plan
from .chosen import Gains
from .costs import Menu
from .gradients import Gradients, LayerGradient, measure_gradients
from .runs import Run, Samples, trained_graph

SAMPLES = 256  # whose gradients are measured
WARM = 1000  # on which the head is trained before
HELD_OUT = 0.25  # share of the samples
MOST_HELD = 1000
NOISE = 0.25  # of a gradient's part that goes with the mean input: it drives the bias harder
STATIC = 0.8  # of what channels gain that take turns, those gain that always are the same: a guess

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A model, the learning rate of its head (decimal text), and what it learns from. model: the
    .tflite file, where there is one."""

    graph: Graph
    rate: str
    samples: Samples
    model: bytes = b""


@dataclass(frozen=True)
class Worth:
    """In any unit: of the weights and of the bias of each layer, by number of the operator. power:
    of a share of the channels, that share to this power is gained."""

    weights: dict[int, float]
    biases: dict[int, float]
    power: float = 0.5

    def of(self, menu: Menu) -> Gains:
        """What the parts of a menu are worth."""
        layers = menu.graph.trainable[::-1]
        depths = np.cumsum([self.biases.get(op.index, 0.0) for op in layers])
        parts = [self.of_layer(menu.graph, part.plan) for part in menu.parts]
        return Gains(depths, np.array(parts))

    def of_plan(self, graph: Graph, plan: UpdatePlan) -> float:
        """What a plan is worth."""
        weights = sum(self.of_layer(graph, layer) for layer in plan.layers)
        return weights + sum(self.biases.get(p.operator, 0.0) for p in plan.layers if p.bias)

    def of_layer(self, graph: Graph, layer: LayerPlan) -> float:
        op = graph.operator(layer.operator)
        share = layer.channels / input_channels(graph, op)
        is_static = layer.slots and not layer.reach
        whole = self.weights.get(op.index, 0.0) * (STATIC if is_static else 1.0)
        return float(whole * share**self.power)


def split(data: Dataset) -> Samples:
    """Some are held out: the same ones each time."""
    order = np.random.default_rng(0).permutation(len(data))
    held = max(1, min(MOST_HELD, round(len(data) * HELD_OUT)))
    return Samples(data.part(order[held:]), data.part(order[:held]))


def thinned(graph: Graph, worth: Worth) -> Worth:
    """What gradients say, over the root of the places of a layer's map. A gradient is a sum over
    them, and grows with the map, which what is gained does not (docs/DESIGN.md)."""
    root = {op.index: _places(graph, op) ** 0.5 for op in graph.trainable}
    weights, biases = (
        {n: value / root[n] for n, value in of.items()} for of in (worth.weights, worth.biases)
    )
    return replace(worth, weights=weights, biases=biases)


def _places(graph: Graph, op: Operator) -> int:
    return graph.tensor(op.outputs[0]).size // output_channels(graph, op)


# Without samples ------------------------------------------------------------------------------


def guessed(graph: Graph) -> Worth:
    """Where there are no samples: by what was measured elsewhere. Layers that read few channels and
    make many are worth most (MobileNets' expansions), depthwise ones little."""
    weights, biases = {}, {}
    for op in graph.trainable:
        reads, makes = input_channels(graph, op), output_channels(graph, op)
        of_each = graph.tensor(op.inputs[1]).size / (reads * makes)
        dense = op.kind != "DEPTHWISE_CONV_2D"
        weights[op.index] = (min(4.0, makes / reads) * of_each) ** 0.5 if dense else 0.1
        biases[op.index] = 0.1 if graph.bias_of(op) else 0.0
    return Worth(weights, biases)


# By gradients ---------------------------------------------------------------------------------


def by_gradients(task: Task) -> Worth:
    """One pass over SAMPLES samples."""
    graph = task.graph
    some = task.samples.train.part(slice(0, WARM))
    head = replace(default_plan(graph, 1), loss=graph.loss)
    warm = trained_graph(graph, head, some, Run(max(len(some), WARM), task.rate))
    first, second = _halves(warm, task.samples.together.part(slice(-SAMPLES, None)))
    both = {number: _common(warm, number, first[number], second[number]) for number in first}
    return Worth({n: w for n, (w, _) in both.items()}, {n: b for n, (_, b) in both.items()})


def _halves(graph: Graph, data: Dataset) -> tuple[Gradients, Gradients]:
    """Means of the gradients over every other sample: however many cores there are."""
    parts = [data.part(slice(i, None, 2)) for i in (0, 1)] if len(data) > 1 else [data, data]
    operators = list(graph.trainable)
    with ThreadPoolExecutor(min(2, core_count())) as threads:
        found = threads.map(lambda part: measure_gradients(graph, operators, part), parts)
        first, second = (
            {n: layer.over(len(part)) for n, layer in each.items()}
            for each, part in zip(found, parts, strict=True)
        )
    return first, second


def _common(
    graph: Graph, operator: int, first: LayerGradient, second: LayerGradient
) -> tuple[float, float]:
    """What a layer's weights and bias are worth: lengths of what two halves of the samples have in
    common. The product of two means has no share of the noise that a mean's own square has."""
    inputs = (first.inputs + second.inputs) / 2
    of_each = graph.operator(operator).kind == "DEPTHWISE_CONV_2D"
    a, b = (half.centred(inputs, of_each) for half in (first, second))
    centred = _root(float((a * b).sum()))
    bias = _root(float(first.bias @ second.bias))
    with_the_mean = _root(float((first.weights * second.weights).sum()) - centred**2)
    return max(0.0, centred - NOISE * with_the_mean), bias


def _root(value: float) -> float:
    return float(max(0.0, value) ** 0.5)
