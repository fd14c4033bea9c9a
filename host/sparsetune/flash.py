"""Put firmware on a board.

An RP2040 or RP2350 in its boot ROM is a USB drive; a .uf2 file copied there is written to flash,
and the chip restarts. The drive is known by the file INFO_UF2.TXT on it. Espressif's chips are
written by esptool (esptool_run.py). Either way the file is looked at first (firmware_file.py), and
the board is asked in the end what it runs now.
"""

from __future__ import annotations

import contextlib
import os
import string
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sparsetune.board import Board, BoardInfo, list_boards, list_bridges, port_exists
from sparsetune.boardspec import BoardSpec
from sparsetune.errors import SparsetuneError, warn
from sparsetune.esptool_run import METHOD as ESPTOOL
from sparsetune.esptool_run import EspJob, check_esptool, shown_command, write_firmware
from sparsetune.firmware_file import Firmware, check_firmware, read_firmware, version_number
from sparsetune.transfer import rescue

Say = Callable[[str], None]

DRIVE_S = 30.0  # a desktop may take seconds to mount the drive
RESTART_S = 30.0  # writing flash, restarting, making the file system on the first start


@dataclass(frozen=True)
class Job:
    """What to flash where. firmware: None for our own; port and drive: None to look for them.
    keep_files: write no more of flash than the firmware takes (esptool; UF2 does so anyway)."""

    firmware: Path | None
    spec: BoardSpec
    port: str | None = None
    drive: Path | None = None
    keep_files: bool = False
    dry_run: bool = False


def flash(job: Job, say: Say) -> BoardInfo | None:
    """Flash `job.firmware` and return what the restarted board says it is.

    None after a dry run, or where no serial port shows up. Raises SparsetuneError; a file that is
    not for the board is refused before anything is touched.
    """
    methods = {"uf2": _flash_uf2, ESPTOOL: _flash_esp}
    if job.spec.flash_method not in methods:
        raise SparsetuneError(
            f"{job.spec.title} is flashed by {job.spec.flash_method!r}, which is not known here:"
            f" choose {' or '.join(methods)} in its description"
        )
    firmware = read_firmware(_file_of(job))
    check_firmware(firmware, job.spec)
    say(firmware.describe())
    warn(firmware.doubts())
    info = methods[job.spec.flash_method](job, firmware, say)
    if info is not None:
        warn(_other_version(info, firmware))
    return info


def _file_of(job: Job) -> Path:
    """The file that was named, or our own."""
    path = job.firmware or job.spec.firmware_file
    if path is None:
        raise SparsetuneError(
            f"there is no firmware of ours for {job.spec.title}: name MicroPython's own, from"
            f" {job.spec.download}"
        )
    return path


def _other_version(info: BoardInfo, firmware: Firmware) -> list[str]:
    """What is wrong where the board runs another MicroPython than the file's."""
    meant, runs = version_number(firmware.version), version_number(info.micropython)
    if meant is None or runs is None or meant == runs:
        return []
    return [f"the board runs MicroPython {info.micropython}, not {firmware.version}: flash again"]


# By esptool -------------------------------------------------------------------------


def _flash_esp(job: Job, firmware: Firmware, say: Say) -> BoardInfo | None:
    if job.drive is not None:
        raise SparsetuneError(f"{job.spec.title} has no drive: leave --drive out")
    check_esptool()
    port = job.port or _only_port(job.spec)
    task = EspJob(firmware, port or "PORT", erase=not job.keep_files)
    if job.dry_run:
        _describe_esp(task, job.spec, port, say)
        return None
    if port is None:
        raise SparsetuneError(_no_port(job.spec))
    if task.erase:
        _save_learnt(port, say)
        say(f"this erases all flash, {_FILES_TOO}")
    known = _known_ports()
    write_firmware(task, say)
    return _wait_board(port, known, say)


def _save_learnt(port: str, say: Say) -> None:
    """Fetch what the board learnt and nobody has pulled, which erasing costs. A board in its boot
    loader, or without MicroPython, cannot be asked."""
    with Board.connect(port) as board:
        if board.answers():
            rescue(board)
        else:
            say(f"no MicroPython answers on {port}: whether the board has learnt is not known")


