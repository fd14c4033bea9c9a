"""A MicroPython board on a serial port.

This is the only file that knows mpremote. mpremote opens the port and speaks the raw REPL;
its Python API is not promised to stay, so the versions that work are pinned (see
pyproject.toml) and nothing of it leaves this file.

The raw REPL is entered when the first piece of code runs and left when the board is
closed. Watching a run (`attach`) never enters it, and so does not disturb the run.
"""

from __future__ import annotations

import ast
import binascii
import contextlib
import hashlib
import io
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import final

import serial
import serial.tools.list_ports
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport
from sparsetune_device.telemetry import parse

from sparsetune.errors import SparsetuneError, warn

OnLine = Callable[[str], None]

# USB vendors whose serial ports are taken for a board: Raspberry Pi and Espressif.
BOARD_VENDORS = (0x2E8A, 0x303A)
# Raspberry Pi's debug probes are serial ports too, but no boards.
DEBUG_PROBES = ((0x2E8A, 0x0004), (0x2E8A, 0x000C))

ANSWER_S = 15.0  # a board that computes nothing answers well within this
WRITE_S = 20.0  # a board that reads nothing for so long is stuck
LOST_S = 2.0  # the rest of a piece takes less
QUIET_S = 0.3  # what was on its way has arrived
POLL_S = 0.1  # how long one read of the port waits
STOP_S = 5.0  # a step of a large model, then saving: Ctrl-C is heard between two steps

_RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
_END = b"\x04"  # ends the output, then the error text, of code in the raw REPL


@dataclass(frozen=True)
class BoardInfo:
    """What a board says about itself; sizes in bytes, None where it has no such thing."""

    machine: str
    micropython: str
    platform: str
    unique_id: str
    mpy: int
    has_kernels: bool
    device_version: str | None
    heap_free: int
    romfs_bytes: int | None
    fs_free: int | None
    kernels_file: str = ""  # where kernels and package are files, and not the firmware's
    device_file: str = ""

    @property
    def is_frozen(self) -> bool:
        """Whether the kernels are the firmware's."""
        return self.has_kernels and not self.kernels_file


_IDENTIFY = """
def _st_identify():
    import gc, os, sys
    def attempt(f):
        try:
            return f()
        except Exception:
            return None
    def unique_id():
        import binascii, machine
        return binascii.hexlify(machine.unique_id()).decode()
    def kernels():
        import sparsetune_kernels
        return sparsetune_kernels
    def version():
        import sparsetune_device
        return getattr(sparsetune_device, "__version__", ""), file_of(sparsetune_device)
    def file_of(module):
        return getattr(module, "__file__", "")
    def romfs():
        import vfs
        rom = vfs.rom_ioctl(2, 0)
        if hasattr(rom, "ioctl"):
            return rom.ioctl(4, 0) * rom.ioctl(5, 0)
        return len(rom)
    def free():
        info = os.statvfs("/")
        return info[0] * info[3]
    kernels, version, romfs = attempt(kernels), attempt(version), attempt(romfs)
    version, device_file = version or (None, "")
    gc.collect()
    print((getattr(sys.implementation, "_machine", sys.platform),
        ".".join(str(n) for n in sys.implementation.version[:3]), sys.platform,
        attempt(unique_id) or "", getattr(sys.implementation, "_mpy", 0), bool(kernels),
        version, gc.mem_free(), romfs, attempt(free),
        file_of(kernels), device_file))
_st_identify()
del _st_identify
"""

# Sends pieces as they are, after a line with length and checksum; all that was read is hashed.
_READ_FILE = """
def _st_read(path, skip):
    import binascii, hashlib, sys
    sha = hashlib.sha256()
    view = memoryview(bytearray(4096))
    write = sys.stdout.buffer.write
    with open(path, "rb") as f:
        n = f.readinto(view)
        while n:
            piece = view[:n]
            sha.update(piece)
            skip -= 1
            if skip < 0:
                print(n, binascii.crc32(piece))
                if write(piece) != n:
                    raise OSError("host does not read")
            n = f.readinto(view)
    print("=" + binascii.hexlify(sha.digest()).decode())
_st_read({path!r}, {skip})
del _st_read
"""
PIECE_BYTES = 4096  # as in _READ_FILE
MAX_DAMAGES = 5  # in a row

# From a timer, so that the raw REPL is answered and left first.
_BOOTLOADER = """
import machine
machine.Timer(-1).init(period=300, mode=0, callback=lambda t: machine.bootloader())
"""

