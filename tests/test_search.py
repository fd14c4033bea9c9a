"""The search for plans: costs as sums against compiled programs, the choice against all choices
there are, gradients against the reference, and the command."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import runs
from gradients import Reference, cosine, length_ratio
from machine import litert_tensors
from schemes import MBV2_99, published
from shared_tasks import CIFAR_MODEL, KWS_MODEL, shared_folder
from small_models import RELU, Net
from sparsetune import cli
from sparsetune.analytic import analytic_memory
from sparsetune.boardspec import load_spec
from sparsetune.budget import step_time
from sparsetune.compile import compile_image, lean_program
from sparsetune.cycles import step_cycles
from sparsetune.data import Dataset
from sparsetune.graph import Graph, input_channels
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.image import parse_image
from sparsetune.memory import IN_FLASH, TAKING_TURNS, fixed_bytes, predict
from sparsetune.plan import CODED, WHOLE, LayerPlan, UpdatePlan, check_plan, check_store, load_plan
from sparsetune.plan import exact as without
from sparsetune.room import Room
from sparsetune.search.choice import Choice, Problem, Row, best, least
from sparsetune.search.chosen import Gains, Limits, Search, problem_of, search_plan, worth
from sparsetune.search.costs import Menu, Offer, Part, menu_of
from sparsetune.search.gains import Task, Worth, _common, by_gradients, guessed, split, thinned
from sparsetune.search.gradients import LayerGradient, measure_gradients
from sparsetune.task import task_of
from sparsetune.tflite import parse_tflite, read_tflite

PICO = load_spec("pico")
MBV2 = "models/tiny_training/mobilenet_v2_w0.35_128_int8.tflite"
SAMPLES = 500
MUCH = 1 << 24


def small() -> Net:
    """Convolutions of all kinds, one map that two of them read."""
    net = Net((1, 12, 12, 3), seed=5)
    net.conv(16, 3, stride=2, activation=RELU, zero=-128)
    net.depthwise(1, 3, activation=RELU, zero=-128)
    net.conv(24, 1)
    net.conv(64, 1, activation=RELU, zero=-128)
    net.depthwise(1, 3, stride=2, activation=RELU, zero=-128)
    net.conv(80, 1)
    net.flatten()
    net.dense(5)
    return net


@cache
def graph_of(name: str) -> Graph:
    if name == "small":
        return parse_tflite(small().to_bytes())
    if name == "digits":
        return read_tflite(runs.DIGITS)
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    if name == "mbv2":
        return parse_tflite(with_new_head((shared / MBV2).read_bytes(), HeadRequest(10)))
    return read_tflite(shared / {"kws": KWS_MODEL, "resnet8": CIFAR_MODEL}[name])


@cache
def menu(
    name: str, scratch: bool = True, residual: bool = False, kept_bits: int = WHOLE
) -> Menu:
    base, offer = UpdatePlan((), scratch=scratch, residual=residual), Offer(kept_bits=kept_bits)
    return menu_of(graph_of(name), base, PICO.clock, PICO.store_bytes, offer)


def drawn(found: Menu, rng: np.random.Generator) -> tuple[int, list[Part]]:
    """A depth, and random parts that it reaches."""
    depth = int(rng.integers(1, len(found.depths) + 1))
    parts = []
    for layer in range(1, depth + 1):
        ways = [part for part in found.parts if part.layer == layer]
        if layer == 1 or (ways and rng.random() < 0.5):
            parts.append(ways[int(rng.integers(len(ways)))])
    return depth, parts


def ram_by_sums(found: Menu, depth: int, parts: list[Part]) -> float:
    costs = [found.depths[depth - 1], *(part.cost for part in parts)]
    once = IN_FLASH * any(c.in_flash for c in costs)
    once += TAKING_TURNS * any(c.takes_turns for c in costs)
    lasting = sum(c.state + c.objects for c in costs)
    arena = np.sum([c.live for c in costs], axis=0).max()
    return float(arena + lasting + once + fixed_bytes(task_of(found.graph), SAMPLES, PICO))


# What plans take ------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_bits", [WHOLE, CODED])
@pytest.mark.parametrize("name", ["small", "digits", "kws", "resnet8", "mbv2"])
def test_ram_as_a_sum_against_compiled_plans(name: str, kept_bits: int) -> None:
    """Never less than the compiled program's but for gaps between buffers, which no sum knows."""
    found, rng = menu(name, kept_bits=kept_bits), np.random.default_rng(1)
    over = []
    for _ in range(12 if name == "mbv2" else 40):
        depth, parts = drawn(found, rng)
        layout = compile_image(found.graph, found.plan(depth, parts))
        real = predict(parse_image(layout.image), SAMPLES, PICO).used
        gaps = layout.arena_bytes - layout.arena_lower_bound
        said = ram_by_sums(found, depth, parts)
        assert said >= real - gaps, (depth, [part.plan for part in parts])
        over.append(said / real - 1)
    print(f"{name}: {100 * np.mean(over):.2f} % too much on average, {100 * max(over):.2f} at most")
    assert np.mean(over) < 0.05


