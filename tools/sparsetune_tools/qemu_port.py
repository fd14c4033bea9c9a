"""MicroPython's own qemu port, as unmodified MicroPython for cores that nothing else here emulates:
runs device code and native modules without a board, as unix.py does x64's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .firmware import build_environment, jobs, refuse_spaces
from .natmod import compiler
from .needs import require
from .shell import BUILD, ROOT, locked, run, run_main, say
from .sources import Trees, ensure, micropython_version

BOARDS = ROOT / "tools" / "qemu"
HEAP = 480000  # that of boards/pico2.toml
DISK_BYTES = 4 << 20
TIMEOUT_S = 300


@dataclass(frozen=True)
class Machine:
    """Of QEMU. options: of the port's makefile. memory: address of RAM that the port makes no use
    of."""

    emulator: str
    words: tuple[str, ...]
    options: tuple[str, ...]
    memory: int


# By architecture of native modules. RISC-V's linker is told of no CSRs, for which Debian's
# compiler has no libraries.
MACHINES = {
    "armv7emsp": Machine("qemu-system-arm", ("-machine", "mps2-an386"),
                         ("BOARD=CORTEX_M4F", f"BOARD_DIR={BOARDS / 'CORTEX_M4F'}"), 0x21000000),
    "rv32imc": Machine("qemu-system-riscv32", ("-machine", "virt", "-bios", "none"),
                       ("BOARD=VIRT_RV32", "LIBS=-march=rv32imac"), 0x82000000),
}
# The port has no file system of its own and no clock. Files that QEMU put into the machine's memory
# go to a littlefs, which lies behind them.
START = """
import os, uctypes
class Disk:
    def __init__(self, address, size):
        self.bytes = memoryview(uctypes.bytearray_at(address, size))
    def readblocks(self, block, buffer, offset=0):
        at = 4096 * block + offset
        buffer[:] = self.bytes[at:at + len(buffer)]
    def writeblocks(self, block, buffer, offset=0):
        at = 4096 * block + offset
        self.bytes[at:at + len(buffer)] = buffer
    def ioctl(self, kind, argument):
        return len(self.bytes) // 4096 if kind == 4 else 4096 if kind == 5 else 0
def fill(disk, folders, files):
    os.VfsLfs1.mkfs(disk)
    os.mount(os.VfsLfs1(disk), "/")
    for folder in folders:
        os.mkdir(folder)
    for name, address, size in files:
        with open(name, "wb") as file:
            file.write(uctypes.bytearray_at(address, size))
fill(Disk({disk}, {disk_bytes}), {folders}, {files})
"""
NO_CLOCK = b"def perf_counter_ns():\n    return 0\n"


def require_emulator(arch: str) -> None:
    """Raises Missing with the reason where the machine has not got it, or no compiler."""
    require(MACHINES[arch].emulator)
    compiler(arch)


def build(arch: str, trees: Trees | None = None) -> Path:
    """Build the port, or only what changed; returns the firmware."""
    require_emulator(arch)
    trees = trees or ensure()
    refuse_spaces(ROOT, trees.micropython)
    folder = BUILD / "qemu_port" / f"{arch}-{micropython_version(trees.micropython)}"
    with locked(folder):
        run(f"building MicroPython's qemu port for {arch}",
            ["make", jobs(), "-C", trees.micropython / "ports" / "qemu", f"BUILD={folder}",
             f"PYTHON={sys.executable}", "FROZEN_MANIFEST=", "MICROPY_VFS_LFS1=1",
             f"MICROPY_HEAP_SIZE={HEAP}", *MACHINES[arch].options],
            BUILD / "logs" / f"qemu_port-{arch}.log", env=build_environment(trees))
    return folder / "firmware.elf"


def start_script(base: int, files: Mapping[str, bytes]) -> str:
    """For files that lie one behind the other from `base` on."""
    rows, at = [], base
    for name, data in files.items():
        rows.append((name, at, len(data)))
        at += len(data)
    folders = sorted({name.rpartition("/")[0] for name in files} - {""})
    return START.format(disk=-(-at // 4096) * 4096, disk_bytes=DISK_BYTES, folders=folders,
                        files=rows)


def run_script(arch: str, text: str, files: Mapping[str, bytes], folder: Path,
               trees: Trees | None = None) -> str:
    """What a program prints with these files in its file system, path -> content. folder: for what
    QEMU reads. trees: of another MicroPython. Raises RuntimeError with what it printed where it
    ends with an exception."""
    machine, given = MACHINES[arch], {"time.py": NO_CLOCK, **files}
    memory = folder / "memory.bin"
    memory.write_bytes(b"".join(given.values()))
    commands = start_script(machine.memory, given), text, "import machine\nmachine.reset()"
    done = subprocess.run(
        [machine.emulator, *machine.words, "-nographic", "-monitor", "none", "-semihosting",
         "-serial", "stdio", "-kernel", build(arch, trees), "-device",
         f"loader,file={memory},addr={machine.memory:#x},force-raw=on"],
        input=b"\x01" + b"".join(command.encode() + b"\x04" for command in commands),
        capture_output=True, check=False, timeout=TIMEOUT_S)
    return printed(done.stdout.decode(errors="replace") + done.stderr.decode())


def printed(told: str) -> str:
    """What the second command printed. The raw REPL answers each with OK, its output, 4, its error,
    4 and a prompt."""
    parts = told.replace("\r\n", "\n").split("\x04")
    if len(parts) < 4 or parts[1] or parts[3]:
        raise RuntimeError(f"the emulated machine stopped:\n{told}")
    return parts[2].removeprefix(">OK")


def main() -> None:
    for arch in MACHINES:
        say(f"MicroPython's qemu port for {arch}: {build(arch)}")


if __name__ == "__main__":
    run_main(main)
