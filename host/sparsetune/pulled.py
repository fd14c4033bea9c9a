"""A checkpoint that is complete: with the trained channels that the board keeps in flash."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sparsetune_device.checkpoint import HEADER, HEADER_BYTES, MAGIC
from sparsetune_device.telemetry import parse

from .errors import SparsetuneError

Line = Callable[[str], None]
Columns = dict[tuple[int, int], bytes]


@dataclass(frozen=True)
class Parts:
    """Of a checkpoint file. head: the fields of checkpoint.HEADER. text: the run's settings, and in
    a pulled one lines for each column."""

    head: tuple[int, ...]
    state: bytes
    text: str

    @property
    def events(self) -> list[tuple[str, dict[str, int | str]]]:
        return [event for line in self.text.splitlines() if (event := parse(line))]

    @property
    def has_store(self) -> bool:
        """Whether some of what was learnt lies in the board's flash."""
        return any(kind == "run" and "store" in fields for kind, fields in self.events)

    @property
    def columns(self) -> Columns:
        """(operator, input channel) -> int8 weights of that channel, which are told in pieces."""
        found: Columns = {}
        for kind, fields in self.events:
            if kind == "column":
                key = int(fields["op"]), int(fields["channel"])
                found[key] = found.get(key, b"") + bytes.fromhex(str(fields["hex"])[1:])
        return found


def split(data: bytes) -> Parts:
    """Raises SparsetuneError when it is no whole checkpoint."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        raise SparsetuneError("this is not a checkpoint: get one with `sparsetune pull`")
    head = struct.unpack_from(HEADER, data)
    size, crc, more = head[4:7]
    body = data[HEADER_BYTES:]
    if len(body) != size + more or zlib.crc32(body) != crc:
        raise SparsetuneError("the checkpoint is damaged: pull it again")
    return Parts(head, body[:size], body[size:].decode(errors="replace"))


def complete(data: bytes, tell: Callable[[Line], None]) -> bytes:
    """The checkpoint with the columns that `tell` gives as lines of telemetry, if it needs any."""
    parts = split(data)
    if not parts.has_store:
        return data
    lines: list[str] = []
    tell(lines.append)
    columns = (line for line in lines if (event := parse(line)) and event[0] == "column")
    return _with_text(parts, [parts.text, *columns])


def _with_text(parts: Parts, lines: Iterable[str]) -> bytes:
    text = "\n".join(lines).encode()
    body = parts.state + text
    head = (*parts.head[:5], zlib.crc32(body), len(text))
    return struct.pack(HEADER, *head) + body
