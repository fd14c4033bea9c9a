"""From a graph and an update plan to an image."""

from __future__ import annotations

from .differentiate import active_operators, differentiate, held_tensors
from .graph import Graph
from .image import Layout, Source, lay_out
from .lower import Lowering, lower_forward
from .plan import UpdatePlan, check_plan
from .program import Program


def build_program(graph: Graph, plan: UpdatePlan) -> Program:
    """Forward and backward program. A plan without layers gives inference alone."""
    active = active_operators(graph, plan)
    low = Lowering(graph, plan, active, held_tensors(graph, plan, active))
    lower_forward(low)
    if plan.layers:
        differentiate(low)
    return low.program


def compile_image(graph: Graph, plan: UpdatePlan) -> Layout:
    """The image of a model and a plan that trains at least one layer."""
    check_plan(graph, plan)
    return lay_out(build_program(graph, plan), source_of(graph))


def source_of(graph: Graph) -> Source:
    """What the image says of its model."""
    classes = graph.tensor(graph.logits).shape[-1]
    return Source(graph.digest, classes, graph.tensor(graph.input).shape)
