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
    """ram: bytes of the heap; file: bytes of the .mpy; seconds: of the import, emulated; None where
    there is no clock."""

    file: int
    ram: int
    seconds: float | None = None


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


def measure_in_qemu(arch: str, module: Path) -> Taken:
    with tempfile.TemporaryDirectory() as folder:
        files = {module.name: module.read_bytes()}
        ram = int(qemu_port.run_script(arch, PROGRAM_WITHOUT_CLOCK, files, Path(folder)))
    return Taken(module.stat().st_size, ram)


def measure_all() -> dict[str, Taken]:
    """By architecture and flavour."""
    found = {}
    for arch in ("armv6m", *qemu_port.MACHINES):
        for flavour in natmod.flavours_of(arch):
            module = natmod.build(arch, flavour=flavour)
            is_pico = arch == "armv6m"
            found[f"{arch} {flavour}"] = (
                measure(module) if is_pico else measure_in_qemu(arch, module))
    return found


def table(taken: dict[str, Taken]) -> Iterator[str]:
    yield f"{'module (armv6m: emulated Pico)':<32}{'file':>9}{'RAM':>9}{'import, s':>11}"
    for name, t in taken.items():
        clock = "" if t.seconds is None else f"{t.seconds:>11.2f}"
        yield f"{name:<32}{t.file:>9,}{t.ram:>9,}{clock}"


def main() -> None:
    print(*table(measure_all()), sep="\n")


if __name__ == "__main__":
    main()
