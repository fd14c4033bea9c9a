"""The emulated Pico serves mpremote and pyserial as a board does, and keeps what a board keeps."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import serial
from sparsetune_tools.emulated_pico import SOURCES, EmulatedPico, ensure_bootrom, node_command
from sparsetune_tools.shell import ROOT, ToolError

FOLDER = ROOT / "build" / "firmware" / "SPARSETUNE_PICO"
FIRMWARE, UF2 = FOLDER / "firmware.bin", FOLDER / "firmware.uf2"
pytestmark = pytest.mark.skipif(not FIRMWARE.exists(), reason="no firmware: run make firmware")


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedPico]:
    folder = tmp_path_factory.mktemp("board")
    with EmulatedPico(FIRMWARE, folder / "flash.bin", folder / "port") as board:
        yield board


def mpremote(pico: EmulatedPico, *words: str) -> str:
    """What `mpremote connect PORT ...` prints; raises when it fails."""
    command = [sys.executable, "-m", "mpremote", "connect", pico.port, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_here(pico: EmulatedPico, code: str) -> str:
    return mpremote(pico, "exec", code).replace("\r\n", "\n")


def random_file(folder: Path, size: int) -> Path:
    path = folder / "data.bin"
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def test_answers_at_once_and_again(pico: EmulatedPico) -> None:
    for i in range(5):
        assert run_here(pico, f"print({i} * 7)") == f"{i * 7}\n"


def test_copies_files_both_ways(pico: EmulatedPico, tmp_path: Path) -> None:
    there, back = random_file(tmp_path, 100_000), tmp_path / "back.bin"
    mpremote(pico, "fs", "cp", str(there), ":data.bin")
    mpremote(pico, "fs", "cp", ":data.bin", str(back))
    assert back.read_bytes() == there.read_bytes()
    assert hashlib.sha256(there.read_bytes()).hexdigest() in mpremote(
        pico, "fs", "sha256sum", ":data.bin")


def test_soft_reset_clears_the_interpreter(pico: EmulatedPico) -> None:
    mpremote(pico, "resume", "exec", "kept = 1")
    assert run_here(pico, "print('kept' in globals())") == "False\n"


def test_machine_reset_keeps_port_and_files(pico: EmulatedPico) -> None:
    port = pico.port
    run_here(pico, "f = open('kept.txt', 'w'); f.write('still here'); f.close()")
    mpremote(pico, "exec", "--no-follow", "import machine; machine.reset()")
    pico.wait_event("reset", 10)
    pico.wait_ready()
    assert pico.port == port
    assert run_here(pico, "print(open('kept.txt').read())") == "still here\n"
    assert run_here(pico, "import machine; print(machine.reset_cause() == machine.WDT_RESET)") \
        == "True\n"


def test_files_outlive_the_emulator(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    with EmulatedPico(FIRMWARE, flash) as first:
        run_here(first, "f = open('a.txt', 'w'); f.write('x' * 5000); f.close()")
    with EmulatedPico(None, flash) as second:
        assert run_here(second, "print(len(open('a.txt').read()))") == "5000\n"


def test_one_flash_file_one_board(pico: EmulatedPico) -> None:
    with pytest.raises(ToolError, match="another emulated Pico"):
        EmulatedPico(FIRMWARE, pico.flash).start()


def test_flash_block_device(pico: EmulatedPico) -> None:
    code = """
import rp2
flash = rp2.Flash()
last = flash.ioctl(4, 0) - 1
kept, data, back = bytearray(4096), bytes(range(256)) * 16, bytearray(4096)
flash.readblocks(last, kept)
flash.ioctl(6, last)
flash.readblocks(last, back)
print(all(b == 255 for b in back))
flash.writeblocks(last, data)
flash.readblocks(last, back)
print(back == data)
flash.writeblocks(last, kept)
"""
    assert run_here(pico, code) == "True\nTrue\n"


LOADER = """
import sys, micropython, hashlib
def load(n):
    micropython.kbd_intr(-1)
    print('go')
    h, buffer = hashlib.sha256(), memoryview(bytearray(1024))
    while n:
        part = buffer[:min(n, 1024)]
        sys.stdin.buffer.readinto(part)
        h.update(part)
        n -= len(part)
    micropython.kbd_intr(3)
    print('sha', ''.join('%02x' % b for b in h.digest()))
