"""Runs chains of the frozen front row by row, so that large maps between them never exist whole.

A chain is a run of convolutions and poolings, each read by the next one alone. Fused, the map
between two of them shrinks to a window of the rows that the next one reads at a time; nothing is
computed twice (MCUNetV2's patches, 2110.15352, compute their halos again), and the outputs are the
same bit for bit. It costs moving the rows that two neighbouring windows share.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from .arena import Lifetime, lifetimes, live_bytes, rounded
from .program import Buffer, Code, Const, Flag, Op, Program

MAX_STAGES = 8  # ulab_kernels/run_strip.c
FUSABLE = (Code.CONV2D, Code.DEPTHWISE_CONV2D, Code.AVG_POOL, Code.MAX_POOL)


@dataclass(frozen=True)
class Stage:
    """An operator that can be run by rows, and the LOOKUP in place behind it, if there is one. The
    sizes are those of its geometry; bytes."""

    first: int  # in the program
    last: int
    x: Buffer
    y: Buffer
    takes: tuple[int, ...]  # rows, columns, channels of its input
    makes: tuple[int, ...]
    span: int  # rows of the input that one row of the output reads
    stride: int  # rows of the input from one row of the output to the next

    @property
    def in_h(self) -> int:
        return self.takes[0]

    @property
    def row(self) -> int:
        """Bytes of a row of its input."""
        return self.takes[1] * self.takes[2]

    @property
    def window(self) -> int:
        """Rows of the input that must be in memory."""
        return min(self.span, self.in_h)

    def follows(self, before: Stage) -> bool:
        """Whether it reads the map that the stage just before it makes: a RESHAPE between them may
        have cut it into other rows."""
        same_map = before.y is self.x and before.makes == self.takes
        return before.last == self.first - 1 and same_map


def fuse_front(program: Program) -> None:
    """Turns chains into strips: those that make the least arena the program can have smallest,
    and among such choices the one that moves the fewest bytes.

    A strip's memory does not depend on what else is fused, so the program is cut into chains and
    single operators by dynamic programming, twice: for the peak, then for the moves.
    """
    lives = lifetimes(program)
    single = [Cut([], size, 0) for size in live_bytes(lives)]
    longer = [Cut(chain, _bytes_of(lives, chain), _moves(chain)) for chain in chains(program)]
    peak = _best_cuts(single, longer, lambda total, cut: (max(total[0], cut.bytes), 0))[0]
    fitting = [cut for cut in longer if cut.bytes <= peak[0]]
    cuts = _best_cuts(
        [cut if cut.bytes <= peak[0] else None for cut in single],
        fitting,
        lambda total, cut: (total[0] + cut.moves, total[1] + len(cut.chain)),
    )[1]
    for cut in reversed(cuts):
        fuse(program, cut.chain)


@dataclass(frozen=True)
class Cut:
    """A chain, or (chain empty) one operator as it is. bytes: alive while it runs. moves: bytes
    moved between its windows."""

    chain: list[Stage]
    bytes: int
    moves: int


Total: TypeAlias = tuple[int, int]


def _best_cuts(
    single: Sequence[Cut | None], longer: list[Cut], add: Callable[[Total, Cut], Total]
) -> tuple[Total, list[Cut]]:
    """The cheapest way through the program: (its cost, its chains). single[i]: operator i alone,
    None where it may not be."""
    ending: dict[int, list[Cut]] = {}
    for cut in longer:
        ending.setdefault(cut.chain[-1].last, []).append(cut)
    best: list[tuple[Total, list[Cut]] | None] = [((0, 0), [])]
    for at, alone in enumerate(single):
        choices = [(best[at], alone)] if alone else []
        choices += [(best[cut.chain[0].first], cut) for cut in ending.get(at, [])]
        ways = [
            (add(before[0], cut), before[1] + [cut] if cut.chain else before[1])
            for before, cut in choices
            if before
        ]
        best.append(min(ways, key=lambda way: way[0], default=None))
    assert best[-1]  # every operator alone is a way, and at the second time the first one's is
    return best[-1]


def chains(program: Program) -> Iterator[list[Stage]]:
    """All chains of two to MAX_STAGES stages."""
    readers = _readers(program)
    chain: list[Stage] = []
    for stage in _stages(program):
        before = chain[-1] if chain else None
        linked = before and stage.follows(before)
        if not before or not linked or readers[before.y] != 1 + before.last - before.first:
            chain = []
        if before and before.y is program.output:
            chain = []
        chain = [*chain, stage]
        for length in range(2, min(len(chain), MAX_STAGES) + 1):
            yield chain[-length:]


def _stages(program: Program) -> Iterator[Stage]:
    """Every operator that can be one, in order."""
    ops = program.ops[: program.forward]
    for at, op in enumerate(ops):
        stage = _stage(at, op)
        if stage and at + 1 < len(ops) and _is_lookup_in(ops[at + 1], stage.y):
            stage = replace(stage, last=at + 1)
        if stage:
            yield stage


def _is_lookup_in(op: Op, buffer: Buffer) -> bool:
    return op.code == Code.LOOKUP and not op.flags and op.words[1] is op.words[-1] is buffer


def _readers(program: Program) -> dict[Buffer, int]:
    """How many operators beside the one that makes it name a buffer."""
    counts: dict[Buffer, int] = {}
    for op in program.ops:
        for buffer in set(op.buffers):
            counts[buffer] = counts.get(buffer, -1) + 1
    return counts


def _stage(at: int, op: Op) -> Stage | None:
    if op.code not in FUSABLE or op.flags:
        return None
    geometry, x, y = op.words[0], op.words[1], op.words[-1]
    if op.code == Code.MAX_POOL and op.words[2] is not None:
        return None  # its gradient needs the whole map
    if not (isinstance(geometry, Const) and isinstance(x, Buffer) and isinstance(y, Buffer)):
        return None
    sizes = struct.unpack_from("<6i", geometry.data)
    kernel_h, _, stride_h, _, dilation_h = struct.unpack_from("<5i", geometry.data, 24)
    span = (kernel_h - 1) * dilation_h + 1
    return Stage(at, at, x, y, sizes[:3], sizes[3:], span, stride_h)


def _bytes_of(lives: list[Lifetime], chain: list[Stage]) -> int:
    """Bytes alive while the chain runs as a strip."""
    first, last = chain[0].first, chain[-1].last
    windows = {stage.x: stage.row * stage.window for stage in chain[1:]}
    return sum(
        rounded(windows.get(life.buffer, life.buffer.size))
        for life in lives
        if life.first <= last and first <= life.last
    )


def _moves(chain: list[Stage]) -> int:
    """Bytes that the chain's windows move: what one row of a stage and the next both read."""
    return sum(
        max(0, stage.window - stage.stride) * stage.row * (stage.in_h // stage.stride)
        for stage in chain[1:]
    )


def fuse(program: Program, chain: list[Stage]) -> None:
    """Turns one chain into a strip; the buffers between its stages become windows."""
    first, last = chain[0].first, chain[-1].last
    windows = [stage.window for stage in chain[1:]]
    for stage, rows in zip(chain[1:], windows, strict=True):
        stage.x.size = stage.row * rows
    head = Op(
        Code.STRIP,
        (last + 1 - first, len(chain), Const(struct.pack(f"<{len(windows)}i", *windows))),
        source=program.ops[first].source,
    )
    inside = [replace(op, flags=op.flags | Flag.IN_STRIP) for op in program.ops[first : last + 1]]
    program.ops[first : last + 1] = [head, *inside]
    program.forward += 1
