"""From a graph and an update plan to an image."""

from __future__ import annotations

from sparsetune_device.schedule import parse_rate

from .data import MAX_CLASSES
from .differentiate import active_operators, differentiate, held_tensors
from .errors import SparsetuneError
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


def compile_image(graph: Graph, plan: UpdatePlan, rate: str = "0.005") -> Layout:
    """The image of a model and a plan that trains at least one layer. rate: the learning rate
    where the run names none, as decimal text (rate.py suggests one)."""
    check_plan(graph, plan)
    classes = graph.tensor(graph.logits).shape[-1]
    if not 2 <= classes <= MAX_CLASSES:
        raise SparsetuneError(
            f"the model's output has {classes} values: training needs the scores of 2 to "
            f"{MAX_CLASSES} classes"
        )
    return lay_out(build_program(graph, plan), source_of(graph, rate))


def source_of(graph: Graph, rate: str = "0.005") -> Source:
    """What the image says of its model."""
    classes = graph.tensor(graph.logits).shape[-1]
    shape = graph.tensor(graph.input).shape
    return Source(graph.digest, classes, shape, parse_rate(rate))