# What to do about the errors that a board reports most often.
_ADVICE = (
    ("steps are done", "`sparsetune pull` fetches what was learnt"),
    ("MemoryError", "reset the board, or choose a plan that needs less memory"),
    ("o module named 'sparsetune", "flash the sparsetune firmware: sparsetune flash"),
    ("ENOENT", "the board does not hold that file: sparsetune push"),
    ("ENOSPC", "the board's file system is full: remove files from it"),
    ("OSError: 28", "the board's file system is full: remove files from it"),  # ENOSPC, unnamed
)
# Of an image that is read into RAM, as on boards without ROMFS.
LESS_RAM = (
    "build it for this board (--board, see `sparsetune build --help`) or for less (--ram), or "
    "flash the sparsetune firmware"
)


@final
class Board:
    """One open serial port with a MicroPython board behind it (a context manager)."""

    def __init__(self, port: str) -> None:
        """Open `port`; writes nothing to it yet. Raises SparsetuneError."""
        self.port = port
        self._transport = _open(port)
        self._entered = False  # the raw REPL was entered, so close() has to leave it
        self._at_prompt = False  # nothing runs; the board waits for the next code

    @classmethod
    def connect(cls, port: str | None = None) -> Board:
        """Open `port`, or the usual one, or the only board that is plugged in."""
        return cls(port or usual_port() or find_port())

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the raw REPL and close the port; never raises."""
        with contextlib.suppress(SparsetuneError):
            if self._entered:
                self.write(b"\r\x03\x02")
        self._entered = self._at_prompt = False
        _close(self._transport)

    # Running code -------------------------------------------------------------------

    def answers(self) -> bool:
        """Stop what runs, and tell whether MicroPython's prompt comes: a boot loader has none."""
        heard = self._interrupt()
        warn(stopped_run(heard))
        return heard.endswith(_text(_RAW_PROMPT))

    def exec(self, code: str, timeout: float = ANSWER_S) -> str:
        """Run `code` and return what it printed.

        Raises SparsetuneError when the code raises, or prints nothing for `timeout`
        seconds.
        """
        lines: list[str] = []
        with self.talk(code, timeout) as talk:
            while (line := talk.read_line(timeout)) is not None:
                lines.append(line)
        return "\n".join(lines)

    def stream(self, code: str, on_line: OnLine, fresh: bool = True) -> None:
        """Run `code` and hand over each line as it arrives, for as long as it takes.

        fresh: soft-reset the board first, for an unfragmented heap.
        KeyboardInterrupt stops the code on the board, hands over its last lines, and
        propagates. Raises SparsetuneError when the code raises.
        """
        if fresh:
            self.soft_reset()
        with self.talk(code, None) as talk:
            try:
                while (line := talk.read_line(None)) is not None:
                    on_line(line)
            except KeyboardInterrupt:
                talk.interrupt(on_line)
                raise

    @contextlib.contextmanager
    def talk(self, code: str, timeout: float | None = ANSWER_S) -> Iterator[Talk]:
        """Start `code` and yield a Talk with it; at the end wait for it and its errors.

        timeout: seconds of silence that are taken for a dead board when waiting for the
        end; None for no limit.
        """
        self._enter_raw_repl()
        self._start(code)
        talk = Talk(self)
        try:
            yield talk
            talk.finish(timeout)
        except Damage:  # what is on its way cannot be made out: Ctrl-C, and a prompt anew
            self.write(b"\r\x03\x03")
            self._drain(QUIET_S)
            raise
        except BaseException:
            talk.abandon()
            raise
        if talk.error:
            raise SparsetuneError(_explain(talk.error))

    def soft_reset(self) -> None:
        """Restart MicroPython (not the chip): an empty heap, no modules loaded."""
        self._enter_raw_repl(soft_reset=True)

    def _enter_raw_repl(self, soft_reset: bool = False) -> None:
        """Interrupt whatever runs and get the raw prompt, or say that none comes."""
        if self._at_prompt and not soft_reset:
            return
        if not self._entered:
            warn(stopped_run(self._interrupt()))
        # A transfer that another program left behind ends by itself after some seconds.
        for _ in range(3):
            if self._try_raw_repl(soft_reset):
                self._entered = self._at_prompt = True
                return
        raise SparsetuneError(
            f"the board on {self.port} does not answer: unplug it and plug it in again"
            " (is it a board with MicroPython?)"
        )

    def _interrupt(self) -> str:
        """Press Ctrl-C, and return what the board says until its prompt comes."""
        self.write(b"\r\x03\x01")
        heard, end = b"", time.monotonic() + ANSWER_S
        while not heard.endswith(_RAW_PROMPT) and time.monotonic() < end:
            more = self.read_some(STOP_S)
            if not more:
                break
            heard += more
        return _text(heard)

    def _try_raw_repl(self, soft_reset: bool) -> bool:
        # mpremote prints what it got instead of a prompt: that is not for our user.
        with self._guard(), contextlib.redirect_stdout(io.StringIO()):
            self._set_timeout(ANSWER_S)
            try:
                self._transport.enter_raw_repl(soft_reset=soft_reset, timeout_overall=5)
                return bool(self._transport.read_until(1, b">", timeout=5).endswith(b">"))
            except TransportError:
                return False

    def _start(self, code: str) -> None:
        """Send `code` to the raw REPL, which starts it."""
        self._at_prompt = False
        # mpremote waits for a prompt, and Talk has read the last one: Ctrl-A repeats it.
        self.write(b"\x01")
        try:
            with self._guard():
                self._set_timeout(ANSWER_S)
                self._transport.exec_raw_no_follow(code)
        except (TransportError, struct.error) as error:  # struct: it read too little
            raise SparsetuneError(
                f"the board on {self.port} does not take commands ({error}):"
                " unplug it and plug it in again"
            ) from None

    # Watching -----------------------------------------------------------------------

    def attach(
        self, on_line: OnLine, done: Callable[[], bool] = lambda: False, patience: float = 60.0
    ) -> None:
        """Hand over the lines of a run that is already going, until `done()` or KeyboardInterrupt.

        Sends nothing, resets nothing. When the port vanishes, waits up to `patience`
        seconds for it to come back.
        """
        buffer = b""
        while not done():
            try:
                buffer += self.read_some(None)
            except PortLost:
                self._reopen(patience)
                buffer = b""
                continue
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                on_line(_text(line))

    def _reopen(self, patience: float) -> None:
        """Open the port again once it is back."""
        _close(self._transport)
        end = time.monotonic() + patience
        while True:
            try:
                self._transport = _open(self.port)
                return
            except SparsetuneError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.25)

    # Questions ----------------------------------------------------------------------

    def identify(self) -> BoardInfo:
        """Ask the board what it is; works with any MicroPython firmware."""
        text = self.exec(_IDENTIFY)
        try:
            return BoardInfo(*ast.literal_eval(text.strip().splitlines()[-1]))
        except (ValueError, SyntaxError, TypeError, IndexError):
            raise SparsetuneError(
                f"cannot make out what the board on {self.port} is (it said {text[-60:]!r}):"
                " reset it and try again"
            ) from None

    def read_file(self, path: str) -> bytes:
        """Return the content of a file on the board, checked by its SHA-256."""
        data, damages = bytearray(), 0
        while damages < MAX_DAMAGES:
            had = len(data)
            with contextlib.suppress(Damage), self.talk(_read_from(path, had)) as talk:
                digest = _take_pieces(talk, data)
                if digest == hashlib.sha256(data).hexdigest():
                    return bytes(data)
                data.clear()
            damages = damages + 1 if len(data) <= had else 1
        raise SparsetuneError(f"{path} arrives damaged from {self.port}: check the cable")

    def has_file(self, path: str) -> bool:
        """Whether the board holds a file of that name."""
        code = f"import os\ntry:\n os.stat({path!r})\n print(1)\nexcept OSError:\n print(0)"
        return self.exec(code).strip() == "1"

    def remove_file(self, path: str) -> None:
        """Remove a file from the board; it is no error when there is none."""
        self.exec(f"import os\ntry:\n os.remove({path!r})\nexcept OSError:\n pass")

    def removal(self, path: str, is_folder: bool = False) -> str:
        """The command that removes a file from the board, for the user to type."""
        return f"mpremote connect {self.port} rm {'-r ' * is_folder}:{path}"

    def enter_bootloader(self) -> None:
        """Restart the chip into its boot loader, a moment after this returns."""
        self.exec(_BOOTLOADER)

    # The port -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes. Raises PortLost."""
        with self._guard():
            self._transport.serial.write(data)

    def read_some(self, timeout: float | None) -> bytes:
        """Return what has arrived: at least a byte, b"" after `timeout` seconds."""
        port = self._transport.serial
        end = None if timeout is None else time.monotonic() + timeout
        with self._guard():
            self._set_timeout(POLL_S)
            while True:
                data: bytes = port.read(max(1, port.in_waiting))
                if data or (end is not None and time.monotonic() > end):
                    return data

    def _drain(self, quiet: float) -> None:
        """Forget what arrives until nothing does for `quiet` seconds."""
        while self.read_some(quiet):
            pass

    def _set_timeout(self, seconds: float) -> None:
        """Set how long one read of the port waits (costs system calls, so only changes)."""
        if self._transport.serial.timeout != seconds:
            self._transport.serial.timeout = seconds

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn the errors of a port that goes away into one line."""
        try:
            yield
        except OSError as error:  # serial.SerialException is one
            self._entered = self._at_prompt = False
            raise PortLost(
                f"lost the board on {self.port}: check the cable, then run this again"
            ) from error


class PortLost(SparsetuneError):
    """The port has gone away."""


def still_learnt(error: PortLost) -> SparsetuneError:
    """The same for who was training: it goes on without us, or waits for --resume."""
    return PortLost(
        str(error).replace("run this again", "plug the board in again"),
        "sparsetune monitor           watches the run, if the board kept its power",
        "sparsetune train --resume    goes on from the last checkpoint, if it did not",
    )


class Silence(SparsetuneError):
    """The board has said nothing for too long."""


class Damage(SparsetuneError):
    """What arrived is not what was sent."""


def _read_from(path: str, had: int) -> str:
    """Code that sends a file from byte `had` on, a multiple of PIECE_BYTES or its end."""
    return _READ_FILE.format(path=path, skip=-(-had // PIECE_BYTES))


def _take_pieces(talk: Talk, data: bytearray) -> str:
    """Append what code of _READ_FILE sends to `data`, and return its SHA-256. Raises Damage."""
    while (line := talk.read_line(ANSWER_S)) is not None:
        if line.startswith("="):
            return line[1:]
        words = line.split()
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            raise Damage("a line that does not belong here")
        piece = talk.read_bytes(min(int(words[0]), PIECE_BYTES))
        if binascii.crc32(piece) != int(words[1]):
            raise Damage("a piece with another checksum")
        data += piece
    return ""  # the code failed: talk() says why


class Talk:
    """A conversation with code that runs on the board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._buffer = b""
        self._ended = False
        self.error = ""

    def send(self, data: bytes) -> None:
        """Send bytes to the code's stdin."""
        self._board.write(data)

    def read_line(self, timeout: float | None) -> str | None:
        """Return the next line of output without its end, or None when the code ended.

        Raises Silence when nothing arrives for `timeout` seconds.
        """
        while not self._ended:
            line, found, rest = self._buffer.partition(b"\n")
            if found and _END not in line:
                self._buffer = rest
                return _text(line)
            if _END in self._buffer:
                return self._last_line(timeout)
            self._more(timeout)
        return None

    def read_bytes(self, count: int) -> bytes:
        """Return exactly `count` bytes of output, whatever they are. Raises Damage when fewer come
        within LOST_S."""
        while len(self._buffer) < count:
            more = self._board.read_some(LOST_S)
            if not more:
                raise Damage("bytes were lost")
            self._buffer += more
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _last_line(self, timeout: float | None) -> str | None:
        """Take what is left: output, Ctrl-D, the error text, Ctrl-D and the prompt."""
        while self._buffer.count(_END) < 2 or not self._buffer.endswith(b">"):
            self._more(ANSWER_S if timeout is None else timeout)
        last, error, _ = self._buffer.split(_END, 2)
        self.error = _text(error)
        self._ended = self._board._at_prompt = True
        return _text(last) if last else None

    def _more(self, timeout: float | None) -> None:
        data = self._board.read_some(timeout)
        if not data:
            raise Silence(
                f"the board on {self._board.port} has said nothing for {timeout:g} seconds:"
                " unplug it and plug it in again"
            )
        self._buffer += data

    def interrupt(self, on_line: OnLine) -> None:
        """Press Ctrl-C on the board, and hand over what it says until it has stopped."""
        self._board.write(b"\x03")
        with contextlib.suppress(SparsetuneError):
            while (line := self.read_line(ANSWER_S)) is not None:
                on_line(line)

    def finish(self, timeout: float | None) -> None:
        """Wait for the end of the code; its output is dropped."""
        while self.read_line(timeout) is not None:
            pass

    def abandon(self) -> None:
        """Stop the code, so that the board takes commands again; never raises."""
        for _ in range(4):
            # The carriage return makes it the sequence that ends a transfer too. In the
            # middle of a frame it counts as data, so it takes a second one.
            with contextlib.suppress(SparsetuneError):
                if self._ended:
                    return
                self._board.write(b"\r\x03")
                self.finish(2.5)


