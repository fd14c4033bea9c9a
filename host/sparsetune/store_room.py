"""How many trained channels the store in flash has room for (device/sparsetune_device/store.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsetune_device.store import ENTRIES, PAGE, SECTOR

SPARE = 2  # sectors: the one that is being filled, and the erased one behind it
MOST_FULL = 0.75  # the fuller a log is, the more it copies


@dataclass(frozen=True)
class Kept:
    """Of one layer: channels that learn, and bytes of a channel's weights."""

    channels: int
    column_bytes: int

    @property
    def column_pages(self) -> int:
        return -(-self.column_bytes // PAGE)

    @property
    def pages(self) -> int:
        return self.channels * self.column_pages


def fits(layers: Sequence[Kept], store_bytes: int) -> bool:
    """Whether the newest weights of all channels have room, with enough left to write on."""
    if not layers:
        return True
    pages = (store_bytes // SECTOR - SPARE) * _pages_of_a_sector({k.column_pages for k in layers})
    return sum(kept.pages for kept in layers) <= MOST_FULL * pages


def _pages_of_a_sector(sizes: set[int]) -> int:
    """Those that can be filled in any case: a record lies in one sector."""
    free = min(ENTRIES, SECTOR // PAGE) - 1
    if len(sizes) == 1:
        return free - free % min(sizes)
    return max(0, free - (max(sizes) - 1))