@pytest.mark.parametrize("kept_bits", [WHOLE, CODED])
@pytest.mark.parametrize("name", ["small", "digits", "kws", "mbv2"])
def test_time_and_analytic_memory_as_sums(name: str, kept_bits: int) -> None:
    found, rng = menu(name, kept_bits=kept_bits), np.random.default_rng(2)
    assert PICO.clock
    for _ in range(6):
        depth, parts = drawn(found, rng)
        plan = found.plan(depth, parts)
        costs = [found.depths[depth - 1], *(part.cost for part in parts)]
        real = sum(step_cycles(lean_program(found.graph, plan), found.graph, PICO.clock))
        said = sum(c.cycles for c in costs)
        assert said >= 0.999 * real
        if not any(part.plan.slots for part in parts if part.layer == depth):
            # of a first layer in flash a gradient is counted that nobody needs
            assert said == pytest.approx(real, rel=0.001)
        assert sum(c.analytic for c in costs) == analytic_memory(found.graph, plan).total


def test_residuals_are_in_the_sum() -> None:
    plain, kept = menu("small"), menu("small", residual=True)
    for before, after in zip(plain.parts, kept.parts, strict=True):
        layer = before.plan
        if not layer.slots:
            size = plain.graph.tensor(plain.graph.operator(layer.operator).inputs[1]).size
            assert after.cost.state - before.cost.state == -(-size // 4) * 4


# The choice -----------------------------------------------------------------------------------


def random_problem(rng: np.random.Generator) -> Problem:
    depths, parts = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    layers = tuple(int(n) for n in rng.integers(1, depths + 1, parts))
    rows = tuple(
        Row(
            np.sort(rng.integers(0, 20, depths)).astype(float),
            rng.integers(0, 30, parts).astype(float),
            float(rng.integers(5, 80)),
            ((tuple(range(0, parts, 2)), float(rng.integers(0, 9))),),
        )
        for _ in range(3)
    )
    needed = frozenset({1}) if 1 in layers and rng.random() < 0.5 else frozenset[int]()
    gains = np.sort(rng.random(depths)), rng.random(parts)
    return Problem(*gains, layers, rows, needed)


def taken(row: Row, depth: int, parts: tuple[int, ...]) -> float:
    once = sum(amount for numbers, amount in row.once if set(numbers) & set(parts))
    return float(row.depths[depth - 1] + row.parts[list(parts)].sum() + once)


def all_choices(problem: Problem) -> list[Choice]:
    """That keep the structure, whatever they take."""
    found = []
    numbers = range(len(problem.parts))
    for depth in range(1, len(problem.depths) + 1):
        for count in range(len(problem.parts) + 1):
            for parts in itertools.combinations(numbers, count):
                layers = [problem.layers[i] for i in parts]
                alone = len(set(layers)) == len(layers) and max(layers, default=0) <= depth
                if alone and problem.needed <= set(layers):
                    value = problem.depths[depth - 1] + problem.parts[list(parts)].sum()
                    found.append(Choice(depth, parts, float(value)))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_the_best_of_all_choices(seed: int) -> None:
    problem = random_problem(np.random.default_rng(seed))
    every = all_choices(problem)
    fitting = [
        c for c in every if all(taken(row, c.depth, c.parts) <= row.limit for row in problem.rows)
    ]
    found = best(problem)
    if not fitting:
        assert found is None
        return
    assert found and found.value == pytest.approx(max(c.value for c in fitting))
    assert all(taken(row, found.depth, found.parts) <= row.limit + 1e-6 for row in problem.rows)
    free = replace(problem, rows=())
    smallest = least(free, problem.rows)
    peaks = [max(taken(row, c.depth, c.parts) for row in problem.rows) for c in every]
    assert smallest and smallest.value == pytest.approx(min(peaks))


@pytest.mark.parametrize("name", ["small", "kws", "mbv2"])
def test_found_plans_fit_and_use_what_is_there(name: str) -> None:
    graph = graph_of(name)
    value = guessed(graph).of
    gains = []
    need = ram_by_sums(menu(name), 1, [p for p in menu(name).parts if p.layer == 1][:1])
    for ram in (int(need) + 2000, int(need) + 20_000, 220_000):
        room = Room(PICO, ram, SAMPLES, PICO.store_bytes)
        found = search_plan(graph, UpdatePlan(()), Limits(room), value)
        check_plan(graph, found.plan)
        check_store(graph, found.plan, PICO.store_bytes)
        assert room.takes(graph, found.plan)
        assert found.gain == pytest.approx(guessed(graph).of_plan(graph, found.plan))
        gains.append(found.gain)
    assert gains == sorted(gains)


def test_limits_of_time_and_analytic_memory() -> None:
    graph = graph_of("mbv2")
    room = Room(PICO, PICO.heap_bytes, SAMPLES)
    value = guessed(graph).of
    analytic = search_plan(graph, UpdatePlan(()), Limits(room, analytic=40_000), value).plan
    assert 30_000 < analytic_memory(graph, analytic).total <= 40_000
    fast = search_plan(graph, UpdatePlan(()), Limits(room, seconds=1.0), value).plan
    assert PICO.clock
    seconds = step_time(room.compile(graph, fast).program, graph, PICO.clock).total
    assert 0.9 < seconds <= 1.01


def weights_of_a_step(graph: Graph, plan: UpdatePlan) -> int:
    """Of convolutions, counted one by one."""
    total = 0
    for layer in plan.layers:
        op = graph.operator(layer.operator)
        shape = graph.tensor(op.inputs[1]).shape
        if op.kind == "DEPTHWISE_CONV_2D":
            total += shape[1] * shape[2] * layer.channels * shape[3] // input_channels(graph, op)
        elif op.kind == "CONV_2D":
            total += shape[0] * shape[1] * shape[2] * layer.channels
    return total


@pytest.mark.parametrize("percent", [0.5, 2, 30])
def test_a_share_of_the_weights_is_a_limit(percent: float) -> None:
    graph = graph_of("digits")
    limits = Limits(Room(PICO, PICO.heap_bytes, SAMPLES), share=percent)
    whole = sum(
        graph.tensor(op.inputs[1]).size
        for op in graph.trainable
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")
    )
    found = search_plan(graph, UpdatePlan(()), limits, guessed(graph).of).plan
    assert 0.4 * percent * whole < 100 * weights_of_a_step(graph, found) <= percent * whole
    search = Search(graph, UpdatePlan(()), limits)
    assert search.fits(found)
    assert not Search(graph, UpdatePlan(()), replace(limits, share=percent / 3)).fits(found)


def test_weights_of_few_layers_can_be_asked_for() -> None:
    graph = graph_of("digits")
    search = Search(graph, UpdatePlan(()), Limits(Room(PICO, PICO.heap_bytes, SAMPLES), share=10))
    for most in (0, 1, 2):
        plan = search.within(most).best(guessed(graph).of).plan
        of_weights = [layer.operator for layer in plan.layers if layer.channels]
        assert len(of_weights) == most + 1 and of_weights[-1] == graph.trainable[-1].index


def test_flash_is_written_no_more_than_is_allowed() -> None:
    found = menu("mbv2")
    turns = [part for part in found.parts if part.cost.takes_turns]
    assert turns
    gains = Gains(np.zeros(len(found.depths)), np.array([float(p in turns) for p in found.parts]))
    room = Room(PICO, MUCH, SAMPLES, PICO.store_bytes)
    amounts = []
    for limit in (500.0, 1500.0):
        choice = best(problem_of(found, gains, Limits(room, writes=limit), MUCH))
        assert choice
        amounts.append(sum(found.parts[i].cost.writes for i in choice.parts))
        assert 0 < amounts[-1] <= limit and worth(gains, choice) >= 1
    assert amounts[0] < amounts[1]


def test_what_the_solver_prints_is_not_ours() -> None:
    """Also what stands in C's buffer, as it does where the output is no terminal."""
    script = (
        "import ctypes\nfrom sparsetune.search.choice import _silence\nprint('before')\n"
        "with _silence():\n    ctypes.CDLL(None).printf(b'of the solver\\n')\nprint('behind')"
    )
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=buffered
    )
    assert done.stdout.split() == ["before", "behind"], done


