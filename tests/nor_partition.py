"""A ROMFS partition as a flash chip keeps it, for tests: what is not erased is not written."""

from __future__ import annotations

BLOCK = 4096
BLOCK_COUNT, BLOCK_SIZE, ERASE = 4, 5, 6  # of MicroPython's ioctl


class PowerCut(Exception):
    """The board lost its power."""


class NorPartition:
    """Has the methods of rp2.Flash, and notes what was done in which order.

    power: pages and blocks that can still be written or erased before the power goes. worn: bytes
    that cannot be written any more.
    """

    worn: tuple[int, ...] = ()

    def __init__(self, blocks: int, data: bytes = b"", power: int | None = None) -> None:
        self.blocks = blocks
        self.data = bytearray(data.ljust(blocks * BLOCK, b"\xff"))
        self.order: list[str] = []
        self.power = power

    def ioctl(self, request: int, argument: int) -> int:
        if request == ERASE:
            self.order.append(f"erase {argument}")
            self._erase(argument, 1)
        return {BLOCK_COUNT: self.blocks, BLOCK_SIZE: BLOCK}.get(request, 0)

    def readblocks(self, block: int, buf: bytearray) -> None:
        buf[:] = self.data[block * BLOCK : block * BLOCK + len(buf)]

    def writeblocks(self, block: int, buf: bytes, offset: int | None = None) -> None:
        """Erases first, unless there is an offset."""
        assert len(buf) % 256 == 0
        count = len(buf) // BLOCK
        assert block * BLOCK + (offset or 0) + len(buf) <= len(self.data)
        if offset is None:
            self.order.append(f"write {block}" + f"-{block + count - 1}" * (count > 1))
            self._erase(block, count)
        else:
            self.order.append(f"fill {block}")
        for at in range(0, len(buf), 256):
            self._program(block * BLOCK + (offset or 0) + at, buf[at : at + 256])

    def _erase(self, block: int, count: int) -> None:
        for each in range(block, block + count):
            self._use_power()
            self.data[each * BLOCK : (each + 1) * BLOCK] = b"\xff" * BLOCK

    def _program(self, at: int, page: bytes) -> None:
        self._use_power()
        old = int.from_bytes(self.data[at : at + 256], "little")
        both = old & int.from_bytes(page, "little")
        self.data[at : at + 256] = both.to_bytes(256, "little")
        for each in self.worn:
            self.data[each] = 0xFF

    def _use_power(self) -> None:
        if self.power is not None:
            if self.power == 0:
                raise PowerCut
            self.power -= 1
