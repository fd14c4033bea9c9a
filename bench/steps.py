"""Whole training steps and forward passes on the emulated Pico, in ms at 125 MHz.

    python bench/steps.py [--model resnet8] [--python] [--operators]
    python bench/steps.py --model mine.tflite

The kernels of a step are run operator by operator from the state that the twin has after a few
steps, so that their cycles repeat: forward, backward (loss, input gradients, masks), and what the
weights take (what is kept for them, and the updates). With --python a training run is made as well,
and what passes between the kernels is shown: samples from flash, choice of channels, telemetry,
garbage collection. estimated: what `plan` says of the kernels, of what they took. With --operators
each operator of a step is listed, with its share of it. A file of yours trains what `tune` would
choose, on random samples.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from emulated import FIRMWARE, NOTHING, PICO, Spent, flash_with, measure
from machine import Machine
from networks import REPORTED, Network, add_model_option, networks, plan_of, tell_errors
from sparsetune.board import Board
from sparsetune.compile import build_program
from sparsetune.cycles import step_cycles
from sparsetune.data import Dataset, sample_file
from sparsetune.plan import UpdatePlan
from sparsetune.program import Op
from sparsetune.push import push_file
from sparsetune.romfs import build_romfs
from sparsetune_device.main import COLLECT_EVERY
from sparsetune_tools.emulated_pico import MARK_PORT, EmulatedPico, Mark
from whole_program import case_of, machine_of

MOST_SAMPLES = 250_000  # bytes of them
STEPS = 18  # of a run with Python; the first is left out: caches of names, exponents
DATA = "/sparsetune/train.dat"
# The engine's kernels, with marks around them: 1 they begin, 2 backward begins, 3 they end.
ON_BOARD = """
import machine, sparsetune_kernels, sparsetune_device.engine as engine
from sparsetune_device.main import train
class Marked:
    pass
def run(image, state, arena, cold, store, begin, end, training,
        run=sparsetune_kernels.run, mark=machine.mem32, port={port}, middle={middle}):
    if not end:  # how many cores there are
        return run(image, state, arena, cold, store, begin, end, training)
    mark[port] = 1
    run(image, state, arena, cold, store, begin, middle, training)
    mark[port] = 2
    cores = run(image, state, arena, cold, store, middle, end, training)
    mark[port] = 3
    return cores