def stopped_run(text: str) -> list[str]:
    """What to tell the user about a training run that a Ctrl-C of ours has ended. text: what the
    board said from then on, behind what nobody had read before."""
    events = [event for line in text.splitlines() if (event := parse(line))]
    kinds = [kind for kind, _ in events]
    if "KeyboardInterrupt" not in text or "done" in kinds or not {"step", "saved"} & {*kinds}:
        return []
    what = "the board was training, and this has stopped it"
    saved = [fields for kind, fields in events if kind == "saved"]
    if not saved:
        return [f"{what}: that run saves nothing"]
    return [
        f"{what} after step {saved[-1]['step']}, which is saved ({saved[-1]['path']}): `sparsetune "
        "train --resume` goes on, while the board holds the same image and samples"
    ]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")


COMPLAINT, OURS_RAISED = "ValueError: ", "sparsetune_device/"  # of the device package, in full
_OURS = ("<", "/", "sparsetune_")  # files of a traceback that no user has put on the board


def _explain(traceback: str) -> str:
    """Make one line of a traceback from the board. Where a file of the user's own stands in it, its
    line is told."""
    *frames, last = traceback.strip().splitlines()
    for file, number in reversed(re.findall(r'File "([^"]+)", line (\d+)', "\n".join(frames))):
        if not file.startswith(_OURS):
            last += f" ({file}, line {number})"
            break
    if "MemoryError" in last and any("in open_image" in frame for frame in frames):
        return f"the board has too little RAM for the image, which it reads whole: {LESS_RAM}"
    said = f"the board stopped with {last}"
    if last.startswith(COMPLAINT) and frames and OURS_RAISED in frames[-1]:
        said = f"the board refuses: {last[len(COMPLAINT) :]}"
    advices = [advice for key, advice in _ADVICE if key in last]
    return "; ".join([said, *advices[:1]])


