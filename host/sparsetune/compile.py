"""From a graph and an update plan to an image."""

from __future__ import annotations

from sparsetune_device.schedule import parse_rate

from .arena import grow_scratch
from .backward import Backward
from .graph import Graph, Operator
from .image import Layout, Source, lay_out
from .inputs import input_of
from .loss import differentiate_loss, lower_target
from .lowering import Lowering
from .operators import KINDS
from .plan import UpdatePlan, check_plan
from .program import Buffer, Code, Flag, Program, StepMacs
from .selection import forward_macs
from .strips import fuse_front
from .task import Task, task_of


def build_program(graph: Graph, plan: UpdatePlan) -> Program:
    """Forward and backward program. A plan without layers gives inference alone."""
    program = lean_program(graph, plan)
    grow_scratch(program)
    return program


def lean_program(graph: Graph, plan: UpdatePlan) -> Program:
    """As build_program, with no more scratch than operators cannot do without."""
    active = active_operators(graph, plan)
    low = Lowering(graph, plan, active, held_tensors(graph, plan, active))
    if plan.layers and plan.tinyprop:
        low.program.macs = StepMacs(forward_macs(graph))
    _lower_forward(low)
    if plan.layers:
        _differentiate(low)
    if plan.strips:
        fuse_front(low.program)
    return low.program


def active_operators(graph: Graph, plan: UpdatePlan) -> set[int]:
    """Operators whose output gradient is needed: the trained ones and all between them and the
    loss."""
    active: set[int] = set()
    reached: set[int] = set()
    trained = {layer.operator for layer in plan.layers if layer.trains}
    for op in graph.operators:
        if op.index in trained or any(t in reached for t in op.inputs):
            active.add(op.index)
            reached.update(op.outputs)
    return active


def held_tensors(graph: Graph, plan: UpdatePlan, active: set[int]) -> set[int]:
    """Tensors that backward reads whole."""
    held = set(graph.logits_aliases) if plan.layers else set()
    for op in graph.operators:
        if op.index in active:
            held |= KINDS[op.kind].holds(graph, op, plan)
    return held


def _lower_forward(low: Lowering) -> None:
    """Appends the forward program."""
    low.program.input = low.new_value(low.graph.input)
    if low.plan.layers:
        lower_target(low)
    for op in low.graph.operators:
        KINDS[op.kind].lower(low, op)
        if op.index in low.active:
            _keep_mask(low, op)
    low.program.forward = len(low.program.ops)
    low.program.output = low.values[low.graph.output]


def _keep_mask(low: Lowering, op: Operator) -> None:
    """One bit for each output element: does the clamp pass the gradient?"""
    kind = KINDS[op.kind]
    if not kind.clamps(low.graph, op):
        return
    tensor = low.graph.tensor(op.outputs[0])
    lo, hi = kind.limits(low.graph, op)
    if tensor.index in low.graph.logits_aliases and (lo, hi) == (-128, 127):
        return  # the loss looks at the ends of the range itself
    bits = Buffer(f"mask{op.index}", (tensor.size + 7) // 8)
    low.masks[op.index] = bits
    y = low.values[tensor.index]
    low.emit(Code.CLAMP_MASK, op, y, bits, tensor.size, lo, hi, flags=Flag.TRAINING_ONLY)


def _differentiate(low: Lowering) -> None:
    """Appends loss, backward pass and updates to a program that holds the forward pass.

    An operator's input gradient is made before its weights move, and the weight gradient is
    applied as it is made."""
    back = Backward(low)
    differentiate_loss(back)
    for op in reversed(low.graph.operators):
        if op.index in low.active and any(t in back.errors for t in op.outputs):
            KINDS[op.kind].differentiate(back, op)


def compile_image(
    graph: Graph, plan: UpdatePlan, rate: str = "0.005", fast_bytes: int | None = None
) -> Layout:
    """The image of a model and a plan that trains at least one layer. rate: the learning rate
    where the run names none, as decimal text (rate.py suggests one). fast_bytes: see lay_out."""
    check_plan(graph, plan)
    task_of(graph)
    return lay_out(build_program(graph, plan), source_of(graph, rate), fast_bytes)


def source_of(graph: Graph, rate: str = "0.005") -> Source:
    """What the image says of its model."""
    y = graph.tensor(graph.logits)
    task = Task(graph.loss_name, y.size, y.scale, y.zero_point)
    return Source(graph.digest, task, input_of(graph), parse_rate(rate))
