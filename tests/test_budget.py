"""What `sparsetune plan` says of a plan: figures worked out by hand for small models, a picture
that shows the arena as it is, and times against the emulated Pico."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import sparsetune.compile as compiling
from gradient_cases import CASES, train_all
from machine import Machine
from shared_tasks import KWS_MODEL, shared_folder
from small_models import RELU, Net, wide_front
from sparsetune import cli
from sparsetune.boardspec import load_spec
from sparsetune.budget import (
    all_weights,
    flash_use,
    partition,
    state_use,
    step_time,
    trained_weights,
)
from sparsetune.compile import compile_image, source_of
from sparsetune.cycles import (
    BEHIND_RELU,
    FINE_UPDATES,
    MORE,
    PATCHES,
    POINTWISE,
    Clock,
    Cost,
    Work,
    work_of,
    works,
)
from sparsetune.image import lay_out, parse_image
from sparsetune.memory import predict
from sparsetune.peak import find_peak
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, load_plan, with_patches
from sparsetune.plan_text import describe_layers
from sparsetune.program import Code, Op
from sparsetune.room import files_room
from sparsetune.tflite import parse_tflite, read_tflite
from test_arena import independent_lower_bound
from test_two_memories import TwoMemories

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

from kept import FINE  # noqa: E402
from networks import network, plan_of  # noqa: E402

PICO = load_spec("pico")


def small_model() -> Machine:
    """4x4x2 -> 3x3 convolution, frozen -> 1x1 convolution, half of its channels -> 3 classes."""
    net = Net((1, 4, 4, 2), seed=1)
    net.conv(4, 3)
    net.conv(4, 1, activation=RELU, zero=-128)
    net.flatten()
    net.dense(3)
    net.softmax()
    plan = UpdatePlan((LayerPlan(1, 2), LayerPlan(3, 64)), scratch=False)
    return Machine(net.to_bytes(), plan)


def codes(machine: Machine) -> list[str]:
    return [op.code.name for op in machine.ops]


def test_small_model_is_what_was_worked_out() -> None:
    assert codes(small_model()) == [
        *("CONV2D", "KEEP_CHANNELS", "CONV2D", "CLAMP_MASK", "FULLY_CONNECTED", "SOFTMAX"),
        *("LOSS", "CONV2D_GRAD_INPUT", "CONV2D_UPDATE", "APPLY_MASK", "CONV2D_UPDATE"),
    ]


# Which operators, which bytes -----------------------------------------------------------------


def test_partition() -> None:
    machine = small_model()
    plan = UpdatePlan((LayerPlan(1, 2), LayerPlan(3, 64)), scratch=False)
    parts = partition(machine.graph, plan, machine.program)
    assert parts.frozen == (0,)
    assert parts.tail[0] == 1 and parts.tail[-1] == 4
    assert parts.strips == ()


def test_partition_with_strips() -> None:
    """Two times expand, depthwise, project, then the head that trains."""
    model = wide_front().to_bytes()
    graph = parse_tflite(model)
    plan = default_plan(graph, 1)
    parts = partition(graph, plan, Machine(graph, plan).program)
    assert parts.strips == ((0, 1, 2), (3, 4, 5))
    assert parts.is_in_strip(5) and not parts.is_in_strip(6)


def test_weights_of_a_step() -> None:
    """2 of 4 channels of 4 filters and 4 biases; 64 * 3 weights and 3 biases. The whole model has
    the 72 weights and 4 biases of the first layer beside, and the other 8 weights."""
    graph = small_model().graph
    plan = UpdatePlan((LayerPlan(1, 2), LayerPlan(3, 64)), scratch=False)
    assert trained_weights(graph, plan) == 2 * 4 + 4 + 192 + 3
    assert all_weights(graph) == 72 + 4 + 16 + 4 + 192 + 3
    biases = UpdatePlan((LayerPlan(1, 0), LayerPlan(3, 0, bias=False)))
    assert trained_weights(graph, biases) == 4


def test_flash_and_state() -> None:
    machine = small_model()
    flash = flash_use(machine.program, machine.image)
    assert flash.frozen == 72 + 4 * 4  # int8 weights, int32 biases
    assert flash.initial >= 16 + 4 * 4 + 192 + 4 * 3
    assert flash.frozen + flash.initial + flash.tables == len(machine.image.data)
    state = state_use(machine.program, machine.image)
    assert (state.weights, state.biases) == (16 + 192, 4 * (4 + 3))
    assert state.weights + state.biases + state.rest == machine.image.state_bytes


def test_frozen_weights_that_two_layers_have_alike_are_in_flash_once() -> None:
    net = Net((1, 4, 4, 4), seed=1)
    for _ in range(2):
        net.conv(4, 1, weights=np.ones((4, 1, 1, 4)), bias=np.arange(4, dtype=np.int32))
    net.flatten()
    net.dense(3)
    machine = Machine(net.to_bytes())
    rows = 6  # of dense: it is packed in sixes, with a word each
    assert flash_use(machine.program, machine.image).frozen == 16 + 16 + (4 + 64) * rows + 12


# The peak -------------------------------------------------------------------------------------


def test_peak() -> None:
    """While the last layer's input gradient is made there are: that gradient (int16), the input
    itself, as its layer trains all channels, one int32 a channel for the sums, the kept half of
    the input of the layer before, a bit for each of its outputs, and the gradient of the three
    scores (6 bytes, padded)."""
    machine = small_model()
    peak = find_peak(machine.program, machine.graph)
    assert codes(machine)[peak.at] == "CONV2D_GRAD_INPUT"
    assert peak.where == "operator 3 FULLY_CONNECTED, input gradient"
    found = [(t.kind.what, t.shape, t.kind.dtype, t.bytes) for t in peak.tenants]
    assert found == [
        ("scratch row", (64,), "int32", 256),
        ("error tensor", (64,), "int16", 128),
        ("activation", (4, 4, 4), "int8", 64),
        ("kept channels", (4, 4, 2), "int8", 32),
        ("clamp mask", (4, 4, 4), "bit", 8),
        ("error tensor", (3,), "int16", 8),
    ]
    assert peak.bytes == 256 + 128 + 64 + 32 + 8 + 8


def test_why_tenants_of_the_peak_are_alive() -> None:
    machine = small_model()
    peak = find_peak(machine.program, machine.graph)
    assert [tenant.why for tenant in peak.tenants] == [
        "used here alone",
        "made here, kept for operator 1 CONV_2D, weight update",
        "kept for operator 3 FULLY_CONNECTED, weight update",
        "kept for operator 1 CONV_2D, weight update",
        "kept for operator 1 CONV_2D, gradient",
        "read here, kept for operator 3 FULLY_CONNECTED, weight update",
    ]


def test_peak_of_a_strip() -> None:
    """The first strip: the sample, its output, and windows of 3 rows of 16x32 and of 1 row."""
    graph = parse_tflite(wide_front().to_bytes())
    machine = Machine(graph, default_plan(graph, 1))
    peak = find_peak(machine.program, graph)
    assert peak.where == "operators 0 to 2, row by row"
    found = {(t.kind.what, t.shape): t.why for t in peak.tenants}
    assert found[("rows of a map", (3, 16, 32))] == "used here alone"
    assert found[("rows of a map", (1, 16, 32))] == "used here alone"
    whys = sorted(t.why for t in peak.tenants if t.kind.what == "activation")
    assert whys == ["made here, kept for operator 3 CONV_2D", "the sample, read here"]


@pytest.mark.parametrize("kind", CASES)
def test_tenants_fill_the_peak(kind: str) -> None:
    """They are all that is alive at the busiest moment, and none is without a name."""
    for seed in range(3):
        model = CASES[kind](np.random.default_rng(seed)).to_bytes()
        machine = Machine(model, train_all(parse_tflite(model)))
        peak = find_peak(machine.program, machine.graph)
        assert sum(tenant.bytes for tenant in peak.tenants) == peak.bytes
        assert peak.bytes == independent_lower_bound(machine)
        assert all(tenant.kind.what != "work space" for tenant in peak.tenants)


# Time -----------------------------------------------------------------------------------------


def of(machine: Machine, code: Code, source: int) -> Work:
    op = next(op for op in machine.ops if op.code == code and op.source == source)
    return work_of(op)


def test_work_of_convolutions() -> None:
    """3x3 on 4x4, padded by one: in each direction the two outer positions read 2, the inner two
    3, which makes 10 * 10 pairs of positions, 2 input channels and 4 outputs each. A row of the
    window is a loop: 10 rows, 4 columns, 4 outputs."""
    machine = small_model()
    assert of(machine, Code.CONV2D, 0) == Work(100 * 2 * 4, 10 * 4 * 4, 64)
    assert of(machine, Code.CONV2D, 1) == Work(16 * 4 * 4, 4 * 4 * 4, 64)
    assert of(machine, Code.FULLY_CONNECTED, 3) == Work(192, 3, 3)
    assert of(machine, Code.CONV2D_GRAD_INPUT, 3) == Work(192, 3, 64)


def test_work_of_updates() -> None:
    """16 positions, 4 filters, 2 channels, and the sums of 64 errors for the biases; with half of
    the errors zero half of the former. 8 weights move, hardly any of 16 sums being zero."""
    machine = small_model()
    assert of(machine, Code.CONV2D_UPDATE, 1) == Work(16 * 4 * 2 + 64, 16 * 4, 8)
    op = next(op for op in machine.ops if op.code == Code.CONV2D_UPDATE and op.source == 1)
    half = work_of(op, 0.5)
    assert (half.macs, half.loops) == (64 + 64, 32) and half.elements == pytest.approx(8, abs=0.01)
    # Behind a ReLU some are zero; the scores have none in front of their gradient.
    counted = list(works(machine.program, machine.graph))
    assert counted[-1] == work_of(op, BEHIND_RELU) and counted[8] == Work(192 + 3, 3, 192)


def test_work_of_depthwise_convolutions() -> None:
    """3x3 on 5x5 with stride 2: rows 0-1, 1-3, 3-4 of the input, which makes 7 * 7 pairs."""
    net = Net((1, 5, 5, 6), seed=1)
    net.conv(6, 1)
    net.depthwise(2, 3, stride=2)
    net.flatten()
    net.dense(3)
    machine = Machine(net.to_bytes(), train_all(parse_tflite(net.to_bytes())))
    assert of(machine, Code.DEPTHWISE_CONV2D, 1) == Work(49 * 12, 7 * 3 * 12, 9 * 12)
    grad = of(machine, Code.DEPTHWISE_CONV2D_GRAD_INPUT, 1)
    assert grad == Work(49 * 2 * 6, 49 * 2, 25 * 6)
    update = of(machine, Code.DEPTHWISE_CONV2D_UPDATE, 1)
    assert update == Work(49 * 2 * 6 + 9 * 12, 49 * 2, 9 * 2 * 6)


def test_work_of_a_strip() -> None:
    """Its 3x3 window moves two of its three rows, 16x32 bytes each, for each of 16 rows."""
    graph = parse_tflite(wide_front().to_bytes())
    machine = Machine(graph, default_plan(graph, 1))
    assert machine.ops[0].code == Code.STRIP
    assert next(works(machine.program, graph)) == Work(0, 0, 2 * 16 * 32 * 16)


def test_step_time_is_work_times_cost() -> None:
    """With a cycle for each multiply-accumulate and nothing else, at 1 Hz."""
    machine = small_model()
    costs = {name: Cost(1, 0, 0) for name in
             ("conv2d", "fully_connected", "conv2d_grad_input", "conv2d_update")}
    updated = 64 + 128 * BEHIND_RELU
    clock = Clock("test", 1, 5, {**costs, "other": Cost(0, 0, 0)})
    found = step_time(machine.program, machine.graph, clock)
    assert {i: (t.forward, t.gradient, t.update) for i, t in found.layers.items() if t.total} == {
        0: (800, 0, 0), 1: (256, 0, updated), 3: (192, 192, 195)
    }
    assert found.total == 800 + 256 + updated + 192 + 192 + 195 + 5
    assert found.on_both_cores is None
    two = step_time(machine.program, machine.graph, replace(clock, both=0.6))
    assert two.on_both_cores == pytest.approx(0.6 * (found.total - 5) + 5)


def test_what_nobody_measured_counts_as_other() -> None:
    clock = Clock("test", 1, 0, {"other": Cost(0, 0, 2)})
    assert clock.cycles(Op(Code.ADD, ()), Work(0, 0, 7)) == 14


def test_the_pico_has_costs_of_kernels_that_exist() -> None:
    assert PICO.clock
    names = {code.name.lower() for code in Code} | {POINTWISE, "other"}
    names |= {code.name.lower() + MORE for code in FINE_UPDATES}
    assert set(PICO.clock.costs) <= names
    assert all(min(c.mac, c.loop, c.element) >= 0 for c in PICO.clock.costs.values())
    assert {"conv2d", "conv2d_grad_input", "conv2d_update"} < set(PICO.clock.costs)


def test_board_without_measured_cycles_has_no_times() -> None:
    machine, plan = small_model(), UpdatePlan((LayerPlan(1, 2), LayerPlan(3, 64)))
    lines = describe_layers(machine.graph, plan, machine.layout, replace(PICO, clock=None))
    assert not any("ms" in line for line in lines)
    lines = describe_layers(machine.graph, plan, machine.layout, PICO)
    assert "emulated" in lines[-1]


def check_estimate(estimated: float, task: runs.Task, port: str) -> None:
    """Milliseconds of a step, against those on the emulated Pico."""
    from sparsetune.board import Board

    with Board.connect(port) as board:
        lines, _ = runs.board_train(board, task)
    steps = [float(line.split(",ms:")[1]) for line in lines if line.startswith("loss:")]
    mean = float(np.mean(steps[1:]))
    print(f"a step takes {mean:.1f} ms (emulated), estimated {estimated:.1f} ms")
    assert estimated == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("residual", [False, True])
def test_estimated_time_against_the_emulated_pico(residual: bool, emulated_pico) -> None:
    """Steps of the demo's model, two collections of garbage among them. When kernels change:
    bench/cycles.py prints new costs."""
    task = runs.digits_task(steps=17, residual=residual)
    task.options["policy"] = "cyclic"  # what a user gets who names none; `random` takes 3 ms more
    machine = Machine(task.graph, default_plan(task.graph, 6, residual=residual))
    assert PICO.clock
    estimated = 1000 * step_time(machine.program, task.graph, PICO.clock).total
    check_estimate(estimated, task, emulated_pico.port)


def test_estimated_time_of_patches(emulated_pico) -> None:
    """Means, sums and shares of patches are known, and gradients of so few positions."""
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    task = runs.kws_in_patches_task(shared, steps=9)
    program = Machine(task.graph, with_patches(task.graph, default_plan(task.graph, 6), 2)).program
    assert PICO.clock
    costs = PICO.clock.costs
    assert all(code.name.lower() in costs for code in PATCHES)
    estimated = 1000 * step_time(program, task.graph, PICO.clock).total
    check_estimate(estimated, task, emulated_pico.port)


def measured_step(name: str) -> dict[str, int]:
    """Cycles by part of a step, as they were kept last."""
    results = ROOT / "bench" / "results"
    parts = ("forward", "backward", "weights")
    if name == "digits":  # no figures are told of it
        kept = json.loads((results / "kept_cycles.json").read_text())["cycles"][name]
        return {part: kept[f"step, {part}"][0] for part in parts}
    kept = json.loads((results / "steps.json").read_text())[name]
    return {part: kept[part]["cycles"] for part in parts}


@pytest.mark.parametrize("name", ["cnn4", "digits", "kws", "resnet8", "vww", "mbv2"])
def test_estimates_against_whole_steps_that_were_measured(name: str) -> None:
    """The figures that `make bench` kept: kernels of a step, and its forward pass."""
    real = network(name)
    if real is None:
        pytest.skip("SKIP: no ../shared here")
    measured = measured_step(name)
    assert PICO.clock
    each = step_time(Machine(real.graph, plan_of(real)).program, real.graph, PICO.clock).kernels
    estimated = PICO.clock.hertz * each.total
    print(f"{name}: estimated {estimated / sum(measured.values()):.3f} of what was measured")
    assert estimated == pytest.approx(sum(measured.values()), rel=0.1)
    assert PICO.clock.hertz * each.forward == pytest.approx(measured["forward"], rel=0.1)


@pytest.mark.parametrize("name", FINE)
def test_estimates_with_a_residual(name: str) -> None:
    """Kernels of a step, and what of them the residual takes."""
    real = network(name)
    if real is None:
        pytest.skip("SKIP: no ../shared here")
    kept = json.loads((ROOT / "bench" / "results" / "kept_cycles.json").read_text())["cycles"][name]
    parts = ("forward", "backward", "weights")
    measured = sum(kept[f"step, {part}"][0] for part in parts)
    more = kept["step, weights with a residual"][0] - kept["step, weights"][0]
    plans = [replace(plan_of(real), residual=residual) for residual in (False, True)]
    assert PICO.clock
    plain, fine = (
        PICO.clock.hertz * step_time(program, real.graph, PICO.clock).kernels.total
        for program in (Machine(real.graph, plan).program for plan in plans)
    )
    print(f"{name}: estimated {fine / (measured + more):.3f} of what was measured; the residual "
          f"{fine - plain:,.0f} cycles, measured {more:,}")  # fmt: skip
    assert fine == pytest.approx(measured + more, rel=0.1)
    assert fine - plain == pytest.approx(more, rel=0.4)


# The picture ----------------------------------------------------------------------------------


def test_picture_shows_every_buffer_where_it_lies() -> None:
    pytest.importorskip("matplotlib", reason="SKIP: matplotlib is not installed (extra: plot)")
    from sparsetune.picture import figure_of

    machine = small_model()
    (axes,) = figure_of(machine.layout, machine.graph).axes
    boxes = {(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in axes.patches}
    uses: dict = {}
    for i, op in enumerate(machine.ops):
        for buffer in op.buffers:
            uses.setdefault(buffer, []).append(i)
    assert len(uses) >= 12
    for buffer, at in uses.items():
        box = (at[0], buffer.offset, at[-1] - at[0] + 1, buffer.size)
        assert box in boxes, buffer.name
    forward = [line for line in axes.lines if list(line.get_xdata()) == [6, 6]]
    assert len(forward) == 1  # where the backward pass begins
    assert "operator 3 FULLY_CONNECTED, input gradient" in axes.get_title()
    assert str(machine.layout.arena_bytes) in axes.get_title()


def test_picture_of_two_memories() -> None:
    pytest.importorskip("matplotlib", reason="SKIP: matplotlib is not installed (extra: plot)")
    from sparsetune.picture import figure_of

    model = wide_front().to_bytes()
    graph = parse_tflite(model)
    machine = TwoMemories(model, default_plan(graph, 3), 2000)
    assert machine.image.cold_bytes
    fast, slow = figure_of(machine.layout, graph).axes
    assert "slower memory" in slow.get_ylabel() and "slower" not in fast.get_ylabel()


# The command ----------------------------------------------------------------------------------


def test_plan_shows_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="SKIP: matplotlib is not installed (extra: plot)")
    picture, file = tmp_path / "arena.png", tmp_path / "plan.json"
    args = ["plan", runs.DIGITS, "--board", "pico", "--ram", "160K", "--picture", picture]
    assert cli.main([str(arg) for arg in [*args, "-o", file]]) == 0
    out = capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    graph = read_tflite(runs.DIGITS)
    plan = load_plan(file)
    machine = Machine(graph, plan)
    use = predict(machine.image, 1000, PICO)
    assert re.search(rf"RAM +{use.used:,} of 163,840 bytes: arena {use.arena:,}", out)
    assert f"; beside it MicroPython's own {PICO.ram_bytes - PICO.heap_bytes:,}\n" in out
    peak = find_peak(machine.program, graph)
    assert f"{peak.bytes:,} bytes alive at {peak.where}" in out
    for tenant in peak.tenants:
        assert re.search(rf"^ +{tenant.bytes:,}  {tenant.buffer.name} ", out, re.MULTILINE)
    assert re.search(r"frozen prefix: .*; trainable tail: operators", out)
    assert (room := re.search(r"^files +([\d,]+) .* samples: ([\d,]+) of 257 bytes", out, re.M))
    bytes_, samples = (int(text.replace(",", "")) for text in room.groups())
    assert samples == bytes_ // 257 and bytes_ == files_room(PICO, machine.image.state_bytes)
    time = re.search(r"^time: about (\d+) ms .*emulated.* cores about (\d+)", out, re.MULTILINE)
    assert 0.5 < int(time[2]) / int(time[1]) < 1


def test_what_a_plan_assumes_and_does_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --ram between what it takes with and without scratch, that is told."""
    path = tmp_path / "s.npz"
    np.savez(path, x=np.zeros((40, 16, 16, 1), np.int8), y=np.arange(40) % 10)
    graph, plan = read_tflite(runs.DIGITS), default_plan(read_tflite(runs.DIGITS), 2)
    lean = compile_image(graph, replace(plan, scratch=False), "0.005")
    need = predict(parse_image(lean.image), 1000, PICO).used
    assert compile_image(graph, plan, "0.005").arena_bytes > lean.arena_bytes
    args = ["plan", str(runs.DIGITS), "--last", "2"]
    for more, assumed, told in (
        ([], 1, 0),
        (["--ram", str(need)], 1, 1),
        (["--ram", str(need), "--data", str(path)], 0, 0),
    ):
        assert cli.main([*args, *more]) == 0
        out = capsys.readouterr().out
        assert out.count("assumed: 1,000 samples") == assumed
        assert out.count("no room for the faster kernels' scratch") == told


