"""Ctrl-C while a step runs: it is heard until the loss, and all that was learnt is as it was."""

from __future__ import annotations

import dis
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import runs
from conftest import FIRMWARE
from gradient_cases import CASES, draw, train_all
from machine import Machine
from small_models import RELU, Array, Net, wide_front
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.image import parse_image
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.program import Code, Flag
from sparsetune.push import push_rom
from sparsetune.tflite import parse_tflite
from sparsetune.transfer import pull_checkpoint
from sparsetune_device.engine import LOSS
from sparsetune_tools.emulated_pico import EmulatedPico

STEP = """
import time
from sparsetune_device.engine import Engine
from sparsetune_device.image import open_image
engine = Engine(open_image("/rom/model.img"))
def step():
    begin = time.ticks_us()
    print("go")
    try:
        told = engine.step(1, (40000, -24), 7)
    except KeyboardInterrupt:
        told = "interrupted"
    return told, time.ticks_diff(time.ticks_us(), begin) // 1000
before = bytes(engine.state[64:])
print("#", *step(), before == engine.state[64:], engine.is_broken)
engine.sample[:] = bytes(len(engine.sample))
print("#", *step(), before == engine.state[64:], engine.is_broken)
"""
TRAIN = """
from sparsetune_device.main import train
train("/rom/model.img", "/sparsetune/train.dat", save_to={path!r}, **{options!r})
"""


def small() -> list[tuple[Net, UpdatePlan]]:
    """Strips, and layers whose channels learn in flash."""
    front, flash = wide_front(), Net((1, 8, 8, 8), seed=7)
    flash.conv(16, 3)
    flash.flatten()
    flash.dense(10)
    flash.softmax()
    layers = [LayerPlan(op.index, 4, True, 4) for op in parse_tflite(flash.to_bytes()).trainable]
    graph = parse_tflite(front.to_bytes())
    return [(front, default_plan(graph, 2)), (flash, UpdatePlan(tuple(layers)))]


def machines() -> Iterator[tuple[Machine, Array, int | Array]]:
    """Each with a sample and its target: every kind of operator."""
    for case in CASES:
        drawn = draw(case, 1)
        yield Machine(drawn.graph, train_all(drawn.graph)), drawn.x, drawn.target
    for net, plan in small():
        yield Machine(net.to_bytes(), plan), net.sample(), 1


@pytest.fixture(scope="module", params=[1, 2])
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """With one core and with both."""
    if not FIRMWARE.exists():
        pytest.skip("no firmware is built: run make firmware")
    with EmulatedPico(FIRMWARE, cores=request.param) as pico, Board.connect(pico.port) as board:
        yield board


def test_until_the_loss_nothing_learnt_is_written() -> None:
    """There a run may be broken off: the kernels tell by the operators' codes."""
    for machine, x, target in machines():
        assert machine.program.layers
        codes = [op.code for op in machine.ops if not op.flags & Flag.INFERENCE_ONLY]
        is_behind = [code >= Code.LOSS for code in codes]
        assert is_behind == sorted(is_behind) and any(is_behind)
        for i, op in machine.walk(x, target):
            if op.code >= Code.LOSS:
                break
            if i == 0:
                before = bytes(machine.state)
        assert machine.state == before


def wide(convs: int = 8) -> Net:
    """Where few layers learn, most of its step is its forward pass: 500 ms of a Pico."""
    relu = {"activation": RELU, "zero": -128}
    net = Net((1, 16, 16, 32), seed=1)
    for _ in range(convs):
        net.conv(32, 3, **relu)
    net.mean((1, 2), keep=False)
    net.dense(10)
    net.softmax()
    return net


def interrupted(board: Board, code: str, when: str) -> list[str]:
    """The lines that code prints when Ctrl-C is pressed after a line that begins like that."""
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.startswith(when) and sum(x.startswith(when) for x in lines) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        board.stream(code, on_line)
    return lines


def interrupted_in_time(board: Board) -> list[list[str]]:
    """What both steps of STEP tell. On a computer with much else to do Ctrl-C may come when the
    first one is over, which breaks off what follows it: then it is pressed once more."""
    for _ in range(5):
        lines = interrupted(board, STEP, "go")
        told = [line.split() for line in lines if line.startswith("#")]
        if len(told) == 2:
            return told
    raise AssertionError(f"no Ctrl-C was heard within a step: {lines}")


def test_a_step_ends_where_it_is(board: Board) -> None:
    """Long before it would be done; the next one is as if there had been none."""
    net = wide()
    machine = Machine(net.to_bytes(), default_plan(parse_tflite(net.to_bytes()), 1))
    push_rom(board, {"model.img": machine.image.data})
    first, second = interrupted_in_time(board)
    print(f"Ctrl-C after {first[2]} ms of {second[3]} (emulated)")
    assert first[1:2] + first[3:] == ["interrupted", "True", "False"]
    assert int(first[2]) < 0.5 * int(second[3])
    machine.control(1, (40000, -24), 7)
    machine.run(0, len(machine.ops))
    assert " ".join(second[1:3]) == str(struct.unpack_from("<2i", machine.state, LOSS))


def test_a_run_that_was_broken_off_within_a_step(board: Board, tmp_path: Path) -> None:
    """Its checkpoint has the steps that were done; it goes on to where an unbroken one ends."""
    net, model = wide(), tmp_path / "wide.tflite"
    model.write_bytes(net.to_bytes())
    x = np.concatenate([net.sample() for _ in range(4)])
    sets = {"x_train": x, "y_train": np.arange(4), "x_test": x, "y_test": np.arange(4)}
    options = {"steps": 3, "rate": "0.01", "seed": 1}
    task = runs.make_task(model, sets, lambda graph: default_plan(graph, 2), **options)
    runs.push(board, task)
    lines = interrupted(board, TRAIN.format(path=runs.CKPT, options=options), "loss")
    assert len(runs.losses(lines)) == 1
    assert [fields["step"] for fields in runs.events(lines, "saved")] == [1]
    board.stream(TRAIN.format(path=runs.CKPT, options={**options, "resume": True}), lines.append)
    straight, unbroken = runs.twin_train(task)
    assert runs.losses(lines) == runs.losses(straight)
    assert pull_checkpoint(board) == unbroken