"""
TALKER = """
import sys
def talk(n):
    line = bytes(range(32, 132)) * 10
    for i in range(n // 1000): sys.stdout.buffer.write(line)
"""


def enter_raw_repl(port: serial.Serial) -> None:
    port.write(b"\r\x03\x01")
    assert port.read_until(b"raw REPL; CTRL-B to exit\r\n>").endswith(b">")


def start(port: serial.Serial, code: str) -> None:
    port.write(code.encode() + b"\x04")
    assert port.read(2) == b"OK"


def test_bulk_to_the_board_loses_nothing(pico: EmulatedPico) -> None:
    data = random.Random(5).randbytes(500_000)
    with serial.Serial(pico.port, timeout=30, write_timeout=60) as port:
        enter_raw_repl(port)
        start(port, LOADER + f"load({len(data)})")
        assert port.read_until(b"go\r\n")  # from here on, 0x03 is a byte like any other
        port.write(data)
        said = port.read_until(b"\x04>")
        port.write(b"\x02")
    assert hashlib.sha256(data).hexdigest().encode() in said, said


def test_bulk_from_the_board_waits_for_a_slow_reader(pico: EmulatedPico) -> None:
    with serial.Serial(pico.port, timeout=20) as port:
        enter_raw_repl(port)
        start(port, TALKER + "talk(500000)")
        time.sleep(0.3)  # nobody reads: the board has to wait; it gives up after 500 ms of its time
        said = port.read(500_000)
        assert port.read_until(b"\x04>") == b"\x04\x04>"
        port.write(b"\x02")
    assert said == bytes(range(32, 132)) * 5000


def test_what_nobody_hears_is_gone(pico: EmulatedPico) -> None:
    with serial.Serial(pico.port, timeout=5) as port:
        enter_raw_repl(port)
        start(port, "import time\nfor i in range(40): print('noise', i); time.sleep_ms(20)\n")
    time.sleep(1.2)
    with serial.Serial(pico.port, timeout=0.2) as port:
        assert port.read(1000) == b""
    assert run_here(pico, "print('fine')") == "fine\n"


def test_single_precision_matches_numpy(pico: EmulatedPico) -> None:
    chance = random.Random(11)
    pairs = [(np.float32(chance.uniform(-9, 9)), np.float32(chance.uniform(-9, 9)))
             for _ in range(60)]
    packed = b"".join(struct.pack("<ff", a, b) for a, b in pairs)
    code = f"""
import struct
data = {packed!r}
for i in range(0, len(data), 8):
    a, b = struct.unpack_from('<ff', data, i)
    print(struct.pack('<ffffi', a + b, a - b, a * b, a / b, int(a * 100)).hex())
"""
    expected = [struct.pack("<ffffi", a + b, a - b, a * b, a / b, int(a * np.float32(100))).hex()
                for a, b in pairs]
    got = run_here(pico, code).split()
    assert got == expected


def test_time_follows_emulated_cycles(pico: EmulatedPico) -> None:
    before = pico.cycles()
    code = """
import time
def loop():
    start = time.ticks_us()
    for i in range(50000): pass
    return time.ticks_diff(time.ticks_us(), start)
print(loop(), loop())
"""
    first, second = map(int, run_here(pico, code).split())
    # USB interrupts come when the host sends, so two runs may differ by a few of them.
    assert abs(first - second) <= 30
    assert pico.cycles() - before > 2 * first * 125
    assert 300 < first * 125 / 50000 < 500


def test_a_sleeping_board_costs_no_cpu(pico: EmulatedPico) -> None:
    run_here(pico, "pass")
    before = cpu_seconds(pico)
    time.sleep(2)
    assert cpu_seconds(pico) - before < 0.2


def cpu_seconds(pico: EmulatedPico) -> float:
    fields = Path(f"/proc/{pico.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_sleep_takes_real_time(pico: EmulatedPico) -> None:
    start = time.monotonic()
    code = "import time; t = time.ticks_us(); time.sleep_ms(700); " \
           "print(time.ticks_diff(time.ticks_us(), t))"
    assert 700_000 <= int(run_here(pico, code)) < 705_000
    assert time.monotonic() - start >= 0.7


def test_translated_code_in_ram_follows_its_changes(pico: EmulatedPico) -> None:
    code = """
for n in range(1, 6):
    body = '@micropython.viper\\ndef f(x: int) -> int:\\n' + ' x += %d\\n' % n * 3 + ' return x\\n'
    exec(body)
    for i in range(100): f(i)
    print(f(10))
"""
    assert run_here(pico, code).split() == [str(10 + 3 * n) for n in range(1, 6)]


def test_unplug_and_plug(pico: EmulatedPico) -> None:
    port = serial.Serial(pico.port, timeout=2)
    pico.unplug()
    with pytest.raises((serial.SerialException, OSError)):
        port.write(b"x")
        port.read(1)
    port.close()
    assert pico.port_link and not os.path.lexists(pico.port_link)
    pico.plug()
    assert Path(pico.port_link or "").resolve() == Path(pico.port)
    assert run_here(pico, "print('back')") == "back\n"


@pytest.mark.parametrize("how", ["bootloader", "button"])
def test_uf2_copy_flashes_and_keeps_files(pico: EmulatedPico, how: str, tmp_path: Path) -> None:
    run_here(pico, "f = open('mine.txt', 'w'); f.write('mine'); f.close()")
    if how == "bootloader":
        mpremote(pico, "bootloader")
    else:
        pico.enter_bootsel()
    pico.wait_event("bootsel", 10)
    assert "RPI-RP2" in (pico.bootsel / "INFO_UF2.TXT").read_text()
    half = UF2.read_bytes()[:51200]
    (pico.bootsel / "half.uf2").write_bytes(half)
    time.sleep(0.5)
    assert (pico.bootsel / "INFO_UF2.TXT").exists(), "half a UF2 must not start anything"
    shutil.copy(UF2, pico.bootsel)
    pico.wait_event("flashed", 10)
    pico.wait_ready()
    assert not pico.bootsel.exists()
    assert run_here(pico, "print(open('mine.txt').read())") == "mine\n"


def test_fast_core_equals_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\x05" + b"x = 0.5\rs = 0\rfor i in range(50000):\r x = x * 1.7 + i / 3 - "
                       b"int(x)\r s += i & 7\r s ^= i\rprint(sorted('sparsetune'), s, x)\r\x04")
    words = [node_command(), str(SOURCES / "trace.mjs"), "--bootrom", str(ensure_bootrom()),
             "--firmware", str(FIRMWARE), "--script", str(script), "--cycles", "60000000"]
    for core in ("reference", "stock"):
        done = subprocess.run([*words, "--core", core], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.startswith("identical"), done.stdout
        assert int(done.stdout.split()[1]) > 50_000_000, done.stdout


MARKED = """
import gc, machine
def work(n):
    mark, port, s = machine.mem32, 0xe0000000, 0
    gc.collect()
    mark[port] = 7
    for i in range(n): s ^= i
    mark[port] = 8
work(20000)
work(20000)
"""


def test_marks_repeat_to_the_cycle(tmp_path: Path) -> None:
    def spent() -> list[tuple[int, ...]]:
        with EmulatedPico(FIRMWARE) as pico:
            run_here(pico, MARKED)
            marks = pico.marks()
            assert [mark.tag for mark in marks] == [7, 8, 7, 8]
            assert pico.marks() == []
            assert pico.counters().instructions > marks[-1].instructions
        pairs = zip(marks[::2], marks[1::2], strict=True)
        return [(b.cycles - a.cycles, b.instructions - a.instructions) for a, b in pairs]

    first, second = spent()
    assert first == second == spent()[0]
    cycles, instructions = first
    assert 20_000 * 50 < instructions < cycles < 2 * instructions


def serve(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "sparsetune_tools.emulate", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            cwd=ROOT / "tools")


def test_command_line(tmp_path: Path) -> None:
    link = tmp_path / "port"
    process = serve("--fresh", "--firmware", str(UF2), "--port-link", str(link))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("emulated Pico on /dev/")
    assert Path(line.split()[-1]) == link.resolve()
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "emulated Pico unplugged\n"
    assert not link.is_symlink()
    process.send_signal(signal.SIGUSR1)
    assert Path(process.stdout.readline().split()[-1]) == link.resolve()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert not link.is_symlink()


def test_a_port_link_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    """And what lies there stays."""
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for link, message in ((tmp_path / "none" / "port", "no folder"), (taken, "is a file")):
        process = serve("--fresh", "--firmware", str(FIRMWARE), "--port-link", str(link))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.startswith("error: ") and message in errors
        assert len(errors.splitlines()) == 1, errors
    assert taken.read_text() == "mine"


def test_a_flash_that_is_another_file_is_one_line(tmp_path: Path) -> None:
    mine = tmp_path / "model.tflite"
    mine.write_text("mine")
    for words in ([], ["--reset-flash"]):
        process = serve("--firmware", str(FIRMWARE), "--flash", str(mine), *words)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "no flash of an emulated Pico" in errors and len(errors.splitlines()) == 1, errors
    assert mine.read_text() == "mine"


def test_the_emulator_dies_with_its_parent(tmp_path: Path) -> None:
    process = serve("--fresh", "--firmware", str(FIRMWARE))
    assert process.stdout is not None and process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.wait()
    end = time.monotonic() + 5
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_bad_firmware_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.uf2"
    bad.write_bytes(b"no uf2" * 100)
    for words in (["--firmware", str(bad)], ["--firmware", str(tmp_path / "none.bin")]):
        process = serve("--fresh", *words)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Traceback" not in errors and errors.startswith("error: "), errors
        assert len(errors.splitlines()) == 1, errors
