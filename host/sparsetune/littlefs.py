"""What files take of littlefs, the board's file system: whole blocks, each after the first with
pointers to earlier ones."""

from __future__ import annotations

BLOCK = 4096
OWN_BLOCKS = 6  # the file system's own, with the folder /sparsetune
MARGIN = 2  # left free: a file system filled to the last block fails late (receive.py)


def capacity(blocks: int) -> int:
    """Bytes that a file of so many blocks holds. Block i has a pointer of 4 bytes for every power
    of two that divides i, one being one: 2 m - popcount(m) of them in blocks 1 to m."""
    last = max(0, blocks - 1)
    return max(0, blocks) * BLOCK - 4 * (2 * last - last.bit_count())


def blocks_of(size: int) -> int:
    """Blocks that a file of `size` bytes takes."""
    blocks = -(-size // BLOCK)
    while capacity(blocks) < size:
        blocks += 1
    return blocks
