"""Files of this computer: read with a clear error, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from sparsetune.errors import SparsetuneError


def read_file(path: Path) -> bytes:
    """The content of a file. Raises SparsetuneError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SparsetuneError(f"cannot read {path} ({error.strerror}): name another") from None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half-written."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SparsetuneError(f"cannot write {path} ({error.strerror}): name another") from None
