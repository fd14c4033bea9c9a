"""A PTY under a name that no other will ever have, as a board's port.

The kernel gives /dev/pts/N to the next that asks once its board is gone, which may be a test in
another process: a program that waits for the first board would find, and disturb, the second.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import tty
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent


@contextlib.contextmanager
def own_port() -> Iterator[tuple[int, str]]:
    """The board's end of a raw PTY (a descriptor) and the path of the other, until the block's end.

    The other end is open, too: else the PTY ended when the program at it closes it. Where the
    process is killed the path stays: see `remove`.
    """
    master, slave = os.openpty()
    tty.setraw(slave)
    path = Path(tempfile.mkdtemp(prefix="port-")) / "tty"
    path.symlink_to(os.ttyname(slave))
    try:
        yield master, str(path)
    finally:
        remove(str(path))
        os.close(slave)
        os.close(master)


def remove(path: str) -> None:
    """Take the name away, if it is still there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        os.rmdir(os.path.dirname(path))


class StandIn:
    """A program of this folder that stands for a board at a port of its own, until `kill`."""

    def __init__(self, program: str, *arguments: object) -> None:
        command = [sys.executable, TESTS / program, *arguments]
        self.process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()

    def kill(self) -> None:
        """As a cable that is pulled: the name goes first."""
        remove(self.port)
        self.process.kill()
        self.process.wait()
