"""Offsets for things that live for a while, so that those alive at once do not overlap and the
whole is as small as can be: greedy first, then by search, which is exact where they are few.

All of it is repeatable: work is counted in placements, not in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SLACKS = (0.0, 0.005, 0.01, 0.02, 0.05)  # above the busiest moment, that a search is content with
WORK = 400_000  # placements tried by a search that looks for some packing, times the spans,
NODES = 1_000  # but not more than this
EXACT_SPANS = 48  # up to so many, one search more tries to find or to rule out any smaller packing
EXACT_NODES = 16_000


@dataclass(frozen=True)
class Span:
    """Something of `size` bytes, alive from moment `first` to moment `last`, inclusive."""

    first: int
    last: int
    size: int

    @property
    def moments(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Packing:
    """An offset for each span, and the bytes that all take together."""

    offsets: tuple[int, ...]
    size: int


def pack(spans: Sequence[Span]) -> Packing:
    """The smallest packing found. None is smaller where it takes no more than the busiest moment,
    nor where spans are few: 16 that have lives of any kind, more as in a network."""
    least = busiest(spans)
    best = _greedy(spans)
    for slack in SLACKS:
        enough = int(least * (1 + slack))
        if best.size <= enough:
            break
        best = _searched(spans, best, enough)
    if best.size > least and len(spans) <= EXACT_SPANS:
        best = _Search(spans, _search_orders(spans)[-1]).run(best, least, EXACT_NODES)
    return best


def busiest(spans: Sequence[Span]) -> int:
    """Bytes alive at the busiest moment: no packing can be smaller."""
    begins = {span.first for span in spans}
    return max((sum(s.size for s in spans if s.first <= t <= s.last) for t in begins), default=0)


# In some order, each at the lowest place --------------------------------------------------------


def _greedy(spans: Sequence[Span]) -> Packing:
    """The best of several orders (arXiv 2001.03288)."""
    everyone = range(len(spans))
    orders = [
        sorted(everyone, key=lambda i: (-spans[i].size, spans[i].first)),
        sorted(everyone, key=lambda i: (-spans[i].moments, -spans[i].size)),
        sorted(everyone, key=lambda i: (spans[i].first, -spans[i].size)),
        sorted(everyone, key=lambda i: (-spans[i].last, -spans[i].size)),
        sorted(everyone, key=lambda i: (-spans[i].size * spans[i].moments, spans[i].first)),
    ]
    return min((_in_order(spans, order) for order in orders), key=lambda packing: packing.size)


def _in_order(spans: Sequence[Span], order: list[int]) -> Packing:
    offsets = [0] * len(spans)
    placed: list[tuple[int, int, int, int]] = []
    for i in order:
        first, last, size = spans[i].first, spans[i].last, spans[i].size
        taken = sorted((at, end) for at, end, f, n in placed if f <= last and first <= n)
        offsets[i] = _lowest_gap(taken, size)
        placed.append((offsets[i], offsets[i] + size, first, last))
    return Packing(tuple(offsets), max((end for _, end, _, _ in placed), default=0))


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    offset = 0
    for begin, end in taken:
        if begin - offset >= size:
            break
        offset = max(offset, end)
    return offset


# By search --------------------------------------------------------------------------------------


def _searched(spans: Sequence[Span], best: Packing, enough: int) -> Packing:
    """A packing of at most `enough` bytes if one is soon found, else `best`. A search hardly comes
    back from a bad start: several orders find more than one in as many times the time."""
    nodes = min(NODES, WORK // len(spans))
    bound = Packing(best.offsets, enough + 1)
    for keys in _search_orders(spans):
        found = _Search(spans, keys).run(bound, enough, nodes)
        if found is not bound:
            return found
    return best


def _search_orders(spans: Sequence[Span]) -> list[list[int]]:
    """First those that take the most room over time, that live longest, that others must fit
    around most."""
    return [
        [-s.size * s.moments for s in spans],
        [-s.moments for s in spans],
        [-sum(o.size for o in spans if o.first <= s.last and s.first <= o.last) for s in spans],
    ]


# Who is placed, its offset, who is left before that, where those placed end at each moment.
Choice: TypeAlias = tuple[int, int, Array, Array]


class _Search:
    """Branch and bound over who has the next higher offset (MiniMalloc, ASPLOS 2023).

    Offsets only rise, so whoever is placed next goes on top of those placed that it meets, and
    what is left lies above them; where it cannot all fit below the best packing known, the branch
    ends. A branch that leaves room below for somebody else is not tried: another one fills it."""

    def __init__(self, spans: Sequence[Span], keys: Sequence[int]) -> None:
        """keys: among spans that could have the same offset, the smallest is tried first."""
        self.sizes = np.array([s.size for s in spans])
        self.keys = np.array(keys)
        moments = sorted({s.first for s in spans})  # it gets busier only where one begins
        self.alive = np.array([[s.first <= t <= s.last for t in moments] for s in spans])
        self.alike = [  # of spans that are alike, one order is enough
            max((j for j in range(i) if spans[j] == s), default=-1) for i, s in enumerate(spans)
        ]

    def run(self, best: Packing, enough: int, nodes: int) -> Packing:
        """A packing smaller than `best`, or `best`. Goes on until it has one of `enough` bytes,
        until there is none, or until `nodes` placements were tried."""
        self.best, self.enough, self.nodes = best, enough, nodes
        count, moments = self.alive.shape
        left, floor = np.ones(count, bool), np.zeros(moments, np.int64)
        self.offsets = np.zeros(count, np.int64)
        branches = [self._choices(left, floor, 0)]  # a stack: there may be too many to recurse
        while branches:
            choice = next(branches[-1], None)
            if choice is None:
                branches.pop()
            else:
                branches.append(self._placed(*choice))
        return self.best

    def _placed(self, i: int, at: int, left: Array, floor: Array) -> Iterator[Choice]:
        """What may come behind i, placed at `at`."""
        self.nodes -= 1
        self.offsets[i] = at
        floor, left = floor.copy(), left.copy()
        floor[self.alive[i]] = at + self.sizes[i]
        left[i] = False
        if left.any():
            return self._choices(left, floor, at)
        size = int((self.offsets + self.sizes).max())
        self.best = Packing(tuple(self.offsets.tolist()), size)
        return iter(())

    def _choices(self, left: Array, floor: Array, lowest: int) -> Iterator[Choice]:
        """Who may come next, for as long as it is worth while. left: whether each is still to be
        placed. floor: where those placed end, at each moment. lowest: the last offset given."""
        index = np.flatnonzero(left)
        alive, sizes = self.alive[index], self.sizes[index]
        at = np.maximum((alive * floor).max(axis=1), lowest)
        # At each moment all that is left and alive lies above the lowest of it.
        above = np.where(alive, at[:, None], np.iinfo(np.int64).max).min(axis=0)
        needed = int((above + sizes @ alive)[alive.any(axis=0)].max())
        first_end = (at + sizes).min()
        for k in np.lexsort((self.keys[index], at)):
            done = self.best.size <= self.enough or self.nodes <= 0
            if done or needed >= self.best.size or at[k] >= first_end:
                return
            twin = self.alike[index[k]]
            if twin < 0 or not left[twin]:
                yield int(index[k]), int(at[k]), left, floor
