"""The UF2 format: blocks of 512 bytes, each with an address in flash (github.com/microsoft/uf2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsetune.errors import SparsetuneError

BLOCK = 512
MAGIC = (0x0A324655, 0x9E5D5157)

_MAGIC_END = 0x0AB16F30
_NOT_FLASH = 0x0001
_HAS_FAMILY = 0x2000
_HAS_EXTENSIONS = 0x8000
# Files for the RP2350 begin with a block that is written by none but the first chips, whose boot
# ROM had an error (RP2350-E10); it is not one of the file's numbered blocks.
_IGNORE_BLOCK = 0x9957E304

FAMILIES = {
    0xE48BFF56: "RP2040",
    0xE48BFF57: "any RP2350, at fixed addresses",
    0xE48BFF58: "RP2350 (data)",
    0xE48BFF59: "RP2350 (Arm)",
    0xE48BFF5A: "RP2350 (RISC-V)",
    0xE48BFF5B: "RP2350 (Arm, non-secure)",
    0xBFDD4EEE: "ESP32-S2",
    0xC47E5767: "ESP32-S3",
    0x1C5F21B0: "ESP32",
    0x68ED2B88: "SAMD21",
    0x55114460: "SAMD51",
    0xADA52840: "nRF52840",
}


@dataclass(frozen=True)
class Uf2:
    """The content of a UF2 file: address range, chip family (None: of none), what is written."""

    start: int
    end: int
    size: int
    family: int | None
    payload: bytes

    @property
    def family_name(self) -> str:
        """The family's chip, or its number."""
        if self.family is None:
            return "no chip in particular"
        return FAMILIES.get(self.family, hex(self.family))


def is_uf2(data: bytes) -> bool:
    """Whether `data` begins as a UF2 file does."""
    return data[:8] == struct.pack("<II", *MAGIC)


def parse_uf2(data: bytes, path: Path) -> Uf2:
    """Check the blocks of a UF2 file. path: for messages. Raises SparsetuneError."""
    blocks = list(_blocks(data, path))
    if not blocks:
        raise SparsetuneError(f"{path} is not a whole UF2 file: download or build it again")
    families = {family for _, _, family in blocks}
    if len(families) > 1:
        raise SparsetuneError(f"{path} is for several chips: choose a .uf2 for one")
    return Uf2(
        start=min(address for address, _, _ in blocks),
        end=max(address + len(payload) for address, payload, _ in blocks),
        size=sum(len(payload) for _, payload, _ in blocks),
        family=families.pop(),
        payload=b"".join(payload for _, payload, _ in sorted(blocks, key=lambda b: b[0])),
    )


def _blocks(data: bytes, path: Path) -> Iterator[tuple[int, bytes, int | None]]:
    """Yield (address, payload, family) of each flash block."""
    if not data or len(data) % BLOCK:
        raise SparsetuneError(f"{path} is not a whole UF2 file: download or build it again")
    pieces = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    pieces = [piece for piece in pieces if not _is_ignored(piece)]
    for index, block in enumerate(pieces):
        head = struct.unpack("<8I", block[:32])
        (end,) = struct.unpack("<I", block[-4:])
        flags, address, size, number, count, family = head[2:]
        if head[:2] != MAGIC or end != _MAGIC_END or size > 476:
            raise SparsetuneError(f"{path} is not a UF2 file: choose a .uf2 firmware")
        if (number, count) != (index, len(pieces)):
            raise SparsetuneError(f"{path} is not a whole UF2 file: download or build it again")
        if not flags & _NOT_FLASH:
            yield address, block[32 : 32 + size], family if flags & _HAS_FAMILY else None


def _is_ignored(block: bytes) -> bool:
    flags, _, size = struct.unpack_from("<3I", block, 8)
    if not flags & _HAS_EXTENSIONS or size > 472:
        return False
    (tag,) = struct.unpack_from("<I", block, 32 + size)
    return bool(tag == _IGNORE_BLOCK)
