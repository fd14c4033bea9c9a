"""MicroPython's unix port: runs device code and x64 native modules without a board."""

from __future__ import annotations

import sys
from pathlib import Path

from .firmware import build_environment, jobs, refuse_spaces
from .needs import require
from .shell import BUILD, ROOT, locked, run, run_main, say, show
from .sources import ensure

FOLDER = BUILD / "unix"
# Left out: what Debian's source has not got, and what would need libffi.
LEFT_OUT = ("MICROPY_PY_BTREE=0", "MICROPY_PY_SSL=0", "MICROPY_SSL_MBEDTLS=0",
            "MICROPY_PY_FFI=0", "FROZEN_MANIFEST=")
# Its heap is in two halves, as that of an ESP32 with PSRAM.
TWO_HEAPS = "CFLAGS_EXTRA=-DMICROPY_GC_SPLIT_HEAP=1 -DMICROPY_GC_SPLIT_HEAP_N_HEAPS=2"


def build() -> Path:
    """Build it, or only what changed; returns the executable."""
    require("make", "gcc")
    trees = ensure()
    refuse_spaces(ROOT, trees.micropython)
    with locked(FOLDER):
        run("building MicroPython's unix port",
            ["make", jobs(), "-C", trees.micropython / "ports" / "unix", f"BUILD={FOLDER}",
             f"PYTHON={sys.executable}", TWO_HEAPS, *LEFT_OUT],
            BUILD / "logs" / "unix.log", env=build_environment(trees))
    return FOLDER / "micropython"


def main() -> None:
    say(f"unix port: {show(build())}")


if __name__ == "__main__":
    run_main(main)