_FILES_TOO = "the board's files too (--keep-files leaves them)"


def _describe_esp(task: EspJob, spec: BoardSpec, port: str | None, say: Say) -> None:
    """Say what a run without --dry-run would do."""
    if port is None:
        say(f"would stop: {_no_port(spec)}; with a port it")
    if task.erase:
        say("would fetch what the board learnt and nobody has pulled, to out/")
        say(f"would erase all flash, {_FILES_TOO}")
    say(f"would run {shown_command(task)}")
    say("would wait for the board to restart, and ask it for its version")


def _no_port(spec: BoardSpec) -> str:
    bridges = list_bridges()
    which = f" ({', '.join(bridges)})" if bridges else ""
    return (
        f"no {spec.chip} is seen on USB: plug it in, or name its port with --port, as boards with a"
        f" USB-serial chip need{which}"
    )


# By UF2 -----------------------------------------------------------------------------


def _flash_uf2(job: Job, firmware: Firmware, say: Say) -> BoardInfo | None:
    port = job.port or _only_port(job.spec)
    drive = _drive_now(job)
    if job.dry_run:
        _describe(job, firmware, drive, port, say)
        return None
    known = _known_ports()
    if drive is None:
        drive = _restart_into_drive(job, port, say)
    _check_drive(drive, job.spec)
    say(f"copying to {drive}")
    _copy(firmware.path, drive)
    _wait_restart(drive)
    return _wait_board(port, known, say)


def _describe(job: Job, firmware: Firmware, drive: Path | None, port: str | None, say: Say) -> None:
    """Say what a run without --dry-run would do."""
    if drive is None and port is None:
        say(f"would stop: {_no_board(job)}; with its drive it")
    elif drive is None:
        say(f"would restart the board on {port} into its boot loader (machine.bootloader())")
        say(f"would wait for its drive, {job.drive or job.spec.drive_label}")
    say(f"would copy {firmware.path} to {drive or job.drive or 'the drive'}")
    say("would wait for the board to restart, and ask it for its version")


# The drive --------------------------------------------------------------------------


def _is_drive(folder: Path) -> bool:
    try:
        return (folder / "INFO_UF2.TXT").is_file()
    except OSError:  # a drive that is about to vanish
        return False


def find_drives() -> list[Path]:
    """Return the mounted drives of boards in their boot loader."""
    return [folder for folder in _mount_points() if _is_drive(folder)]


def _mount_points() -> Iterable[Path]:
    if sys.platform == "win32":
        return [Path(f"{letter}:/") for letter in string.ascii_uppercase[3:]]
    if sys.platform == "darwin":
        return Path("/Volumes").glob("*")
    patterns = ("media/*/*", "media/*", "run/media/*/*", "mnt/*")
    return sorted({folder for pattern in patterns for folder in _glob(pattern)})


def _glob(pattern: str) -> list[Path]:
    with contextlib.suppress(OSError):  # other users' mounts may not be readable
        return list(Path("/").glob(pattern))
    return []


def _drive_now(job: Job) -> Path | None:
    """Return the drive that is there already, if any."""
    if job.drive is not None:
        return job.drive if _is_drive(job.drive) else None
    drives = find_drives()
    if len(drives) > 1:
        listing = ", ".join(str(drive) for drive in drives)
        raise SparsetuneError(f"several boards wait for firmware, choose one: --drive {listing}")
    return drives[0] if drives else None


def _restart_into_drive(job: Job, port: str | None, say: Say) -> Path:
    """Send a running board into its boot loader and wait for the drive."""
    if port is None:
        raise SparsetuneError(_no_board(job))
    say(f"restarting the board on {port} into its boot loader")
    with Board.connect(port) as board:
        _check_running(board.identify(), port, job.spec)
        board.enter_bootloader()
    if _wait(lambda: _drive_now(job) is not None, DRIVE_S):
        drive = _drive_now(job)
        if drive is not None:
            return drive
    raise SparsetuneError(_no_drive(job.spec))


