"""A stand-in for a board: CPython behind a PTY that answers like MicroPython's raw REPL.

It runs the project's own receive.py, with this machine's file system and a bytearray for
the ROMFS partition. It is fast and can be made to fail in ways that a board cannot; what
it proves about a real board is only that both ends of the protocol agree. The same tests
run on the emulated Pico too.

    python stand_in_board.py [--stock] [--flip N ...] [--drop N ...] [--mute N ...]
        [--out-flip N ...] [--out-drop N ...] [--uart] [--implementation MACHINE MPY]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator

from nor_partition import NorPartition
from own_port import own_port
from sparsetune_device import receive

BANNER = "raw REPL; CTRL-B to exit\r\n>"


# A serial port without flow control, on a board whose flash takes its time.
UART_BYTES_PER_S = 92_160
UART_ROOM = 260
UART_PIECE = 64
FLASH_S = 0.03


class Wire:
    """The board's side of the cable: a PTY, read by a thread, with faults on demand."""

    def __init__(self, faults: argparse.Namespace, master: int) -> None:
        self.master = master
        self._faults = faults
        self._data = bytearray()
        self._count: int | None = None  # bytes since the transfer began
        self._answers = 0
        self._raw_bytes = 0
        self._ready = threading.Condition()
        self.interruptible = False  # code runs, and Ctrl-C stops it
        self.transfer = False
        self._wanted = 0  # bytes that a read waits for
        threading.Thread(target=self._pump, daemon=True).start()

    def begin_transfer(self) -> None:
        self._count = 0
        self._answers = 0
        self.transfer = True

    def end_transfer(self) -> None:
        self._count = None
        self.transfer = False

    def _pump(self) -> None:
        while True:
            data = os.read(self.master, UART_PIECE if self._faults.uart else 4096)
            if self._faults.uart and self.transfer:
                data = self._overrun(data)
            if self._count is not None:
                data = self._damage(data)
            if b"\x03" in data and self.interruptible and not self.transfer:
                data = data.rpartition(b"\x03")[2]
                os.kill(os.getpid(), signal.SIGINT)
            with self._ready:
                self._data += data
                self._ready.notify()

    def _damage(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._count in self._faults.flip:
                byte ^= 0x10
            if self._count not in self._faults.drop:
                out.append(byte)
            self._count = (self._count or 0) + 1
        return bytes(out)

    def _overrun(self, data: bytes) -> bytes:
        """What a UART hears: its buffer is small, and nothing tells the host to wait."""
        time.sleep(len(data) / UART_BYTES_PER_S)
        with self._ready:
            return data[: max(0, UART_ROOM + self._wanted - len(self._data))]

    def read(self, count: int, seconds: float | None) -> bytes:
        """Return up to `count` bytes, fewer when they take longer than `seconds`."""
        end = None if seconds is None else time.monotonic() + seconds
        with self._ready:
            self._wanted = count
            while len(self._data) < count:
                rest = 1.0 if end is None else end - time.monotonic()
                if rest <= 0:
                    break
                self._ready.wait(min(rest, 1.0))
            self._wanted = 0
            data = bytes(self._data[:count])
            del self._data[:count]
            return data

    def write(self, text: str) -> None:
        if self.transfer and text.startswith("+"):
            self._answers += 1
            if self._answers in self._faults.mute:
                return
        self._send(text.encode())

    def write_raw(self, data: bytes) -> int:
        """What the board's code writes to sys.stdout.buffer, damaged on demand. Each fault comes
        once: what is sent again arrives."""
        out = bytearray()
        for byte in data:
            if self._raw_bytes in self._faults.out_flip:
                byte ^= 0x10
            if self._raw_bytes not in self._faults.out_drop:
                out.append(byte)
            self._raw_bytes += 1
        self._send(bytes(out))
        return len(data)

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data) :]


class StandInLine:
    """Takes the place of receive.open_line."""

    wire: Wire

    def __init__(self) -> None:
        self.wire.begin_transfer()

    def close(self) -> None:
        self.wire.end_transfer()

    def readinto(self, view: memoryview, ms: int) -> bool:
        data = self.wire.read(len(view), ms / 1000)
        view[: len(data)] = data
        return len(data) == len(view)

    def drain(self, quiet_ms: int) -> None:
        while self.wire.read(1, quiet_ms / 1000):
            pass

    def say(self, text: str) -> None:
        self.wire.write(text + "\r\n")


