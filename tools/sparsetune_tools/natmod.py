"""The kernels as a native module `sparsetune_kernels.mpy`, to try them on a stock firmware.

MicroPython's own dynruntime.mk and mpy_ld.py build it from ulab_kernels/natmod.mk.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from .firmware import KERNELS, build_environment, jobs, refuse_spaces
from .needs import require
from .shell import BUILD, ROOT, ToolError, locked, run, run_main, say, show, write_if_changed
from .sources import ensure

MODULE = "sparsetune_kernels"
COMPILERS = {"armv6m": "arm-none-eabi-gcc", "x64": "gcc"}
# Python modules that mpy_ld.py imports -> their names for pip.
LINKER_NEEDS = {"elftools": "pyelftools", "ar": "ar"}


def require_linker() -> None:
    names = [pip for module, pip in LINKER_NEEDS.items()
             if importlib.util.find_spec(module) is None]
    if names:
        raise ToolError(f"native modules need Python packages that are not installed; run: "
                        f"{sys.executable} -m pip install {' '.join(names)}")


def makefile(arch: str, micropython: Path) -> str:
    """dynruntime.mk puts its files beside the makefile it finds: so one lies in build/."""
    return (f"ARCH = {arch}\nMOD = {MODULE}\nMPY_DIR = {micropython}\nKERNELS = {KERNELS}\n"
            "include $(KERNELS)/natmod.mk\n")


def is_stale(module: Path) -> bool:
    """Whether the module is older than any file of the kernels or than its makefile."""
    sources = [*KERNELS.rglob("*"), module.with_name("Makefile")]
    return not module.exists() or any(
        path.stat().st_mtime > module.stat().st_mtime for path in sources if path.is_file())


def build(arch: str) -> Path:
    """Build the module for one architecture, if anything changed; returns the .mpy."""
    require("make", COMPILERS[arch])
    require_linker()
    trees = ensure()
    refuse_spaces(ROOT, trees.micropython)
    folder = BUILD / "natmod" / arch
    module = folder / f"{MODULE}.mpy"
    with locked(folder):
        write_if_changed(folder / "Makefile", makefile(arch, trees.micropython).encode())
        # dynruntime.mk looks at no headers: after any change all is built, in a second or two.
        again = ["--always-make"] if is_stale(module) else []
        run(f"building the native module for {arch}",
            ["make", jobs(), *again, f"PYTHON={sys.executable}"],
            BUILD / "logs" / f"natmod-{arch}.log", env=build_environment(trees), cwd=folder)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arch", nargs="*", default=list(COMPILERS), help="armv6m, x64 or both")
    for arch in parser.parse_args().arch:
        if arch not in COMPILERS:
            raise ToolError(f"no architecture {arch}: choose from {', '.join(COMPILERS)}")
        module = build(arch)
        say(f"native module for {arch}: {show(module)}, {module.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_main(main)
