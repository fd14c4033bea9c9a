"""TinyProp in whole runs: skipped steps, what a run tells of its effort, and that it goes on where
it was broken off; on the twin and on the emulated Pico."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
import sparsetune_device.engine as engine
from sparsetune import cli
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.image import parse_image
from sparsetune.plan import default_plan, load_plan, save_plan
from sparsetune.tune import describe_effort
from sparsetune_device.effort import Effort, threshold
from test_training import check_board_against_twin, check_memory, needs_shared

SHARED = shared_tasks.shared_folder()
V1 = "0.05:0.5:0.9"


def with_policy(task: runs.Task, policy: str, **options: Any) -> runs.Task:
    plan = replace(default_plan(task.graph, 6), tinyprop=policy)
    image = parse_image(compile_image(task.graph, plan).image)
    return replace(task, image=image, options={**task.options, **options})


def told(lines: list[str]) -> dict[str, Any]:
    return runs.events(lines, "effort")[-1]


def test_counting_alone_changes_no_line() -> None:
    task = runs.digits_task(steps=60)
    plain, lines = (runs.twin_train(with_policy(task, policy))[0] for policy in ("", "1:1:1"))
    assert runs.losses(lines) == runs.losses(plain)
    assert not runs.events(plain, "effort")
    effort = told(lines)
    assert effort["n"] == 60 and effort["steps"] == 10000
    assert 0 < effort["backward"] < 10000  # errors behind a ReLU are zero in part


def test_all_is_the_mean_of_forward_and_backward() -> None:
    task = with_policy(runs.digits_task(steps=60), V1)
    effort = told(runs.twin_train(task)[0])
    forward, backward = task.image.macs
    whole = (10000 * forward + effort["backward"] * backward) / (forward + backward)
    assert effort["all"] == pytest.approx(whole, abs=1)


def test_a_smaller_share_is_less_effort() -> None:
    task = runs.digits_task(steps=60)
    efforts = [
        told(runs.twin_train(with_policy(task, policy))[0])["backward"]
        for policy in ("1:1:1", "0.3:0.8:1", "0.1:0.4:1", "0:0.1:0.8")
    ]
    assert efforts == sorted(efforts, reverse=True) and efforts[-1] < efforts[0] / 3


@pytest.mark.parametrize("skip", ["0.05", "0.3", "0.9"])
def test_steps_are_skipped_where_the_gradient_is_small(skip: str) -> None:
    """Redone from the losses that are told: 2 (1 - p), against the largest of late."""
    task = with_policy(runs.digits_task(steps=300), "1:1:1", skip=skip)
    lines = runs.twin_train(task)[0]
    most, done, near = 0.0, 0, 0
    for line in runs.losses(lines):
        norm = 2 * (1 - np.exp(-float(line.split(",")[0][5:])))
        most = max(norm, most * (1 - 2.0**-10))
        done += norm >= float(skip) * most
        near += abs(norm - float(skip) * most) < 2e-3
    effort = told(lines)
    assert len(runs.losses(lines)) == effort["n"] == 300
    assert abs(effort["steps"] * 300 / 10000 - done) <= near + 1
    assert 0 < done < 300


def test_a_skipped_step_learns_nothing() -> None:
    task = runs.digits_task(steps=1)
    samples, labels = task.train.x, task.train.y
    machine = engine.Engine(engine_image(task.image.data))
    effort = Effort(machine, "0.9")
    skipped = 0
    for i in range(60):
        machine.sample[:] = samples[i].tobytes()
        before, done = bytes(machine.state[64:]), effort.done
        effort.step(int(labels[i]), (40000, -22), i)
        if effort.done == done:
            skipped += 1
            assert machine.state[64:] == before or is_loss_alone(machine, before)
    assert 0 < skipped < 60


def is_loss_alone(machine: engine.Engine, before: bytes) -> bool:
    """Nothing but exponent and shift of the loss' own error tensor differ."""
    after = bytes(machine.state[64:])
    return sum(a != b for a, b in zip(before, after, strict=True)) <= 4


def engine_image(data: bytes) -> Any:
    from sparsetune_device.image import Image

    return Image(data)


