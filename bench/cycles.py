"""Cycles of every kernel on the emulated Pico, for `sparsetune plan`. Run: python bench/cycles.py

Small models run on the board operator by operator; for each kind of operator the cycles are fitted
as [mac, loop, element] * what sparsetune/cycles.py counts. It prints what belongs into
boards/pico.toml, and how far single measurements are from that. Flash caches are not emulated: a
real board is slower.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from conftest import FIRMWARE
from gradient_cases import train_all
from machine import Machine
from runs import Task, board_train, cifar_task, digits_task, kws_task
from shared_tasks import shared_folder
from small_models import RELU, Net, wide_front
from sparsetune.board import Board
from sparsetune.compile import build_program
from sparsetune.cycles import OTHER, SKIP_ZEROS, Clock, Cost, Work, step_cycles, work_of, works
from sparsetune.graph import input_channels
from sparsetune.numerics import rate
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.program import Buffer, Code, Flag, Op
from sparsetune.push import push_file, push_rom
from sparsetune.tflite import parse_tflite
from sparsetune_device.channels import make_policy
from sparsetune_device.columns import Columns
from sparsetune_device.image import Image as DeviceImage
from sparsetune_tools.emulated_pico import EmulatedPico

HERTZ = 125_000_000
SOURCE = "emulated Pico, flash cache not modelled"
LABEL, RATE, SEED = 1, rate(0.01), 7
LARGE = 10_000  # cycles
UNMEASURED = Cost(0.0, 0.0, 100.0)  # of operators that no model here has
WARM_STEPS = 3  # until error tensors have found their exponents
ON_BOARD = """
import struct, time, sparsetune_kernels as k
from sparsetune_device.engine import Engine
from sparsetune_device.image import open_image
from sparsetune_device.channels import make_policy
from sparsetune_device.columns import Columns
e = Engine(open_image("/rom/model.img"))
make_policy("static", e.image.layers, 1).choose(0, e.state)
for layer in e.image.layers:
    if layer.has_columns:
        Columns(layer, e.image, e.state).bring()
b = e.image.data, e.state, e.arena, e.cold, e.store
def us(i, j):
    start = time.ticks_us()
    k.run(*b, i, j, 1)
    return time.ticks_diff(time.ticks_us(), start)
def control(mantissa, exponent):
    with open("/sparsetune/x", "rb") as f:
        f.readinto(e.sample)
    struct.pack_into("<iiiIiI", e.state, 0, {label}, 0, 0, mantissa, exponent, {seed})
for i in range({warm}):
    control(0, 0)
    us(0, e.image.ops)
control({mantissa}, {exponent})
us(0, 0)
print(us(0, 0))
for i, j in {spans}:
    print(us(i, j))
