"""Files of this computer: read with a clear error, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from sparsetune.errors import SparsetuneError

OUTPUTS = ("output", "data_out", "picture", "plot", "log")  # options that name files to write


def check_outputs(paths: Mapping[str, Path]) -> None:
    """paths: of a command line, by option. Raises SparsetuneError where an output would take the
    place of an input, or of another output, or cannot be a file."""
    for name in OUTPUTS:
        path = paths.get(name)
        if path is None:
            continue
        if path.is_dir():
            raise SparsetuneError(f"{path} is a folder: name a file to write")
        if any(is_same(path, other) for option, other in paths.items() if option != name):
            raise SparsetuneError(f"{path} would be written over: write to another file")


def is_same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


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
        with contextlib.suppress(OSError):
            part.unlink()
        raise SparsetuneError(f"cannot write {path} ({error.strerror}): name another") from None