def test_a_broken_run_goes_on_as_if_it_had_not_been() -> None:
    """The largest errors of late and the setting are in the checkpoint."""
    task = with_policy(runs.digits_task(), V1, steps=300, schedule="linear", skip="0.3")
    straight, unbroken = runs.twin_train(task)
    broken: list[str] = []

    def pull_the_plug(line: str) -> None:
        broken.append(line)
        if len(runs.losses(broken)) == 170:
            raise KeyboardInterrupt

    with runs.Twin(task.image.data, task.samples) as twin:
        with pytest.raises(KeyboardInterrupt):
            twin.train(pull_the_plug, **task.options)
        rest: list[str] = []
        assert twin.train(rest.append, resume=True) == unbroken
    assert runs.events(rest, "start")[0]["skip"] == "0.3"
    lines = [line.split(",")[0] for line in runs.losses(broken + rest)]
    assert lines == [line.split(",")[0] for line in runs.losses(straight)]


def test_each_epoch_tells_its_effort() -> None:
    task = with_policy(runs.digits_task(), V1)
    few = replace(task, train=task.train.part(slice(20)), options={**task.options, "steps": 50})
    assert [e["n"] for e in runs.events(runs.twin_train(few)[0], "effort")] == [20, 40, 50]


@pytest.mark.parametrize("text", ["1", "2.5", "-0.1", "a", "1e-3"])
def test_other_thresholds_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError):
        threshold(text)
    assert cli.main(["tune", str(runs.DIGITS), "no.npz", "--twin", f"--skip={text}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "0.1", "0.5", "0.999", "0.000001", ""])
def test_thresholds_are_shares(text: str) -> None:
    assert threshold(text) == int(float(text or "0") * 32768 + 1e-9)


def test_the_plan_keeps_its_policy(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    command = ["plan", str(runs.DIGITS), "--last", "4", "--tinyprop", V1, "-o", str(path)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "tinyprop 0.05:0.5:0.9: 0.05 to 0.5 of a layer's error channels stay" in shown
    assert load_plan(path).tinyprop == V1
    old = save_plan(replace(load_plan(path), tinyprop="")).replace(b',\n  "tinyprop": ""', b"")
    path.write_bytes(old)
    assert load_plan(path).tinyprop == ""
    assert cli.main([*command[:5], "0.5"]) == 1
    assert "give LEAST:MOST:DAMPING" in capsys.readouterr().err


def test_what_cannot_be_combined_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", str(runs.DIGITS), "--last", "6", "--tinyprop", V1, "--patch", "2"]
    assert cli.main(command) == 1
    assert "leave out one" in capsys.readouterr().err
    tune = ["tune", str(runs.DIGITS), "no.npz", "--twin", "--skip", "0.5", "--accumulate", "4"]
    assert cli.main(tune) == 1
    assert "leave out --skip, or --accumulate" in capsys.readouterr().err


def test_momentum_and_selection() -> None:
    """Counting alone changes nothing there either; a selection does."""
    task, losses = runs.digits_task(steps=60), []
    for policy in ("", "1:1:1", V1):
        plan = replace(default_plan(task.graph, 6), tinyprop=policy, velocity=True)
        image = parse_image(compile_image(task.graph, plan).image)
        options = {**task.options, "momentum": "0.5"}
        losses.append(runs.losses(runs.twin_train(replace(task, image=image, options=options))[0]))
    assert losses[0] == losses[1] != losses[2]


def test_effort_for_people() -> None:
    text = describe_effort({"n": 7, "steps": 7400, "backward": 2130, "all": 5200})
    assert "74.0% of the steps" in text and "21.3% of the mult" in text and "52.0%" in text
    assert describe_effort({"n": 7, "steps": 7400}).endswith("behind their loss")


# On the emulated Pico -----------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("skip", ["", "0.3"], ids=["v1", "v2"])
def test_kws_on_the_emulated_pico(emulated_pico, skip: str) -> None:
    """100 steps and more, lines and checkpoint equal to the twin's."""
    assert SHARED
    task = with_policy(runs.kws_task(SHARED, steps=110), V1, skip=skip)
    with Board.connect(emulated_pico.port) as board:
        lines = check_board_against_twin(board, task)
    print(f"KWS, {V1} {skip}: {describe_effort(told(lines))}")
    assert (told(lines)["steps"] < 10000) == bool(skip)


def test_memory_where_only_steps_are_skipped(emulated_pico) -> None:
    task = with_policy(runs.digits_task(steps=17), "", skip="0.3")
    with Board.connect(emulated_pico.port) as board:
        check_memory(task, runs.board_train(board, task)[0])


