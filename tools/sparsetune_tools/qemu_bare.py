"""The kernels of a native module for Cortex-M4F or RISC-V alone in QEMU: no MicroPython. For tests
that compare bytes with the twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .bare import SMALL
from .firmware import KERNELS
from .linux_core import CountingLinuxCore, LinuxCore
from .natmod import COMPILERS, compiler
from .natmod import build as build_module
from .needs import require
from .shell import BUILD, ROOT, locked, run
from .sources import ensure

FOLDER = BUILD / "qemu_bare"
LOG = BUILD / "logs" / "qemu_bare.log"
OURS = ROOT / "tools" / "qemu" / "linux"
COMMANDS = ROOT / "tools" / "xtensa" / "bare.c"
LEFT_OUT = ("bind_", "natmod_", "simd_")
# As natmod.mk compiles them.
FLAGS = ("-O2", "-fwrapv", "-std=gnu99", "-ffreestanding", "-fno-jump-tables",
         "-fno-tree-switch-conversion", "-DST_MAC16=0")


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


def build(arch: str, portable: bool = False) -> Path:
    """The kernels as a static program, of the very object files that the native module is linked
    of; its path. portable: compiled anew, without SMLAD."""
    require_emulator(arch)
    if portable:
        return link(arch, f"{arch}-portable", [COMMANDS, *sources()])
    return link(arch, arch, [COMMANDS, *objects_of(build_module(arch).parent / "build")])


def build_small(arch: str) -> Path:
    """The kernels of flavour small, compiled as natmod.mk does it, as one file."""
    require_emulator(arch)
    name = f"{arch}-small"
    everything = FOLDER / name / "everything.c"
    files = [path for path in sources() if not path.name.endswith("mac16.c")]
    with locked(everything.parent):
        everything.write_text("".join(f'#include "{path}"\n' for path in (*files, COMMANDS)))
    return link(arch, name, [everything], SMALL)


def link(arch: str, name: str, files: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """flags: of the files alone."""
    folder, start = FOLDER / name, f"building the kernels alone for {arch}"
    elf, libc = folder / "kernels.elf", folder / "libc.o"
    command = [str(COMPILERS[arch]), *PROCESSORS[arch].flags, *FLAGS]
    with locked(folder):
        run(start, [*command, "-c", ensure().micropython / "shared" / "libc" / "string0.c",
                    "-o", libc], LOG)
        run(start, [*command, *flags, f"-I{KERNELS}", f"-I{OURS}", OURS / "start.S", *files, libc,
                    "-nostdlib", "-static", "-Wl,-Ttext-segment=0x400000", "-lgcc", "-o", elf], LOG)
    return elf


def objects_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.o")) if not path.name.startswith(LEFT_OUT)]


def sources() -> list[Path]:
    return [path for path in sorted(KERNELS.glob("*.c")) if not path.name.startswith(LEFT_OUT)]


def symbols(arch: str, elf: Path) -> dict[str, int]:
    nm = str(COMPILERS[arch]).replace("gcc", "nm")
    rows = [line.split() for line in run("", [nm, elf], LOG).splitlines()]
    return {row[2]: int(row[0], 16) | PROCESSORS[arch].thumb * (row[1] in "tT")
            for row in rows if len(row) == 3}


class QemuCore(LinuxCore):
    """The kernels of `arch`, a key of PROCESSORS. is_small: of flavour small."""

    def __init__(self, arch: str, is_small: bool = False) -> None:
        self.arch, elf = arch, build_small(arch) if is_small else build(arch)
        super().__init__([*PROCESSORS[arch].emulator, str(elf)], symbols(arch, elf))


class CountingQemuCore(CountingLinuxCore):
    """The same, or the portable ones, with their instructions counted."""

    def __init__(self, arch: str, portable: bool = False) -> None:
        elf = build(arch, portable)
        known = symbols(arch, elf)
        super().__init__(PROCESSORS[arch].emulator, elf, known, kernels_range(known))


def kernels_range(symbols: dict[str, int]) -> str:
    """Where they lie: behind this tool's own code."""
    ours = max(symbols[name] for name in ("start_main", "linux_call", "bare_run", "bare_load"))
    begin = min(at for at in symbols.values() if at > ours)
    return f"{begin & ~1:#x}..{symbols['bare_memory']:#x}"
