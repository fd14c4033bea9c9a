"""Gives every buffer an offset in one arena, so that buffers alive at once do not overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

from .packing import Span, pack
from .program import Buffer, Code, Flag, Program

ALIGN = 4
# Operators whose second operand is read many times over, and how many times, as a guess.
READS_AGAIN = (
    *(Code.CONV2D, Code.DEPTHWISE_CONV2D, Code.FULLY_CONNECTED),
    *(Code.CONV2D_GRAD_INPUT, Code.DEPTHWISE_CONV2D_GRAD_INPUT),
)
READ_AGAIN = 8


@dataclass(frozen=True)
class Lifetime:
    """A buffer and the first and last operator that use it (inclusive)."""

    buffer: Buffer
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def lifetimes(program: Program) -> list[Lifetime]:
    """Lifetime of every buffer of a program. The input is written before the first operator, the
    output read behind the last one of the forward pass."""
    strips = _strips(program)
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    if program.input:
        first[program.input] = 0
    if program.target:
        first[program.target] = 0
    for i, op in enumerate(program.ops):
        begin, end = strips.get(i, (i, i))
        for buffer in op.buffers:
            first.setdefault(buffer, begin)
            last[buffer] = end
    if program.output:  # which may be the input, of a model that only renames it
        last[program.output] = max(last.get(program.output, 0), program.forward - 1)
    return [Lifetime(buffer, first[buffer], last[buffer]) for buffer in last]


def _strips(program: Program) -> dict[int, tuple[int, int]]:
    """Operator -> the first and last operator of the strip that it is part of: those run side by
    side, so that all of their buffers are alive all the time."""
    found: dict[int, tuple[int, int]] = {}
    for i, op in enumerate(program.ops):
        if op.code == Code.STRIP:
            count = op.words[0]
            assert isinstance(count, int)
            found.update((j, (i, i + count)) for j in range(i, i + count + 1))
    return found


def rounded(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN


def lower_bound(lives: list[Lifetime]) -> int:
    """Bytes of the largest set of buffers alive at once: no arena can be smaller."""
    return max(live_bytes(lives), default=0)


def live_bytes(lives: list[Lifetime]) -> list[int]:
    """Bytes alive at each operator of the program."""
    changes = [0] * (max((life.last for life in lives), default=-1) + 2)
    for life in lives:
        changes[life.first] += rounded(life.buffer.size)
        changes[life.last + 1] -= rounded(life.buffer.size)
    return list(accumulate(changes))[:-1]


def grow_scratch(program: Program) -> None:
    """Gives scratch the room that its operator leaves below the arena's peak."""
    lives = lifetimes(program)
    live = live_bytes(lives)
    peak = max(live, default=0)
    for life in lives:
        while_it_lives = live[life.first : life.last + 1]
        room = peak - max(while_it_lives)
        more = min(life.buffer.wanted - life.buffer.size, room) // ALIGN * ALIGN
        if more > 0:
            life.buffer.size += more
            live[life.first : life.last + 1] = [size + more for size in while_it_lives]
    mark_two_rows(program)


def mark_two_rows(program: Program) -> None:
    """Says which operators got all of the rows that they wanted, one for each core."""
    for i, op in enumerate(program.ops):
        rows = [b for b in op.buffers if b.wanted and b.name.startswith("row")]
        if rows and rows[0].size >= rows[0].wanted:
            program.ops[i] = replace(op, flags=op.flags | Flag.TWO_ROWS)


def place(lives: list[Lifetime]) -> int:
    """Sets buffer.offset for all; returns the arena's size in bytes."""
    packing = pack([Span(life.first, life.last, rounded(life.buffer.size)) for life in lives])
    for life, offset in zip(lives, packing.offsets, strict=True):
        life.buffer.offset = offset
    return packing.size


# Two kinds of memory --------------------------------------------------------------------------


def place_in_two(
    program: Program, lives: list[Lifetime], fast_bytes: int | None
) -> tuple[int, int]:
    """As place, but what goes beyond fast_bytes lies in an arena of slower memory: (bytes of the
    fast arena, bytes of the slow one). None: all is fast.

    Of the buffers at the peak the one goes that is touched least for the room it takes.
    """
    touched = _bytes_touched(program)
    # Python writes and reads these at known places.
    fixed = {program.input, program.output, program.target}
    while True:
        hot = [life for life in lives if not life.buffer.is_cold]
        movable = [life for life in hot if life.buffer not in fixed and life.buffer.size > 0]
        is_last = fast_bytes is None or not movable
        if is_last or lower_bound(hot) <= (fast_bytes or 0):  # else packing is not worth its time
            fast = place(hot)
            if is_last or fast <= (fast_bytes or 0):
                return fast, place([life for life in lives if life.buffer.is_cold])
        at_peak = _alive_at_peak(hot, movable) or [life.buffer for life in movable]
        coldest = min(at_peak, key=lambda b: (touched[b] / b.size, -b.size))
        coldest.is_cold = True


def _alive_at_peak(hot: list[Lifetime], movable: list[Lifetime]) -> list[Buffer]:
    sizes = live_bytes(hot)
    peak = sizes.index(max(sizes))
    return [life.buffer for life in movable if life.first <= peak <= life.last]


def _bytes_touched(program: Program) -> dict[Buffer, int]:
    """Bytes that a step reads and writes of each buffer, roughly: a convolution reads its input
    once for each tap and block of outputs, everything else what it names once."""
    touched: dict[Buffer, int] = {}
    for op in program.ops:
        for i, word in enumerate(op.words):
            if isinstance(word, Buffer):
                again = READ_AGAIN if op.code in READS_AGAIN and i == 1 else 1
                touched[word] = touched.get(word, 0) + again * word.size
    return touched
