"""Talking to a board: ports, code, interrupts, watching."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import serial
from sparsetune import board as board_module
from sparsetune.board import Board, find_port, list_boards, stopped_run
from sparsetune.errors import SparsetuneError
from sparsetune.push import push_file

StandIn = Callable[..., str]


def usb_port(device: str, vid: int | None, pid: int = 5) -> SimpleNamespace:
    return SimpleNamespace(device=device, vid=vid, pid=pid, description=f"on {device}")


def pretend_ports(monkeypatch: pytest.MonkeyPatch, *ports: SimpleNamespace) -> None:
    class Sortable(SimpleNamespace):
        def __lt__(self, other: SimpleNamespace) -> bool:
            return str(self.device) < str(other.device)

    found = [Sortable(**vars(port)) for port in ports]
    monkeypatch.setattr(board_module.serial.tools.list_ports, "comports", lambda: found)


# Finding the port -------------------------------------------------------------------


def test_no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ports(monkeypatch, usb_port("/dev/ttyS0", None), usb_port("/dev/ttyUSB0", 0x0403))
    with pytest.raises(SparsetuneError, match="no board found: plug one in.* --twin"):
        find_port()


def test_one_board(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ports(
        monkeypatch,
        usb_port("/dev/ttyUSB0", 0x0403),
        usb_port("/dev/ttyACM1", 0x2E8A, 0x000C),  # a debug probe
        usb_port("/dev/ttyACM0", 0x2E8A),
    )
    assert find_port() == "/dev/ttyACM0"


def test_several_boards_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ports(monkeypatch, usb_port("/dev/ttyACM1", 0x303A), usb_port("/dev/ttyACM0", 0x2E8A))
    assert [port for port, _ in list_boards()] == ["/dev/ttyACM0", "/dev/ttyACM1"]
    with pytest.raises(SparsetuneError, match=r"--port: /dev/ttyACM0 .*, /dev/ttyACM1"):
        find_port()


def test_port_that_is_not_there() -> None:
    with pytest.raises(SparsetuneError, match="there is no port /dev/nowhere"):
        Board.connect("/dev/nowhere")


def test_port_that_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    with pytest.raises(SparsetuneError, match="cannot open"):
        Board.connect(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
def test_port_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.touch(mode=0)
    with pytest.raises(SparsetuneError, match="permission"):
        Board.connect(str(path))


def test_port_in_use(stand_in: StandIn) -> None:
    port = stand_in()
    with open(port, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SparsetuneError, match="in use by another program"):
            Board.connect(port)


def test_silent_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else than a board: nothing is ever answered."""
    master, slave = os.openpty()
    monkeypatch.setattr(Board, "_try_raw_repl", _impatient(Board._try_raw_repl))
    with Board.connect(os.ttyname(slave)) as board:
        with pytest.raises(SparsetuneError, match="does not answer"):
            board.identify()
    os.close(master)
    os.close(slave)


def _impatient(method: Callable[..., bool]) -> Callable[..., bool]:
    """The same, with a transport whose waits are short."""

    def impatient(board: Board, soft_reset: bool) -> bool:
        transport = board._transport
        read_until = type(transport).read_until

        def short(count: int, ending: bytes, **_: object) -> bytes:
            transport.serial.timeout = 0.1
            data: bytes = read_until(transport, count, ending, timeout=0.1, timeout_overall=0.2)
            return data

        transport.read_until = short
        return method(board, soft_reset)

    return impatient


# Running code -----------------------------------------------------------------------


def test_code_runs(stand_in: StandIn) -> None:
    with Board.connect(stand_in()) as board:
        assert board.exec("print(1)\nprint('zwei')") == "1\nzwei"
        assert board.exec("print('no line end', end='')") == "no line end"
        assert board.exec("pass") == ""
        assert board.exec("print('x' * 20000)") == "x" * 20000


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1/0", "stopped with ZeroDivisionError: division by zero$"),
        ("raise MemoryError('memory allocation failed')", "needs less memory"),
        ("import sparsetune_missing", "sparsetune flash"),
        ("open('/no/such/file')", "No such file"),
    ],
)
def test_exceptions_are_one_line(stand_in: StandIn, code: str, message: str) -> None:
    with Board.connect(stand_in()) as board:
        with pytest.raises(SparsetuneError, match=message) as caught:
            board.exec(code)
        assert "\n" not in str(caught.value)
        assert board.exec("print('alive')") == "alive"


def test_silence_is_an_error_and_the_board_stays_usable(stand_in: StandIn) -> None:
    with Board.connect(stand_in()) as board:
        with pytest.raises(SparsetuneError, match="said nothing for 0.5 seconds"):
            board.exec("import time\ntime.sleep(60)", timeout=0.5)
        assert board.exec("print('alive')") == "alive"


