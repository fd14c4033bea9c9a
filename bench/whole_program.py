"""A program with a plan, operator by operator, from what stands in RAM after a few steps."""

from __future__ import annotations

from emulated import Case
from machine import Machine
from small_models import Array
from sparsetune.graph import Graph
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan
from sparsetune.program import Flag
from sparsetune_device.channels import make_policy
from sparsetune_device.columns import Columns
from sparsetune_device.image import Image as DeviceImage

LABEL, SEED, RATE, NO_RATE = 1, 7, rate(0.01), (0, 0)
WARM_STEPS = 3  # until error tensors have found their exponents


def machine_of(graph: Graph, plan: UpdatePlan, x: Array) -> Machine:
    """On the twin, ready for a step on x [1, ...], after a few without learning."""
    machine = Machine(graph, plan)
    choose(machine)
    settle(machine, x)
    return machine


def settle(machine: Machine, x: Array, learning_rate: tuple[int, int] = RATE) -> None:
    """Some steps without learning; then all is ready for one."""
    for _ in range(WARM_STEPS if machine.program.layers else 0):
        machine.step(x, LABEL, NO_RATE, SEED)
    machine.load(x)
    machine.control(LABEL, learning_rate, SEED)


def choose(machine: Machine) -> None:
    """The channels that the board's policy `static` trains."""
    image = DeviceImage(machine.image.data)
    make_policy("static", image.layers, 1).choose(0, machine.state)
    for layer in image.layers:
        if layer.has_columns:
            Columns(layer, image, machine.state).bring()


def case_of(machine: Machine) -> tuple[Case, list[int]]:
    """All operators one by one, and which they are; a strip is one."""
    training = bool(machine.program.layers)
    skipped = Flag.IN_STRIP | (Flag.INFERENCE_ONLY if training else Flag.TRAINING_ONLY)
    which = [i for i, op in enumerate(machine.ops) if not op.flags & skipped]
    spans = tuple((i, i + 1) for i in which)
    case = Case(machine.image.data, bytes(machine.arena), bytes(machine.state), spans, training)
    return case, which