# What layers are worth ------------------------------------------------------------------------


def test_gradients_are_the_references() -> None:
    """One sample has a loss of zero, behind which the next one's must not be lost."""
    net = small()
    model = net.to_bytes()
    graph = parse_tflite(model)
    x = np.concatenate([net.sample() for _ in range(8)])
    y = np.arange(8) % 5
    found = measure_gradients(graph, list(graph.trainable), Dataset(x, y))
    wanted = [
        Reference(graph, litert_tensors(model, x[i : i + 1]), int(y[i])).result for i in range(8)
    ]
    for op in graph.trainable:
        ours = found[op.index]
        theirs = np.asarray(sum(np.asarray(w.weights[op.index]) for w in wanted))
        channels = input_channels(graph, op)
        theirs = np.moveaxis(theirs, -1, 0).reshape(channels, -1)
        got = ours.weights.reshape(channels, -1)
        assert cosine(got, theirs) > 0.999
        assert length_ratio(got, theirs) == pytest.approx(1, abs=0.02)
        bias = sum(np.asarray(w.biases[op.index]) for w in wanted)
        assert cosine(ours.bias, bias) > 0.999


def clothes_like() -> tuple[Graph, Task]:
    """A task that a small network can learn: which channel of the input is brightest."""
    net = small()
    graph = parse_tflite(net.to_bytes())
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 0, (120, 12, 12, 3)).astype(np.int8)
    y = rng.integers(0, 3, 120)
    for i, label in enumerate(y):
        x[i, ..., label] = np.minimum(127, x[i, ..., label].astype(int) + 120)
    return graph, Task(graph, "0.001", split(Dataset(x, y)))