def test_identify(stand_in: StandIn) -> None:
    with Board.connect(stand_in()) as board:
        info = board.identify()
    assert info.has_kernels
    assert info.romfs_bytes == 262144
    assert info.heap_free == 200000
    assert info.unique_id == "0102"


def test_stream_hands_over_lines_as_they_come(stand_in: StandIn) -> None:
    arrived: list[tuple[float, str]] = []
    code = "import time\nfor i in range(3):\n print(i)\n time.sleep(0.3)"
    with Board.connect(stand_in()) as board:
        board.stream(code, lambda line: arrived.append((time.monotonic(), line)))
    assert [line for _, line in arrived] == ["0", "1", "2"]
    assert 0.2 < arrived[1][0] - arrived[0][0] < 1.5


STREAM = """
import sys
from sparsetune.board import Board
with Board.connect(sys.argv[1]) as board:
    board.stream(sys.argv[2], lambda line: print(line, flush=True))
"""

COUNT = """
import time
try:
    for i in range(1000):
        print(i)
        time.sleep(0.05)
except KeyboardInterrupt:
    print("saved")
    raise
"""


def interrupt_stream(port: str) -> list[str]:
    """Stream COUNT in a process of its own, press Ctrl-C; returns what it printed."""
    command = [sys.executable, "-c", STREAM, port, COUNT]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    lines += process.stdout.read().split()
    assert process.wait(20) != 0
    return lines


def test_ctrl_c_stops_the_board(stand_in: StandIn) -> None:
    port = stand_in()
    lines = interrupt_stream(port)
    assert lines[:3] == ["0", "1", "2"]
    assert lines[-1] == "saved"
    with Board.connect(port) as board:
        assert board.exec("print('alive')") == "alive"


def read_for(port: serial.Serial, seconds: float) -> bytes:
    end = time.monotonic() + seconds
    data = b""
    while time.monotonic() < end:
        data += port.read(port.in_waiting or 1)
    return data


def test_closing_leaves_the_raw_repl(stand_in: StandIn) -> None:
    port = stand_in()
    with Board.connect(port) as board:
        board.exec("pass")
    with serial.Serial(port, timeout=0.1) as raw:
        raw.write(b"\r")
        assert read_for(raw, 0.5).endswith(b">>> ")


