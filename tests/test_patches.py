"""Gradient filtering: ulab_kernels/patch.c and plans with patches, against float64."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference as ref
from filtered_reference import Filter, FilteredReference, conv_backward
from gradient_cases import draw, random_output
from gradients import Gradients, Reference, measure
from machine import Array, Machine, litert_tensors
from patch_cases import MODELS, SIZES, filtered, mixed, sparse, weights_only
from small_models import RELU, Net
from sparsetune.cli import main
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph, input_channels
from sparsetune.image import parse_image
from sparsetune.plan import LayerPlan, UpdatePlan, check_plan, load_plan
from sparsetune.program import Buffer, Code, Op, Slot
from sparsetune.tflite import parse_tflite
from test_gradients import assert_close

pytestmark = pytest.mark.usefixtures("each_version")

# Whole models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", MODELS)
def test_gradients_of_small_models(case: str, size: int) -> None:
    alive = []
    for seed in range(30):
        drawn = draw(case, seed)
        plan = filtered(drawn.graph, size)
        machine = Machine(drawn.graph, plan)
        values = litert_tensors(drawn.model, drawn.x)
        wanted = FilteredReference(machine.graph, values, drawn.target, plan).result
        ours = measure(machine, drawn.x, drawn.target, wanted)
        assert_close(machine.graph, ours, wanted, (case, size, seed))
        assert set(ours.weights) == {op.index for op in machine.graph.trainable}
        alive += [bool(wanted.weights[p.operator].any()) for p in plan.layers if p.patch > 1]
    assert np.mean(alive) > 0.4


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("case", MODELS)
def test_of_weights_alone(case: str, wide: bool) -> None:
    """What is passed on, and biases, are exact."""
    checked = 0
    for seed in range(16):
        drawn = draw(case, seed)
        plan = weights_only(drawn.graph, (2, 4)[seed % 2], wide)
        machine = Machine(drawn.graph, plan)
        values = litert_tensors(drawn.model, drawn.x)
        wanted = FilteredReference(machine.graph, values, drawn.target, plan).result
        exact = Reference(machine.graph, values, drawn.target).result
        for operator, bias in exact.biases.items():
            np.testing.assert_allclose(wanted.biases[operator], bias)
        assert_close(machine.graph, measure(machine, drawn.x, drawn.target, wanted), wanted, plan)
        assert not any(op.code == Code.SPREAD_ERRORS for op in machine.ops)
        checked += sum(not np.allclose(wanted.weights[p.operator], exact.weights[p.operator])
                       for p in plan.layers if p.patch > 1)
    assert checked > 8


def assert_filtered(net: Net, plan: UpdatePlan) -> tuple[Machine, Gradients]:
    model, x = net.to_bytes(), net.sample()
    machine = Machine(parse_tflite(model), plan)
    for layer in machine.program.layers:
        if layer.channels:
            machine.slot(layer.channels, np.uint16)[:] = np.arange(layer.chosen)
    wanted = FilteredReference(machine.graph, litert_tensors(model, x), 2, plan).result
    ours = measure(machine, x, 2, wanted)
    for layer in plan.layers:  # the first channels are those that learn
        weights = wanted.weights[layer.operator]
        channels = input_channels(machine.graph, machine.graph.operator(layer.operator))
        weights[..., weights.shape[-1] * layer.channels // channels :] = 0
    assert_close(machine.graph, ours, wanted, plan)
    return machine, ours


@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_many_kinds(size: int) -> None:
    """Some channels, ragged borders, a branch, a layer that does not train."""
    net, _, plan = mixed(size)
    machine, ours = assert_filtered(net, replace(plan, residual=True))
    assert set(ours.biases) == {p.operator for p in plan.layers if p.trains}


def test_large_maps() -> None:
    """3x3 filters, whose reduced geometry has dilation 0."""
    net = Net((1, 16, 16, 8), seed=5)
    net.conv(16, 3, activation=RELU, zero=-128)
    net.conv(24, 3, stride=2, activation=RELU, zero=-128)
    net.flatten()
    net.dense(6, scale=0.03)
    assert_filtered(net, filtered(parse_tflite(net.to_bytes()), 2))


# The formulas of the paper ----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (14, 5)])
def test_without_strides_the_reference_is_the_paper(size: int, shape: tuple[int, int]) -> None:
    """g_y = mean over a patch without its padding, x = sum; the input's error is broadcast."""
    rng = np.random.default_rng(size)
    x, dy = rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 5))
    weights = rng.normal(size=(5, 3, 3, 3))
    w = ref.window_of(shape, 3, 1, 1, True)
    f = Filter(w, size, (*shape, 3))
    d_x, d_weights, _ = conv_backward(dy, f.means(x), weights, f)
    paper_weights, paper_x = np.zeros((5, 3)), np.zeros_like(x)
    for y0 in range(0, shape[0], size):
        for x0 in range(0, shape[1], size):
            patch = np.s_[y0 : y0 + size, x0 : x0 + size]
            g = dy[patch].mean(axis=(0, 1))
            paper_weights += np.outer(g, x[patch].sum(axis=(0, 1)))
            paper_x[patch] = weights.sum(axis=(1, 2)).T @ g
    np.testing.assert_allclose(d_weights, np.broadcast_to(
        paper_weights[:, None, None], weights.shape
    ))
    np.testing.assert_allclose(d_x, paper_x)


