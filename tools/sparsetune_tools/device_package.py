"""The device package compiled by mpy-cross, for boards with stock MicroPython.

The host sends it from build/modules (host/sparsetune/native.py), where natmod.py puts the native
modules too.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from .firmware import build_mpy_cross
from .shell import BUILD, ROOT, locked, run, write_if_changed
from .sources import ensure

PACKAGE = "sparsetune_device"
SOURCE = ROOT / "device" / PACKAGE
MODULES = BUILD / "modules"
SOURCES = "SOURCES"


def compile_package() -> Path:
    """Compiles each source; returns the folder. SOURCES says of which ones they are."""
    cross, folder = build_mpy_cross(ensure()), MODULES / PACKAGE
    sources = sorted(SOURCE.glob("*.py"))
    known = "".join(f"{_digest(path)} {path.name}\n" for path in sources)
    with locked(folder), tempfile.TemporaryDirectory() as scratch:
        if (folder / SOURCES).is_file() and (folder / SOURCES).read_text() == known:
            return folder
        for path in folder.glob("*.mpy"):
            path.unlink()
        for path in sources:
            made = Path(scratch) / f"{path.stem}.mpy"
            run(f"compiling {path.name}", [cross, "-s", f"{PACKAGE}/{path.name}", "-o", made, path],
                BUILD / "logs" / "device-package.log")
            write_if_changed(folder / made.name, made.read_bytes())
        write_if_changed(folder / SOURCES, known.encode())
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