def test_opening_sends_nothing(stand_in: StandIn) -> None:
    """Watching must not disturb: with a board opened and closed, no byte has been sent."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    with Board.connect(os.ttyname(slave)):
        pass
    with pytest.raises(BlockingIOError):
        os.read(master, 1)
    os.close(master)
    os.close(slave)


def test_attach_survives_a_port_that_vanishes(tmp_path: Path) -> None:
    link = tmp_path / "port"
    lines: list[str] = []

    class Enough(Exception):
        pass

    def on_line(line: str) -> None:
        lines.append(line)
        if line == "second":
            raise Enough

    def plug(text: bytes) -> tuple[int, int]:
        master, slave = os.openpty()
        link.symlink_to(os.ttyname(slave))
        os.set_blocking(master, True)
        threading.Timer(0.5, os.write, (master, text)).start()
        return master, slave

    def replug() -> None:
        time.sleep(1.5)
        link.unlink()
        for end in first:
            os.close(end)
        time.sleep(0.5)
        second.extend(plug(b"ignored tail of a line\r\nsecond\r\n"))

    import tty

    first, second = plug(b"first\r\nhalf a li"), []
    tty.setraw(first[1])
    worker = threading.Thread(target=replug)
    worker.start()
    with Board.connect(str(link)) as board, pytest.raises(Enough):
        board.attach(on_line, patience=10)
    worker.join()
    for end in second:
        os.close(end)
    assert lines == ["first", "ignored tail of a line", "second"]


def test_read_file_checks_what_it_reads(stand_in: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for size in (0, 1, 1536, 5000):
        path.write_bytes(os.urandom(size))
        with Board.connect(stand_in()) as board:
            assert board.read_file(str(path)) == path.read_bytes()
            board.remove_file(str(path))
            board.remove_file(str(path))
    assert not path.exists()


PULL_FAULTS = {
    "a byte differs": ["--out-flip", 5000],
    "a byte is lost": ["--out-drop", 5000],
    "the first": ["--out-drop", 0],
    "the last": ["--out-drop", 19_999],
    "a line's length is lost": ["--out-drop", *range(4096, 8192)],
    "some of each": ["--out-flip", 100, 9000, "--out-drop", 15_000, 26_000],
}


@pytest.mark.parametrize("fault", PULL_FAULTS)
def test_read_file_repairs_damage(stand_in: StandIn, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x04\x04>\x03\x01" * 4000)  # bytes that mean something in the raw REPL
    with Board.connect(stand_in(*PULL_FAULTS[fault])) as board:
        assert board.read_file(str(path)) == path.read_bytes()
        assert board.exec("print('alive')") == "alive"


def test_read_file_gives_up_on_a_hopeless_line(stand_in: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(20_000))
    with Board.connect(stand_in("--out-flip", *range(0, 400_000, 1000))) as board:
        with pytest.raises(SparsetuneError, match="arrives damaged from .*: check the cable"):
            board.read_file(str(path))
        assert board.exec("print('alive')") == "alive"


# On the emulated Pico ---------------------------------------------------------------


def test_emulated_identify(emulated_pico) -> None:
    with Board.connect(str(emulated_pico.port_link)) as board:
        info = board.identify()
    assert info.platform == "rp2"
    assert info.micropython.startswith("1.")
    assert info.has_kernels
    assert info.device_version
    assert info.romfs_bytes == 768 * 1024
    assert 150_000 < info.heap_free < 264_000


def test_emulated_read_file(emulated_pico) -> None:
    data = os.urandom(20_000) + b"\x04\x04>" * 2000
    with Board.connect(str(emulated_pico.port_link)) as board:
        push_file(board, "/x", data)
        assert board.read_file("/x") == data
        board.remove_file("/x")


def test_emulated_errors(emulated_pico) -> None:
    with Board.connect(str(emulated_pico.port_link)) as board:
        with pytest.raises(SparsetuneError, match="stopped with ZeroDivisionError"):
            board.exec("1/0")
        with pytest.raises(SparsetuneError, match="needs less memory"):
            board.exec("bytearray(1000000)")
        with pytest.raises(SparsetuneError, match="does not hold that file"):
            board.read_file("/nothing")
        assert board.exec("print('alive')") == "alive"


def test_emulated_ctrl_c(emulated_pico) -> None:
    port = str(emulated_pico.port_link)
    lines = interrupt_stream(port)
    assert lines[:3] == ["0", "1", "2"]
    assert lines[-1] == "saved"
    with Board.connect(port) as board:
        assert board.exec("print('alive')") == "alive"


def test_emulated_soft_reset_empties_the_heap(emulated_pico) -> None:
    with Board.connect(str(emulated_pico.port_link)) as board:
        board.exec("hog = bytearray(100000)")
        assert board.identify().heap_free < 150_000
        board.soft_reset()
        assert board.identify().heap_free > 150_000


def test_emulated_closing_leaves_the_raw_repl(emulated_pico) -> None:
    port = str(emulated_pico.port_link)
    with Board.connect(port) as board:
        board.exec("pass")
    with serial.Serial(port, timeout=0.1) as raw:
        raw.write(b"6*7\r")
        assert b"\r\n42\r\n>>> " in read_for(raw, 2)


def test_emulated_attach_does_not_disturb(emulated_pico) -> None:
    """A run started by someone else goes on, before, while and after it is watched."""
    port = str(emulated_pico.port_link)
    with serial.Serial(port, timeout=0.1) as raw:
        raw.write(b"import time\rfor i in range(600): print('n', i); time.sleep(0.1)\r\r\r")
        assert b"n 3" in read_for(raw, 3)
    seen: list[int] = []

    class Enough(Exception):
        pass

    def on_line(line: str) -> None:
        if line.startswith("n "):
            seen.append(int(line[2:]))
        if len(seen) == 8:
            raise Enough

    with Board.connect(port) as board, pytest.raises(Enough):
        board.attach(on_line)
    assert seen == list(range(seen[0], seen[0] + 8))
    with serial.Serial(port, timeout=0.1) as raw:
        assert f"n {seen[-1] + 5}".encode() in read_for(raw, 4)
    with Board.connect(port) as board:  # interrupts what is left of it
        assert board.exec("print('alive')") == "alive"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("\r\n>>> \r\nraw REPL; CTRL-B to exit\r\n>", ""),
        ("loss:1.0000,ms:2.0\n#saved|path=x|step=3\nKeyboardInterrupt: \n", "after step 3, which"),
        ("loss:1.0000,ms:2.0\nKeyboardInterrupt: \n", "saves nothing"),
        ("#saved|path=x|step=3\n#done|steps=3\n>>> \nKeyboardInterrupt: \n", ""),
        ("my program\nKeyboardInterrupt: \n", ""),
    ],
)
def test_a_run_that_was_stopped_is_told(said: str, told: str) -> None:
    lines = stopped_run(said)
    assert (told in lines[0]) if told else not lines