def test_worth_is_the_same_each_time() -> None:
    graph, task = clothes_like()
    first, second = by_gradients(task), by_gradients(task)
    assert first == second
    assert set(first.weights) == {op.index for op in graph.trainable}
    assert max(first.weights.values()) > 0


def test_a_mean_input_is_worth_nothing() -> None:
    """What the weights can do that the bias does as well is not counted: with inputs that do not
    change, that is all."""
    net = Net((1, 4, 4, 8), seed=2)
    net.conv(8, 1)
    net.flatten()
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    op = graph.trainable[0]
    x = np.tile(net.sample()[:, :1, :1], (32, 4, 4, 1))
    found = measure_gradients(graph, [op], Dataset(x, np.arange(32) % 3))[op.index].over(32)
    whole, rest = found.weights, found.centred(found.inputs, False)
    assert np.linalg.norm(rest) < 0.01 * np.linalg.norm(whole)


def test_a_layer_whose_input_does_not_change_is_worth_nothing() -> None:
    """Its weights can do nothing that its bias does not."""
    net = Net((1, 4, 4, 8), seed=2)
    net.conv(8, 1)
    net.flatten()
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    first = graph.trainable[0].index
    varied = np.random.default_rng(5).integers(-128, 128, (64, 4, 4, 8)).astype(np.int8)
    worths = []
    for x in (np.tile(varied[:1, :1, :1], (64, 4, 4, 1)), varied):
        task = Task(graph, "0.001", split(Dataset(x, np.arange(64) % 2)))
        worths.append(by_gradients(task).weights[first])
    assert worths[0] < 0.01 * worths[1]


def test_what_two_halves_have_in_common() -> None:
    """By hand, of a layer whose outputs read all inputs and of a depthwise one: the products of two
    means without what goes with the mean input, and a quarter of that taken off."""
    graph, rng = graph_of("small"), np.random.default_rng(4)
    for op in graph.trainable[:2]:
        each = op.kind == "DEPTHWISE_CONV_2D"
        ins, outs, taps = (16, 1, 9) if each else (3, 16, 9)
        b1, b2 = (0.2 + 0.05 * rng.normal(size=ins if each else outs) for _ in range(2))
        x1, x2 = rng.normal(1, 1, size=(2, ins))
        mean, form = (x1 + x2) / 2, "i,i->i" if each else "i,o->io"
        driven = [np.einsum(form, mean, g).reshape(ins, outs, 1) for g in (b1, b2)]
        base = rng.normal(size=(ins, outs, taps))
        w1, w2 = (base + part + 0.1 * rng.normal(size=base.shape) for part in driven)
        rest, whole = np.vdot(w1 - driven[0], w2 - driven[1]), np.vdot(w1, w2)
        assert 0 < rest < whole
        wanted = rest**0.5 - 0.25 * (whole - rest) ** 0.5
        halves = LayerGradient(w1, b1, x1), LayerGradient(w2, b2, x2)
        found = _common(graph, op.index, *halves)
        assert found == pytest.approx((wanted, (b1 @ b2) ** 0.5)) and wanted > 0