def _no_board(job: Job) -> str:
    where = f"{job.drive or f'{job.spec.drive_label} drive'} not found"
    if job.drive is not None and job.drive.is_dir():
        where = f"{job.drive} is no drive of a boot loader, which has INFO_UF2.TXT"
    return f"no board to flash ({where}): hold BOOTSEL while plugging the board in"


def _check_running(info: BoardInfo, port: str, spec: BoardSpec) -> None:
    """Raise SparsetuneError when another kind of board answers on `port`."""
    machine, _, chip = info.machine.rpartition(" with ")
    if info.platform != spec.platform:
        what, wanted = repr(info.platform), repr(spec.platform)
    elif machine and not chip.startswith(spec.chip):
        what, wanted = chip, spec.chip
    else:
        return
    raise SparsetuneError(
        f"the board on {port} is {what}, not {wanted}: choose its own description with --board"
    )


def _no_drive(spec: BoardSpec) -> str:
    device = Path("/dev/disk/by-label") / spec.drive_label
    if device.exists():
        return (
            f"the board's drive is not mounted: run `udisksctl mount -b {device}`, or mount it"
            " and name the folder with --drive"
        )
    return (
        f"no {spec.drive_label} drive appeared, and the board waits in its boot loader: repeat the"
        " command with --drive and the drive's folder (of an emulated Pico"
        f" build/emulator/{spec.drive_label}); unplugging the board starts what it ran before"
    )


def _check_drive(drive: Path, spec: BoardSpec) -> None:
    """Raise SparsetuneError when another kind of board waits in `drive`."""
    try:
        info = (drive / "INFO_UF2.TXT").read_text(errors="replace")
    except OSError as error:
        raise SparsetuneError(f"cannot read {drive} ({error.strerror}): plug it in again") from None
    if spec.drive_label not in info:
        found = [line for line in info.splitlines() if line.startswith("Board-ID")]
        what = found[0] if found else "no Board-ID"
        raise SparsetuneError(f"{drive} is not a {spec.title} ({what}): choose another --drive")


def _copy(firmware: Path, drive: Path) -> None:
    """Copy the firmware. The drive vanishes with the last block, which is no error."""
    data = firmware.read_bytes()
    try:
        with open(drive / firmware.name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if _is_drive(drive):
            raise SparsetuneError(
                f"cannot write to {drive} ({error.strerror}): plug the board in again with"
                " BOOTSEL held"
            ) from None


def _wait_restart(drive: Path) -> None:
    if not _wait(lambda: not _is_drive(drive), RESTART_S):
        raise SparsetuneError(
            f"the board did not restart: {drive} is still there; plug it in again with BOOTSEL"
            " held and repeat the command"
        )


# The board --------------------------------------------------------------------------


def _only_port(spec: BoardSpec) -> str | None:
    """Return the port of the only board of this maker that runs, if any."""
    boards = list_boards([spec.usb_vendor])
    if len(boards) > 1:
        listing = ", ".join(port for port, _ in boards)
        raise SparsetuneError(f"several boards found, choose one with --port: {listing}")
    return boards[0][0] if boards else None


def _known_ports() -> set[str]:
    return {port for port, _ in list_boards()}


def _wait_board(port: str | None, known: set[str], say: Say) -> BoardInfo | None:
    """Wait for the restarted board and return what it is.

    It may come back under another name where it is another USB device now: as a port that is not
    one of `known`, those from before it was flashed.
    """

    def found() -> list[str]:
        new = [name for name, _ in list_boards() if name not in known or port is None]
        return [name for name in ([port] if port else []) + new if port_exists(name)]

    if not _wait(lambda: bool(found()), RESTART_S):
        if port:
            raise SparsetuneError(f"no board came back on {port}: unplug it and plug it in again")
        say("flashed; no serial port has appeared yet")
        return None
    return _identify(found)


def _identify(found: Callable[[], list[str]]) -> BoardInfo:
    """Identify a board that may still be starting, on one of the ports that are there."""
    end = time.monotonic() + RESTART_S
    problem = SparsetuneError("the board went away again: unplug it and plug it in again")
    while time.monotonic() < end:
        for port in found():
            try:
                with Board.connect(port) as board:
                    return board.identify()
            except SparsetuneError as error:
                problem = error
        time.sleep(0.5)
    raise problem


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds; False when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
