"""Gives every buffer an offset in one arena, so that buffers alive at once do not overlap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from .program import Buffer, Code, Program

ALIGN = 4


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
    for i, op in enumerate(program.ops):
        begin, end = strips.get(i, (i, i))
        for buffer in op.buffers:
            first.setdefault(buffer, begin)
            last[buffer] = end
    if program.output:
        last[program.output] = max(last[program.output], program.forward - 1)
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


def place(lives: list[Lifetime]) -> int:
    """Sets buffer.offset for all; returns the arena's size in bytes.

    Greedy best of several orders (arXiv 2001.03288, greedy by size): each buffer goes to the
    lowest gap among those alive with it.
    """
    orders = (
        lambda life: (-life.buffer.size, life.first),
        lambda life: (-(life.last - life.first), -life.buffer.size),
        lambda life: (life.first, -life.buffer.size),
        lambda life: (-life.last, -life.buffer.size),
        lambda life: (-life.buffer.size * (life.last - life.first + 1), life.first),
    )
    results = [_place_in_order(sorted(lives, key=order)) for order in orders]
    size, offsets = min(results, key=lambda result: result[0])
    for buffer, offset in offsets.items():
        buffer.offset = offset
    return size


def _place_in_order(lives: list[Lifetime]) -> tuple[int, dict[Buffer, int]]:
    offsets: dict[Buffer, int] = {}
    placed: list[Lifetime] = []
    for life in lives:
        taken = sorted(
            (offsets[other.buffer], offsets[other.buffer] + rounded(other.buffer.size))
            for other in placed
            if life.meets(other)
        )
        offsets[life.buffer] = _lowest_gap(taken, rounded(life.buffer.size))
        placed.append(life)
    return max((offsets[p.buffer] + rounded(p.buffer.size) for p in placed), default=0), offsets


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    offset = 0
    for begin, end in taken:
        if begin - offset >= size:
            break
        offset = max(offset, end)
    return offset
