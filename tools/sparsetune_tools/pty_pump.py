"""A pseudo-terminal that stands for a board's USB serial port.

Bytes go both ways between the PTY and a socket without loss: each side is read only while there is
room for what it says. What the board says while no program has the port open is dropped, as a
serial port drops it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import tty
from collections.abc import Callable
from pathlib import Path

ROOM = 65536
PIECE = 4096
CLOSED_POLL_MS = 5
MASTER_EVENTS = select.POLLIN | select.POLLHUP


def open_port() -> tuple[int, str]:
    """A raw PTY: its master's descriptor and the path that programs open."""
    master, slave = os.openpty()
    tty.setraw(slave)
    path = os.ttyname(slave)
    os.close(slave)
    os.set_blocking(master, False)
    return master, path


def point_link(link: Path, target: str) -> None:
    """Let a symbolic link point to a new target in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    part = link.with_name(f"{link.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


class PtyPump:
    """Moves bytes between a fresh PTY and `board`, in a thread of its own, until `close`."""

    def __init__(self, board: socket.socket) -> None:
        self.master, self.path = open_port()
        self.board = board
        board.setblocking(False)
        self.to_board = b""
        self.to_client = b""
        self.opened = False
        self.board_talks = True
        self.wake_read, self.wake_write = os.pipe()
        self.thread = threading.Thread(target=self._run, name="pty-pump", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Pull the cable: programs that have the port open see it vanish."""
        os.write(self.wake_write, b"x")
        self.thread.join()
        for descriptor in (self.master, self.wake_read, self.wake_write):
            os.close(descriptor)

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        ready = self._wait()
        if self.wake_read in ready:
            return False
        self._see_master(ready.get(self.master, 0))
        self._read_board(ready.get(self.board.fileno(), 0))
        self._write_both()
        return True

    def _wait(self) -> dict[int, int]:
        """Events per descriptor; without a program at the port, the PTY is looked at in turns."""
        poller = select.poll()
        poller.register(self.wake_read, select.POLLIN)
        reading = select.POLLIN if len(self.to_client) < ROOM else 0
        writing = select.POLLOUT if self.to_board else 0
        if self.board_talks:
            poller.register(self.board, reading | writing)
        if self.opened:
            hearing = select.POLLIN if len(self.to_board) < ROOM else 0
            poller.register(self.master, hearing | (select.POLLOUT if self.to_client else 0))
        events = dict(poller.poll(None if self.opened else CLOSED_POLL_MS))
        if not self.opened:
            asked = select.poll()
            asked.register(self.master, MASTER_EVENTS)
            events.update(asked.poll(0))
        return events

    def _see_master(self, event: int) -> None:
        """Take what a program wrote; notice programs that come and go."""
        if event & select.POLLIN and len(self.to_board) < ROOM:
            self._read_master()
        self.opened = not event & select.POLLHUP
        if not self.opened:
            self.to_client = b""

    def _read_master(self) -> None:
        try:
            self.to_board += os.read(self.master, ROOM)
        except OSError:  # EIO: the last program closed the port in this very moment
            pass

    def _read_board(self, event: int) -> None:
        if not event & select.POLLIN:
            return
        try:
            said = self.board.recv(ROOM)
        except OSError:
            return
        if not said:  # the emulator ended
            self.board_talks = False
        if self.opened:
            self.to_client += said

    def _write_both(self) -> None:
        if self.to_board:
            self.to_board = self.to_board[self._try(self.board.send, self.to_board):]
        if self.to_client:
            sent = self._try(lambda data: os.write(self.master, data), self.to_client)
            self.to_client = self.to_client[sent:]

    @staticmethod
    def _try(write: Callable[[bytes], int], data: bytes) -> int:
        """How many bytes could be written right now."""
        try:
            return write(data[:PIECE])
        except OSError:
            return 0
