"""How many trained channels the store in flash has room for (device/sparsetune_device/store.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsetune_device.store import pages_of, room_of

MOST_FULL = 0.5  # the rest is for what changes from checkpoint to checkpoint, and to write on


@dataclass(frozen=True)
class Kept:
    """Of one layer: channels that learn, and bytes of a channel's weights."""

    channels: int
    column_bytes: int

    @property
    def column_pages(self) -> int:
        return int(pages_of(self.column_bytes))

    @property
    def pages(self) -> int:
        return self.channels * self.column_pages


def fits(layers: Sequence[Kept], store_bytes: int) -> bool:
    """Whether the newest weights of all channels have room, with enough left to write on."""
    if not layers:
        return True
    room: int = room_of(store_bytes, [kept.column_pages for kept in layers])
    return sum(kept.pages for kept in layers) <= MOST_FULL * room
