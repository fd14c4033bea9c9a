"""Firmware files of Espressif's chips: what is in a .bin before it is written.

A whole file holds, from the boot loader's offset on, the boot loader (an image), the partition
table at 0x8000, and the application (an image) where that table says. An image begins with a
header of 24 bytes, which names the chip; an application's first segment begins with a
description (ESP-IDF, "App Image Format").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from operator import xor
from pathlib import Path

from sparsetune.errors import SparsetuneError

IMAGE_MAGIC = 0xE9
TABLE_AT = 0x8000
TABLE_BYTES = 0xC00

_CHIP_AT, _HASHED_AT = 12, 23  # in an image's header
_SEGMENTS_AT = 24  # behind it
_CHECK_START = 0xEF
_DESCRIPTION_AT = 32  # behind the headers of image and segment
_APP_MAGIC = 0xABCD5432
_APPLICATION = "an application alone"
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
    first = min((part.offset for part in partitions if part.kind == 0), default=0)
    if not (_is_whole(data) and _is_whole(data[max(0, first - offset) :])):
        raise SparsetuneError(f"{path} is cut off or damaged: download or build it again")
    return EspFirmware(chip, offset, len(data), partitions, _idf(data, offset, partitions))


def _is_whole(data: bytes) -> bool:
    """Whether an image begins here and is all there: segments, and the byte that all of theirs
    XORed with 0xef give, which ends a row of 16. An application's hash is behind that."""
    if not is_esp_image(data):
        return False
    at, check = _SEGMENTS_AT, _CHECK_START
    for _ in range(data[1]):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size
        if at > len(data):
            return False
        check ^= _xor(data[at - size : at])
    end = at | 15
    if end >= len(data) or data[end] != check:
        return False
    is_hashed = data[_HASHED_AT] == 1 and _what_part(data) == _APPLICATION
    return not is_hashed or sha256(data[: end + 1]).digest() == data[end + 1 : end + 33]


def _xor(data: bytes) -> int:
    """All bytes XORed, eight at a time."""
    words = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) & ~7])
    word = reduce(xor, words, 0).to_bytes(8, "little")
    return reduce(xor, word + data[len(data) & ~7 :], 0)


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
    return _APPLICATION if magic == _APP_MAGIC else "a boot loader alone, or a part"


def _idf(data: bytes, offset: int, partitions: tuple[Partition, ...]) -> str | None:
    """The ESP-IDF of the first application that is in the file."""
    for partition in partitions:
        at = partition.offset - offset + _DESCRIPTION_AT
        if partition.kind == 0 and data[at : at + 4] == struct.pack("<I", _APP_MAGIC):
            return data[at + 112 : at + 144].split(b"\0")[0].decode("ascii", "replace")
    return None
