"""Firmware files of Espressif's chips: what is in a .bin before it is written.

A whole file holds, from the boot loader's offset on, the boot loader (an image), the partition
table at 0x8000, and the application (an image) where that table says. An image begins with a
header of 24 bytes, which names the chip; an application's first segment begins with a
description (ESP-IDF, "App Image Format").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from sparsetune.errors import SparsetuneError

IMAGE_MAGIC = 0xE9
TABLE_AT = 0x8000
TABLE_BYTES = 0xC00

_CHIP_AT = 12  # in an image's header
_DESCRIPTION_AT = 32  # behind the headers of image and segment
_APP_MAGIC = 0xABCD5432
_ENTRY = struct.Struct("<2sBBII16sI")  # magic, type, subtype, offset, size, label, flags
_ENTRY_MAGIC = b"\xaa\x50"

# chip id -> name, where the boot loader begins
CHIPS = {
    0: ("ESP32", 0x1000),
    2: ("ESP32-S2", 0x1000),
    5: ("ESP32-C3", 0),
    9: ("ESP32-S3", 0),
    12: ("ESP32-C2", 0),
    13: ("ESP32-C6", 0),
    16: ("ESP32-H2", 0),
    18: ("ESP32-P4", 0x2000),
    20: ("ESP32-C61", 0),
    23: ("ESP32-C5", 0x2000),
}


@dataclass(frozen=True)
class Partition:
    """An entry of the partition table; offset and size in bytes of flash."""

    label: str
    kind: int
    subtype: int
    offset: int
    size: int


@dataclass(frozen=True)
class EspFirmware:
    """A whole firmware file: for which chip, written where, with which partitions."""

    chip: str
    offset: int
    size: int
    partitions: tuple[Partition, ...]
    idf: str | None  # version of ESP-IDF that built the application


def is_esp_image(data: bytes) -> bool:
    """Whether `data` begins as an image for one of Espressif's chips."""
    return len(data) > _DESCRIPTION_AT and data[0] == IMAGE_MAGIC


def parse_esp(data: bytes, path: Path) -> EspFirmware:
    """Read a whole firmware file. path: for messages. Raises SparsetuneError."""
    (number,) = struct.unpack_from("<H", data, _CHIP_AT)
    if number not in CHIPS:
        raise SparsetuneError(
            f"{path} is for a chip that is not known here (number {number}): choose another file"
        )
    chip, offset = CHIPS[number]
    table = data[TABLE_AT - offset : TABLE_AT - offset + TABLE_BYTES]
    partitions = parse_partitions(table)
    if not partitions:
        raise SparsetuneError(
            f"{path} is {_what_part(data)} for {chip}, not all of a firmware: choose the file that"
            " holds boot loader, partition table and application (MicroPython's firmware.bin)"
        )
    return EspFirmware(chip, offset, len(data), partitions, _idf(data, offset, partitions))


def parse_partitions(table: bytes) -> tuple[Partition, ...]:
    """Return the entries of a partition table as it lies in flash; none where it is none."""
    found = []
    for at in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        magic, kind, subtype, offset, size, label, _ = _ENTRY.unpack_from(table, at)
        if magic != _ENTRY_MAGIC:
            break
        name = label.split(b"\0")[0].decode("ascii", "replace")
        found.append(Partition(name, kind, subtype, offset, size))
    return tuple(found)


def _what_part(data: bytes) -> str:
    (magic,) = struct.unpack_from("<I", data, _DESCRIPTION_AT)
    return "an application alone" if magic == _APP_MAGIC else "a boot loader alone, or a part"


def _idf(data: bytes, offset: int, partitions: tuple[Partition, ...]) -> str | None:
    """The ESP-IDF of the first application that is in the file."""
    for partition in partitions:
        at = partition.offset - offset + _DESCRIPTION_AT
        if partition.kind == 0 and data[at : at + 4] == struct.pack("<I", _APP_MAGIC):
            return data[at + 112 : at + 144].split(b"\0")[0].decode("ascii", "replace")
    return None