def test_driving_the_bias_harder_costs_less_than_it_is_long() -> None:
    """Of two layers with the same gradients but for what goes with the mean input: the one where
    that is as long as the rest is worth less, and more than half; where it is five times as long,
    nothing."""
    graph, rng = graph_of("small"), np.random.default_rng(6)
    op = graph.trainable[0]
    ins, outs, taps = 3, 16, 9
    rest = rng.normal(size=(ins, outs, taps))
    rest -= rest.mean(2, keepdims=True)  # at right angles to what is the same at all taps
    bias, found = rng.normal(size=outs), []
    for times in (0, 1, 5):
        one = np.outer(np.ones(ins), bias).reshape(ins, outs, 1) * np.ones(taps)
        mean = times * np.linalg.norm(rest) / np.linalg.norm(one)
        half = LayerGradient(rest + mean * one, bias, np.full(ins, mean))
        found.append(_common(graph, op.index, half, half)[0])
    assert found[0] == pytest.approx(np.linalg.norm(rest))
    assert 0.5 * found[0] < found[1] < 0.9 * found[0] and found[2] == 0


def test_large_maps_do_not_count_for_their_size() -> None:
    graph = graph_of("small")
    alike = Worth({op.index: 1.0 for op in graph.trainable}, {graph.trainable[0].index: 4.0}, 0.3)
    found = thinned(graph, alike)
    places = [36, 36, 36, 36, 9, 9, 1]  # of 6x6 maps, 3x3 maps, and the head
    assert list(found.weights.values()) == pytest.approx([n**-0.5 for n in places])
    assert list(found.biases.values()) == pytest.approx([4 / 6]) and found.power == 0.3


def test_worth_of_shares() -> None:
    graph = graph_of("small")
    op = graph.trainable[2]
    known = Worth({op.index: 2.0}, {op.index: 0.25})
    found = menu("small")
    gains = known.of(found)
    of_plan = {p.plan: gains.parts[i] for i, p in enumerate(found.parts) if p.layer == 5}
    assert {plan.channels: round(v, 3) for plan, v in of_plan.items() if not plan.slots} == {
        2: round(2 * (2 / 16) ** 0.5, 3), 4: 1.0, 8: round(2**0.5, 3), 12: round(3**0.5, 3), 16: 2.0
    }
    assert gains.depths.tolist() == [0, 0, 0, 0, 0.25, 0.25, 0.25]


def test_channels_that_take_turns_are_worth_more_than_the_same_ones_always() -> None:
    """Both of as many channels a step in flash; in RAM all of a layer may take turns, too."""
    graph = graph_of("small")
    op = graph.trainable[2]
    known = Worth({op.index: 2.0}, {})
    ram, turns, same = (
        known.of_layer(graph, LayerPlan(op.index, 4, slots=slots, reach=reach))
        for slots, reach in ((0, 0), (4, 12), (4, 0))
    )
    assert same < turns == ram


# The command ----------------------------------------------------------------------------------


def samples(path: Path, count: int = 60) -> Path:
    rng = np.random.default_rng(1)
    np.savez(path, x=rng.integers(-128, 128, (count, 12, 12, 3), np.int8), y=np.arange(count) % 5)
    return path


def test_plan_command_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data, plan = tmp_path / "m.tflite", samples(tmp_path / "d.npz"), tmp_path / "p.json"
    model.write_bytes(small().to_bytes())
    args = ["plan", str(model), "--data", str(data), "--search", "-o", str(plan)]
    found = []
    for _ in range(2):
        assert cli.main([*args, "--ram", "30K"]) == 0
        out = capsys.readouterr().out
        assert "searching: gradients of" in out and "the best choice by gradients" in out
        found.append(load_plan(plan))
    assert found[0] == found[1] and found[0].layers
    assert cli.main(["plan", str(model), "--budget-analytic", "2K"]) == 0
    told = "warning: what layers can gain is a guess for want of samples (give --data, 8 or more)"
    assert told in capsys.readouterr().out.splitlines()