def test_where_patches_are_flat_nothing_is_lost() -> None:
    """Strided too: the exact gradients of a 1x1 convolution of patches that hold one value."""
    rng = np.random.default_rng(1)
    x = np.repeat(np.repeat(rng.normal(size=(3, 4, 2)), 4, 0), 4, 1)
    dy = np.repeat(np.repeat(rng.normal(size=(3, 4, 5)), 2, 0), 2, 1)
    weights = rng.normal(size=(5, 1, 1, 2))
    w = ref.window_of(x.shape[:2], 1, 2, 1, True)
    f = Filter(w, 2, x.shape)
    exact = ref.conv_backward(dy, x, weights, w)
    ours = conv_backward(dy, f.means(x), weights, f)
    np.testing.assert_allclose(ours[1], exact[1])
    patches = exact[0].reshape(3, 4, 4, 4, 2).sum(axis=(1, 3))
    np.testing.assert_allclose(ours[0].reshape(3, 4, 4, 4, 2).sum(axis=(1, 3)), patches)


# One operator after the other -------------------------------------------------------------------


def walked(machine: Machine, x: Array, label: int, code: Code) -> Iterator[tuple[Op, Any]]:
    """Operators of a kind, and the arena as it was before each."""
    before: dict[int, bytes] = {}
    last: tuple[int, Op] | None = None
    for i, op in machine.walk(x, label):
        if last and last[1].code == code:
            yield last[1], before[last[0]]
        before[i] = bytes(machine.arena)
        last = i, op


def held(memory: bytes, buffer: Any, dtype: Any) -> Array:
    assert isinstance(buffer, Buffer)
    return np.frombuffer(memory[buffer.offset : buffer.offset + buffer.size], dtype).astype(float)


def window_at(graph: Graph, op: Op, size: int) -> tuple[Filter, tuple[int, ...], tuple[int, ...]]:
    source = graph.operator(op.source)
    x, y = (graph.tensor(t).shape[1:] for t in (source.inputs[0], source.outputs[0]))
    o, kernel = source.options, graph.tensor(source.inputs[1]).shape[1:3]
    stride, dilation = (o["strideH"], o["strideW"]), (o["dilationHFactor"], o["dilationWFactor"])
    w = ref.window_of(x[:2], kernel, stride, dilation, o["padding"] == 0)
    return Filter(w, size, x), x, y