engine.kernels = Marked()
engine.kernels.run = run
train("/rom/model.img", {data!r}, steps={steps}, seed=1)
"""


@dataclass(frozen=True)
class Step:
    """Kernels of a training step. inference: a forward pass that trains nothing. weights: what is
    kept for weight gradients, and the updates. Where they were measured: between: what passes
    between the kernels of two steps on average; collection: what more passes there, where garbage
    is collected. estimated: cycles of the kernels, as `plan` has them."""

    inference: Spent
    forward: Spent
    backward: Spent
    weights: Spent
    between: Spent | None = None
    collection: Spent | None = None
    estimated: float = 0.0

    @property
    def kernels(self) -> Spent:
        return self.forward + self.backward + self.weights

    @property
    def ratio(self) -> float:
        """Step to forward pass, kernels alone."""
        return self.kernels.cycles / self.inference.cycles

    @property
    def whole(self) -> Spent | None:
        """Kernels and what passes between them; None where that was not measured."""
        return self.between and self.kernels + self.between


def group_of(op: Op, position: int, forward: int) -> str:
    """Of Step: where an operator belongs. position: in the program."""
    if op.code.name.endswith("UPDATE") or op.code.name in ("KEEP_CHANNELS", "PATCH_VALUES"):
        return "weights"
    return "forward" if position < forward else "backward"


def measure_steps(network: Network, plans: list[UpdatePlan]) -> list[Step]:
    """One for each plan. Raises SparsetuneError where a plan cannot be compiled."""
    graph, x = network.graph, network.x[:1]
    machines = [machine_of(graph, plan, x) for plan in (UpdatePlan(()), *plans)]
    cases = [case_of(machine) for machine in machines]
    inference, *steps = measure([case for case, _ in cases])
    forward_pass = sum(inference, NOTHING)
    return [
        _step(machine, which, spent, forward_pass)
        for machine, (_, which), spent in zip(machines[1:], cases[1:], steps, strict=True)
    ]


def _step(machine: Machine, which: list[int], spent: list[Spent], inference: Spent) -> Step:
    groups = {"forward": NOTHING, "backward": NOTHING, "weights": NOTHING}
    for i, took in zip(which, spent, strict=True):
        groups[group_of(machine.ops[i], i, machine.program.forward)] += took
    return Step(inference, **groups)


def operators(network: Network) -> Iterator[str]:
    """A line for each operator of a step, in order."""
    graph, plan = network.graph, plan_of(network)
    machine = machine_of(graph, plan, network.x[:1])
    case, which = case_of(machine)
    (spent,) = measure([case])
    total = sum(spent, NOTHING)
    for i, took in zip(which, spent, strict=True):
        op = machine.ops[i]
        yield (
            f"{op.source:>5} {op.code.name:<30}{took.cycles:>12,} cycles"
            f"{took.instructions:>12,} instructions{took.cycles / total.cycles:>7.1%}"
        )


def measure_between(network: Network, plan: UpdatePlan) -> tuple[Spent, Spent]:
    """What passes between the kernels of a step and those of the next one: on average, and what a
    collection of garbage adds."""
    machine = Machine(network.graph, plan)
    samples = samples_of(network, machine)
    script = ON_BOARD.format(port=MARK_PORT, middle=machine.image.forward_ops, data=DATA,
                             steps=STEPS)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        flash = flash_with(Path(folder), build_romfs({"model.img": machine.image.data}))
        with EmulatedPico(FIRMWARE, flash) as pico, Board.connect(pico.port) as board:
            push_file(board, DATA, samples)
            pico.marks()
            board.stream(script, lambda line: None)
            gaps = gaps_between(pico.marks())
            return mean_of(gaps), collection_of(gaps)


def samples_of(network: Network, machine: Machine, count: int = STEPS) -> bytes:
    """As many as the run has steps, if there is room: an epoch's end is rare in a real run."""
    most = min(count, MOST_SAMPLES // network.x[0].size)
    x = np.resize(network.x, (most, *network.x.shape[1:]))
    task = machine.image.task
    zeros = np.zeros((most, task.outputs))
    targets = np.arange(most) % task.outputs if task.has_classes else zeros
    return sample_file(Dataset(x, targets), task)


def gaps_between(marks: list[Mark]) -> list[Spent]:
    """From the second step on."""
    begins = [mark for mark in marks if mark.tag == 1][2:]
    ends = [mark for mark in marks if mark.tag == 3][1:-1]
    return [Spent(b.cycles - a.cycles, b.instructions - a.instructions)
            for a, b in zip(ends, begins, strict=True)]  # fmt: skip


def mean_of(gaps: list[Spent]) -> Spent:
    columns = zip(*map(astuple, gaps), strict=True)
    return Spent(*(round(sum(column) / len(gaps)) for column in columns))


def collection_of(gaps: list[Spent]) -> Spent:
    """What the gaps with a collection, which are the longest, have more than the others."""
    longest = len(gaps) // COLLECT_EVERY
    by_length = sorted(gaps, key=lambda gap: gap.cycles)
    others, collected = mean_of(by_length[:-longest]), mean_of(by_length[-longest:])
    return Spent(collected.cycles - others.cycles, collected.instructions - others.instructions)


def table(steps: dict[str, Step]) -> Iterator[str]:
    yield (f"{'ms emulated':<24}{'inference':>10}{'forward':>10}{'backward':>10}{'weights':>10}"
           f"{'between':>10}{'step':>10}{'between':>9}{'collection':>12}"
           f"{'kernels/inference':>19}{'estimated':>11}")  # fmt: skip
    for title, step in steps.items():
        parts = (step.inference, step.forward, step.backward, step.weights, step.between)
        columns = "".join(
            f"{part.ms:>10.1f}" if part else f"{'-':>10}" for part in (*parts, step.whole)
        )
        share = (
            f"{step.between.cycles / step.whole.cycles:.1%}" if step.between and step.whole else "-"
        )
        guess = f"{step.estimated / step.kernels.cycles:.1%}" if step.estimated else "-"
        collection = f"{step.collection.ms:.1f}" if step.collection else "-"
        yield f"{title:<24}{columns}{share:>9}{collection:>12}{step.ratio:>19.2f}{guess:>11}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_option(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--python", action="store_true", help="what passes between kernels, too")
    which.add_argument("--operators", action="store_true", help="by kind of operator")
    options = parser.parse_args()
    if options.operators:
        for network in networks(options.model or REPORTED):
            print(network.title, *operators(network), sep="\n")
        return
    print(*table(all_steps(options.model or REPORTED, options.python)), sep="\n")


def all_steps(names: tuple[str, ...] = REPORTED, python: bool = True) -> dict[str, Step]:
    """By title."""
    return {network.title: whole_step(network, python) for network in networks(names)}


def whole_step(network: Network, python: bool = True) -> Step:
    plan, graph = plan_of(network), network.graph
    (step,) = measure_steps(network, [plan])
    guess = sum(step_cycles(build_program(graph, plan), graph, PICO.clock)) if PICO.clock else 0.0
    step = replace(step, estimated=round(guess))
    if not python:
        return step
    between, collection = measure_between(network, plan)
    return replace(step, between=between, collection=collection)


if __name__ == "__main__":
    tell_errors(main)
