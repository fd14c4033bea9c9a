"""Flash for the twin: what device/sparsetune_device/store.py asks of a board's, in memory."""

from __future__ import annotations

from sparsetune_device.store import PAGE, SECTOR

BLOCK_COUNT, BLOCK_SIZE, ERASE = 4, 5, 6  # of MicroPython's ioctl


class NorFlash:
    """NOR flash with the methods of rp2.Flash: erasing a sector makes ones, writing zeros only."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(b"\xff" * size)
        self.erases = [0] * (size // SECTOR)

    def writeblocks(self, block: int, data: bytes | bytearray, offset: int = 0) -> None:
        at = block * SECTOR + offset
        if at % PAGE or len(data) % PAGE or at + len(data) > len(self.data):
            raise ValueError(f"flash is written by pages: {len(data)} bytes at {at}")
        there = int.from_bytes(self.data[at : at + len(data)], "little")
        both = there & int.from_bytes(data, "little")
        self.data[at : at + len(data)] = both.to_bytes(len(data), "little")

    def ioctl(self, command: int, argument: int) -> int:
        if command == ERASE:
            self.erases[argument] += 1
            self.data[argument * SECTOR : (argument + 1) * SECTOR] = b"\xff" * SECTOR
        return {BLOCK_COUNT: len(self.erases), BLOCK_SIZE: SECTOR}.get(command, 0)