# Ports ------------------------------------------------------------------------------


def list_boards(vendors: Iterable[int] = BOARD_VENDORS) -> list[tuple[str, str]]:
    """Return (port, description) of everything that looks like a board, by USB ids."""
    found = []
    for port in sorted(serial.tools.list_ports.comports()):
        if port.vid in vendors and (port.vid, port.pid) not in DEBUG_PROBES:
            found.append((port.device, port.description or "serial port"))
    return found


def list_bridges() -> list[str]:
    """Return the USB serial ports that a board may stand behind, without saying so."""
    ports = sorted(serial.tools.list_ports.comports())
    return [port.device for port in ports if port.vid not in (None, *BOARD_VENDORS)]


def usual_port() -> str | None:
    """Where the user's board is, when nothing else is said."""
    return os.environ.get("SPARSETUNE_PORT")


def find_port() -> str:
    """Return the port of the one board that is plugged in, or raise SparsetuneError."""
    boards = list_boards()
    if not boards:
        raise SparsetuneError(
            "no board found: plug one in, or name its port with --port (`tune --twin` needs none)"
        )
    if len(boards) > 1:
        listing = ", ".join(f"{port} ({description})" for port, description in boards)
        raise SparsetuneError(f"several boards found, choose one with --port: {listing}")
    return boards[0][0]