def test_biases_alone(tmp_path: Path) -> None:
    """--biases N: the biases of N layers; with --last, of those that --last leaves."""
    file = tmp_path / "plan.json"
    base = ["plan", str(runs.DIGITS), "-o", str(file)]
    assert cli.main([*base, "--biases", "3"]) == 0
    assert [layer.channels for layer in load_plan(file).layers] == [0, 0, 0]
    assert cli.main([*base, "--biases", "3", "--last", "1"]) == 0
    layers = load_plan(file).layers
    assert [layer.channels > 0 for layer in layers] == [False, False, True]
    assert all(layer.bias for layer in layers)


def test_picture_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    picture = tmp_path / "arena.png"
    assert cli.main(["plan", str(runs.DIGITS), "--picture", str(picture)]) == 1
    assert "--picture needs matplotlib" in capsys.readouterr().err
    assert not picture.exists()


def test_more_ram_than_the_board_has_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(runs.DIGITS), "--ram", "2M"]) == 0
    out = capsys.readouterr().out
    assert f"of {PICO.heap_bytes:,} bytes: arena" in out
    assert f"warning: --ram 2,097,152: pico has {PICO.heap_bytes:,} bytes" in out


@pytest.mark.parametrize(
    "options, most", [([], 8), (["--ram", "100K"], 8), (["--ram", "90K", "--last", "40"], 120)]
)
def test_planning_mobilenet_v2_takes_seconds(
    options: list[str],
    most: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the programs that are laid out, which is where the time goes, 0.05 to 0.2 s each; with
    ways out where it does not fit. What the processor's clock says hangs on who else is there."""
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    model = shared / "models" / "tiny_training" / "mobilenet_v2_w0.35_128_int8.tflite"
    laid_out = []

    def counted(*arguments: Any) -> Any:
        laid_out.append(arguments)
        return lay_out(*arguments)

    monkeypatch.setattr(compiling, "lay_out", counted)
    begin = time.process_time()
    cli.main(["plan", str(model), *options])
    seconds = time.process_time() - begin
    told = " ".join(options) or "no options"
    print(f"{told}: {len(laid_out)} programs laid out, {seconds:.1f} s")
    assert "unexpected" not in capsys.readouterr().err
    assert 0 < len(laid_out) <= most


def test_figures_are_of_the_layout_that_is_sent() -> None:
    """Budget and picture read offsets of a program that lay_out has placed: the same one."""
    machine = small_model()
    assert machine.layout.program is machine.program
    places = [buffer.offset for op in machine.ops for buffer in op.buffers]
    assert lay_out(machine.program, source_of(machine.graph)).image == machine.layout.image
    assert places == [buffer.offset for op in machine.ops for buffer in op.buffers]


def test_a_plan_remembers_the_rate_that_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = wide_front()
    model, data, plan = tmp_path / "m.tflite", tmp_path / "d.npz", tmp_path / "p.json"
    model.write_bytes(net.to_bytes())
    x = np.concatenate([net.sample() for _ in range(12)])
    np.savez(data, x=x, y=np.arange(12) % 3)
    assert not cli.main(["plan", str(model), "--data", str(data), "-o", str(plan)])
    measured = re.search(r"learning rate ([\d.]+) \(measured\)", capsys.readouterr().out)
    assert not cli.main(["build", str(model), "--plan", str(plan), "-o", str(tmp_path / "m.img")])
    assert measured and f"learning rate {measured[1]}" in capsys.readouterr().out


def test_the_ways_out_that_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    shown = (Path(__file__).parent.parent / "README.md").read_text()
    ways = re.findall(r"^  --last.* bytes, trains .*$", shown, flags=re.MULTILINE)
    needed = re.findall(r"training needs ([\d,]+) bytes", shown)
    model = str(folder / KWS_MODEL)
    assert cli.main(["plan", model, "--board", "pico", "--ram", "60K", "--last", "6"]) == 1
    told = capsys.readouterr().err
    assert len(ways) == 3 and len(needed) == 1
    for text in (*ways, f"training needs {needed[0]} bytes"):
        assert text in told


def test_ways_out_take_what_is_told_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    """With the residuals that have room, as their plans are made with. None takes more RAM for
    less training."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    model = str(folder / KWS_MODEL)
    for ram in ("50K", "60K", "66K"):
        where = ["plan", model, "--ram", ram]
        assert cli.main([*where, "--last", "6"]) == 1
        ways = re.findall(r"^  (--.*?) +([\d,]+) bytes, trains", capsys.readouterr().err, re.M)
        assert ways
        for options, told in ways:
            assert cli.main([*where, *options.split()]) == 0
            assert f"RAM {told:>11} of" in capsys.readouterr().out, (ram, options)


def test_no_way_out_takes_more_for_less(capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    model = str(folder / "models/tiny_training/mobilenet_v2_w0.35_128_int8.tflite")
    assert cli.main(["plan", model, "--scheme", "mbv2-99"]) == 1
    ways = re.findall(r"^  --.* bytes, trains .*$", capsys.readouterr().err, re.M)
    assert ways and not any("--last 1 --ratio 0" in way for way in ways), ways
