"""The kernels as a native module `sparsetune_kernels.mpy`, to try them on a stock firmware.

MicroPython's own dynruntime.mk and mpy_ld.py build it from ulab_kernels/natmod.mk.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .device_package import MODULES, compile_package
from .firmware import KERNELS, build_environment, jobs, refuse_spaces
from .needs import require
from .shell import (
    BUILD,
    ROOT,
    Missing,
    ToolError,
    locked,
    run,
    run_main,
    say,
    show,
    write_if_changed,
)
from .sources import ensure
from .xtensa import toolchain

MODULE = "sparsetune_kernels"
# A command of the machine, or None: one of ours (xtensa.py).
COMPILERS = {"armv6m": "arm-none-eabi-gcc", "armv7emsp": "arm-none-eabi-gcc", "x64": "gcc",
             "xtensawin": None, "rv32imc": "riscv64-unknown-elf-gcc"}
# How much of the kernels, and how fast (natmod.mk), the fastest first.
FLAVOURS = ("full", "small", "head")
# Python modules that mpy_ld.py imports -> their names for pip.
LINKER_NEEDS = {"elftools": "pyelftools", "ar": "ar"}


def require_linker() -> None:
    names = [pip for module, pip in LINKER_NEEDS.items()
             if importlib.util.find_spec(module) is None]
    if names:
        raise Missing(f"native modules need Python packages that are not installed; run: "
                      f"{sys.executable} -m pip install {' '.join(names)}")


@dataclass(frozen=True)
class Compiler:
    """makefile: lines ahead of natmod.mk's. files: of ours, that it is made of."""

    makefile: str = ""
    files: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def compiler(arch: str, variant: str = "esp32s3") -> Compiler:
    """Raises Missing with the reason where the machine has none. variant: of xtensa.py."""
    command = COMPILERS[arch]
    require("make")
    require_linker()
    if command:
        require(command)
        return Compiler()
    chain = toolchain(variant)
    # dynruntime.mk asks the compiler for libraries, which are of another ABI.
    return Compiler(
        f"override CROSS = {chain.cross}\noverride LIBGCC_PATH = {chain.runtime}\n"
        f"override LIBM_PATH =\nCFLAGS_EXTRA = {' '.join(chain.flags)}\n",
        (chain.runtime, *map(Path, chain.environment.values())), chain.environment)


def flavours_of(arch: str) -> tuple[str, ...]:
    """Those that are worth building: a Pico's RAM is what the small ones are for."""
    return FLAVOURS if arch in ("armv6m", "rv32imc") else FLAVOURS[:1]


def folder_of(arch: str, variant: str, flavour: str) -> Path:
    parts = [arch, *([variant] if variant != "esp32s3" else []),
             *([flavour] if flavour != "full" else [])]
    return BUILD / "natmod" / "-".join(parts)


def makefile(arch: str, flavour: str, micropython: Path, first: str = "") -> str:
    """dynruntime.mk puts its files beside the makefile it finds: so one lies in build/."""
    return (f"ARCH = {arch}\nFLAVOUR = {flavour}\nMOD = {MODULE}\n"
            f"MPY_DIR = {micropython}\nKERNELS = {KERNELS}\n"
            f"{first}include $(KERNELS)/natmod.mk\n")


def is_stale(module: Path, compiler: Compiler) -> bool:
    """Whether the module is older than any file of the kernels, than its makefile or compiler."""
    sources = [*KERNELS.rglob("*"), module.with_name("Makefile"), *compiler.files]
    return not module.exists() or any(
        path.stat().st_mtime > module.stat().st_mtime for path in sources if path.is_file())


def build(arch: str, variant: str = "esp32s3", flavour: str = "full") -> Path:
    """Build the module for one architecture, if anything changed; returns the .mpy. variant: of
    xtensawin; `qemu` has no instruction that QEMU lacks. flavour: of FLAVOURS."""
    made_by = compiler(arch, variant)
    trees = ensure()
    refuse_spaces(ROOT, trees.micropython)
    folder = folder_of(arch, variant, flavour)
    module = folder / f"{MODULE}.mpy"
    with locked(folder):
        write_if_changed(folder / "Makefile", makefile(
            arch, flavour, trees.micropython, made_by.makefile).encode())
        # dynruntime.mk looks at no headers: after any change all is built, in a second or two.
        again = ["--always-make"] if is_stale(module, made_by) else []
        run(f"building the native module for {arch} ({flavour})",
            ["make", jobs(), *again, f"PYTHON={sys.executable}"],
            BUILD / "logs" / f"natmod-{folder.name}.log", cwd=folder,
            env={**build_environment(trees), **made_by.environment})
        if variant == "esp32s3":  # others are for tests
            MODULES.mkdir(parents=True, exist_ok=True)
            write_if_changed(MODULES / f"{folder.name}.mpy", module.read_bytes())
    return module


def is_possible(arch: str) -> bool:
    """Whether this machine has the compiler; if not, says why. Raises ToolError where it could have
    it, but something failed."""
    try:
        compiler(arch)
    except Missing as error:
        say(f"native module for {arch}: skipped: {error}")
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arch", nargs="*", help=f"{', '.join(COMPILERS)}; without: all that this "
                        "machine has compilers for")
    named = parser.parse_args().arch
    for arch in named or COMPILERS:
        if arch not in COMPILERS:
            raise ToolError(f"no architecture {arch}: choose from {', '.join(COMPILERS)}")
        if named or is_possible(arch):
            for flavour in flavours_of(arch):
                module = build(arch, flavour=flavour)
                say(f"native module for {arch} ({flavour}): {show(module)}, "
                    f"{module.stat().st_size:,} bytes")
    say(f"device package: {show(compile_package())}")


if __name__ == "__main__":
    run_main(main)