def port_exists(port: str) -> bool:
    """Whether `port` is there (in use or not). Network ports always are."""
    if "://" in port:
        return True
    if os.name == "posix":
        return os.path.exists(port)
    return any(found.device == port for found in serial.tools.list_ports.comports())


def _open(port: str) -> SerialTransport:
    """Open a port, or raise SparsetuneError with the reason why it does not open."""
    try:
        transport = SerialTransport(port, baudrate=115200)
    except (TransportError, ValueError, OSError):
        raise SparsetuneError(why_closed(port)) from None
    transport.serial.write_timeout = WRITE_S
    return transport


def _close(transport: SerialTransport) -> None:
    """Close a port that may be gone already."""
    with contextlib.suppress(OSError, TransportError):
        transport.close()
    with contextlib.suppress(OSError):
        transport.serial.close()  # mpremote stops half-way where a port has no DTR


def why_closed(port: str) -> str:
    """Say why `port` does not open. mpremote does not tell, so try again to find out."""
    if "://" not in port and os.name == "posix":
        if not port_exists(port):
            return f"there is no port {port}: plug the board in, or choose another --port"
        if not os.access(port, os.R_OK | os.W_OK):
            return f"no permission to use {port}: add yourself to its group (often dialout)"
    try:
        serial.serial_for_url(port, exclusive=True).close()
    except (OSError, ValueError) as error:
        reason = str(error)
        if "lock" in reason or "busy" in reason.lower() or "denied" in reason.lower():
            return f"{port} is in use by another program: close it and try again"
        return f"cannot open {port} ({reason}): choose another --port"
    return f"cannot open {port}: try again"
