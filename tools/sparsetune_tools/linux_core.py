"""The kernels as a static program of Linux that QEMU runs (tools/xtensa/bare.c): a pipe tells it
what to do. In use as BareCore (bare.py), but that nothing is told of cycles."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from .bare import Called

WRITE, READ, CALL = range(3)
IMAGE_BYTES = 4 << 20
Self = TypeVar("Self", bound="LinuxCore")


class LinuxCore:
    """A running program with the kernels and 16 MB of memory. symbols: its addresses by name."""

    def __init__(self, command: Sequence[str], symbols: Mapping[str, int]) -> None:
        self.symbols = symbols
        self.image = self.symbols["bare_memory"]
        self.image_end = self.data = self.image + IMAGE_BYTES
        self.data_end = self.image + (16 << 20)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

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
