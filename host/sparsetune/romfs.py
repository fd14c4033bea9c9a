"""Write a ROMFS image: MicroPython's read-only, memory-mapped file system.

The format is specified at the head of MicroPython's extmod/vfs_rom.c. In short: everything
is a record of kind (varuint), payload length (varuint) and payload; a varuint is
big-endian with seven bits a byte, and may be padded in front with 0x80.

Unlike `mpremote romfs build`, every file's data starts at a multiple of ALIGN bytes, so
that the kernels can read weights straight from flash a word (or a vector) at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparsetune.errors import SparsetuneError

ALIGN = 16
BLOCK = 4096  # erase block: an image is padded to whole blocks

_MAGIC = b"\xd2\xcd\x31"  # the varuint 0x14a6b1: kind of the file system record
_PADDING, _VERBATIM, _FILE = 1, 2, 5
_HEADER = 8  # kind (3) and length (5): a fixed size, so that offsets are known early
_ERASED = b"\xff"


def build_romfs(files: Mapping[str, bytes]) -> bytes:
    """Return the ROMFS image of `files` (name in the top folder -> content).

    The length is a multiple of BLOCK. The image must be placed at a multiple of ALIGN,
    as partitions are.
    """
    body = bytearray()
    for name, data in files.items():
        _append_file(body, _HEADER + len(body), name, data)
    if len(body) % 2:  # the specification wants an even size, and one byte is no record
        body += _record(_PADDING, b"\xff")
    header = _MAGIC + _varuint(len(body), _HEADER - len(_MAGIC))
    image = header + bytes(body)
    return image + _ERASED * (-len(image) % BLOCK)


def _append_file(body: bytearray, position: int, name: str, data: bytes) -> None:
    """Append a file record to `body`, whose end is at `position`, with its data aligned."""
    head = _file_head(name, len(data))
    gap = -(position + len(head)) % ALIGN
    if gap == 1:  # the smallest padding record takes two bytes
        gap += ALIGN
    if gap:
        body += _record(_PADDING, _ERASED * (gap - 2))
    body += head + data


def _file_head(name: str, size: int) -> bytes:
    """Return everything of a file record that comes before its data."""
    encoded = name.encode("utf-8")
    if not encoded or "/" in name:
        raise SparsetuneError(f"{name!r} cannot be a file name on the board: rename it")
    data_head = _varuint(_VERBATIM) + _varuint(size)
    inside = _varuint(len(encoded)) + encoded + data_head
    return _varuint(_FILE) + _varuint(len(inside) + size) + inside


def _record(kind: int, payload: bytes) -> bytes:
    return _varuint(kind) + _varuint(len(payload)) + payload


def _varuint(value: int, width: int = 1) -> bytes:
    """Encode `value`, padded in front to at least `width` bytes."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    groups += [0x80] * (width - len(groups))
    return bytes(reversed(groups))
