"""The kernels alone on the emulated Pico's core: no MicroPython, no USB. For tests that compare
bytes with the twin, and for counting cycles (emulated, XIP cache not modelled).
"""

from __future__ import annotations

import base64
import json
import subprocess
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .core_process import CoreProcess
from .emulated_pico import SOURCES, ensure_bootrom, ensure_packages, node_command
from .firmware import KERNELS
from .needs import require
from .shell import BUILD, locked, run

FOLDER = BUILD / "bare"
# As micropython.cmake compiles them.
FLAGS = (
    *("-mcpu=cortex-m0plus", "-mthumb", "-O2", "-fwrapv", "-std=gnu99", "-ffreestanding"),
    '-DST_RAM_SECTION=".time_critical.sparsetune"',
)
# As natmod.mk compiles flavour small: all files as one, and one way of each kernel.
SMALL = (
    *("-Os", "-fwhole-program", "-DST_SMALL=1", "-fno-tree-switch-conversion"),
    *("-fno-tree-loop-im", "-fno-move-loop-invariants", "-fno-expensive-optimizations"),
    *("-fno-guess-branch-probability", "-fno-web", "-frename-registers", "-fno-strict-aliasing"),
)
SMALL_FOLDER = BUILD / "bare-small"
IMAGE, CODE, DATA, DATA_END = 0x10000000, 0x101E0000, 0x20000000, 0x20040000
BUFFERS = 5
START = """
#include "program.h"
#define BARE_ENTRY __attribute__((used, externally_visible))
// args: {buffer address, size} five times, how (methods.def.h), begin, end; result: status |
// operator << 8.
BARE_ENTRY int32_t bare_run(const uint32_t *arg) {
    st_machine_t m;
    for (int i = 0; i < ST_BUFFERS; i++)
        m.buffer[i] = (st_buffer_t){(uint8_t *)arg[2 * i], arg[2 * i + 1]};
    m.training = (int)arg[10] & 1;
    m.cores = (st_cores_t)(arg[10] >> 1);
    int32_t at;
    int32_t status = st_program_run(&m, (int32_t)arg[11], (int32_t)arg[12], &at);
    return status | at << 8;
}
BARE_ENTRY void bare_nothing(void) {}
"""


def sources() -> list[Path]:
    names = ("bind_", "natmod_", "simd_")
    return [path for pattern in ("*.c", "*.S") for path in sorted(KERNELS.glob(pattern))
            if not path.name.startswith(names)]


def build(folder: Path = FOLDER, flags: Sequence[str] = (), more: str = "",
          files: Sequence[Path] | None = None) -> Path:
    """The kernels as an ELF whose code lies in flash; its path. more: C beside them. files: of the
    kernels; without it all."""
    require("arm-none-eabi-gcc")
    with locked(folder):
        elf, start = folder / "kernels.elf", folder / "start.c"
        start.write_text(START + more)
        run("building the kernels alone",
            ["arm-none-eabi-gcc", *FLAGS, *flags, f"-I{KERNELS}", start,
             *(sources() if files is None else files),
             "-nostartfiles", "-Wl,-e,bare_run", f"-Wl,-Ttext={CODE:#x}",
             "-Wl,--section-start=.time_critical=0x20000000", "-specs=nosys.specs",
             "-o", elf], folder / "build.log")
        run("", ["arm-none-eabi-objcopy", "-O", "binary", "-R", ".time_critical", elf,
                 folder / "flash.bin"], folder / "build.log")
        run("", ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".time_critical", elf,
                 folder / "ram.bin"], folder / "build.log")
    return elf


def build_small() -> Path:
    """The kernels of flavour small, as one file; the path of the ELF. Its functions are inlined
    or have local names: no profile tells them apart."""
    ours = [path.name for path in sources() if path.suffix == ".c"]
    lines = [f'#include "{name}"\n' for name in ours if not name.endswith("mac16.c")]
    return build(SMALL_FOLDER, SMALL, "".join(lines), [])


def symbols(elf: Path) -> dict[str, int]:
    table = subprocess.run(["arm-none-eabi-nm", elf], check=True, capture_output=True, text=True)
    rows = [line.split() for line in table.stdout.splitlines()]
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}


