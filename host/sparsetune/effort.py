"""Multiply-accumulates of a training step, counted on the model: what a plan asks for, before
anything is skipped."""

from __future__ import annotations

from dataclasses import dataclass

from .compile import active_operators
from .geometry import conv_geometry, macs
from .graph import Graph, Operator, input_channels, output_channels
from .patches import filtering_of
from .plan import LayerPlan, UpdatePlan


@dataclass(frozen=True)
class Effort:
    """forward: of the whole model. gradient: of inputs, on the way back to the first trained layer.
    update: of the weights that a step trains."""

    forward: int
    gradient: int
    update: int

    @property
    def backward(self) -> int:
        return self.gradient + self.update


def effort_of(graph: Graph, plan: UpdatePlan) -> Effort:
    active = active_operators(graph, plan)
    reached = {t for op in graph.operators if op.index in active for t in op.outputs}
    counts = macs(graph)
    gradient = update = 0
    for op, count in zip(graph.operators, counts, strict=True):
        layer = plan.layer(op.index)
        filtered = _filtered(graph, op, layer) if layer and layer.patch > 1 else count
        if op.index in active and reached & set(op.inputs):
            gradient += count if layer and layer.weights_only else filtered
        if layer:
            of_inputs = filtered * layer.channels // input_channels(graph, op)
            count = output_channels(graph, op)
            update += of_inputs * (layer.outputs or count) // count
    return Effort(sum(counts), gradient, update)


def _filtered(graph: Graph, op: Operator, layer: LayerPlan) -> int:
    """Of one gradient over patches: a position for each."""
    patches = filtering_of(conv_geometry(graph, op), layer.patch, layer.wide).outputs
    return graph.tensor(op.inputs[1]).size * patches.count
