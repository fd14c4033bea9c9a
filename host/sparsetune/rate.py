"""A learning rate by how strongly the trained layers are driven: where trying begins (trial.py).

A step of rate r on a layer with input x changes its output by r * sum(x^2) times the error, so a
rate that suits one model wrecks another whose activations are ten times larger. What the weights
behind the layer make of that is left out, which has cost a factor of 25 (docs/DESIGN.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import Array, Graph, Operator, per_channel_scales
from .inputs import as_file_takes
from .litert import activations
from .plan import UpdatePlan

SAMPLES = 32  # that the activations are measured on
FOR_LAST = 2.0  # rate * (sum(x^2) + 1) of the layer that makes the class scores
FOR_OTHERS = 10.0  # rate * sum(x^2) of any other: pooling thins its gradient
BLIND = 0.0001  # for other losses, whose gradients grow with the error: no rule held
CAUTION = 27  # that a guess is divided by: crawling can be seen and mended, ruin cannot
TYPICAL = 0.07  # root mean square of an activation over its range, where there are no samples


def suggest_rate(graph: Graph, plan: UpdatePlan, model: bytes, x: Array | None) -> str:
    """A learning rate as decimal text with two digits that count. x: samples, int8 [N, ...]; None:
    a guess, and a careful one. For the softmax loss; others get a small rate."""
    ops = [graph.operator(layer.operator) for layer in plan.layers]
    if graph.loss_name != "softmax":
        units = [_unit(graph, op, plan) for op in ops]
        return two_digits(BLIND / max(units, default=1.0))
    bounds = rate_bounds(graph, ops, plan, model, x).values()
    return two_digits(min(bounds, default=0.01) / (CAUTION if x is None else 1))


def rate_bounds(
    graph: Graph, ops: Sequence[Operator], plan: UpdatePlan, model: bytes, x: Array | None
) -> dict[int, float]:
    """The rate at which each of these layers is driven as far as it may be, by number of the
    operator; none where a layer's input is all zero. plan: says in which units rates are. x:
    samples, int8 [N, ...]; None: a guess."""
    energies = _measured(graph, ops, model, x) if x is not None else _typical(graph, ops)
    return {
        op.index: (
            FOR_LAST / (energy + 1)
            if op.outputs[0] in graph.logits_aliases
            else FOR_OTHERS / energy
        )
        / _unit(graph, op, plan)
        for op, energy in zip(ops, energies, strict=True)
        if energy > 0
    }


def _unit(graph: Graph, op: Operator, plan: UpdatePlan) -> float:
    """What a rate of 1 is in real units: without QAS, the mean square of the weights' scales."""
    return 1.0 if plan.qas else float((per_channel_scales(graph, op) ** 2).mean())


def _measured(graph: Graph, ops: Sequence[Operator], model: bytes, x: Array) -> list[float]:
    """Mean over the samples of sum(x^2), in real units, of each operator's input."""
    inputs = [op.inputs[0] for op in ops]
    sums = np.zeros(len(ops))
    count = 0
    for values in activations(model, as_file_takes(graph, x[:SAMPLES]), inputs):
        for i, (tensor, value) in enumerate(zip(inputs, values, strict=True)):
            t = graph.tensor(tensor)
            stored = value.astype(np.float64) - graph.shift(tensor)
            sums[i] += float((((stored - t.zero_point) * t.scale) ** 2).sum())
        count += 1
    return [float(s) for s in sums / max(1, count)]


def _typical(graph: Graph, ops: Sequence[Operator]) -> list[float]:
    tensors = [graph.tensor(op.inputs[0]) for op in ops]
    return [t.size * (TYPICAL * 255 * t.scale) ** 2 for t in tensors]


def two_digits(rate: float) -> str:
    """A rate as the board's schedule reads it: no exponent, at most nine decimals."""
    rate = max(rate, 1e-8)
    decimals = min(9, max(0, 1 - int(np.floor(np.log10(rate)))))
    return f"{rate:.{decimals}f}"
