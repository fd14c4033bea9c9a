"""The kernels of a native module for Cortex-M4F or RISC-V alone in QEMU: no MicroPython. For tests
that compare bytes with the twin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .firmware import KERNELS
from .linux_core import LinuxCore
from .natmod import COMPILERS, compiler
from .natmod import build as build_module
from .needs import require
from .shell import BUILD, ROOT, locked, run
from .sources import ensure

FOLDER = BUILD / "qemu_bare"
LOG = BUILD / "logs" / "qemu_bare.log"
OURS = ROOT / "tools" / "qemu" / "linux"
COMMANDS = ROOT / "tools" / "xtensa" / "bare.c"
LEFT_OUT = ("bind_", "natmod_")


@dataclass(frozen=True)
class Processor:
    """Of QEMU. flags: as dynruntime.mk has them. thumb: 1 where addresses to call are odd."""

    emulator: tuple[str, ...]
    flags: tuple[str, ...]
    thumb: int = 0


# QEMU 7.2 starts no program of Linux on a core without MMU: a Cortex-A7 has all instructions of a
# Cortex-M4F, and the same rules for alignment.
PROCESSORS = {
    "armv7emsp": Processor(
        ("qemu-arm", "-cpu", "cortex-a7"),
        ("-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"), 1),
    "rv32imc": Processor(("qemu-riscv32",), ("-march=rv32imac", "-mabi=ilp32", "-mno-relax")),
}


def require_emulator(arch: str) -> None:
    """Raises Missing with the reason where the machine has not got it, or no compiler."""
    require(PROCESSORS[arch].emulator[0])
    compiler(arch)


def build(arch: str) -> Path:
    """The kernels as a static program, of the very object files that the native module is linked
    of; its path."""
    require_emulator(arch)
    objects = [path for path in sorted((build_module(arch).parent / "build").glob("*.o"))
               if not path.name.startswith(LEFT_OUT)]
    elf = FOLDER / arch / "kernels.elf"
    libc = ensure().micropython / "shared" / "libc" / "string0.c"
    with locked(elf.parent):
        run(f"building the kernels alone for {arch}",
            [str(COMPILERS[arch]), *PROCESSORS[arch].flags, "-O2", "-ffreestanding",
             f"-I{KERNELS}", f"-I{OURS}", OURS / "start.S", COMMANDS, libc, *objects,
             "-nostdlib", "-static", "-Wl,-Ttext-segment=0x400000", "-lgcc", "-o", elf], LOG)
    return elf


def symbols(arch: str, elf: Path) -> dict[str, int]:
    nm = str(COMPILERS[arch]).replace("gcc", "nm")
    rows = [line.split() for line in run("", [nm, elf], LOG).splitlines()]
    return {row[2]: int(row[0], 16) | PROCESSORS[arch].thumb * (row[1] in "tT")
            for row in rows if len(row) == 3}


class QemuCore(LinuxCore):
    """The kernels of `arch`, a key of PROCESSORS."""

    def __init__(self, arch: str) -> None:
        self.arch, elf = arch, build(arch)
        super().__init__([*PROCESSORS[arch].emulator, str(elf)], symbols(arch, elf))
