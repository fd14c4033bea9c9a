"""Lines for a host that may have stopped listening: training must not wait for it.

MicroPython's print waits half a second for each piece that the host does not take, and then drops
it without a word.
"""

import sys
import time

from .telemetry import event_line

FULL = 256  # bytes that the USB port takes when nothing waits; of a longer line the rest follows
PATIENCE_MS = 50  # a host that listens takes what waits much sooner
LAST_PATIENCE_MS = 2000  # for all of a run's last lines: there is no step to hold up


class Teller:
    """Prints lines, but drops those that the host does not take, waiting once and not for each.
    How many is told as soon as it listens again, as event `lost`."""

    def __init__(self, room, write=print):
        """room: a function that gives the bytes that `write` takes without waiting."""
        self._room = room
        self._write = write
        self._lines = 0  # lost since the host listened last
        self._steps = 0  # of them
        self._end = None  # until then the last lines may wait

    def __call__(self, line):
        """Tell one line."""
        if self._lines and self._has_room(FULL):
            self._tell_lost()
        if self._lines or not self._has_room(len(line) + 2):
            self._lines += 1
            self._steps += not line.startswith("#")
        else:
            self._write(line)

    def _tell_lost(self):
        line = event_line("lost", lines=self._lines, steps=self._steps)
        self._lines = self._steps = 0
        self._write("\n" + line)  # of the line before it the end may be missing

    def _has_room(self, size):
        size = min(size, FULL)
        end = self._end or time.ticks_add(time.ticks_ms(), 0 if self._lines else PATIENCE_MS)
        while self._room() < size:
            if time.ticks_diff(end, time.ticks_ms()) <= 0:
                return False
            time.sleep_ms(1)  # USB moves on in there
        return True

    def last_lines(self):
        """What is told from here on may be waited for."""
        self._end = time.ticks_add(time.ticks_ms(), LAST_PATIENCE_MS)


def open_teller():
    """A Teller to the terminal, where the firmware tells how much that takes; else print."""
    room = _find_room() if hasattr(time, "ticks_ms") else None
    return Teller(room) if room else print


def _find_room():
    try:
        import sparsetune_link

        return sparsetune_link.room
    except ImportError:
        return _room_of_stdout()


def _room_of_stdout():
    """Of stock firmware: it only tells whether there is room for a byte. The first line for which
    that is not enough is waited for, and fills the port; after that there is no room at all."""
    import select

    poll = select.poll()
    try:
        poll.register(sys.stdout, select.POLLOUT)
    except (OSError, TypeError):
        return None

    def room():
        for _ in poll.ipoll(0):
            return FULL
        return 0

    return room