OF_BOARD = Room(PICO, PICO.heap_bytes, 1000, PICO.store_bytes)


def needs(graph: Graph, plan: UpdatePlan) -> dict[str, float]:
    """RAM in bytes and seconds of a step, by the name of their limits."""
    layout = OF_BOARD.compile(graph, plan)
    assert PICO.clock
    cycles = sum(step_cycles(layout.program, graph, PICO.clock)) + PICO.clock.step
    return {"--ram": OF_BOARD.use(layout).used, "--time": cycles / PICO.clock.hertz}


@pytest.mark.parametrize("limit", ["--ram", "--time"])
@pytest.mark.parametrize(
    ("patches", "says"),
    [
        (["--kept", "60"], ""),
        (["--kept", "5"], "warning: --kept 5: codes and patches leave "),
        (["--patch", "2"], ""),
        (["--patch", "8"], "warning: --patch 8: no layer of the plan that was found has a map"),
    ],
)
def test_what_is_found_gets_patches(
    limit: str, patches: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or codes, as far as they go, which is said, and within the limits: those that the plan
    without them just keeps, as patches may take more."""
    graph, file = graph_of("digits"), tmp_path / "p.json"
    exact = search_plan(graph, UpdatePlan(()), Limits(OF_BOARD, share=5), guessed(graph).of).plan
    most = math.ceil(1e6 * needs(graph, exact)[limit]) / 1e6
    words = ["plan", str(runs.DIGITS), "--no-residual", "--search", "--share", "5"]
    words += [limit, f"{most:.10g}"]
    assert cli.main([*words, *patches, "-o", str(file)]) == 0
    told, plan = capsys.readouterr().out, load_plan(file)
    assert any(layer != without(layer) for layer in plan.layers) == (patches != ["--patch", "8"])
    assert says in told and ("warning: --" in told) == bool(says)
    assert needs(graph, plan)[limit] <= most


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ram", "17K"], "no plan trains this model within 17,408 bytes of RAM: the least is"),
        (["--budget-analytic", "10"], "within 10 bytes of analytic memory: the least is about"),
        (["--time", "0.001"], "within 0.001 s a step: the least is about"),
        (["--share", "0"], "--share 0 is not in (0, 100]"),
        (["--last", "2"], "--search looks for a plan, --last says what trains"),
        (["--scheme", "mbv2-99"], "--search looks for a plan, --scheme says what trains"),
    ],
)
def test_what_cannot_be_found(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(small().to_bytes())
    assert cli.main(["plan", str(model), "--search", *options]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


def test_runs_need_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(small().to_bytes())
    assert cli.main(["plan", str(model), "--search", "runs"]) == 1
    assert "--search runs needs samples: give --data" in capsys.readouterr().err


def test_samples_that_are_too_few_to_search_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are not said to be missing."""
    model, data, few = tmp_path / "m.tflite", samples(tmp_path / "d.npz"), tmp_path / "few.npz"
    model.write_bytes(small().to_bytes())
    with np.load(data) as arrays:
        np.savez(few, **{name: arrays[name][:2] for name in arrays.files})
    args = ["plan", str(model), "--data", str(few)]
    assert cli.main([*args, "--search"]) == 0
    assert "for want of samples (2 are too few: give 8 or more)" in capsys.readouterr().out
    assert cli.main([*args, "--search", "runs"]) == 1
    assert "2 are too few: give 8 or more" in capsys.readouterr().err


def test_what_the_board_holds_at_the_least_can_be_asked_for() -> None:
    """The published scheme is one choice among those that the search weighs, so it cannot be
    worth more than what the search finds within its memory."""
    graph = graph_of("mbv2")
    scheme = published(graph, MBV2_99)
    limit = analytic_memory(graph, scheme).total
    limits = Limits(Room(PICO, MUCH, SAMPLES), analytic=limit)
    found = search_plan(graph, UpdatePlan((), scratch=False), limits, guessed(graph).of)
    assert found.gain >= guessed(graph).of_plan(graph, scheme)
