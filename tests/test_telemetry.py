"""Telemetry: exact bytes, the same on CPython and MicroPython, and back again."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from sparsetune.board import Board
from sparsetune_device.telemetry import event_line, hex_events, parse, step_line

DEVICE = Path(__file__).parent.parent / "device"


@pytest.mark.parametrize(
    ("loss", "acc", "us", "line"),
    [
        (34872, 53248, 41000, "loss:0.5321,acc:0.8125,ms:41.0"),
        (0, 0, 0, "loss:0.0000,acc:0.0000,ms:0.0"),
        (65536, 65536, 1_000_000, "loss:1.0000,acc:1.0000,ms:1000.0"),
        (-65536, 1, 50, "loss:-1.0000,acc:0.0000,ms:0.1"),
        (-3, 0, 49, "loss:0.0000,acc:0.0000,ms:0.0"),
        (10**15, 10**9, 10**15, "loss:9999.9999,acc:1.0000,ms:9999999.9"),
        (-(10**15), -5, -5, "loss:-9999.9999,acc:0.0000,ms:0.0"),
    ],
)
def test_step_line(loss: int, acc: int, us: int, line: str) -> None:
    assert step_line(loss, acc, us) == line


def test_step_line_rounds_half_away_from_zero() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        loss, us = rng.randrange(-(2**24), 2**24), rng.randrange(2**30)
        text = step_line(loss, 0, us)
        exact_loss = (Decimal(loss) / 65536).quantize(Decimal("0.0001"), ROUND_HALF_UP)
        exact_ms = (Decimal(us) / 1000).quantize(Decimal("0.1"), ROUND_HALF_UP)
        fields = {"loss": float(exact_loss), "acc": 0.0, "ms": float(exact_ms)}
        assert parse(text) == ("step", fields)


def test_event_is_one_token_that_plotters_skip() -> None:
    line = event_line("note", text="a b,c:d\te|f=g#h%i\n\u00e9", n=-3, flag=True)
    assert line == "#note|flag=1|n=-3|text=a%20b%2Cc%3Ad%09e%7Cf%3Dg%23h%25i%0A%C3%A9"
    assert not set(line) & set(" ,:;\t\r\n")


def test_events_come_back() -> None:
    fields = {"what": "10% of 5, or: \u00fc\u4e2d", "n": 200, "m": -1, "no": "", "digits": "007"}
    assert parse(event_line("error", **fields)) == ("error", fields)
    assert parse(event_line("done")) == ("done", {})


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_bytes_come_back_in_short_lines(size: int) -> None:
    data = bytes(i * 7 & 255 for i in range(size))
    lines = list(hex_events("output", memoryview(data), n=3))
    events = [event for line in lines if (event := parse(line))]
    assert all(kind == "output" and fields["n"] == 3 for kind, fields in events)
    assert b"".join(bytes.fromhex(fields["hex"][1:]) for _, fields in events) == data
    assert len(events) == len(lines) and max(map(len, lines)) <= 150


def test_event_refuses_floats() -> None:
    with pytest.raises(TypeError):
        event_line("mem", free=1.5)


@pytest.mark.parametrize(
    "line",
    [
        "",
        ">>> ",
        "MPY: soft reboot",
        "loss:0.5",
        "loss:nan,acc:0.5,ms:1.0",
        "loss:1e5,acc:0.5,ms:1.0",
        "loss:0.5321,acc:0.8125,ms:41",
        "loss:0.1,acc:0.8,ms:41.0,",
        "loss:0.1,loss:0.1,acc:0.8,ms:41.0",
        "loss:\u0661.0,acc:0.8,ms:41.0",
        "#",
        "# a comment",
        "#mem|free",
        "#mem|free=%4",
        "#mem|free=%zz",
        "#mem|free=%FF%FE",
        "#m\u00e9m|free=1",
    ],
)
def test_garbage_is_no_telemetry(line: str) -> None:
    assert parse(line) is None


def test_line_ends_do_not_matter() -> None:
    assert parse("loss:0.5000,acc:0.2500,ms:1.0\r\n") == (
        "step",
        {"loss": 0.5, "acc": 0.25, "ms": 1.0},
    )


# Prints the same lines wherever it runs.
SCRIPT = """
import sys
sys.path.insert(0, {device!r})
from sparsetune_device.telemetry import event_line, parse, step_line
x = 12345
for i in range(500):
    x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    print(step_line(x % 1000003 - 300000, x % 70001, x))
print(event_line("start", steps=200, seed=1, zeta="a b", alpha="1", beta=True, path="/x y:z"))
kind, fields = parse("#mem|free=123|what=a%20b%C3%A9")
print(kind, fields["free"], [ord(c) for c in fields["what"]])
print(parse("loss:1.5000,acc:0.5000,ms:2.0") is not None)
print([parse(t) for t in (">>> ", "#x|y", "#x|y=%4", "#x|y=%FF", "loss:nan,acc:1.0,ms:1.0")])
"""


def test_micropython_prints_the_same_bytes(unix_micropython: Path) -> None:
    script = SCRIPT.format(device=str(DEVICE))
    board = subprocess.run([unix_micropython, "-c", script], capture_output=True, check=True)
    host = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert board.stdout.decode() == host.stdout.decode()
    assert board.stdout.count(b"\n") == 504


def test_emulated_board_prints_the_same_bytes(emulated_pico) -> None:
    script = SCRIPT.replace("sys.path.insert(0, {device!r})", "")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(script, {})
    with Board.connect(str(emulated_pico.port_link)) as board:
        assert board.exec(script) == out.getvalue().rstrip("\n")


# The outputs of 1,000 classes, where the heap has no 2 KB in one piece.
CROWDED = """
import gc
from sparsetune_device.main import measure_samples

class Engine:
    sample = target = image = None
    output = memoryview(bytes(range(250)) * 4)
    def infer(self):
        pass
    def measure(self, label):
        return 0, 0

class Samples:
    def load(self, *to):
        return 0

class Image:
    loss = "softmax"

Engine.image = Image
held = []
try:
    while True:
        held.append(bytearray(1536))
except MemoryError:
    for i in range(0, len(held), 3):
        held[i] = None
gc.collect()
print(gc.mem_free())
measure_samples(Engine(), Samples(), range(3), True, print)
"""


def test_long_outputs_are_told_on_a_heap_in_pieces(emulated_pico) -> None:
    """As a plan that fills the RAM leaves it."""
    lines: list[str] = []
    with Board.connect(str(emulated_pico.port_link)) as board:
        try:
            board.stream(CROWDED, lines.append)
        finally:
            board.soft_reset()  # the next test's board is not crowded
    assert int(lines[0]) > 20000  # but in pieces
    events = [event for line in lines[1:] if (event := parse(line))]
    told = b"".join(bytes.fromhex(fields["hex"][1:]) for _, fields in events)
    assert told == bytes(range(250)) * 4 * 3
