"""Both cores of a Pico: on an emulated one with a second core, started by the firmware through the
mailbox of the boot ROM; on one without, where asking for both must cost nothing; and, where one is
plugged in, on a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import runs
from conftest import FIRMWARE
from sparsetune.board import Board
from sparsetune.errors import SparsetuneError
from sparsetune_tools.bare import symbols
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
    k.run(image, state, bytearray(), bytearray(), b"", 0, 0, how)
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

# on_beat runs every 10 ms, in an interrupt that a PIO program raises.
BEATS = """
import rp2
@rp2.asm_pio()
def beat():
    irq(rel(0))
    set(x, 31)
    label("wait")
    jmp(x_dec, "wait") [31]
count = 0
beats = rp2.StateMachine(0, beat, freq=100_000)
beats.irq(on_beat, hard=True)
beats.active(1)
"""
WITH_WRITES = """
import rp2, sparsetune_board
whole = rp2.Flash()
size = sparsetune_board.STORE_BYTES
flash = rp2.Flash(start=whole.ioctl(4, 0) * whole.ioctl(5, 0) - size, len=size)
page = bytes([255] * 256)
def on_beat(machine):
    global count
    flash.writeblocks(0, page, 0)
    count += 1
{beats}
{train}
beats.active(0)
print("written", count)
"""
# From the 600th beat on the second core is switched off, again and again, or what stands at the end
# of its stack is overwritten. It has 50 ms for what it is given: `patience` is the address of that
# time (bind_core1.c).
FAILING = """
import machine
machine.mem32[{patience}] = 50_000
def on_beat(_, mem=machine.mem32, at={at}, value={value}):
    global count
    count += 1
    if count > 600:
        mem[at] = value
{beats}
"""
SWITCH, SECOND_CORE = 0x40012004, 1 << 16  # FRCE_OFF, to be set


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


@pytest.fixture(scope="module")
def two_cores() -> Iterator[Board]:
    """An emulated Pico with both cores, which take turns: no bus makes one wait for the other."""
    if not FIRMWARE.exists():
        pytest.skip("no firmware is built: run make firmware")
    with EmulatedPico(FIRMWARE, cores=2) as pico, Board.connect(pico.port) as board:
        yield board
        assert not pico.faults


def test_the_second_core_of_an_emulated_pico(two_cores: Board) -> None:
    """The same lines and checkpoint in less time. Checkpoints are written on the way: between runs
    the second core is out of the flash's way."""
    check_both_cores(two_cores, runs.digits_task(steps=12), save_every=4)


def check_both_cores(board: Board, task: runs.Task, save_every: int = 0) -> None:
    wanted, checkpoint = runs.twin_train(task)
    took = {}
    runs.push(board, task)
    for cores in (1, 2):
        lines = train_on(board, task, cores=cores, save_every=save_every)
        took[cores] = milliseconds(lines)
        assert runs.losses(lines) == runs.losses(wanted)
        assert runs.events(lines, "start")[0]["cores"] == cores
        assert runs.pull_checkpoint(board) == checkpoint
    print(f"ms a step: {took[1]} on one core, {took[2]} on both")
    assert took[2] < 0.8 * took[1]


def test_flash_written_by_an_interrupt_stops_the_second_core(two_cores: Board) -> None:
    """It asks the second core to wait, and lets it go on; without an answer it would hang."""
    task = runs.digits_task(steps=6)
    wanted, _ = runs.twin_train(task)
    runs.push(two_cores, task)
    train = TRAIN.format(save_to=runs.CKPT, options={**task.options, "cores": 2})
    lines = lines_of(two_cores, WITH_WRITES.format(beats=BEATS, train=train))
    assert runs.losses(lines) == runs.losses(wanted)
    assert int(lines[-1].split()[1]) >= 5


@pytest.mark.parametrize("how", ["switched off", "stack overrun"])
def test_a_second_core_that_stops_ends_the_run(how: str) -> None:
    """With one line; no half of an update is kept. The board goes on from the checkpoint, alone."""
    if not FIRMWARE.exists():
        pytest.skip("no firmware is built: run make firmware")
    task = runs.digits_task(steps=60)
    wanted, checkpoint = runs.twin_train(task)
    with EmulatedPico(FIRMWARE, cores=2) as pico, Board.connect(pico.port) as board:
        runs.push(board, task)
        known = symbols(FIRMWARE.with_suffix(".elf"))
        at, value = (known["__StackBottom"], 0) if "stack" in how else (SWITCH, SECOND_CORE)
        before = FAILING.format(patience=known["patience"], at=at, value=value, beats=BEATS)
        lines: list[str] = []
        train = TRAIN.format(save_to=runs.CKPT, options={**task.options, "save_every": 2})
        with pytest.raises(SparsetuneError, match="the second core stopped: train with --cores 1"):
            board.stream(before + train, lines.append)
        done = len(runs.losses(lines))
        assert 2 <= done < 60
        lines = train_on(board, task, resume=True)
        first = 60 - len(runs.losses(lines))
        assert done - 2 < first <= done
        rest, all_steps = ([r.split(",")[0] for r in runs.losses(of)] for of in (lines, wanted))
        assert rest == all_steps[first:]
        assert runs.pull_checkpoint(board) == checkpoint
        assert not pico.faults


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
    check_both_cores(pico, task)


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
