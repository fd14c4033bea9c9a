"""Write firmware to Espressif's chips by esptool.

This is the only file that knows esptool. It is GPL and runs as a program of its own: what it prints
is read, its errors become ours. One run does all, so that nothing is erased before the chip was
asked what it is: esptool connects, compares the chip, erases, writes, and compares the MD5 of what
flash then holds.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from sparsetune.board import why_closed
from sparsetune.errors import SparsetuneError
from sparsetune.esp_image import EspFirmware
from sparsetune.firmware_file import Firmware

METHOD = "esptool"  # in boards/*.toml
OLDEST = 5  # its commands have dashes since

BAUD = 460800  # of USB-serial chips; native USB ignores it

_SHOWN = re.compile(r"Chip type|Features|Erasing|Flash will be erased|Wrote|Hash of data")
_FATAL = re.compile(r"A fatal error occurred: (.*)")


@dataclass(frozen=True)
class EspJob:
    """What to write where. erase: all flash first, not only what the file takes."""

    firmware: Firmware
    port: str
    erase: bool


def command_line(job: EspJob) -> list[str]:
    """The program that does `job`, with its arguments."""
    content = job.firmware.content
    assert isinstance(content, EspFirmware)
    chip = content.chip.lower().replace("-", "")
    return [
        *(sys.executable, "-m", "esptool", "--chip", chip, "--port", job.port, "--baud", str(BAUD)),
        *("write-flash", "--no-progress", *(["--erase-all"] if job.erase else [])),
        *(hex(content.offset), str(job.firmware.path)),
    ]


def shown_command(job: EspJob) -> str:
    """`command_line` as a user would type it."""
    return shlex.join(command_line(job))


def check_esptool() -> None:
    """Raise SparsetuneError where there is no esptool, or one that is too old."""
    wanted = f"pip install 'esptool>={OLDEST},<{OLDEST + 1}'"
    try:
        version = importlib.metadata.version("esptool")
    except importlib.metadata.PackageNotFoundError:
        raise SparsetuneError(f"esptool is not installed: {wanted}") from None
    if int(version.split(".")[0]) < OLDEST:
        raise SparsetuneError(f"esptool {version} is too old: {wanted}")


def write_firmware(job: EspJob, say: Callable[[str], None]) -> None:
    """Do `job`, and hand over esptool's lines that say what happens. Raises SparsetuneError."""
    environment = {**os.environ, "COLUMNS": "250", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    heard = []
    with subprocess.Popen(
        command_line(job),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                heard.append(line)
                if _SHOWN.match(line):
                    say(f"esptool: {' '.join(line.split())}")
        except KeyboardInterrupt:
            process.terminate()
            raise SparsetuneError(_STOPPED) from None
    if process.returncode != 0:
        raise SparsetuneError(_explain("".join(heard), job))


def _explain(heard: str, job: EspJob) -> str:
    """Say what went wrong, and what to do, from what esptool printed."""
    found = _FATAL.search(heard)
    reason = found[1].strip() if found else (heard.strip().splitlines() or ["no output"])[-1]
    other = re.search(r"This chip is (\S+), not (\S+)\.", reason)
    if other:
        return (
            f"the chip on {job.port} is {other[1]}, {job.firmware.path} is for {other[2]}: choose"
            " another file and --board; nothing was written"
        )
    if any(text in heard for text in _LOST):
        return _went_away(heard, job.port)
    if "Could not open" in reason:
        return why_closed(job.port)
    if "Failed to connect" in reason or "Wrong boot mode" in reason:
        return _BOOT_MODE.format(port=job.port)
    if "MD5" in reason or "Write failed" in reason:
        return (
            f"flash does not hold what was written ({reason.rstrip('.!')}): repeat the command; if"
            " it stays so, the board's flash is broken"
        )
    return f"esptool gave up: {reason.rstrip('.')} (its command: {shown_command(job)})"


def _went_away(heard: str, port: str) -> str:
    """What a lost port means: a chip's own USB port goes when it restarts into its boot loader."""
    if "Connected to" in heard:
        return f"{port} went away during writing: plug the board in again and repeat the command"
    return (
        f"{port} went away: the chip has restarted into its boot loader, whose port may have"
        " another name; repeat the command, or name that port with --port"
    )


_STOPPED = "stopped: the board may hold half a firmware; repeat the command before you use it"
# In the middle of writing esptool waits for the port, and may meet another board there. Between two
# tries to connect it hears of a lost port in other ways (EIO, ENXIO, ENODEV), as tracebacks.
_LOST = (
    *("A serial exception error occurred", "Lost connection", "termios.error: "),
    *("OSError: [Errno 5]", "OSError: [Errno 6]", "OSError: [Errno 19]"),
)
_BOOT_MODE = (
    "no boot loader answers on {port}: hold BOOT (IO0), press and release RESET (EN), release BOOT,"
    " and repeat the command; a cable for power alone, or another kind of board, is silent too"
)