class Output(io.TextIOBase):
    """sys.stdout of code that runs on the stand-in."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.buffer = types.SimpleNamespace(write=wire.write_raw)  # type: ignore[misc]

    def write(self, text: str) -> int:
        self._wire.write(text.replace("\n", "\r\n"))
        return len(text)


def fake_train(steps: int = 5, pause: float = 0.01, warmup: int = 0, **_: object) -> None:
    fail = warmup  # an argument of the real train(), borrowed
    """What the monitor sees of a training run; no training happens."""
    from sparsetune_device.telemetry import event_line, step_line

    print(event_line("start", steps=steps))
    try:
        for step in range(steps):
            if step + 1 == fail:
                raise MemoryError("memory allocation failed, allocating 4096 bytes")
            time.sleep(pause)
            print(step_line(65536 - 1000 * step, 32768, 1000))
        print(event_line("done", steps=steps))
    except KeyboardInterrupt:
        print(event_line("stopped", steps=step))
        raise


def write_slowly(write: Callable[..., None]) -> Callable[..., None]:
    def slow(*args: object) -> None:
        time.sleep(FLASH_S)
        write(*args)

    return slow


def install_modules(flash: NorPartition, stock: bool) -> None:
    """Give CPython the modules of a board that the project's code asks for."""
    modules = {
        "machine": {"unique_id": lambda: b"\x01\x02"},
        "vfs": {
            "rom_ioctl": lambda *args: flash,
            "VfsRom": lambda device: device,
            "mount": lambda *args: None,
            "umount": lambda *args: None,
        },
        "sparsetune_device.main": {"train": fake_train},
    }
    if not stock:
        modules["sparsetune_kernels"] = {}
    for name, content in modules.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(content)
    if stock:
        sys.modules["sparsetune_kernels"] = None  # type: ignore[assignment]
    gc.mem_free = lambda: 200000  # type: ignore[attr-defined]


class Repl:
    """The raw and the friendly REPL, as far as mpremote and sparsetune use them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._raw = False

    def run(self) -> None:
        code = bytearray()
        self._wire.write("\r\n>>> ")
        while True:
            key = self._wire.read(1, None)
            if key == b"\x01":
                self._raw = True
                code.clear()
                self._wire.write(BANNER)
            elif key == b"\x02":
                self._raw = False
                self._wire.write("\r\n>>> ")
            elif key == b"\x03":
                code.clear()
            elif key == b"\x04" and not code:
                self._wire.write("OK\r\nMPY: soft reboot\r\n" + (BANNER if self._raw else ">>> "))
            elif key == b"\x04":
                self._execute(bytes(code))
                code.clear()
            elif key == b"\x05":  # raw paste: understood, but not offered
                self._wire.read(2, 1.0)
                self._wire.write("R\x00")
            elif self._raw and (code or key not in b"\r\n"):
                code += key
            elif key == b"\r" and not self._raw:
                self._wire.write("\r\n>>> ")

    def _execute(self, code: bytes) -> None:
        self._wire.write("OK")
        error = ""
        with self._interruptible():
            try:
                exec(compile(code, "<stdin>", "exec"), {"__name__": "__main__"})
            except BaseException:
                error = traceback.format_exc().replace("\n", "\r\n")
        self._wire.write("\x04" + error + "\x04>")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._wire.interruptible = True
        try:
            with contextlib.redirect_stdout(Output(self._wire)):
                yield
        finally:
            self._wire.interruptible = False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stock", action="store_true", help="without our firmware's modules")
    parser.add_argument("--uart", action="store_true", help="no flow control")
    for fault in ("flip", "drop", "mute", "out-flip", "out-drop"):
        parser.add_argument(f"--{fault}", type=int, nargs="*", default=[])
    parser.add_argument("--implementation", nargs=2, metavar=("MACHINE", "MPY"))
    options = parser.parse_args()
    if options.implementation:  # what sys.implementation tells
        sys.implementation._machine = options.implementation[0]
        sys.implementation._mpy = int(options.implementation[1])
    if options.uart:
        receive.FileTarget.write = write_slowly(receive.FileTarget.write)
    with own_port() as (master, path):
        answer(Wire(options, master), path, options.stock)


def answer(wire: Wire, path: str, stock: bool) -> None:
    """Be the board at `path`, which is told to whoever started this."""
    flash = NorPartition(64)
    StandInLine.wire = wire
    receive.open_line = StandInLine
    receive.IDLE_MS, receive.GAP_MS = 6000, 300
    install_modules(flash, stock)
    print(path, flush=True)
    Repl(wire).run()


if __name__ == "__main__":
    main()
