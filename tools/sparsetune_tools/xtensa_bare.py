"""The kernels alone on QEMU's Xtensa core: no MicroPython. For tests that compare bytes with the
twin, and for counting instructions (emulated, QEMU)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .firmware import KERNELS
from .linux_core import CountingLinuxCore, LinuxCore
from .shell import BUILD, locked
from .sources import ensure
from .xtensa import EMULATOR, OURS, toolchain, toolchain_and_emulator

FOLDER = BUILD / "xtensa_bare"
# As natmod.mk compiles them.
FLAGS = ("-O2", "-fwrapv", "-std=gnu99", "-ffreestanding", "-fno-jump-tables",
         "-fno-tree-switch-conversion", "-mtext-section-literals")
LEFT_OUT = ("bind_", "natmod_", "simd_")
LINK = ("-nostdlib", "-Wl,-Ttext-segment=0x400000", "-Wl,--no-relax")


def build(variant: str = "qemu", portable: bool = False) -> Path:
    """The kernels as a static program, if anything changed; its path. variant: `esp32s3` is what
    the compiler makes for that, but for MULUH and MULSH, which become other instructions. portable:
    without the assembly's loops."""
    chain, trees = toolchain_and_emulator(), ensure()
    kernels = [path for pattern in ("*.c", "xtensa_*.S") for path in sorted(KERNELS.glob(pattern))
               if not path.name.startswith(LEFT_OUT)]
    more = [OURS / "linux" / "exactly.S", OURS / "bare.c", OURS / "linux" / "start.S",
            trees.micropython / "shared" / "libc" / "string0.c"]
    folder = FOLDER / (f"{variant}-portable" if portable else variant)
    flags = (*FLAGS, "-DST_XTENSA_MAC16=0") if portable else FLAGS
    elf = folder / "kernels.elf"
    with locked(folder):
        headers = [*KERNELS.glob("*.h"), *OURS.glob("linux/*")]
        if is_older(elf, [*kernels, *more, *headers, chain.runtime, Path(__file__)]):
            if variant == "esp32s3":
                kernels = without_upper_products(kernels, flags, folder)
            chain.run("building the kernels for Xtensa", "gcc", *flags, *chain.flags,
                      f"-I{KERNELS}", f"-I{OURS / 'linux'}", *more, *kernels, *LINK,
                      chain.runtime, "-o", elf)
    return elf


def without_upper_products(
    sources: Sequence[Path], flags: Sequence[str], folder: Path
) -> list[Path]:
    """Compiled for an ESP32-S3, as assembly that QEMU's core has all instructions of."""
    chain = toolchain("esp32s3")
    compiled = [source for source in sources if source.suffix == ".c"]
    what, words = "compiling the kernels for ESP32-S3", (*flags, *chain.flags, f"-I{KERNELS}")
    chain.run(what, "gcc", *words, "-S", *compiled, cwd=folder)
    for source in set(sources) - set(compiled):
        chain.run(what, "gcc", *words, "-E", "-P", source, "-o", folder / f"{source.stem}.s")
    macros = (OURS / "linux" / "upper_products.s").read_text()
    files = [folder / f"{source.stem}.s" for source in sources]
    for file in files:
        named = macros.replace("_\\@", f"_{file.stem}_\\@")  # labels that no other file has
        file.write_text(named + file.read_text())
    return files


def is_older(file: Path, sources: Sequence[Path]) -> bool:
    """Or not there at all."""
    return not file.exists() or file.stat().st_mtime < max(s.stat().st_mtime for s in sources)


def symbols(elf: Path) -> dict[str, int]:
    rows = [line.split() for line in toolchain("qemu").run("", "nm", elf).splitlines()]
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}


class XtensaCore(LinuxCore):
    """more: options of QEMU."""

    def __init__(self, elf: Path | None = None, more: tuple[str, ...] = ()) -> None:
        elf = elf or build()
        super().__init__([*EMULATOR, *more, str(elf)], symbols(elf))


class CountingCore(CountingLinuxCore):
    """Counts the kernels' instructions in every call."""

    def __init__(self, elf: Path) -> None:
        known = symbols(elf)
        super().__init__(EMULATOR, elf, known, kernels_range(known))


def kernels_range(symbols: dict[str, int]) -> str:
    """Where the kernels lie, and what they call: behind this tool's own code. Of what stands for
    MULUH or MULSH the first instruction alone."""
    ours = max(symbols[name] for name in ("start_main", "linux_call", "bare_run", "bare_load"))
    begin = min(at for at in symbols.values() if at > ours)
    text = ""
    for left_out, goes_on in sorted(
            (at, symbols[name.replace("_from_", "_to_")]) for name, at in symbols.items()
            if name.startswith("upper_from_")):
        text += f"{begin:#x}..{left_out - 1:#x},"
        begin = goes_on
    return text + f"{begin:#x}..{symbols['bare_memory']:#x}"