def swept() -> Iterator[tuple[Net, int]]:
    """Ragged borders, strides, windows without padding, one row or column; some channels."""
    for seed in range(60):
        rng = np.random.default_rng((77, seed))
        shape = (1, int(rng.integers(1, 18)), int(rng.integers(1, 18)), int(rng.integers(1, 13)))
        net = Net(shape, int(rng.choice((-128, 0, 127))), seed)
        net.conv(int(rng.integers(1, 14)), 1, **random_output(rng))
        kernel = int(rng.choice((1, 3)))
        same = bool(rng.integers(2)) or kernel > min(shape[1:3])
        window = {"kernel": kernel, "stride": int(rng.choice((1, 2))), "same": same}
        net.conv(int(rng.integers(1, 14)), **window, **random_output(rng))
        net.flatten()
        net.dense(6, scale=0.03)
        yield net, int(rng.choice((*SIZES, 16)))


def test_kept_values_are_means_to_the_nearest() -> None:
    checked = 0
    for net, size in swept():
        graph = parse_tflite(net.to_bytes())
        machine = Machine(graph, sparse(graph, size))
        for layer in machine.program.layers:
            if layer.channels:
                last = np.arange(layer.in_channels - layer.chosen, layer.in_channels)
                machine.slot(layer.channels, np.uint16)[:] = last
        x = np.random.default_rng(size).choice(np.array([-128, -1, 0, 127], np.int8), net.shapes[0])
        for op, before in walked(machine, x, 1, Code.PATCH_VALUES):
            f, shape, _ = window_at(graph, op, size)
            chosen, channels, step = (int(str(w)) for w in op.words[4:7])
            means = f.means(held(before, op.words[1], np.int8).reshape(shape))
            kept = machine.read(op.words[3], np.int8).reshape(-1, step)  # type: ignore[arg-type]
            wanted = np.floor(means + 0.5).reshape(-1, channels)[:, -chosen:]
            np.testing.assert_array_equal(kept[:, :chosen], wanted)
            assert not kept[:, chosen:].any()
            checked += wanted.size
    assert checked > 2000


def errors_of(machine: Machine, op: Op, at: int) -> Array:
    """What an operator wrote, whose words of st_error_out_t begin at `at`."""
    data, exponent = op.words[at], op.words[at + 1]
    assert isinstance(data, Buffer) and isinstance(exponent, Slot)
    return machine.read(data, np.int16) * 2.0 ** int(machine.slot(exponent, np.int16)[0])


def unit_of(machine: Machine, slot: Any) -> float:
    return float(2.0 ** int(machine.slot(slot, np.int16)[0]))


def test_errors_are_summed_over_patches() -> None:
    checked = 0
    for net, size in swept():
        graph = parse_tflite(net.to_bytes())
        machine = Machine(graph, filtered(graph, size))
        for op, before in walked(machine, net.sample(), 1, Code.PATCH_ERRORS):
            f, _, shape = window_at(graph, op, size)
            dy = held(before, op.words[1], np.int16).reshape(shape)
            wanted = f.sums(dy).ravel() * unit_of(machine, op.words[5])
            ours = errors_of(machine, op, 2)
            assert np.abs(ours - wanted).max() <= 0.75 * unit_of(machine, op.words[3])
            checked += bool(wanted.any())
    assert checked > 40


def test_errors_are_shared_out_again() -> None:
    checked = 0
    for net, size in swept():
        graph = parse_tflite(net.to_bytes())
        machine = Machine(graph, filtered(graph, size))
        for op, before in walked(machine, net.sample(), 1, Code.SPREAD_ERRORS):
            f, shape, _ = window_at(graph, op, size)
            sums = held(before, op.words[1], np.int16).reshape(len(f.rows), len(f.columns), -1)
            wanted = f.spread(sums).ravel() * unit_of(machine, op.words[6])
            ours = errors_of(machine, op, 3)
            near = 0.75 * unit_of(machine, op.words[4]) + 0.005 * np.abs(wanted)
            assert (np.abs(ours - wanted) <= near).all()
            assert not ours[wanted == 0].any()
            checked += bool(wanted.any())
    assert checked > 15


