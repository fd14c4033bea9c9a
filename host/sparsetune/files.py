"""Files of this computer: read with a clear error, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sparsetune.errors import SparsetuneError

KIND_BYTES = 8  # that tell kinds of files apart
TFLITE = b"TFL3"
JSON = b"{"
FLATBUFFER = bytes(4) + TFLITE
PNG, ZIP = b"\x89PNG", b"PK\x03\x04"
KINDS = {"picture": PNG, "plot": PNG, "data_out": ZIP, "log": JSON}  # of these options
OUT = Path("out")  # where outputs go that nobody names
OUTPUTS = ("output", "data_out", "picture", "plot", "log")  # options that name files to write


def check_outputs(paths: Mapping[str, Path]) -> None:
    """paths: of a command line, by option. Raises SparsetuneError where an output would take the
    place of an input, of another output or of a file of another kind, or cannot be a file, or where
    its folder is not there (a name with a slip in it should make none) or takes no files."""
    for name in OUTPUTS:
        path = paths.get(name)
        if path is None:
            continue
        if path.is_dir():
            raise SparsetuneError(f"{path} is a folder: name a file to write")
        _check_folder(path.parent)
        if any(is_same(path, other) for option, other in paths.items() if option != name):
            raise SparsetuneError(f"{path} would be written over: write to another file")
        if name in KINDS:
            refuse_other(path, KINDS[name])
        if name != "log" or not path.exists():  # which is not replaced, but opened
            _refuse_device(path)
            _check_takes_files(path)


def _check_folder(folder: Path) -> None:
    """Our own is made where it is not there; others are the user's to make."""
    if not folder.is_dir() and not is_same(folder, OUT):
        raise SparsetuneError(f"the folder {folder} is not there: make it, or name another")


def _refuse_device(path: Path) -> None:
    """A user with every right would put a file in the place of /dev/null."""
    if path.exists() and not path.is_file():
        raise SparsetuneError(f"cannot write {path} (it is no file): name another")


def _check_takes_files(path: Path) -> None:
    """By making a nameless one: what a folder says of itself is not true of /proc or a share."""
    folder = path.parent if path.parent.is_dir() else path.parent.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SparsetuneError(f"cannot write {path} ({error.strerror}): name another") from None


def is_same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def read_file(path: Path) -> bytes:
    """The content of a file. Raises SparsetuneError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SparsetuneError(f"cannot read {path} ({error.strerror}): name another") from None


def write_output(path: Path, data: bytes) -> None:
    """Write what the user asked for, but not over a file of another kind: whoever gives the wrong
    name should lose nothing by it. Raises SparsetuneError."""
    refuse_other(path, data[:KIND_BYTES])
    write_whole(path, data)


def refuse_other(path: Path, like: bytes) -> None:
    """Raises SparsetuneError where a file is there that begins otherwise than one of this kind."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        before = file.read(KIND_BYTES)
    if before and _kind(before) != _kind(like):
        raise SparsetuneError(f"{path} is there, and a file of another kind: write to another one")


def _kind(begin: bytes) -> bytes:
    """What files of one kind begin with; flatbuffers have theirs behind an offset, and what follows
    JSON's first brace is anybody's choice."""
    if begin[4:8] == TFLITE:
        return TFLITE
    return JSON if begin.startswith(JSON) else begin[:4]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half-written."""
    _refuse_device(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SparsetuneError(f"cannot write {path} ({error.strerror}): name another") from None
