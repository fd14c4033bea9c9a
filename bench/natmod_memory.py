"""RAM that native modules take on a Pico with stock firmware, and how long an import takes; and RAM
on other cores.

    python bench/natmod_memory.py

Measured on the emulated Pico: gc.mem_free() before and after the import, ticks around it. The other
cores are QEMU's, in MicroPython's own qemu port, where a clock would tell nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsetune_tools import firmware, natmod, qemu_port
from sparsetune_tools.emulated_pico import EmulatedPico

PROGRAM = """
import gc, sys, time
gc.collect()
before = gc.mem_free()
begin = time.ticks_ms()
import sparsetune_kernels
took = time.ticks_diff(time.ticks_ms(), begin)
gc.collect()
print(before - gc.mem_free(), took)
"""

PROGRAM_WITHOUT_CLOCK = """
import gc
gc.collect()
before = gc.mem_free()
import sparsetune_kernels
gc.collect()
print(before - gc.mem_free())
"""


@dataclass(frozen=True)
class Taken:
    """ram: bytes of the heap; file: bytes of the .mpy; seconds: of the import, emulated."""

    file: int
    ram: int
    seconds: float


def mpremote(port: Path | str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "mpremote", "connect", str(port), *words],
                          capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def measure(module: Path) -> Taken:
    """Of a Pico that has nothing but the module."""
    with EmulatedPico(firmware.build("stock").folder / "firmware.uf2") as board:
        mpremote(board.port, "cp", str(module), ":")
        board.reset()
        ram, ticks = map(int, mpremote(board.port, "exec", PROGRAM).split())
    return Taken(module.stat().st_size, ram, ticks / 1000)


def table(taken: dict[str, Taken]) -> Iterator[str]:
    yield f"{'armv6m module, emulated Pico':<32}{'file':>9}{'RAM':>9}{'import, s':>11}"
    for flavour, t in taken.items():
        yield f"{flavour:<32}{t.file:>9,}{t.ram:>9,}{t.seconds:>11.2f}"


def measure_in_qemu(arch: str, module: Path) -> int:
    """Bytes of the heap."""
    with tempfile.TemporaryDirectory() as folder:
        return int(qemu_port.run_script(arch, PROGRAM_WITHOUT_CLOCK,
                                        {module.name: module.read_bytes()}, Path(folder)))


def rows_in_qemu() -> Iterator[str]:
    yield f"{'module, QEMU':<32}{'file':>9}{'RAM':>9}"
    for arch in qemu_port.MACHINES:
        for flavour in natmod.flavours_of(arch):
            module = natmod.build(arch, flavour=flavour)
            size, ram = module.stat().st_size, measure_in_qemu(arch, module)
            yield f"{f'{arch}, {flavour}':<32}{size:>9,}{ram:>9,}"


def main() -> None:
    print(*table({flavour: measure(natmod.build("armv6m", flavour=flavour))
                  for flavour in natmod.FLAVOURS}), "", *rows_in_qemu(), sep="\n")


if __name__ == "__main__":
    main()
