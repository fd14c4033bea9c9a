"""Cycles of every kernel on the emulated Pico, for `sparsetune plan`. Run: python bench/cycles.py
[--residual]

Small models and real networks run on the board operator by operator; for each kind of operator the
cycles are fitted as [mac, loop, element] * what sparsetune/cycles.py counts, and what starting one
takes. It prints what belongs into boards/pico.toml, and how far single measurements are from that.
What residuals take more is the median of real networks, for each weight; --residual prints that
alone. Flash caches are not emulated: a real board is slower.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import combinations
from statistics import median

import numpy as np
from emulated import HERTZ, ROOT, measure
from gradient_cases import train_all
from kept import FINE
from machine import Machine
from networks import REPORTED, Network, network, networks, plan_of
from small_models import RELU, Array, Net, wide_front
from sparsetune.compile import build_program
from sparsetune.cycles import (
    CODES,
    MORE,
    OTHER,
    PATCHES,
    SKIP_ZEROS,
    Clock,
    Cost,
    Work,
    cost_name,
    has_residual,
    step_cycles,
    work_of,
    works,
)
from sparsetune.graph import input_channels
from sparsetune.numerics import rate
from sparsetune.plan import CODED, WHOLE, LayerPlan, UpdatePlan, default_plan, with_patches
from sparsetune.program import Buffer, Code, Flag, Op
from sparsetune.tflite import parse_tflite
from steps import measure_between, measure_steps
from whole_program import RATE, case_of, choose, settle

SOURCE = "emulated Pico, flash cache not modelled"
ENOUGH = 8  # operators of a kind, to tell what starting one takes; of fewer
LARGE = 10_000  # those of so many cycles count, where it is little
WITH_RESIDUAL = {"digits": 6, "kws": 6, "resnet8": 6, "vww": 3, "mbv2": 4}  # layers: they have room
FINE_RATE = rate(0.001)  # no weight moves by a quarter of its range at once, as in training
Rate = tuple[int, int]
UNMEASURED = Cost(0.0, 0.0, 100.0)  # of operators that no model here has


@dataclass(frozen=True)
class Measured:
    """An operator, its work (without zeros that are skipped), and the cycles it took."""

    op: Op
    work: Work
    cycles: float


# Models ---------------------------------------------------------------------------------------


def with_head(net: Net) -> Net:
    net.flatten()
    net.dense(10)
    net.softmax()
    return net


def convolutions(relu: bool, channels: int) -> Net:
    rest = {"activation": RELU, "zero": -128} if relu else {}
    net = Net((1, 8, 8, 8), seed=1)
    net.conv(channels, 3, **rest)
    net.conv(channels + 4, 1, **rest)
    net.depthwise(1, 3, **rest)
    net.conv(channels, 3, stride=2, **rest)
    net.depthwise(2, 3, stride=2, **rest)
    net.conv(40, 1, **rest)
    return with_head(net)


def windows() -> Net:
    net = Net((1, 12, 12, 16), seed=2)
    net.conv(16, 1)
    net.pool((2, 2), 2, kind="MAX")
    net.pool((3, 3), 1)
    return with_head(net)


def elementwise() -> Net:
    net = Net((1, 10, 10, 8), seed=3)
    a = net.conv(16, 1)
    b = net.conv(16, 1)
    for kind in ("SUB", "MUL"):
        net.binary(kind, a)
    net.add(b)
    net.leaky_relu(0.1)
    net.unary("TANH")
    net.mean((1, 2), keep=True)
    net.softmax()
    return with_head(net)


def moves() -> Net:
    net = Net((1, 10, 10, 8), seed=4)
    net.conv(16, 1)
    net.transpose((0, 3, 1, 2))
    net.pad(((0, 0), (1, 1), (1, 1), (0, 0)))
    net.concat([net.at], 3)
    return with_head(net)


def resized() -> Net:
    net = Net((1, 6, 6, 16), seed=6)
    net.conv(16, 1)
    net.resize("BILINEAR", (12, 12))
    net.resize("NEAREST_NEIGHBOR", (16, 16))
    return with_head(net)


def in_flash() -> tuple[Machine, Array]:
    """Layers that stay in flash but for half of their channels."""
    net = Net((1, 8, 8, 8), seed=7)
    net.conv(16, 3)
    net.conv(24, 1)
    net.conv(16, 3, stride=2)
    net = with_head(net)
    graph = parse_tflite(net.to_bytes())
    layers = [LayerPlan(op.index, n, True, n) for op in graph.trainable
              for n in [input_channels(graph, op) // 2]]
    return Machine(graph, UpdatePlan(tuple(layers))), net.sample()


def in_patches(
    channels: int, side: int, size: int, bits: int = WHOLE
) -> tuple[Machine, Array]:
    """Gradients over patches: half of the channels, all of them; a stride, one window of one.
    bits: of what is kept."""
    net = Net((1, side, side, channels), seed=8)
    net.conv(channels, 1, activation=RELU, zero=-128)
    net.conv(2 * channels, 1, activation=RELU, zero=-128)
    net.conv(channels, 3, stride=2)
    net = with_head(net)
    graph = parse_tflite(net.to_bytes())
    layers = [
        replace(layer, channels=layer.channels // (1 + i % 2), patch=size if i < 3 else 1,
                kept_bits=bits)
        for i, layer in enumerate(train_all(graph).layers)
    ]  # fmt: skip
    return Machine(graph, UpdatePlan(tuple(layers))), net.sample()


def ending(kind: str) -> Net:
    net = Net((1, 6, 6, 8), seed=5)
    net.conv(16, 1)
    net.flatten()
    net.dense(96)
    if kind == "bce":
        net.unary("LOGISTIC")
    return net


def models() -> Iterator[tuple[Machine, Array]]:
    """Each with a sample: small ones with every kind of operator, and real networks."""
    for relu in (True, False):
        for channels in (8, 24, 64):
            net = convolutions(relu, channels)
            graph = parse_tflite(net.to_bytes())
            yield Machine(graph, default_plan(graph, 99)), net.sample()
    for net, loss in (
        *((windows(), ""), (elementwise(), ""), (moves(), ""), (resized(), "")),
        *((ending("mse"), "mse"), (ending("bce"), "bce")),
    ):
        graph = replace(parse_tflite(net.to_bytes()), loss=loss)
        yield Machine(graph, UpdatePlan(train_all(graph).layers)), net.sample()
    yield in_flash()
    for real in networks(("digits", *REPORTED)):
        yield Machine(real.graph, plan_of(real)), real.x[:1]


# Measuring ------------------------------------------------------------------------------------


def measure_ops(machine: Machine, x: Array, learning_rate: Rate = RATE) -> list[Measured]:
    """Every operator of a training step; a strip as one."""
    choose(machine)
    settle(machine, x, learning_rate)
    case, which = case_of(machine)
    (spent,) = measure([case])
    shares = shares_not_zero(machine, which)
    counted = list(works(machine.program, machine.graph))
    found = []
    for i, took, share in zip(which, spent, shares, strict=True):
        op = machine.ops[i]
        work = counted[i] if op.code == Code.STRIP else work_of(op, share)
        found.append(Measured(op, work, took.cycles))
    return found


def shares_not_zero(machine: Machine, which: list[int]) -> list[float]:
    """On the twin: the share of dy that is not zero, where zeros are skipped; else 1."""
    shares = []
    for i in which:
        op = machine.ops[i]
        dy = op.words[1] if op.code in SKIP_ZEROS else None
        skips = isinstance(dy, Buffer)
        shares.append(float((machine.read(dy, np.int16) != 0).mean()) if skips else 1.0)
        machine.run(i, i + 1)
    return shares


def measure_patches() -> Iterator[Measured]:
    """Means, sums and shares of patches; all else is measured where there are none."""
    for size in (2, 4):
        for channels, side in ((8, 8), (24, 12), (64, 8), (48, 16)):
            rows = measure_ops(*in_patches(channels, side, size))
            yield from (row for row in rows if row.op.code in PATCHES)


def measure_codes() -> Iterator[Measured]:
    for channels, side in ((8, 8), (24, 12), (64, 8), (48, 16)):
        rows = measure_ops(*in_patches(channels, side, 1, CODED))
        yield from (row for row in rows if row.op.code in CODES)


def measure_strips() -> list[Measured]:
    """What strips take beyond the same operators one by one."""
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    plan = default_plan(graph, 1)
    x = net.sample()
    strips = Machine(graph, plan)
    alone = {row.op.source: row.cycles for row in
             measure_ops(Machine(graph, replace(plan, strips=False)), x)
             if not row.op.flags & Flag.TRAINING_ONLY}
    found = []
    for row in measure_ops(strips, x):
        if row.op.code == Code.STRIP:
            at = strips.ops.index(row.op)
            plain = sum(alone[op.source] for op in strips.ops[at + 1 : at + 1 + row.op.words[0]])
            found.append(Measured(row.op, row.work, max(1, row.cycles - plain)))
    return found


def measure_residuals() -> dict[str, list[float]]:
    """Cycles more for each weight, of each update, by the name of the cost."""
    found: dict[str, list[float]] = {}
    for real in networks(tuple(WITH_RESIDUAL)):
        plan = default_plan(real.graph, WITH_RESIDUAL[real.name])
        plain, fine = (
            measure_ops(Machine(real.graph, which), real.x[:1], FINE_RATE)
            for which in (plan, replace(plan, residual=True))
        )
        for a, b in zip(plain, fine, strict=True):
            if has_residual(b.op):
                more = (b.cycles - a.cycles) / b.work.elements
                found.setdefault(cost_name(b.op) + MORE, []).append(more)
    return found


def measure_selections() -> list[Measured]:
    """SELECT_ERRORS that only count, and that drop half of the channels."""
    small = [convolutions(relu, channels) for relu in (True, False) for channels in (8, 24, 64)]
    cases = [(g, default_plan(g, 99), net.sample()) for net in small
             for g in (parse_tflite(net.to_bytes()),)]
    cases += [(real.graph, plan_of(real), real.x[:1]) for real in networks(("digits", *REPORTED))]
    return [row for graph, plan, x in cases for policy in ("1:1:1", "0.5:0.5:1")
            for row in measure_ops(Machine(graph, replace(plan, tinyprop=policy)), x)
            if row.op.code == Code.SELECT_ERRORS]


# Fitting --------------------------------------------------------------------------------------


def fit(rows: list[Measured]) -> Cost:
    """Least squares of the errors, each divided by the root of what was measured, so that what
    takes long counts for more; no cost is negative."""
    cycles = np.array([row.cycles for row in rows])
    scale = 1 / np.sqrt(cycles)
    counted = 4 if len(rows) >= ENOUGH else 3
    work = np.array([[*astuple(row.work), 1.0] for row in rows])
    best, best_error = np.zeros(4), np.inf
    for columns in subsets(counted):
        costs = np.zeros(4)
        a = work[:, columns] * scale[:, None]
        if np.linalg.matrix_rank(a) == len(columns):
            costs[columns] = np.linalg.lstsq(a, cycles * scale, rcond=None)[0]
            error = float((((work @ costs - cycles) * scale) ** 2).sum())
            if costs.min() >= 0 and error < best_error * 0.999 - 1e-9:
                best, best_error = costs, error
    return Cost(*best.tolist())


def subsets(count: int) -> Iterator[list[int]]:
    """Of the numbers below count, the largest first."""
    for size in range(count, 0, -1):
        yield from map(list, combinations(range(count), size))


def show(code: str, cost: Cost, rows: list[Measured]) -> None:
    worst = max((abs(cost.of(row.work) / row.cycles - 1) for row in rows), default=0)
    figures = [*astuple(cost)[:3], *([cost.start] if cost.start else [])]
    values = f"{code} = [{', '.join(f'{figure:.1f}' for figure in figures)}]"
    said = f"{len(rows)} measured, at most {100 * worst:.0f} % off" if rows else "guessed"
    print(f"{values:<52} # {said}")


def large_enough(rows: list[Measured]) -> list[Measured]:
    """Where it is not known what starting an operator takes: without those where that counts."""
    if len(rows) >= ENOUGH:
        return rows
    large = [row for row in rows if row.cycles >= LARGE]
    return large or [max(rows, key=lambda row: row.cycles)]


def check(network: Network, plan: UpdatePlan, clock: Clock) -> None:
    """A whole step of a real model against its estimate."""
    graph = network.graph
    guess = sum(step_cycles(build_program(graph, plan), graph, clock))
    (step,) = measure_steps(network, [plan])
    title = network.title + (", residual" if plan.residual else "")
    title += ", in patches" if any(layer.patch > 1 for layer in plan.layers) else ""
    print(f"# {title}: kernels of a step {step.kernels.ms:.1f} ms, estimated "
          f"{guess / HERTZ * 1000:.1f} ms")


def between_steps() -> int:
    """Cycles of a step of the digits model beside its kernels."""
    digits = network("digits")
    assert digits is not None  # it comes with the project
    between, _ = measure_between(digits, plan_of(digits))
    return between.cycles


def both_cores() -> float:
    """What kernels take on both cores, of what they take on one: over all networks that
    bench/cores.py projected last."""
    kept = json.loads((ROOT / "bench" / "results" / "cores.json").read_text())
    steps = [network["all"] for network in kept.values() if "all" in network]
    return sum(step["both"] for step in steps) / sum(step["one"] for step in steps)


def show_residuals() -> dict[str, Cost]:
    found = {}
    for name, more in sorted(measure_residuals().items()):
        found[name] = Cost(0.0, 0.0, median(more))
        values = f"{name} = [0.0, 0.0, {median(more):.1f}]"
        print(f"{values:<52} # {len(more)} measured, {min(more):.0f} to {max(more):.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--residual", action="store_true", help="what residuals take alone")
    if parser.parse_args().residual:
        show_residuals()
        return
    found: dict[str, list[Measured]] = {}
    for machine, x in models():
        for row in measure_ops(machine, x):
            found.setdefault(cost_name(row.op), []).append(row)
    for row in (*measure_patches(), *measure_codes()):
        found.setdefault(cost_name(row.op), []).append(row)
    found = {code: large_enough(rows) for code, rows in sorted(found.items())}
    costs = {code: fit(rows) for code, rows in found.items()}
    found["strip"] = measure_strips()
    costs["strip"] = fit(found["strip"])
    found["select_errors"] = large_enough(measure_selections())
    costs["select_errors"] = fit(found["select_errors"])
    costs[OTHER] = UNMEASURED
    print(f'[cycles]\nsource = "{SOURCE}"\nhertz = {HERTZ}\nstep = {between_steps()}')
    print(f"both = {both_cores():.2f}\n")
    print("[cycles.operators]")
    for code, rows in found.items():
        show(code, costs[code], rows)
    costs |= show_residuals()
    show(OTHER, UNMEASURED, [])
    clock = Clock(SOURCE, HERTZ, 0, costs)
    for real in networks(("digits", *REPORTED)):
        check(real, plan_of(real), clock)
        check(real, with_patches(real.graph, plan_of(real), 2), clock)
    for real in networks(FINE):
        check(real, replace(plan_of(real), residual=True), clock)


if __name__ == "__main__":
    main()
