"""Programs that run operator by operator on an emulated core and on the twin: after each, all
memory must be the same. Every buffer stands apart at some alignment, with guard bytes around."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from gradient_cases import ACTIVATIONS, ZEROS, draw, train_all
from guards import Scattered
from machine import Machine
from patch_cases import MODELS, SIZES, drawn_plan, mixed
from small_models import Net, wide_front
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.program import Buffer, Code, Flag, Op
from sparsetune.tflite import parse_tflite
from sparsetune_tools.bare import BareMachine, Core

RATE = rate(0.05)
SCRATCH = ("lanes", "urow")  # what the twin does not write, or not alike
CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 16, 24, 40)
Prepare = Callable[[Machine, Op], None]


def memories(machine: Machine) -> list[bytearray]:
    return [machine.state, machine.arena, machine.cold]


def take_scratch(machine: Machine, board: BareMachine, at: int) -> int:
    """What the operator (or those of the strip) left in its scratch, to the twin as well; how many
    of its bytes changed."""
    count = int(str(machine.ops[at].words[0])) if machine.ops[at].code == Code.STRIP else 0
    changed = 0
    for op in machine.ops[at : at + 1 + count]:
        for word in op.words:
            if isinstance(word, Buffer) and word.name.startswith(SCRATCH):
                number = 3 if word.is_cold else 2
                memory = memories(machine)[number - 1]
                where = slice(word.offset, word.offset + word.size)
                left = board.dump(number)[where]
                changed += left != memory[where]
                memory[where] = left
    return changed


def check_equal(
    machine: Machine,
    core: Core,
    training: bool = True,
    before: Prepare | None = None,
    cores: int = 0,
) -> int:
    """Runs all operators in both places; after each, all memory must be the same. How many made use
    of scratch. before: what is done to the machine in front of each operator. cores: st_cores_t, of
    the board."""
    board = BareMachine(core, machine.image.data, [bytes(m) for m in memories(machine)])
    skipped = Flag.IN_STRIP | (Flag.INFERENCE_ONLY if training else Flag.TRAINING_ONLY)
    fast = 0
    for at, op in enumerate(machine.ops):
        if op.flags & skipped:
            continue
        if before:
            before(machine, op)
            for number, memory in enumerate(memories(machine), 1):
                board.load(number, bytes(memory))
        machine.run(at, at + 1, training)
        board.run(at, at + 1, training, cores)
        fast += take_scratch(machine, board, at)
        for number, memory in enumerate(memories(machine), 1):
            assert board.dump(number) == bytes(memory), (at, op.code.name)
    return fast


def scattered(net: Net, shift: int, plan: UpdatePlan | None = None) -> Machine:
    machine = Scattered(parse_tflite(net.to_bytes()), plan or UpdatePlan(()), shift)
    machine.load(net.sample())
    return machine


def output(rng: Any) -> dict[str, Any]:
    return {"zero": int(rng.choice(ZEROS)), "activation": ACTIVATIONS[rng.integers(4)]}


# What an error tensor holds: n values of a magnitude up to `most`.
GRADIENTS: dict[str, Callable[[Any, int, int], Any]] = {
    "zeros": lambda rng, n, most: np.zeros(n),
    "one value": lambda rng, n, most: most * (np.arange(n) == rng.integers(n)),
    "some": lambda rng, n, most: rng.integers(-most, most + 1, n) * (rng.random(n) < 0.3),
    "no zeros": lambda rng, n, most: rng.integers(1, most + 1, n) * rng.choice((-1, 1), n),
    "small": lambda rng, n, most: rng.integers(-2, 3, n),
    "largest": lambda rng, n, most: np.full(n, most),
    "smallest": lambda rng, n, most: np.full(n, -most),
}


def with_gradient(kind: str, seed: int) -> Prepare:
    """Puts it into the error tensor that a layer with weights is going to read."""
    rng = np.random.default_rng(seed)

    def before(machine: Machine, op: Op) -> None:
        if op.code.name.endswith(("CONV2D_GRAD_INPUT", "CONV2D_UPDATE")):
            dy = op.words[1]
            assert isinstance(dy, Buffer)
            values = GRADIENTS[kind](rng, dy.size // 2, dy.limit).astype("<i2").tobytes()
            memory = memories(machine)[2 if dy.is_cold else 1]
            memory[dy.offset : dy.offset + dy.size] = values

    return before


# Programs of many shapes ------------------------------------------------------------------------


def convolutions(shift: int) -> Iterator[Machine]:
    for i in range(6):
        rng = np.random.default_rng((shift, i))
        size = int(rng.integers(1, 8)), int(rng.integers(2, 9))
        net = Net((1, *size, int(rng.choice(CHANNELS))), int(rng.choice(ZEROS)), 5 * shift + i)
        kernel = ((1, 1), (1, 1), (3, 3), (2, 3))[rng.integers(4)]
        stride, dilation = (int(rng.choice((1, 1, 2))) for _ in range(2))
        net.conv(int(rng.choice(CHANNELS)), kernel, stride=stride, dilation=dilation, **output(rng))
        net.conv(int(rng.choice(CHANNELS)), 1, **output(rng))
        yield scattered(net, shift)


def depthwise_layers(shift: int) -> Iterator[Machine]:
    for i in range(6):
        rng = np.random.default_rng((100 + shift, i))
        size = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        net = Net((1, *size, int(rng.choice(CHANNELS))), int(rng.choice(ZEROS)), 7 * shift + i)
        same = bool(rng.integers(2)) or min(size) < 3
        net.depthwise(1, 3, stride=int(rng.choice((1, 1, 2))), same=same, **output(rng))
        yield scattered(net, shift)


def two_operands(kind: str, scale: float) -> Iterator[Machine]:
    """All int8 pairs of them, and one that is broadcast."""
    values = np.arange(-128, 128, dtype=np.int8)
    for seed, zero in enumerate((-128, 5, 127)):
        net = Net((1, 8, 8, 1024), zero, seed)
        shape = ((1, 8, 8, 1024), (1, 1, 1, 1024), (1, 1, 1, 1))[seed]
        other = net.constant(shape, int(ZEROS[seed]), scale)
        net.binary(kind, other, zero, activation=ACTIVATIONS[seed], swapped=seed == 1)
        machine = Machine(net.to_bytes())
        machine.load(np.resize(np.repeat(values, 256), (1, 8, 8, 1024)))
        yield machine


def training_steps(case: str) -> Iterator[Machine]:
    for seed in range(4):
        drawn = draw(case, seed)
        machine = Scattered(drawn.graph, train_all(drawn.graph), (5 * seed + 3) % 16)
        machine.control(seed % 2, RATE, seed)
        machine.load(drawn.x)
        yield machine


def patches() -> Iterator[Machine]:
    """Gradients over patches of maps."""
    for seed, case in enumerate(3 * MODELS):
        graph, plan, x, _ = drawn_plan(case, seed)
        machine = Scattered(graph, plan, (5 * seed + 3) % 16)
        machine.control(seed % 2, RATE, seed)
        machine.load(x)
        yield machine
    for size in SIZES:
        net, graph, plan = mixed(size)
        machine = Machine(graph, plan)
        machine.control(1, RATE, size)
        machine.load(net.sample())
        yield machine


def steps_of(power: int) -> Iterator[Machine]:
    """Pointwise and other layers that train at a rate of 2^power."""
    for i in range(8):
        rng = np.random.default_rng((power + 20, i))
        size = int(rng.integers(1, 7)), int(rng.integers(1, 13))
        net = Net((1, *size, int(rng.choice(CHANNELS))), int(rng.choice(ZEROS)), i)
        net.conv(int(rng.choice(CHANNELS)), 1 if i % 2 else (1, 2), **output(rng))
        net.conv(int(rng.choice((24, 65, 70))), 1, stride=int(rng.choice((1, 1, 2))))
        net.mean((1, 2), False)
        net.dense(3)
        graph = parse_tflite(net.to_bytes())
        plan = replace(train_all(graph), residual=i == 7)
        machine = Scattered(graph, plan, (3 * i) % 16)
        machine.control(1, rate(2.0**power), i)
        machine.load(net.sample())
        yield machine


def chosen_channels_and_strips(last: int) -> Iterator[Machine]:
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, default_plan(graph, last, 0.4, residual=last == 7))
    assert any(op.code == Code.STRIP for op in machine.ops) == (last == 1)
    for seed in range(3):
        machine.control(seed, RATE, seed)
        machine.load(net.sample())
        yield machine