def test_kept_bytes_fall_by_the_patch() -> None:
    net = Net((1, 16, 16, 8), seed=1)
    net.conv(16, 1)
    net.flatten()
    net.dense(4)
    graph = parse_tflite(net.to_bytes())
    for size in (2, 4):
        machine = Machine(graph, filtered(graph, size))
        kept = [b for op in machine.ops for b in op.buffers if b.name == "means0"]
        assert kept[0].size * size * size == graph.tensor(graph.input).size


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "says"), [(0, "patches of 0"), (17, "at most 256"), (-1, "patches of -1")]
)
def test_impossible_patches(patch: int, says: str) -> None:
    net = Net((1, 20, 20, 3))
    net.conv(4, 3)
    net.flatten()
    net.dense(4)
    graph = parse_tflite(net.to_bytes())
    with pytest.raises(SparsetuneError, match=says):
        check_plan(graph, UpdatePlan((LayerPlan(0, 1, patch=patch),)))


def test_layers_without_a_map_have_no_patches() -> None:
    net = Net((1, 12))
    net.dense(4)
    graph = parse_tflite(net.to_bytes())
    with pytest.raises(SparsetuneError, match="no map"):
        check_plan(graph, UpdatePlan((LayerPlan(0, 1, patch=2),)))


def test_a_plan_of_patches_alone_trains_nothing() -> None:
    graph = draw("CONV_2D", 1).graph
    with pytest.raises(SparsetuneError, match="trains no layer"):
        check_plan(graph, UpdatePlan((LayerPlan(0, 0, False, patch=2),)))


def test_layers_that_are_passed_through_may_be_filtered() -> None:
    """The gradient in front of it is that of a layer which trains, its weights stay."""
    net = Net((1, 12, 12, 6), seed=4)
    net.conv(8, 1)
    net.depthwise(1, 3)
    net.flatten()
    net.dense(6, scale=0.03)
    layers = LayerPlan(0, 6), LayerPlan(1, 0, False, patch=2)
    machine, ours = assert_filtered(net, UpdatePlan(layers, residual=True))
    assert [layer.operator for layer in machine.program.layers] == [0]
    assert set(ours.weights) == {0}


@pytest.mark.parametrize(
    ("layer", "says"),
    [(LayerPlan(0, 0, patch=2, weights_only=True), "no channels that learn"),
     (LayerPlan(0, 1, weights_only=True), "weights_only of operator 0, which has no patches"),
     (LayerPlan(0, 1, wide=True), "wide of operator 0, which has no patches")],
)  # fmt: skip
def test_impossible_kinds_of_patches(layer: LayerPlan, says: str) -> None:
    with pytest.raises(SparsetuneError, match=says):
        check_plan(mixed_net_graph(), UpdatePlan((layer,)))


def mixed_net_graph() -> Graph:
    return mixed(2)[1]


# On the command line ----------------------------------------------------------------------------


def three_maps(folder: Path) -> Path:
    """Maps of 16, 8 and 3 rows: the last is too small for patches."""
    net = Net((1, 16, 16, 4), seed=1)
    net.conv(8, 3, activation=RELU, zero=-128)
    net.conv(8, 3, stride=2, activation=RELU, zero=-128)
    net.conv(8, 3, stride=3, activation=RELU, zero=-128)
    net.flatten()
    net.dense(4, scale=0.03)
    path = folder / "model.tflite"
    path.write_bytes(net.to_bytes())
    return path


def wide_map(folder: Path) -> Path:
    """Filters of many channels on one map, behind a strided one."""
    net = Net((1, 16, 16, 2), seed=1)
    net.conv(32, 3, activation=RELU, zero=-128)
    net.conv(32, 1, activation=RELU, zero=-128)
    net.conv(32, 1, activation=RELU, zero=-128)
    net.pool(8, 8)
    net.flatten()
    net.dense(4, scale=0.03)
    path = folder / "model.tflite"
    path.write_bytes(net.to_bytes())
    return path


