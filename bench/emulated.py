"""Measures stretches of programs on the emulated Pico: cycles and instructions, exact to one.

Images, and what stands in arena and state when they start, are put into the flash file before
the board is switched on; on the board each stretch runs between two marks (see MARK_PORT). So the
figures hang on nothing but the firmware and these bytes, and repeat. They are emulated: flash cache
misses are not in them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sparsetune.board import Board
from sparsetune.boardspec import load_spec
from sparsetune.errors import SparsetuneError
from sparsetune.romfs import build_romfs
from sparsetune_tools.emulated_pico import MARK_PORT, EmulatedPico, Mark

ROOT = Path(__file__).resolve().parents[1]
FIRMWARE = ROOT / "build" / "firmware" / "SPARSETUNE_PICO" / "firmware.bin"
HERTZ = 125_000_000
PICO = load_spec("pico")
RAM = PICO.heap_bytes - 12_000  # of arena and state together: MicroPython takes some itself
CONTROL_BYTES = 64
ON_BOARD = """
import gc, machine, sparsetune_kernels as k
def rom(name):
    with open("/rom/" + name, "rb") as f:
        return memoryview(f)
def measure(n, arena_bytes, spans, training, mark=machine.mem32, port={port}):
    begin = rom("%d.ram" % n)
    arena = bytearray(begin[:arena_bytes])
    state = bytearray(begin[arena_bytes:])
    image, cold = rom("%d.img" % n), bytearray()
    gc.collect()
    k.run(image, state, arena, cold, b"", 0, 0, training)
    for i, j in spans:
        mark[port] = 0
        k.run(image, state, arena, cold, b"", i, j, training)
        mark[port] = 1
for n, arena_bytes, spans, training in {cases}:
    measure(n, arena_bytes, spans, training)
    gc.collect()
"""


@dataclass(frozen=True)
class Spent:
    """What a stretch took. Emulated."""

    cycles: int
    instructions: int

    @property
    def ms(self) -> float:
        return self.cycles / HERTZ * 1000

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cycles + other.cycles, self.instructions + other.instructions)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cycles - other.cycles, self.instructions - other.instructions)


NOTHING = Spent(0, 0)


@dataclass(frozen=True)
class Case:
    """A program to run. image: its bytes. arena, state: what stands there at the start. spans:
    stretches [i, j) of its operators, run one after the other."""

    image: bytes
    arena: bytes
    state: bytes
    spans: tuple[tuple[int, int], ...]
    training: bool = True

    @property
    def fits(self) -> bool:
        return len(self.arena) + len(self.state) <= RAM

    @property
    def flash(self) -> int:
        """Bytes that it takes there, roughly."""
        return len(self.image) + len(self.arena) + len(self.state) + 256


def measure(cases: Sequence[Case], firmware: Path = FIRMWARE) -> list[list[Spent]]:
    """What each span of each case took, without what starting and marking it takes. Raises
    SparsetuneError where one has no room."""
    for case in cases:
        if not case.fits:
            need = len(case.arena) + len(case.state)
            raise SparsetuneError(f"the program needs {need:,} bytes of RAM, {RAM:,} are there: "
                                  "measure a smaller model")
    found: list[list[Spent]] = []
    for batch in _batches(cases, PICO.romfs_bytes - 8192):
        found += _measure_batch(batch, firmware)
    return found


def _batches(cases: Iterable[Case], room: int) -> Iterator[list[Case]]:
    batch: list[Case] = []
    for case in cases:
        if batch and sum(other.flash for other in batch) + case.flash > room:
            yield batch
            batch = []
        batch.append(case)
    if batch:
        yield batch


def _measure_batch(cases: Sequence[Case], firmware: Path) -> list[list[Spent]]:
    files = {}
    for n, case in enumerate(cases):
        files[f"{n}.img"], files[f"{n}.ram"] = case.image, case.arena + case.state
    told = [
        (n, len(case.arena), ((0, 0), *case.spans), int(case.training))
        for n, case in enumerate(cases)
    ]
    with tempfile.TemporaryDirectory() as folder:
        flash = flash_with(Path(folder), build_romfs(files))
        with EmulatedPico(firmware, flash) as pico, Board.connect(pico.port) as board:
            board.exec(ON_BOARD.format(port=MARK_PORT, cases=told))
            marks = iter(pico.marks())
    return [_spent(marks, len(case.spans)) for case in cases]


def flash_with(folder: Path, romfs: bytes) -> Path:
    """A flash file whose ROMFS holds an image, and nothing else yet. Raises SparsetuneError where
    that has no room."""
    if len(romfs) > PICO.romfs_bytes:
        raise SparsetuneError(f"the program needs {len(romfs):,} bytes of flash, "
                              f"{PICO.romfs_bytes:,} are there: measure a smaller model")
    path = folder / "flash.bin"
    blank = b"\xff" * PICO.flash_bytes
    at = PICO.firmware_bytes
    path.write_bytes(blank[:at] + romfs + blank[at + len(romfs) :])
    return path


def _spent(marks: Iterator[Mark], spans: int) -> list[Spent]:
    """The first pair of marks is around nothing."""
    empty, *rest = (_between(next(marks), next(marks)) for _ in range(spans + 1))
    return [spent - empty for spent in rest]


def _between(begin: Mark, end: Mark) -> Spent:
    return Spent(end.cycles - begin.cycles, end.instructions - begin.instructions)