"""


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


def in_flash() -> tuple[Machine, Net]:
    """Layers that stay in flash but for half of their channels."""
    net = Net((1, 8, 8, 8), seed=7)
    net.conv(16, 3)
    net.conv(24, 1)
    net.conv(16, 3, stride=2)
    net = with_head(net)
    graph = parse_tflite(net.to_bytes())
    layers = [LayerPlan(op.index, n, True, n) for op in graph.trainable
              for n in [input_channels(graph, op) // 2]]
    return Machine(graph, UpdatePlan(tuple(layers))), net


def ending(kind: str) -> Net:
    net = Net((1, 6, 6, 8), seed=5)
    net.conv(16, 1)
    net.flatten()
    net.dense(96)
    if kind == "bce":
        net.unary("LOGISTIC")
    return net


def models() -> Iterator[tuple[Machine, Net]]:
    for relu in (True, False):
        for channels in (8, 24):
            net = convolutions(relu, channels)
            graph = parse_tflite(net.to_bytes())
            yield Machine(graph, default_plan(graph, 99)), net
    for net, loss in (
        *((windows(), ""), (elementwise(), ""), (moves(), ""), (resized(), "")),
        *((ending("mse"), "mse"), (ending("bce"), "bce")),
    ):
        graph = replace(parse_tflite(net.to_bytes()), loss=loss)
        yield Machine(graph, UpdatePlan(train_all(graph).layers)), net
    yield in_flash()


# Measuring ------------------------------------------------------------------------------------


class Bench:
    """A board to measure on."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def times(self, image: bytes, x: np.ndarray, spans: list[tuple[int, int]]) -> list[int]:
        """Cycles of stretches of a training step's program."""
        push_rom(self.board, {"model.img": image})
        push_file(self.board, "/sparsetune/x", x.tobytes())
        settings = {"label": LABEL, "seed": SEED, "warm": WARM_STEPS, "spans": spans,
                    "mantissa": RATE[0], "exponent": RATE[1]}
        lines: list[str] = []
        self.board.stream(ON_BOARD.format(**settings), lines.append)
        empty, *times = (int(line) * HERTZ // 1_000_000 for line in lines)
        return [cycles - empty for cycles in times]

    def measure(self, machine: Machine, net: Net) -> list[Measured]:
        """Every operator of a training step; a strip as one."""
        x = net.sample()
        which = [i for i, op in enumerate(machine.ops)
                 if not op.flags & (Flag.IN_STRIP | Flag.INFERENCE_ONLY)]
        times = self.times(machine.image.data, x, [(i, i + 1) for i in which])
        shares = shares_not_zero(machine, x, which)
        counted = list(works(machine.program, machine.graph))
        found = []
        for i, cycles, share in zip(which, times, shares, strict=True):
            op = machine.ops[i]
            work = counted[i] if op.code == Code.STRIP else work_of(op, share)
            found.append(Measured(op, work, cycles))
        return found


def shares_not_zero(machine: Machine, x: np.ndarray, which: list[int]) -> list[float]:
    """On the twin: the share of dy that is not zero, where zeros are skipped; else 1."""
    choose(machine)
    for _ in range(WARM_STEPS):
        machine.step(x, LABEL, (0, 0), SEED)
    machine.load(x)
    machine.control(LABEL, RATE, SEED)
    shares = []
    for i in which:
        op = machine.ops[i]
        dy = op.words[1] if op.code in SKIP_ZEROS else None
        skips = isinstance(dy, Buffer)
        shares.append(float((machine.read(dy, np.int16) != 0).mean()) if skips else 1.0)
        machine.run(i, i + 1)
    return shares


def choose(machine: Machine) -> None:
    """The channels that the board trains, too."""
    layers = DeviceImage(machine.image.data)
    make_policy("static", layers.layers, 1).choose(0, machine.state)
    for layer in layers.layers:
        if layer.has_columns:
            Columns(layer, layers, machine.state).bring()


def measure_strips(bench: Bench) -> list[Measured]:
    """What strips take beyond the same operators one by one."""
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    plan = default_plan(graph, 1)
    strips = Machine(graph, plan)
    alone = {row.op.source: row.cycles for row in
             bench.measure(Machine(graph, replace(plan, strips=False)), net)
             if not row.op.flags & Flag.TRAINING_ONLY}
    found = []
    for row in bench.measure(strips, net):
        if row.op.code == Code.STRIP:
            at = strips.ops.index(row.op)
            plain = sum(alone[op.source] for op in strips.ops[at + 1 : at + 1 + row.op.words[0]])
            found.append(Measured(row.op, row.work, max(1, row.cycles - plain)))
    return found


def python_cycles(bench: Bench) -> int:
    """Cycles of a step of the digits model beside its kernels."""
    task = digits_task(steps=40)
    lines, _ = board_train(bench.board, task)
    steps = [float(line.split(",ms:")[1]) for line in lines if line.startswith("loss:")]
    kernels = bench.times(task.image.data, task.train.x[0], [(0, task.image.ops)])
    return round(float(np.median(steps)) * HERTZ / 1000 - kernels[0])


# Fitting --------------------------------------------------------------------------------------


def fit(rows: list[Measured]) -> Cost:
    """Least squares of the relative errors; no cost is negative."""
    scale = 1 / np.array([row.cycles for row in rows])
    work = np.array([[row.work.macs, row.work.loops, row.work.elements] for row in rows])
    best, best_error = np.zeros(3), np.inf
    for columns in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):
        costs = np.zeros(3)
        a = work[:, columns] * scale[:, None]
        if np.linalg.matrix_rank(a) == len(columns):
            costs[columns] = np.linalg.lstsq(a, np.ones(len(rows)), rcond=None)[0]
            error = float(((work @ costs * scale - 1) ** 2).sum())
            if costs.min() >= 0 and error < best_error * 0.999 - 1e-9:
                best, best_error = costs, error
    return Cost(*best.tolist())


def show(code: str, cost: Cost, rows: list[Measured]) -> None:
    worst = max((abs(cost.of(row.work) / row.cycles - 1) for row in rows), default=0)
    values = f"{code} = [{cost.mac:.1f}, {cost.loop:.1f}, {cost.element:.1f}]"
    said = f"{len(rows)} measured, at most {100 * worst:.0f} % off" if rows else "guessed"
    print(f"{values:<52} # {said}")


def large_enough(rows: list[Measured]) -> list[Measured]:
    """Without those where reading the clock and starting the operator count."""
    large = [row for row in rows if row.cycles >= LARGE]
    return large or [max(rows, key=lambda row: row.cycles)]


def check(bench: Bench, title: str, task: Task, clock: Clock) -> None:
    """A whole step of a real model against its estimate."""
    plan = default_plan(task.graph, len(task.image.layers))
    program = build_program(task.graph, plan)
    guess = sum(step_cycles(program, task.graph, clock))
    (cycles,) = bench.times(task.image.data, task.train.x[0], [(0, task.image.ops)])
    print(f"# {title}: kernels of a step {cycles / HERTZ * 1000:.1f} ms, estimated "
          f"{guess / HERTZ * 1000:.1f} ms")


def main() -> None:
    found: dict[str, list[Measured]] = {}
    with EmulatedPico(firmware=FIRMWARE) as pico, Board.connect(pico.port) as board:
        bench = Bench(board)
        for machine, net in models():
            for row in bench.measure(machine, net):
                found.setdefault(row.op.code.name.lower(), []).append(row)
        found = {code: large_enough(rows) for code, rows in sorted(found.items())}
        costs = {code: fit(rows) for code, rows in found.items()}
        found["strip"] = measure_strips(bench)
        costs["strip"] = fit(found["strip"])
        costs[OTHER] = UNMEASURED
        print(f'[cycles]\nsource = "{SOURCE}"\nhertz = {HERTZ}\nstep = {python_cycles(bench)}\n')
        print("[cycles.operators]")
        for code, rows in found.items():
            show(code, costs[code], rows)
        show(OTHER, UNMEASURED, [])
        clock = Clock(SOURCE, HERTZ, 0, costs)
        check(bench, "digits", digits_task(), clock)
        shared = shared_folder()
        if shared:
            check(bench, "KWS", kws_task(shared), clock)
            check(bench, "ResNet-8", cifar_task(shared), clock)


if __name__ == "__main__":
    main()
