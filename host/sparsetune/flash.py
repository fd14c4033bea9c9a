"""Put firmware on a board.

An RP2040 in its boot ROM is a USB drive; a .uf2 file copied there is written to flash, and
the chip restarts. The drive is known by the file INFO_UF2.TXT on it. This is the only file
that knows UF2. Boards that are flashed by esptool get their own function beside
`_flash_uf2` (issue 6): esptool is GPL and runs as a program.
"""

from __future__ import annotations

import contextlib
import os
import string
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsetune.board import Board, BoardInfo, list_boards, port_exists
from sparsetune.boardspec import BoardSpec
from sparsetune.errors import SparsetuneError

Say = Callable[[str], None]

DRIVE_S = 30.0  # a desktop may take seconds to mount the drive
RESTART_S = 30.0  # writing flash, restarting, making the file system on the first start

_MAGIC = (0x0A324655, 0x9E5D5157)
_MAGIC_END = 0x0AB16F30
_NOT_FLASH = 0x0001
_HAS_FAMILY = 0x2000

_FAMILIES = {
    0xE48BFF56: "RP2040",
    0xE48BFF57: "RP2350",
    0xE48BFF58: "RP2350",
    0xE48BFF59: "RP2350 (Arm)",
    0xE48BFF5A: "RP2350 (RISC-V)",
    0xBFDD4EEE: "ESP32-S2",
    0xC47E5767: "ESP32-S3",
    0x1C5F21B0: "ESP32",
    0x68ED2B88: "SAMD21",
    0x55114460: "SAMD51",
    0xADA52840: "nRF52840",
}


@dataclass(frozen=True)
class Job:
    """What to flash where. port and drive: None to look for them."""

    firmware: Path
    spec: BoardSpec
    port: str | None = None
    drive: Path | None = None
    dry_run: bool = False


def flash(job: Job, say: Say) -> BoardInfo | None:
    """Flash `job.firmware` and return what the restarted board says it is.

    None after a dry run, or where no serial port shows up. Raises SparsetuneError.
    """
    if job.spec.flash_method != "uf2":
        raise SparsetuneError(
            f"flashing {job.spec.title} by {job.spec.flash_method} is not supported yet:"
            " use that program itself"
        )
    return _flash_uf2(job, say)


def _flash_uf2(job: Job, say: Say) -> BoardInfo | None:
    image = read_uf2(job.firmware)
    check_uf2(image, job.spec, job.firmware)
    say(f"{job.firmware}: {image.size:,} bytes for {job.spec.chip}, at 0x{image.start:08x}")
    port = job.port or _only_port()
    drive = _drive_now(job)
    if job.dry_run:
        _describe(job, drive, port, say)
        return None
    if drive is None:
        drive = _restart_into_drive(job, port, say)
    _check_drive(drive, job.spec)
    say(f"copying to {drive}")
    _copy(job.firmware, drive)
    _wait_restart(drive)
    return _wait_board(port, say)


def _describe(job: Job, drive: Path | None, port: str | None, say: Say) -> None:
    """Say what a run without --dry-run would do."""
    if drive is None and port is None:
        say(f"would stop: no board and no {job.spec.drive_label} drive is plugged in")
        return
    if drive is None:
        say(f"would restart the board on {port} into its boot loader (machine.bootloader())")
        say(f"would wait for its drive, {job.drive or job.spec.drive_label}")
    say(f"would copy {job.firmware} to {drive or job.drive or 'the drive'}")
    say("would wait for the board to restart, and ask it for its version")


# The file ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Uf2:
    """The content of a UF2 file in brief: address range and chip family."""

    start: int
    end: int
    size: int
    family: int | None


def read_uf2(path: Path) -> Uf2:
    """Read and check the blocks of a UF2 file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SparsetuneError(
            f"cannot read {path} ({error.strerror}): build the firmware, or name another file"
        ) from None
    if not data or len(data) % 512:
        raise SparsetuneError(f"{path} is not a whole UF2 file: download or build it again")
    blocks = list(_blocks(data, path))
    return Uf2(
        start=min(address for address, _, _ in blocks),
        end=max(address + size for address, size, _ in blocks),
        size=sum(size for _, size, _ in blocks),
        family=blocks[0][2],
    )


def _blocks(data: bytes, path: Path) -> Iterator[tuple[int, int, int | None]]:
    """Yield (address, size, family) of each flash block."""
    total = len(data) // 512
    for index in range(total):
        block = data[index * 512 : index * 512 + 512]
        head = struct.unpack("<8I", block[:32])
        (end,) = struct.unpack("<I", block[-4:])
        flags, address, size, number, count, family = head[2:]
        if head[:2] != _MAGIC or end != _MAGIC_END or size > 476:
            raise SparsetuneError(f"{path} is not a UF2 file: choose a .uf2 firmware")
        if (number, count) != (index, total):
            raise SparsetuneError(f"{path} is not a whole UF2 file: download or build it again")
        if not flags & _NOT_FLASH:
            yield address, size, family if flags & _HAS_FAMILY else None


def check_uf2(image: Uf2, spec: BoardSpec, path: Path) -> None:
    """Raise SparsetuneError when `image` is not for the board of `spec`."""
    if image.family != spec.uf2_family:
        family = image.family
        name = "no chip in particular" if family is None else _FAMILIES.get(family, hex(family))
        raise SparsetuneError(f"{path} is for {name}, not for {spec.chip}: choose another file")
    if image.start < spec.flash_base or image.end > spec.flash_base + spec.flash_bytes:
        raise SparsetuneError(
            f"{path} reaches from 0x{image.start:08x} to 0x{image.end:08x}, outside the flash of"
            f" {spec.title}: choose a firmware for this board"
        )


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
        where = job.drive or f"{job.spec.drive_label} drive"
        raise SparsetuneError(
            f"no board to flash ({where} not found): hold BOOTSEL while plugging the board in"
        )
    say(f"restarting the board on {port} into its boot loader")
    with Board.connect(port) as board:
        platform = board.identify().platform
        if platform != job.spec.platform:
            raise SparsetuneError(
                f"the board on {port} is {platform!r}, not {job.spec.platform!r}: choose its"
                " own description with --board"
            )
        board.enter_bootloader()
    if _wait(lambda: _drive_now(job) is not None, DRIVE_S):
        drive = _drive_now(job)
        if drive is not None:
            return drive
    raise SparsetuneError(_no_drive(job.spec))


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


def _only_port() -> str | None:
    """Return the port of the only board that runs, if any."""
    boards = list_boards()
    if len(boards) > 1:
        listing = ", ".join(port for port, _ in boards)
        raise SparsetuneError(f"several boards found, choose one with --port: {listing}")
    return boards[0][0] if boards else None


def _wait_board(port: str | None, say: Say) -> BoardInfo | None:
    """Wait for the restarted board and return what it is."""
    found: list[str] = []

    def is_back() -> bool:
        candidates = [port] if port else [name for name, _ in list_boards()]
        found[:] = [name for name in candidates if port_exists(name)]
        return bool(found)

    if not _wait(is_back, RESTART_S):
        if port:
            raise SparsetuneError(f"no board came back on {port}: unplug it and plug it in again")
        say("flashed; no serial port has appeared yet")
        return None
    return _identify(found[0])


def _identify(port: str) -> BoardInfo:
    """Identify a board that may still be starting."""
    end = time.monotonic() + RESTART_S
    while True:
        try:
            with Board.connect(port) as board:
                return board.identify()
        except SparsetuneError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds; False when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
