"""What a firmware file is: for which chip, which MicroPython, written where.

Known by its content, not by its name, so that a file for another chip is refused before a board
is touched. Stock files of micropython.org are known as well as our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sparsetune.boardspec import BoardSpec, boards_with
from sparsetune.errors import SparsetuneError
from sparsetune.esp_image import EspFirmware, is_esp_image, parse_esp
from sparsetune.uf2 import Uf2, is_uf2, parse_uf2

OLDEST = (1, 24)  # the MicroPython that device/ is written for

_VERSION = re.compile(rb"MicroPython (v\d[\w.-]*) on (\d{4}-\d\d-\d\d)")
_MACHINE = re.compile(rb"([ -~]{2,60} with (?:RP2|ESP32)[A-Z0-9-]*)\0")


@dataclass(frozen=True)
class Firmware:
    """A firmware file that was read. content: what its format holds."""

    path: Path
    content: Uf2 | EspFirmware
    version: str | None  # of MicroPython, as v1.24.1
    date: str | None
    machine: str | None

    @property
    def chip(self) -> str:
        """The chip that it is for."""
        content = self.content
        return content.family_name if isinstance(content, Uf2) else content.chip

    def describe(self) -> str:
        """What it is, for its user, in a line."""
        content = self.content
        at = content.start if isinstance(content, Uf2) else content.offset
        where = f"{content.size:,} bytes for {self.chip}, at 0x{at:08x}"
        what = f"MicroPython {self.version} of {self.date}" if self.version else "no MicroPython"
        return f"{self.path}: {where}; {what}{f', {self.machine}' if self.machine else ''}"

    def doubts(self) -> list[str]:
        """What its user may not mean."""
        number = version_number(self.version)
        if number is None:
            return [f"{self.path} holds no MicroPython, which sparsetune needs on the board"]
        if number < OLDEST:
            needed = ".".join(str(part) for part in OLDEST)
            return [f"{self.path} is older than MicroPython {needed}, which sparsetune needs"]
        return []


def version_number(version: str | None) -> tuple[int, ...] | None:
    """(1, 24, 1) of v1.24.1, (1, 25, 0) of v1.25.0-preview.12.g1a2b3c4."""
    found = re.match(r"v?(\d+(?:\.\d+)+)", version or "")
    return tuple(int(part) for part in found[1].split(".")) if found else None


def read_firmware(path: Path) -> Firmware:
    """Read and check a firmware file. Raises SparsetuneError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SparsetuneError(
            f"cannot read {path} ({error.strerror}): build the firmware, or name another file"
        ) from None
    if not data:
        raise SparsetuneError(f"{path} is empty: download or build it again")
    if is_esp_image(data):
        return _recognise(path, parse_esp(data, path), data)
    if not is_uf2(data) and path.suffix != ".uf2":
        raise SparsetuneError(
            f"{path} is no firmware that is known here: choose a .uf2 for RP2040 and RP2350, or"
            " MicroPython's firmware.bin for Espressif's chips"
        )
    uf2 = parse_uf2(data, path)
    return _recognise(path, uf2, uf2.payload)


def _recognise(path: Path, content: Uf2 | EspFirmware, data: bytes) -> Firmware:
    version, machine = _VERSION.search(data), _MACHINE.search(data)
    return Firmware(
        path,
        content,
        version[1].decode() if version else None,
        version[2].decode() if version else None,
        machine[1].decode().removeprefix("; ") if machine else None,
    )


def check_firmware(firmware: Firmware, spec: BoardSpec) -> None:
    """Raise SparsetuneError when `firmware` is not for the board of `spec`."""
    content, path = firmware.content, firmware.path
    wrong = (
        content.family != spec.uf2_family
        if isinstance(content, Uf2) and spec.uf2_family is not None
        else isinstance(content, Uf2) or content.chip != spec.chip
    )
    if wrong:
        raise SparsetuneError(
            f"{path} is for {firmware.chip}, not for {spec.chip}{_form(content, spec)}: choose"
            f" another file{_other_board(content)}"
        )
    if isinstance(content, Uf2):
        _check_addresses(content, spec, path)
    else:
        _check_partitions(content, spec, path)


def _form(content: Uf2 | EspFirmware, spec: BoardSpec) -> str:
    """What else is wrong where the chip is right: a UF2 file where none is taken."""
    if isinstance(content, Uf2) and content.family_name == spec.chip:
        return "'s own boot loader (.bin)"
    return ""


def _other_board(content: Uf2 | EspFirmware) -> str:
    """Which --board the file would suit, if any."""
    names = (
        boards_with(uf2_family=content.family)
        if isinstance(content, Uf2)
        else boards_with(chip=content.chip)
    )
    return f", or --board {' or '.join(names)}" if names else ""


def _check_addresses(content: Uf2, spec: BoardSpec, path: Path) -> None:
    if content.start < spec.flash_base or content.end > spec.flash_base + spec.flash_bytes:
        raise SparsetuneError(
            f"{path} reaches from 0x{content.start:08x} to 0x{content.end:08x}, outside the flash"
            f" of {spec.title}: choose a firmware for this board"
        )


def _check_partitions(content: EspFirmware, spec: BoardSpec, path: Path) -> None:
    end = max(
        content.offset + content.size, *(part.offset + part.size for part in content.partitions)
    )
    if end > spec.flash_bytes:
        raise SparsetuneError(
            f"{path} is made for {end:,} bytes of flash, {spec.title} has {spec.flash_bytes:,}:"
            " choose a firmware for less flash, or a --board description with as much as yours has"
        )