# Behind the loss ------------------------------------------------------------------------------

DEVICE = "sparsetune_device"
RULES: list[dict[str, Any]] = [
    {},
    {"effort": 60},
    {"skip": "0.1"},
    {"decay": "0.1"},
    {"effort": 60, "decay": "0.1", "accumulate": 4},
    {"policy": "importance"},
]


class Branches:
    """Ctrl-C as MicroPython hears it: at a branch of its bytecode. Raises at the one with this
    number within `one_step` of a step (numbers from 0), and how many there were."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number, self.seen = step, number, 0
        self.is_within = False

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if f"{DEVICE}/" not in frame.f_code.co_filename:
            return None
        if frame.f_code.co_name == "one_step":
            if event == "call":
                self.is_within = frame.f_locals["self"].step == self.step
            elif event == "return":
                self.is_within = False
        frame.f_trace_opcodes, frame.f_trace_lines = self.is_within, False
        if event == "opcode" and "JUMP" in dis.opname[frame.f_code.co_code[frame.f_lasti]]:
            self.seen += 1
            if self.seen == self.number + 1:
                raise KeyboardInterrupt
        return self.trace


def broken_off(task: runs.Task, step: int, number: int) -> tuple[bytes, int, int]:
    """(checkpoint of a run that went on behind a Ctrl-C at that branch, steps that were saved then,
    branches)."""
    branches, lines = Branches(step, number), list[str]()
    with runs.Twin(task.image.data, task.samples) as twin:
        sys.settrace(branches.trace)
        try:
            twin.train(lines.append, **task.options)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        saved = runs.events(lines, "saved")[-1]["step"]
        is_whole = saved == task.options["steps"]
        end = twin.pull() if is_whole else twin.train(lines.append, resume=True)
        return end, saved, branches.seen


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("step", [14, 15])
def test_at_whatever_branch_it_is_heard(rule: dict[str, Any], step: int) -> None:
    """A run that is resumed ends with the bytes of an unbroken one: the step that Ctrl-C fell into
    is done and all that belongs to it, or it never was. Step 15 is one behind which weights decay.
    """
    task = runs.digits_task()
    plan = replace(
        default_plan(task.graph, 6), velocity="accumulate" in rule, scores="policy" in rule
    )
    image = parse_image(compile_image(task.graph, plan).image)
    task = replace(task, image=image, options={**task.options, "steps": 19, **rule})
    unbroken = runs.twin_train(task)[1]
    ways, number, count = set[int](), 0, 1
    while number < count:
        end, saved, seen = broken_off(task, step, number)
        assert end == unbroken, f"branch {number}, step {saved} was saved"
        ways.add(saved)
        number, count = number + 1, max(count, seen + 1)
    assert ways == {step, step + 1, 19}


def test_a_second_one_while_weights_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have decayed, some have not: what was saved before stays."""
    task = runs.digits_task(steps=19)

    def again(*_: int) -> None:
        raise KeyboardInterrupt

    with runs.Twin(task.image.data, task.samples) as twin:
        options = {**task.options, "decay": "0.1"}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("sparsetune_device.decay.kernels.decay", again)
            twin.train(print, save_every=10, **options)
        unbroken = runs.twin_train(replace(task, options=options))[1]
        assert twin.train(print, resume=True) == unbroken


# Splits the step with this number behind its loss and says "go" there: the rest takes a while.
WATCHED = """
import sparsetune_device.engine as engine
from sparsetune_device.image import open_image
image = open_image("/rom/model.img")
loss, last, run, steps = image.loss_ops, image.ops, engine.kernels.run, 0
class Watched:
    @staticmethod
    def run(data, state, arena, cold, store, begin, end, how):
        global steps
        at = begin
        if end == last:
            steps += 1
            at = max(begin, loss)
        if at > begin:
            run(data, state, arena, cold, store, begin, at, how)
        if end == last and steps == {number}:
            print("go")
        return run(data, state, arena, cold, store, at, end, how)
engine.kernels = Watched
"""


@pytest.mark.parametrize(
    ("rule", "number"), [({"effort": 99}, 3), ({"decay": "0.1"}, 16)], ids=["effort", "decay"]
)
def test_behind_the_loss_a_step_is_finished(
    board: Board, tmp_path: Path, rule: dict[str, Any], number: int
) -> None:
    """With all that belongs to it."""
    net, model = wide(convs=4), tmp_path / "wide.tflite"
    model.write_bytes(net.to_bytes())
    x = np.concatenate([net.sample() for _ in range(4)])
    sets = {"x_train": x, "y_train": np.arange(4), "x_test": x, "y_test": np.arange(4)}
    options = {"steps": number + 2, "rate": "0.05", "seed": 1, **rule}
    task = runs.make_task(model, sets, lambda graph: default_plan(graph, 5), **options)
    runs.push(board, task)
    code = WATCHED.format(number=number) + TRAIN.format(path=runs.CKPT, options=options)
    lines = interrupted(board, code, "go")
    assert [fields["step"] for fields in runs.events(lines, "saved")] == [number]
    board.stream(TRAIN.format(path=runs.CKPT, options={"resume": True}), lines.append)
    assert pull_checkpoint(board) == runs.twin_train(task)[1]
