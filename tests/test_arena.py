"""The arena: buffers alive at once never overlap, and it is hardly larger than it must be."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from gradient_cases import CASES, train_all
from machine import Machine
from real_models import NAMES, real_model
from small_models import RELU, Net
from sparsetune.arena import Lifetime, lower_bound, place
from sparsetune.numerics import rate
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.program import Buffer, Flag
from sparsetune.tflite import parse_tflite


def users(machine: Machine) -> dict[Buffer, list[int]]:
    """Buffer -> the operators that name it; -1 stands for whoever writes the input. Operators of
    a strip run in turns: whoever uses a buffer in one uses it from the strip's first to last."""
    found: dict[Buffer, list[int]] = {}
    first = 0
    for i, op in enumerate(machine.ops):
        first = first if op.flags & Flag.IN_STRIP else i
        for buffer in op.buffers:
            found.setdefault(buffer, []).append(first)
            if i > first:
                found[buffer].append(last_of_strip(machine, i))
    found[machine.program.input].insert(0, -1)
    return found


def last_of_strip(machine: Machine, at: int) -> int:
    while at + 1 < len(machine.ops) and machine.ops[at + 1].flags & Flag.IN_STRIP:
        at += 1
    return at


def assert_no_overlap(machine: Machine) -> None:
    """From the operators alone: who is alive when, and who lies where."""
    found = users(machine)
    for buffer in found:
        assert buffer.offset % 4 == 0
        assert 0 <= buffer.offset <= machine.image.arena_bytes - buffer.size
    alive = [(uses[0], uses[-1], buffer) for buffer, uses in found.items()]
    for i, (first, last, a) in enumerate(alive):
        for other_first, other_last, b in alive[:i]:
            if first <= other_last and other_first <= last:
                assert a.offset + a.size <= b.offset or b.offset + b.size <= a.offset, (a, b)


