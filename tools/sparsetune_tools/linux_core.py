"""The kernels as a static program of Linux that QEMU runs (tools/xtensa/bare.c): a pipe tells it
what to do. In use as BareCore (bare.py), but that nothing is told of cycles."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from .bare import Called
from .core_process import CoreProcess

WRITE, READ, CALL = range(3)
IMAGE_BYTES = 4 << 20


class LinuxCore(CoreProcess[bytes]):
    """A running program with the kernels and 16 MB of memory. symbols: its addresses by name."""

    def __init__(self, command: Sequence[str], symbols: Mapping[str, int]) -> None:
        self.symbols = symbols
        self.image = self.symbols["bare_memory"]
        self.image_end = self.data = self.image + IMAGE_BYTES
        self.data_end = self.image + (16 << 20)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write(self, address: int, data: bytes) -> None:
        self._tell(WRITE, address, len(data), data=data)

    def read(self, address: int, count: int) -> bytes:
        return self._ask(READ, address, count)

    def call(self, name: str, *arguments: int) -> Called:
        answer = self._ask(CALL, self.symbols[name], 4, *arguments)
        return Called(struct.unpack("<i", answer)[0], 0)

    def _tell(self, kind: int, address: int, count: int, *rest: int, data: bytes = b"") -> None:
        assert self.process.stdin
        words = [kind, address, count, *rest, *[0] * (4 - len(rest))]
        try:
            self.process.stdin.write(struct.pack("<7I", *words) + data)
            self.process.stdin.flush()
        except BrokenPipeError:
            self._stopped()

    def _ask(self, kind: int, address: int, count: int, *rest: int) -> bytes:
        assert self.process.stdout
        self._tell(kind, address, count, *rest)
        answer = self.process.stdout.read(count)
        if len(answer) < count:
            self._stopped()
        return answer

    def _stopped(self) -> None:
        raise RuntimeError(f"the emulated core stopped: exit status {self.process.wait()}")


class CountingLinuxCore(LinuxCore):
    """Counts the kernels' instructions in every call; they repeat to one or two. QEMU runs one
    instruction at a time and writes a line for each, half a million a second. where: ranges of
    addresses, as -dfilter has them."""

    def __init__(self, emulator: Sequence[str], elf: Path, symbols: Mapping[str, int],
                 where: str) -> None:
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        self.counted = 0  # bytes of the log
        options = (one_at_a_time(emulator[0]), "-d", "exec,nochain", "-D", str(self.log),
                   "-dfilter", where)
        super().__init__([*emulator, *options, str(elf)], symbols)

    def __exit__(self, *rest: object) -> None:
        super().__exit__(None, None, None)
        self.log.unlink()

    def call(self, name: str, *arguments: int) -> Called:
        called = super().call(name, *arguments)
        return replace(called, instructions=self._new_lines())

    def _new_lines(self) -> int:
        """And takes them off the disk: the log goes on where it was."""
        count = 0
        with self.log.open("r+b") as file:
            file.seek(self.counted)
            while part := file.read(1 << 20):
                count += part.count(b"\n")
                self.counted += len(part)
            os.ftruncate(file.fileno(), 0)
        return count


@cache
def one_at_a_time(emulator: str) -> str:
    """The option, which has another name from QEMU 8.1 on."""
    told = subprocess.run([emulator, "-h"], capture_output=True, text=True, check=False).stdout
    return "-one-insn-per-tb" if "one-insn-per-tb" in told else "-singlestep"