@dataclass(frozen=True)
class Called:
    """What a function answered and what it cost, the call's return included."""

    result: int
    cycles: int
    instructions: int = 0


class Core(Protocol):
    """What runs the kernels: this file's, or that of xtensa_bare.py. An image's place, and that of
    all that is written."""

    image: int
    image_end: int
    data: int
    data_end: int

    def write(self, address: int, data: bytes) -> None: ...

    def read(self, address: int, count: int) -> bytes: ...

    def call(self, name: str, *arguments: int) -> Called: ...


class BareCore(CoreProcess[str]):
    """The emulated core with the kernels in flash and the memory of an RP2040."""

    image, image_end, data_end = IMAGE, CODE, DATA_END

    def __init__(self, elf: Path | None = None, count: bool = False) -> None:
        elf = elf or build()
        ensure_packages()
        command = [node_command(), str(SOURCES / "bare_call.mjs"), str(ensure_bootrom())]
        command += ["--count"] if count else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.symbols = symbols(elf)
        self.write(CODE, elf.with_name("flash.bin").read_bytes())
        ram = elf.with_name("ram.bin").read_bytes()
        self.data = DATA + -(-len(ram) // 16) * 16
        if ram:
            self.write(DATA, ram)

    def write(self, address: int, data: bytes) -> None:
        self._ask({"write": [address, base64.b64encode(data).decode()]})

    def read(self, address: int, count: int) -> bytes:
        return base64.b64decode(self._ask({"read": [address, count]})["data"])

    def call(self, name: str, *arguments: int) -> Called:
        padded = [*arguments, *[0] * (4 - len(arguments))]
        return Called(**self._ask({"call": self.symbols[name], "args": padded}))

    def marks(self) -> list[tuple[int, int]]:
        """(tag, cycles) of each write to the mark port since the last time."""
        return [(tag, cycles) for tag, cycles in self._ask({"marks": 0})["marks"]]

    def profile(self) -> dict[str, int]:
        """Cycles by function since the start; the core must be counting."""
        places = sorted((at, name) for name, at in self.symbols.items())
        spent: dict[str, int] = {}
        for at, cycles in self._ask({"profile": 0})["profile"]:
            name = places[bisect_right(places, (at + 1, "~")) - 1][1]
            spent[name] = spent.get(name, 0) + cycles
        return spent

    def _ask(self, question: dict[str, object]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the emulated core stopped: see above")
        return dict(json.loads(line))


class BareMachine:
    """An image with its buffers on such a core. writable: state, arena, cold. gap: bytes between
    them, a multiple of 4."""

    def __init__(self, core: Core, image: bytes, writable: Sequence[bytes],
                 gap: int = 4) -> None:
        self.core = core
        self.sizes = [len(image), *map(len, writable), 0]
        self.places = [core.image, *[0] * len(writable), 0]
        at = core.data + 64
        for i, data in enumerate(writable, 1):
            self.places[i] = at
            at += -(-len(data) // 4) * 4 + gap
        if at > core.data_end or core.image + len(image) > core.image_end:
            raise RuntimeError(f"the program does not fit the core's memory: {self.sizes}")
        core.write(core.image, image)
        for i, data in enumerate(writable, 1):
            self.load(i, data)

    def load(self, buffer: int, data: bytes, offset: int = 0) -> None:
        if data:
            self.core.write(self.places[buffer] + offset, data)

    def dump(self, buffer: int) -> bytes:
        return self.core.read(self.places[buffer], self.sizes[buffer])

    def run(self, begin: int, end: int, training: bool = True, cores: int = 0) -> Called:
        """Runs operators [begin, end). cores: as in ulab_kernels/cores.h."""
        words = [w for pair in zip(self.places, self.sizes, strict=True) for w in pair]
        words += [training + 2 * cores, begin, end]
        at = self.core.data
        self.core.write(at, b"".join(w.to_bytes(4, "little") for w in words))
        called = self.core.call("bare_run", at)
        if called.result & 255:
            raise RuntimeError(f"operator {called.result >> 8}: status {called.result & 255}")
        return called
