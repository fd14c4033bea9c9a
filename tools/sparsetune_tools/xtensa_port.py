"""MicroPython on QEMU's Xtensa core (tools/xtensa/port): runs device code and xtensawin native
modules without a board, as unix.py does x64's."""

from __future__ import annotations

import sys

from .firmware import build_environment, jobs, refuse_spaces
from .needs import require
from .shell import BUILD, ROOT, locked, run, run_main, say
from .sources import Trees, ensure
from .xtensa import EMULATOR, OURS, toolchain_and_emulator

FOLDER = BUILD / "xtensa_port"


def build(trees: Trees | None = None) -> list[str]:
    """Build it, or only what changed; returns the command that runs it."""
    require("make", "gcc")
    chain, trees = toolchain_and_emulator(), trees or ensure()
    refuse_spaces(ROOT, trees.micropython)
    folder = FOLDER.with_name(FOLDER.name + trees.suffix)
    with locked(folder):
        run("building MicroPython for QEMU's Xtensa",
            ["make", jobs(), "-C", OURS / "port", f"TOP={trees.micropython}", f"BUILD={folder}",
             f"CROSS_COMPILE={chain.cross}", f"RUNTIME={chain.runtime}",
             f"PORT_FLAGS={' '.join(chain.flags)}", f"PYTHON={sys.executable}"],
            BUILD / "logs" / f"{folder.name}.log",
            env={**build_environment(trees), **chain.environment})
    return [*EMULATOR, str(folder / "micropython")]


def main() -> None:
    say(f"MicroPython for QEMU's Xtensa: {' '.join(build())}")


if __name__ == "__main__":
    run_main(main)