class Apart(Machine):
    """The same program with a region of its own for every buffer: nothing can overwrite another."""

    def __init__(self, model: bytes, plan: UpdatePlan, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sparsetune.arena.place", place_apart)
        super().__init__(model, plan)
        monkeypatch.undo()


def place_apart(lives: list[Lifetime]) -> int:
    at = 0
    for life in lives:
        life.buffer.offset = at
        at += (life.buffer.size + 3) // 4 * 4 + 16
    return at


def some_nets() -> list[Net]:
    nets = [make(np.random.default_rng(seed)) for make in CASES.values() for seed in range(5)]
    net = Net((1, 8, 8, 4), seed=3)
    a = net.conv(6, 3, activation=RELU, zero=-128)
    net.conv(6, 3)
    b = net.add(a, RELU, zero=-128)
    net.conv(6, 1)
    net.add(a)
    net.add(b)
    net.add(net.at)
    net.flatten()
    net.dense(6)
    net.softmax()
    return [*nets, net]


def plans(model: bytes) -> list[UpdatePlan]:
    """Nothing; the last layers, some channels; biases only; everything."""
    graph = parse_tflite(model)
    biases = tuple(LayerPlan(op.index, 0) for op in graph.trainable if graph.bias_of(op))
    return [UpdatePlan(()), default_plan(graph, 2, 0.5), UpdatePlan(biases), train_all(graph)]


def test_buffers_alive_at_once_do_not_overlap() -> None:
    for net in some_nets():
        model = net.to_bytes()
        for plan in plans(model):
            assert_no_overlap(Machine(model, plan))


def test_sharing_memory_changes_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """State and output are those of a run in which each buffer has a place of its own: no
    buffer is read after another has taken its place, none lives shorter than it is needed."""
    for net in some_nets():
        model, x = net.to_bytes(), [net.sample() for _ in range(3)]
        for plan in plans(model):
            shared, apart = Machine(model, plan), Apart(model, plan, monkeypatch)
            assert apart.image.arena_bytes > shared.image.arena_bytes
            for i, sample in enumerate(x):
                np.testing.assert_array_equal(shared.infer(sample), apart.infer(sample))
                if plan.layers:
                    losses = [m.step(sample, i, rate(0.1), i) for m in (shared, apart)]
                    assert losses[0] == losses[1] and shared.state == apart.state


def test_what_the_arena_held_before_does_not_matter() -> None:
    """No operator reads what none has written in this step."""
    for net in some_nets()[::3]:
        model, x = net.to_bytes(), net.sample()
        states = []
        for filling in (0, 0xFF, 0x5A):
            machine = Machine(model, train_all(parse_tflite(model)))
            machine.arena[:] = bytes([filling]) * len(machine.arena)
            machine.step(x, 1, rate(0.1), 9)
            states.append(bytes(machine.state))
        assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("name", NAMES)
def test_real_models_come_near_the_lower_bound(name: str) -> None:
    """No arena can be smaller than the buffers of the busiest moment."""
    model = real_model(name, 1).model
    graph = parse_tflite(model)
    for title, plan in (
        ("inference", UpdatePlan(())),
        ("last 3 layers, half", default_plan(graph, 3, 0.5)),
        ("all layers", train_all(graph)),
    ):
        machine = Machine(model, plan)
        assert_no_overlap(machine)
        size, least = machine.layout.arena_bytes, machine.layout.arena_lower_bound
        print(f"{name}, {title}: arena {size} bytes, at least {least}")
        assert least == independent_lower_bound(machine)
        assert least <= size <= 1.05 * least


def independent_lower_bound(machine: Machine) -> int:
    spans = [(uses[0], uses[-1], -(-b.size // 4) * 4) for b, uses in users(machine).items()]
    return max(
        sum(size for first, last, size in spans if first <= moment <= last)
        for moment in range(-1, len(machine.ops))
    )


# Tiny cases against the optimum -------------------------------------------------------------------


def optimum(lives: list[Lifetime]) -> int:
    """The smallest arena there is: some order of placing each at the lowest place gives it."""
    return min(lowest_placement(order) for order in permutations(lives))


def lowest_placement(lives: tuple[Lifetime, ...]) -> int:
    placed: list[tuple[Lifetime, int]] = []
    for life in lives:
        size, at = life.buffer.size, 0
        rivals = sorted((o, o + p.buffer.size) for p, o in placed if overlap(p, life))
        for begin, end in rivals:
            if at + size > begin:
                at = max(at, end)
        placed.append((life, at))
    return max(at + life.buffer.size for life, at in placed)


def overlap(a: Lifetime, b: Lifetime) -> bool:
    return not (a.last < b.first or b.last < a.first)


def random_lives(rng: np.random.Generator) -> list[Lifetime]:
    lives = []
    for i in range(int(rng.integers(1, 7))):
        first, last = sorted(rng.integers(0, 8, 2).tolist())
        lives.append(Lifetime(Buffer(f"b{i}", 4 * int(rng.integers(1, 20))), first, last))
    return lives


def test_random_lifetimes_against_the_optimum() -> None:
    rng = np.random.default_rng(1)
    sizes, best = [], []
    for _ in range(150):
        lives = random_lives(rng)
        sizes.append(place(lives))
        best.append(optimum(lives))
        assert lower_bound(lives) <= best[-1] <= sizes[-1]
        for i, a in enumerate(lives):
            for b in lives[:i]:
                ends = [(x.buffer.offset, x.buffer.offset + x.buffer.size) for x in (a, b)]
                assert not overlap(a, b) or ends[0][1] <= ends[1][0] or ends[1][1] <= ends[0][0]
        assert sizes[-1] == max(x.buffer.offset + x.buffer.size for x in lives)
    hit = np.mean(np.equal(sizes, best))
    print(f"optimal in {100 * hit:.0f} % of cases, {sum(sizes)} bytes instead of {sum(best)}")
    assert hit > 0.9 and sum(sizes) < 1.02 * sum(best)


def test_inference_only_operators_are_not_run_in_training_and_the_other_way_round() -> None:
    """The output's buffer may serve something else in training: only inference writes it."""
    machine = Machine(some_nets()[-1].to_bytes(), plans(some_nets()[-1].to_bytes())[3])
    flags = {op.code.name: op.flags for op in machine.ops}
    assert flags["SOFTMAX"] == Flag.INFERENCE_ONLY
    assert all(op.flags & Flag.TRAINING_ONLY for op in machine.ops[machine.program.forward :])
