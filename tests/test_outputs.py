"""Steps that update the weights of those output channels alone whose errors are the largest: which
ones they are, by NumPy; what else they change, which is nothing; what is counted; plans of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from machine import Array, Machine
from small_models import RELU6, Net
from sparsetune import cli
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.effort import effort_of
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph, input_channels
from sparsetune.image import parse_image
from sparsetune.plan import (
    FEWEST_OUTPUTS,
    LayerPlan,
    UpdatePlan,
    check_plan,
    default_plan,
    load_plan,
    with_outputs,
)
from sparsetune.program import Buffer, Code
from sparsetune.rules import with_rules_of
from sparsetune.share import plan_of_share, updated_share
from sparsetune.tflite import parse_tflite
from test_training import check_board_against_twin

LABEL, RATE = 1, (40000, -12)
EFFORT = 36  # byte offset in the control block
OUTPUTS = (24, 30)  # of the two layers that choose


def net_of(seed: int, kernel: int = 3, stride: int = 1) -> Graph:
    net = Net((1, 7, 6, 5), seed=seed)
    net.conv(OUTPUTS[0], 1, activation=RELU6)
    net.depthwise(1, 3)
    net.conv(OUTPUTS[1], kernel, stride=stride)
    net.mean((1, 2), False)
    net.dense(4)
    return parse_tflite(net.to_bytes())


def plan_of(graph: Graph, outputs: tuple[int, int], **fields: Any) -> UpdatePlan:
    """All layers whole, but for so many outputs of the two convolutions."""
    layers = [LayerPlan(op.index, input_channels(graph, op)) for op in graph.trainable]
    for at, count in zip((0, 2), outputs, strict=True):
        layers[at] = replace(layers[at], outputs=count)
    return UpdatePlan(tuple(layers), **fields)


@dataclass
class Step:
    """norms: of each selection's errors before it, by operator. counted: multiply-accumulates that
    the errors left cause in the weights' gradients."""

    machine: Machine
    norms: dict[int, Array]
    counted: int

    def weights(self, operator: int) -> Array:
        """Of the operator, [out, ...], as real numbers of quantisation steps."""
        layer = next(r for r in self.machine.program.layers if r.operator == operator)
        shape = self.machine.graph.tensor(self.machine.graph.operator(operator).inputs[1]).shape
        slot: Any = layer.weights
        weights = self.machine.slot(slot, np.int8).astype(float)
        if layer.residual:
            weights = weights + self.machine.slot(layer.residual, np.int8) / 256
        return weights.reshape(shape)

    def biases(self) -> list[list[int]]:
        slots: list[Any] = [layer.bias for layer in self.machine.program.layers]
        return [self.machine.slot(slot, np.int32).tolist() for slot in slots]


def step(graph: Graph, plan: UpdatePlan, x: Array, seed: int = 1) -> Step:
    machine = Machine(graph, plan)
    found = Step(machine, {}, 0)
    machine.control(LABEL, RATE, seed)
    machine.load(x)
    for i, op in enumerate(machine.ops):
        if op.code == Code.SELECT_ERRORS:
            dy = op.words[1]
            assert isinstance(dy, Buffer)
            count = graph.tensor(graph.operator(op.source).inputs[1]).shape[0]
            before = machine.read(dy, np.int16).reshape(-1, count)
            found.norms[op.source] = np.abs(before.astype(np.int64)).sum(0)
        machine.run(i, i + 1)
    found.counted = struct.unpack_from("<I", machine.state, EFFORT)[0]
    return found


@pytest.mark.parametrize("residual", [False, True], ids=["int8", "residual"])
@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 2)])
def test_the_weights_of_the_largest_errors_alone_move(
    kernel: int, stride: int, residual: bool, each_version: None
) -> None:
    """As in a whole step; so do all biases, and all weights of other layers, whose gradients come
    from all errors."""
    moved = 0
    for seed in range(8):
        graph = net_of(seed, kernel, stride)
        x = np.random.default_rng(seed).integers(-128, 128, (1, 7, 6, 5))
        few = (1 + seed, OUTPUTS[1] - 1 - seed)
        whole = step(graph, plan_of(graph, (0, 0), residual=residual), x, seed)
        chosen = step(graph, plan_of(graph, few, residual=residual), x, seed)
        first, depthwise, second, head = (op.index for op in graph.trainable)
        assert chosen.biases() == whole.biases()
        for operator in (depthwise, head):
            np.testing.assert_array_equal(chosen.weights(operator), whole.weights(operator))
        for operator, count in zip((first, second), few, strict=True):
            norms, at_first = chosen.norms[operator], graph.tensor(
                graph.operator(operator).inputs[1]
            ).data
            stay = np.argsort(-norms, kind="stable")[:count]
            wanted = np.array(at_first, float)
            wanted[stay] = whole.weights(operator)[stay]
            np.testing.assert_array_equal(chosen.weights(operator), wanted)
            assert len({*norms.tolist()}) > 4
            moved += int((whole.weights(operator) != wanted).any((1, 2, 3)).sum())
    assert moved > 50  # rows that would have moved, and were not to


def test_what_is_learnt_of_all_outputs_is_what_it_was() -> None:
    graph = net_of(3)
    with pytest.raises(SparsetuneError, match="choose fewer, or 0 for all"):
        check_plan(graph, plan_of(graph, OUTPUTS))
    codes = [op.code for op in Machine(graph, plan_of(graph, (0, 0))).ops]
    assert Code.SELECT_ERRORS not in codes


