"""An emulated Raspberry Pi Pico on a PTY, as an object for tests and for `sparsetune emulate`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .pty_pump import PtyPump, point_link
from .shell import BUILD, ROOT, ToolError, locked, run, show

SOURCES = ROOT / "tools" / "emulator"
OUTPUT = BUILD / "emulator"
FIRMWARES = (BUILD / "firmware" / "SPARSETUNE_PICO" / "firmware.bin",
             BUILD / "firmware" / "first" / "firmware.bin")
START_SECONDS = 30
REPL_SECONDS = 3  # how long a main.py may keep the REPL away before the board counts as up
ANSWER_SECONDS = 10
OLDEST_NODE = 18
MARK_PORT = 0xE0000000  # on the emulated board alone: machine.mem32[MARK_PORT] = tag


@dataclass(frozen=True)
class Counters:
    """Emulated since power-on: core cycles without sleep, instructions, and time with sleep.
    flash_seconds: what the flash chip would have taken beside that (typical times of its data
    sheet), not emulated."""

    busy_cycles: int
    instructions: int
    seconds: float
    flash_seconds: float


@dataclass(frozen=True)
class Mark:
    """A program on the board wrote `tag` to MARK_PORT when it had done this much since power-on."""

    tag: int
    cycles: int
    instructions: int


def newest(paths: Iterable[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


def node_command() -> str:
    """The node program. Raises ToolError when it is missing or too old."""
    node = shutil.which("node") or shutil.which("nodejs")
    if not node:
        raise ToolError("the emulator needs Node.js 18 or newer; run: apt-get install nodejs npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip().lstrip("v").split(".")[0]) < OLDEST_NODE:
        raise ToolError(f"the emulator needs Node.js {OLDEST_NODE} or newer, this is {version}")
    return node


def ensure_packages() -> None:
    """Install the pinned npm packages when they are not there."""
    stamp = SOURCES / "node_modules" / ".package-lock.json"
    lock = SOURCES / "package-lock.json"
    if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm")
    if not npm:
        raise ToolError("rp2040js is not installed and npm is missing; run: apt-get install npm")
    run("npm ci", [npm, "ci", "--no-audit", "--no-fund"], OUTPUT / "npm.log", cwd=SOURCES)
    stamp.touch()


def ensure_bootrom() -> Path:
    """Build the boot ROM when it is older than its sources; its path."""
    image = OUTPUT / "bootrom.bin"
    folder = SOURCES / "bootrom"
    if image.exists() and image.stat().st_mtime >= newest(folder.iterdir()):
        return image
    for command, package in (("make", "make"), ("arm-none-eabi-gcc", "gcc-arm-none-eabi")):
        if not shutil.which(command):
            raise ToolError(f"the boot ROM needs {command}; run: apt-get install {package}")
    run("building the boot ROM", ["make", "-C", folder, f"BUILD={OUTPUT}"], OUTPUT / "bootrom.log")
    return image


def default_firmware() -> Path:
    """The firmware that the project built. Raises ToolError when there is none."""
    for path in FIRMWARES:
        if path.exists():
            return path
    raise ToolError("there is no firmware yet: run `make firmware` or give --firmware FILE")


class EmulatedPico:
    """A powered board whose USB serial port is a PTY.

    firmware: .bin or .uf2 to install before power-on; None keeps what the flash file holds.
    flash: file that keeps the 2 MB flash; None for a fresh board that is forgotten afterwards.
    port_link: symbolic link that always points to the PTY; also after unplug and plug.
    bootsel: folder that stands for the RPI-RP2 drive; made and removed as a drive comes and goes.
    cores: 2 for a second core, too; figures are those of one, on which a chip computes alone.
    """

    def __init__(self, firmware: Path | None = None, flash: Path | None = None,
                 port_link: Path | None = None, bootsel: Path | None = None,
                 cores: int = 1) -> None:
        self.cores = cores
        self._temporary = tempfile.TemporaryDirectory(prefix="pico-") if flash is None else None
        self.flash = flash or Path(self._temporary.name if self._temporary else "") / "flash.bin"
        self.firmware = firmware
        self.port_link = port_link
        self.bootsel = bootsel or self.flash.parent / "RPI-RP2"
        self.faults: list[str] = []
        self._pump: PtyPump | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()

    def __enter__(self) -> EmulatedPico:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    @property
    def port(self) -> str:
        """The path that serial programs open; it changes with every plug()."""
        if not self._pump:
            raise ToolError("the emulated Pico is not plugged in")
        return self._pump.path

    def start(self) -> None:
        """Power the board and wait until its REPL answers."""
        node = node_command()
        with locked(OUTPUT):
            ensure_packages()
            bootrom = ensure_bootrom()
        self._lock_flash()
        self._start_node(node, bootrom)
        try:
            self._attach()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Unplug for good; the flash file stays."""
        if not self._node:
            return
        self._detach()
        self._serial.close()
        self._control.shutdown(socket.SHUT_RDWR)  # close() alone leaves it to the listening thread
        try:
            self._node.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._node.kill()
            self._node.wait()
        self._node = None
        self._control.close()
        self._lock.close()
        self._words.close()
        if self._temporary:
            self._temporary.cleanup()

    def wait_ready(self) -> None:
        """Wait for USB and then for the REPL; a main.py may keep the board for itself."""
        self.wait_event("connected", START_SECONDS)
        with contextlib.suppress(ToolError):
            self.wait_event("ready", REPL_SECONDS)

    def wait_event(self, name: str, seconds: float) -> dict[str, Any]:
        """The next event of this name; see events(). Raises ToolError when it does not come."""
        end = time.monotonic() + seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                reason = self.faults[-1] if self.faults else "is this firmware for the RP2040?"
                raise ToolError(f"the emulated Pico did not say '{name}': {reason}") from None
            if event["event"] == name:
                return event
            if event["event"] == "ended":
                raise self._ended()

    def unplug(self) -> None:
        """Yank the cable: the port vanishes and the board loses its power."""
        self._detach()
        self._ask("off")

    def plug(self) -> None:
        """Plug the cable in again: a cold start from the same flash, on a new PTY."""
        self._drain_serial()
        self.events()
        self._ask("on")
        self._attach()

    def reset(self) -> None:
        """Press the reset button; the port stays, as it does for machine.reset()."""
        self.events()
        self._ask("reset")
        self.wait_ready()

    def enter_bootsel(self) -> None:
        """Hold BOOTSEL and reset: the folder `bootsel` appears."""
        self._ask("bootsel")

    @property
    def pid(self) -> int:
        """The process id of the emulator program."""
        if not self._node:
            raise ToolError("the emulated Pico does not run")
        return self._node.pid

    def running(self) -> bool:
        """Whether the emulator program is alive."""
        return self._node is not None and self._node.poll() is None

    def events(self) -> list[dict[str, Any]]:
        """Take the events so far: connected, ready, reset, bootsel (with its folder), flashed."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._events.get_nowait())
        return taken

    def counters(self) -> Counters:
        """How much was emulated since start(), resets included."""
        counters = self._ask("counters")["counters"]
        busy, instructions = int(counters["busy"]), int(counters["instructions"])
        return Counters(busy, instructions, counters["nanos"] / 1e9, counters["flash"] / 1e9)

    def marks(self) -> list[Mark]:
        """Take what was written to MARK_PORT since the last reset or the last call."""
        return [Mark(m["tag"], m["cycles"], m["instructions"]) for m in self._ask("marks")["marks"]]

    def cycles(self) -> int:
        """Core cycles since start(), sleep excluded. Emulated: XIP cache not modelled."""
        return self.counters().busy_cycles

    def _lock_flash(self) -> None:
        self.flash.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self.flash.with_name(self.flash.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ToolError(f"another emulated Pico uses {show(self.flash)}; stop it, or give "
                            "another --flash") from None

    def _start_node(self, node: str, bootrom: Path) -> None:
        self._serial, serial = socket.socketpair()
        self._control, control = socket.socketpair()
        words = [node, str(SOURCES / "pico.mjs"), "--flash", str(self.flash),
                 "--bootrom", str(bootrom), "--bootsel", str(self.bootsel),
                 "--serial", str(serial.fileno()), "--control", str(control.fileno()),
                 "--cores", str(self.cores)]
        if self.firmware:
            words += ["--firmware", str(self.firmware)]
        self._words = tempfile.TemporaryFile()
        self._node = subprocess.Popen(words, pass_fds=(serial.fileno(), control.fileno()),
                                      stdin=subprocess.DEVNULL, stderr=self._words,
                                      start_new_session=True)
        serial.close()
        control.close()
        threading.Thread(target=self._listen, name="pico-control", daemon=True).start()

    def _listen(self) -> None:
        """Sort what the emulator reports into replies and events, until it ends."""
        with self._control.makefile("r", encoding="utf-8") as lines:
            try:
                for line in lines:
                    self._sort(json.loads(line))
            except (OSError, ValueError):
                pass
        self._replies.put({"event": "ended"})
        self._events.put({"event": "ended"})

    def _sort(self, message: dict[str, Any]) -> None:
        if "counters" in message:
            self._replies.put(message)
        elif message["event"] == "fault":
            self.faults.append(message["message"])
        else:
            self._events.put(message)

    def _ask(self, what: str) -> dict[str, Any]:
        try:
            self._control.sendall(json.dumps({"do": what}).encode() + b"\n")
            reply = self._replies.get(timeout=ANSWER_SECONDS)
        except (OSError, queue.Empty):
            reply = {"event": "ended"}
        if "event" in reply:
            raise self._ended()
        return reply

    def _ended(self) -> ToolError:
        """Why the emulator program is gone: its own last line."""
        if self._node:
            self._node.wait()
        self._words.seek(0)
        words = self._words.read().decode(errors="replace").strip().splitlines()
        return ToolError(words[-1] if words else "the emulator has ended without a word")

    def _attach(self) -> None:
        """Give the board a new PTY and wait until it can be talked to; only then publish it."""
        self._pump = PtyPump(self._serial)
        self.wait_ready()
        if self.port_link:
            point_link(self.port_link, self._pump.path)

    def _detach(self) -> None:
        if self._pump:
            self._pump.close()
            self._pump = None
        if self.port_link:
            self.port_link.unlink(missing_ok=True)

    def _drain_serial(self) -> None:
        """Forget what the board said with its last breath."""
        self._serial.setblocking(False)
        try:
            while self._serial.recv(65536):
                pass
        except OSError:
            pass