def test_plan_shows_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, plan = three_maps(tmp_path), tmp_path / "plan.json"
    words = ["plan", str(model), "--last", "4", "--ratio", "1", "-o", str(plan)]
    assert main([*words, "--patch", "2"]) == 0
    text = capsys.readouterr().out
    assert [p.patch for p in load_plan(plan).layers] == [2, 2, 1, 1]
    without = 16 * 16 * 4 + 16 * 16 * 8 + 8 * 8 * 8 + 72
    kept = (16 * 16 * 4 + 16 * 16 * 8 // 4) // 4 + 8 * 8 * 8 + 72
    assert f"kept  {kept:>9,} bytes for the weights' gradients, {without:,} without" in text
    assert "trains 4/4 input channels, bias, patches of 2" in text
    assert main(words) == 0
    assert "patches" not in capsys.readouterr().out


def test_a_plan_file_keeps_its_patches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, plan = three_maps(tmp_path), tmp_path / "plan.json"
    assert main(["plan", str(model), "--last", "4", "--patch", "4", "-o", str(plan)]) == 0
    assert [p.patch for p in load_plan(plan).layers] == [4, 4, 1, 1]
    image = tmp_path / "model.img"
    build = ["build", str(model), "--plan", str(plan), "-o", str(image)]
    assert main(build) == 0
    machine = Machine(model.read_bytes(), load_plan(plan))
    assert parse_image(image.read_bytes()).ops == len(machine.ops)
    assert sum(op.code == Code.PATCH_ERRORS for op in machine.ops) == 2
    assert main([*build, "--patch", "2"]) == 1
    assert "leave out --patch" in capsys.readouterr().err


def ram_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    assert main(words) == 0
    found = re.search(r"RAM +([\d,]+) of", capsys.readouterr().out)
    assert found
    return int(found[1].replace(",", ""))


def test_patches_are_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a plan fits with them alone: they are named, with the RAM that they take."""
    words = ["plan", str(three_maps(tmp_path)), "--last", "4", "--ratio", "1", "--no-residual"]
    exact, filtered = ram_of(words, capsys), ram_of([*words, "--patch", "2"], capsys)
    assert filtered < exact
    limit = str((exact + filtered) // 2)
    assert main([*words, "--ram", limit]) == 1
    assert f"  the same with --patch 2 {filtered:>20,} bytes" in capsys.readouterr().err
    assert main([*words, "--ram", limit, "--patch", "2"]) == 0
    assert main([*words, "--ram", "20K", "--patch", "2"]) == 1
    assert "the same with" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--last", "2"], ["--last", "4", "--patch", "16"],
                                   ["--biases", "4"]])  # fmt: skip
def test_patches_that_no_layer_takes(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Maps that are too small for them, and layers whose biases alone train; some that take them
    are enough, and patches of one element are none."""
    model, plan = three_maps(tmp_path), tmp_path / "plan.json"
    command = ["plan", str(model), "--patch", "2", *words, "-o", str(plan)]
    assert main(command) == 1 and not plan.exists()
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "no layer whose weights train has a map" in error
    assert main([*command, "--patch", "1"]) == 0
    assert main([*command[:2], "--last", "4", "--patch", "7"]) == 0


def test_patches_that_take_more_than_they_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of few channels little is kept, and the errors over patches are new: that is said. Of all
    channels patches save RAM, and so do those of both gradients: nothing is said."""
    words = ["plan", str(wide_map(tmp_path)), "--last", "3", "--no-residual"]
    few, whole = [*words, "--share", "5"], [*words, "--ratio", "1"]
    more = ram_of([*few, "--kept", "20"], capsys) - ram_of(few, capsys)
    assert more > 0
    for command, warnings in (
        ([*few, "--kept", "20"], [f"warning: codes and patches take {more:,} bytes of RAM more"]),
        ([*few, "--patch", "2"], []),
        ([*whole, "--kept", "20"], []),
    ):
        assert main(command) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
        assert [line[: len(warnings[0])] for line in told] == warnings
