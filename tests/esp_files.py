"""Firmware files for Espressif's chips, made here: boot loader, partition table, application.

The images are what the ROM and esptool accept: headers, one segment, checksum, SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

TABLE_AT, APP_AT = 0x8000, 0x10000
BANNER = b"MicroPython v1.25.0 on 2025-04-15\0Generic ESP32S3 module with ESP32S3\0"
# type, subtype, offset, size, label
PARTITIONS = (
    (1, 0x02, 0x9000, 0x6000, "nvs"),
    (0, 0x00, 0x10000, 0x1F0000, "factory"),
    (1, 0x81, 0x200000, 0x600000, "vfs"),
)


def image(chip_id: int, segment: bytes, address: int = 0x3FCE0000) -> bytes:
    """An image of one segment."""
    segment += bytes(-len(segment) % 4)
    # magic, segments, QIO, 8 MB and 80 MHz, entry; pins, chip, revisions, a hash is behind
    head = struct.pack("<4BI", 0xE9, 1, 0, 0x3F, 0x40374000)
    head += struct.pack("<4BHBHH4xB", 0xEE, 0, 0, 0, chip_id, 0, 0, 99, 1)
    body = head + struct.pack("<II", address, len(segment)) + segment
    check = 0xEF
    for byte in segment:
        check ^= byte
    body += bytes(15 - len(body) % 16) + bytes([check])
    return body + hashlib.sha256(body).digest()


def application(chip_id: int = 9, banner: bytes = BANNER) -> bytes:
    """An application with its description, as ESP-IDF writes it."""
    description = struct.pack(
        "<II8x32s32s16s16s32s32s80x",
        *(0xABCD5432, 0, b"v1.25.0", b"micropython", b"12:00:00", b"Apr 15 2025", b"v5.4.1"),
        bytes(32),
    )
    assert len(description) == 256
    return image(chip_id, description + banner, 0x3C000020)


def boot_loader(chip_id: int = 9) -> bytes:
    return image(chip_id, b"\x50" + bytes(range(1, 200)))


def partition_table(entries: tuple[tuple[int, int, int, int, str], ...] = PARTITIONS) -> bytes:
    table = b"".join(
        struct.pack("<HBBII16sI", 0x50AA, kind, subtype, at, size, label.encode(), 0)
        for kind, subtype, at, size, label in entries
    )
    table += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()
    return table.ljust(0xC00, b"\xff")


def firmware(
    chip_id: int = 9,
    offset: int = 0,
    entries: tuple[tuple[int, int, int, int, str], ...] = PARTITIONS,
    banner: bytes = BANNER,
) -> bytes:
    """A whole firmware file, which is written from `offset` on."""
    data = boot_loader(chip_id).ljust(TABLE_AT - offset, b"\xff") + partition_table(entries)
    return data.ljust(APP_AT - offset, b"\xff") + application(chip_id, banner)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
