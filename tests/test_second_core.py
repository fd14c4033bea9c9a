"""Both cores of a Pico. An emulated one has no second core: there the parts run one after the
other, and asking for both must cost nothing. What only a real one can show is skipped without."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import runs
from sparsetune.board import Board
from sparsetune_tools.emulated_pico import EmulatedPico

PORT = os.environ.get("SPARSETUNE_PORT", "")
real = pytest.mark.skipif(
    not PORT, reason="SKIP: needs a Pico with our firmware on SPARSETUNE_PORT"
)
IN_TURN = "import sparsetune_device.engine as engine\nengine.CORES = {{1: 0, 2: {how}}}\n"
TRAIN = (
    "from sparsetune_device.main import train\n"
    "train('/rom/model.img', '/sparsetune/train.dat', save_to={save_to!r}, **{options!r})\n"
)
# A program without operators; the first run looks for a second core.
ASK = """
import struct, time, sparsetune_kernels as k
image = struct.pack("<6I", 0x4d495453, k.abi(), 64, 0, 64, 0) + bytes(40)
state = bytearray(64)
def ask(how):
    begin = time.ticks_us()
    k.run(image, state, state, state, b"", 0, 0, how)
    return time.ticks_diff(time.ticks_us(), begin)
print(max(ask(0) for _ in range(10)), ask(2), max(ask(2) for _ in range(10)))
"""
# The second core counts while the first one trains.
WITH_THREAD = """
import _thread, time
stop = False
count = 0
def spin():
    global count
    while not stop:
        count += 1
        time.sleep_ms(1)
_thread.start_new_thread(spin, ())
{train}
print("counted", count)
stop = True
time.sleep_ms(50)
"""


def lines_of(board: Board, script: str) -> list[str]:
    lines: list[str] = []
    board.stream(script, lines.append)
    return lines


def train_on(board: Board, task: runs.Task, before: str = "", **more: object) -> list[str]:
    options = {**task.options, **more}
    return lines_of(board, before + TRAIN.format(save_to=runs.CKPT, options=options))


@pytest.mark.parametrize("how", [2, 3], ids=["first part first", "second part first"])
def test_parts_in_turn_give_the_same_lines(emulated_pico: EmulatedPico, how: int) -> None:
    task = runs.digits_task(steps=12)
    wanted, checkpoint = runs.twin_train(task)
    with Board.connect(emulated_pico.port) as board:
        runs.push(board, task)
        lines = train_on(board, task, IN_TURN.format(how=how))
        assert runs.telemetry(lines) == runs.telemetry(wanted)
        assert runs.pull_checkpoint(board) == checkpoint


def test_a_silent_second_core_is_asked_once(emulated_pico: EmulatedPico) -> None:
    """The emulated Pico's mailbox between the cores never answers. Microseconds."""
    emulated_pico.reset()
    with Board.connect(emulated_pico.port) as board:
        one, first, later = map(int, lines_of(board, ASK)[-1].split())
    assert first <= 5000
    assert later <= one + 20
    assert not emulated_pico.faults


# On a real Pico -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pico() -> Iterator[Board]:
    with Board.connect(PORT) as board:
        yield board


@pytest.fixture(scope="module")
def task(pico: Board) -> runs.Task:
    task = runs.digits_task(steps=60)
    runs.push(pico, task)
    return task


def milliseconds(lines: list[str]) -> float:
    """Of a step, the median."""
    times = sorted(float(line.split(",ms:")[1]) for line in lines if ",ms:" in line)
    return times[len(times) // 2]


@real
def test_both_cores_of_a_pico_give_the_same_sooner(pico: Board, task: runs.Task) -> None:
    wanted, checkpoint = runs.twin_train(task)
    took = {}
    for cores in (1, 2):
        lines = train_on(pico, task, cores=cores)
        took[cores] = milliseconds(lines)
        assert runs.telemetry(lines) == runs.telemetry(wanted)
        assert runs.pull_checkpoint(pico) == checkpoint
    print(f"ms a step: {took[1]} on one core, {took[2]} on both")
    assert took[2] < took[1]


@real
def test_a_thread_keeps_the_second_core(pico: Board, task: runs.Task) -> None:
    """And trains on one core, while the thread goes on."""
    found = lines_of(
        pico, "import sys\ntry:\n import _thread\n print(1)\nexcept ImportError:\n print(0)"
    )
    if found[-1] != "1":
        pytest.skip("SKIP: this firmware has no _thread (ours has not)")
    train = TRAIN.format(save_to=runs.CKPT, options={**task.options, "cores": 2})
    lines = lines_of(pico, WITH_THREAD.format(train=train))
    assert runs.telemetry(lines[:-1]) == runs.telemetry(runs.twin_train(task)[0])
    assert int(lines[-1].split()[1]) > 100
