"""Training goes on while the host does not listen: on the emulated board, with a program that has
the port open and stops reading."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from runs import CKPT, Task, digits_task, events, push, telemetry, twin_train
from sparsetune.board import Board
from sparsetune.transfer import pull_checkpoint
from sparsetune_device.telemetry import parse

STEPS = 120
LONGEST = 90  # seconds of a run
# Talks until nobody takes it any more, then trains, and tells at the end how long that took.
FILL = """
import time, sparsetune_link
said = time.ticks_ms()
while time.ticks_diff(time.ticks_ms(), said) < 300:
    if sparsetune_link.room() > 100:
        print("-" * 78)
        said = time.ticks_ms()
"""
# As on stock firmware, which only tells whether there is room for a byte.
STOCK = """
from sparsetune_device import teller
teller._find_room = teller._room_of_stdout
"""
TRAIN = """
import time
from sparsetune_device.main import train
start = time.ticks_ms()
train('/rom/model.img', '/sparsetune/train.dat', save_to={path!r}, **{options!r})
took = time.ticks_diff(time.ticks_ms(), start)
time.sleep(3)
print("took", took)
"""


@dataclass(frozen=True)
class Run:
    """What came of a run. ms: that the board's train() took. lines: of telemetry that arrived."""

    ms: int
    lines: list[str]
    checkpoint: bytes

    @property
    def steps(self) -> list[str]:
        return steps_of(self.lines)

    @property
    def lost(self) -> list[dict[str, Any]]:
        return events(self.lines, "lost")


def train(pico: Any, task: Task, deaf: float, setup: str = "") -> Run:
    """deaf: emulated seconds for which the program at the port reads nothing. They begin while the
    board still fills all buffers between the two with other text. setup: code to run before."""
    with Board.connect(str(pico.port_link)) as board:
        push(board, task)
        board.soft_reset()
        code = setup + (FILL if deaf else "") + TRAIN.format(path=CKPT, options=task.options)
        lines: list[str] = []
        with board.talk(code, LONGEST) as talk:
            wait(pico, deaf)
            while (line := talk.read_line(LONGEST)) is not None:
                lines.append(line)
        checkpoint = pull_checkpoint(board)
    ms = next(int(line.split()[1]) for line in lines if line.startswith("took"))
    return Run(ms, [line for line in lines if parse(line)], checkpoint)


def wait(pico: Any, seconds: float) -> None:
    """Until so many emulated seconds have passed, or the board has nothing left but to wait for its
    host: then its clock stands."""
    now = pico.counters().seconds
    end, moved = now + seconds, time.monotonic()
    while now < end and time.monotonic() < moved + 2:
        time.sleep(0.02)
        before, now = now, pico.counters().seconds
        moved = moved if now == before else time.monotonic()


def steps_of(lines: list[str]) -> list[str]:
    return telemetry([line for line in lines if line.startswith("loss")])


@pytest.fixture(scope="module")
def runs(emulated_pico) -> dict[str, Run]:
    """A run that is listened to; one not listened to for its first part; one not until its end;
    the second without the firmware's own module."""
    task = digits_task(STEPS)
    deaf = {"never": 0.0, "at first": 3.0, "always": 9.0}
    runs = {name: train(emulated_pico, task, seconds) for name, seconds in deaf.items()}
    return {**runs, "stock": train(emulated_pico, task, 4.0, STOCK)}


def test_a_host_that_listens_gets_all(runs: dict[str, Run]) -> None:
    lines, checkpoint = twin_train(digits_task(STEPS))
    assert runs["never"].steps == steps_of(lines)
    assert runs["never"].checkpoint == checkpoint
    assert not runs["never"].lost


def test_training_does_not_wait_for_the_host(runs: dict[str, Run]) -> None:
    took = {name: run.ms for name, run in runs.items()}
    print(f"emulated: {STEPS} steps take {took} ms, by when the host does not read")
    assert took["at first"] < took["never"] + 300
    assert took["always"] < took["never"] + 2300  # its last lines are waited for
    assert took["stock"] < took["never"] + 1800  # one line is waited for, in three pieces


def test_what_is_learnt_is_the_same(runs: dict[str, Run]) -> None:
    assert {run.checkpoint for run in runs.values()} == {runs["never"].checkpoint}


def test_lost_lines_are_told(runs: dict[str, Run]) -> None:
    """All that arrives is whole and in order, and the gap is as large as was told."""
    run, told = runs["at first"], steps_of(twin_train(digits_task(STEPS))[0])
    (lost,) = run.lost
    at = next(i for i, line in enumerate(run.lines) if line.startswith("#lost"))
    before = len(steps_of(run.lines[:at]))
    assert 5 < lost["steps"] < STEPS - 5
    assert lost["lines"] >= lost["steps"]
    assert before + lost["steps"] + len(steps_of(run.lines[at:])) == STEPS
    assert run.steps == told[:before] + told[before + lost["steps"] :]
    assert run.lines[-1] == f"#done|steps={STEPS}"