@pytest.mark.parametrize("tinyprop", ["1:1:1", "0.4:0.4:1"])
def test_the_effort_of_weights_is_of_those_outputs(tinyprop: str) -> None:
    """Beside --tinyprop: less by what the others' weights would have been multiplied for."""
    graph = net_of(5, kernel=1)
    x = np.random.default_rng(5).integers(-128, 128, (1, 7, 6, 5))
    whole = step(graph, plan_of(graph, (0, 0), tinyprop=tinyprop), x)
    few = step(graph, plan_of(graph, (6, 7), tinyprop=tinyprop), x)
    assert few.machine.image.macs == whole.machine.image.macs
    less = 0
    machine, met = few.machine, set()
    machine.state[:] = machine.image.initial_state()
    machine.control(LABEL, RATE, 1)
    machine.load(x)
    for i, each in enumerate(machine.ops):
        machine.run(i, i + 1)
        op = graph.operator(each.source) if each.code == Code.SELECT_ERRORS else None
        if op in (graph.trainable[0], graph.trainable[2]):
            dy: Any = each.words[1]  # what is left of it
            cost = np.count_nonzero(machine.read(dy, np.int16)) * input_channels(graph, op)
            less += -cost if op.index in met else cost  # TinyProp's own comes first
            met.add(op.index)
    assert less > 0
    assert whole.counted - few.counted == less


def test_a_share_of_outputs_is_of_convolutions_with_enough_of_them() -> None:
    graph = net_of(1)
    plan = with_outputs(graph, plan_of(graph, (0, 0)), 0.2)
    assert [layer.outputs for layer in plan.layers] == [5, 0, 6, 0]
    check_plan(graph, plan)
    assert with_outputs(graph, plan, 1.0) == plan_of(graph, (0, 0))
    few = Net((1, 4, 4, 3), seed=1)
    few.conv(FEWEST_OUTPUTS - 1, 1)
    few.mean((1, 2), False)
    few.dense(3)
    small = parse_tflite(few.to_bytes())
    assert with_outputs(small, default_plan(small, 2, 1.0), 0.2) == default_plan(small, 2, 1.0)


def test_other_plans_get_as_many() -> None:
    """What ways out are tried with."""
    graph = net_of(3)
    wanted = with_outputs(graph, plan_of(graph, (0, 0)), 0.2)
    other = with_rules_of(graph, default_plan(graph, 3, 0.5), wanted)
    assert [layer.outputs for layer in other.layers] == [0, 6, 0]
    assert [layer.channels for layer in other.layers] == [24, 12, 30]
    assert with_rules_of(graph, default_plan(graph, 3), plan_of(graph, (0, 0))) == default_plan(
        graph, 3
    )


def test_shares_and_work_are_of_what_a_step_updates() -> None:
    graph = net_of(2, kernel=1)
    whole, fifth = plan_of(graph, (0, 0)), with_outputs(graph, plan_of(graph, (0, 0)), 0.2)
    first, depthwise, second = 5 * 24, 9 * 24, 24 * 30
    total = first + depthwise + second
    assert updated_share(graph, whole) == pytest.approx(100)
    moved = 5 * 5 + depthwise + 24 * 6
    assert updated_share(graph, fifth) == pytest.approx(100 * moved / total)
    less = effort_of(graph, whole).update - effort_of(graph, fifth).update
    assert less == 42 * (5 * 19 + 24 * 24)
    assert effort_of(graph, whole).gradient == effort_of(graph, fifth).gradient
    narrow = plan_of_share(graph, 4, 10)
    wide = plan_of_share(graph, 4, 10, outputs=0.2)
    assert updated_share(graph, wide) <= 10
    assert wide.layers[2].channels > 3 * narrow.layers[2].channels


BAD = {
    "choose fewer, or 0": ("outputs", 30, 2),
    "no filters over channels that learn": ("channels", 0, 2),
    "summed over patches": ("patch", 2, 2),
    r"\(DEPTHWISE_CONV_2D\)": ("outputs", 3, 1),
}


@pytest.mark.parametrize("text", BAD)
def test_impossible_plans_are_refused(text: str) -> None:
    graph = net_of(4)
    field, value, at = BAD[text]
    layers = list(plan_of(graph, (0, 3)).layers)
    layers[at] = replace(layers[at], **{field: value})
    with pytest.raises(SparsetuneError, match=text):
        check_plan(graph, UpdatePlan(tuple(layers)))


def test_the_command_line_plans_and_tells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    command = ["plan", str(runs.DIGITS), "--last", "4", "--outputs", "0.25", "-o", str(path)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    counts = {layer.operator: layer.outputs for layer in load_plan(path).layers if layer.outputs}
    assert counts
    for count in counts.values():
        assert f"{count}/{4 * count} outputs by their errors" in shown
    for word in ("0", "1.5", "x"):
        assert cli.main([*command, "--outputs", word]) != 0
        assert "argument --outputs: " in capsys.readouterr().err


def test_a_search_keeps_its_share_of_them(tmp_path: Path) -> None:
    found = []
    for more in ([], ["--outputs", "0.2"]):
        path = tmp_path / f"{len(more)}.json"
        command = ["plan", str(runs.DIGITS), "--search", "--share", "5", "-o", str(path), *more]
        assert cli.main(command) == 0
        found.append(load_plan(path))
    graph = parse_tflite(runs.DIGITS.read_bytes())
    assert all(updated_share(graph, plan) <= 5 for plan in found)
    assert any(layer.outputs for layer in found[1].layers)
    assert not any(layer.outputs for layer in found[0].layers)


def test_the_digits_on_the_emulated_pico(emulated_pico: Any) -> None:
    """Loss lines and checkpoint of the twin, within the RAM that was promised."""
    task = runs.digits_task(steps=60)
    plan = with_outputs(task.graph, default_plan(task.graph, 6, 1.0, residual=True), 0.25)
    assert any(layer.outputs for layer in plan.layers)
    image = parse_image(compile_image(task.graph, plan).image)
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, replace(task, image=image))
