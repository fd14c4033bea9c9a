"""The best choice within limits, exactly: a small integer program (HiGHS, by scipy).

One depth is chosen, and of each layer that it reaches at most one part. Every limit is a row: what
the depth takes and what the parts take together are no more than what is there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ..graph import Array


@dataclass(frozen=True)
class Row:
    """Of each depth and each part what it takes; their sum is at most limit. once: what is taken
    where any of some parts is (their numbers), however many of them. name: of what is taken."""

    depths: Array
    parts: Array
    limit: float
    once: tuple[tuple[tuple[int, ...], float], ...] = ()
    name: str = "RAM"


@dataclass(frozen=True)
class Problem:
    """depths, parts: what each is worth. layers: of each part its layer, counted from the output,
    which a depth of that many layers reaches. needed: layers of which a part must be chosen. rows:
    limits."""

    depths: Array
    parts: Array
    layers: tuple[int, ...]
    rows: tuple[Row, ...]
    needed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Choice:
    """depth: how many layers. parts: numbers of those that were chosen. value: what it is worth, or
    the amount where that was to be small."""

    depth: int
    parts: tuple[int, ...]
    value: float


def best(problem: Problem) -> Choice | None:
    """The choice that is worth most within all limits; None where there is none."""
    return _solve(problem, -np.concatenate([problem.depths, problem.parts]), None)


def least(problem: Problem, rows: tuple[Row, ...]) -> Choice | None:
    """The choice for which the largest of these rows is smallest, within the problem's limits."""
    return _solve(problem, np.zeros(len(problem.depths) + len(problem.parts)), rows)


def _solve(problem: Problem, cost: Array, smallest: tuple[Row, ...] | None) -> Choice | None:
    """Variables: depths, parts, one for each `once`, and the amount of the rows to be small."""
    depths, parts = len(problem.depths), len(problem.parts)
    rows = (*problem.rows, *(smallest or ()))
    once = tuple(dict.fromkeys(numbers for row in rows for numbers, _ in row.once))
    size = depths + parts + len(once) + (smallest is not None)
    matrix, upper = _matrix(rows, once, size, len(problem.rows) if smallest else len(rows))
    structure, low, high = _structure(problem, once, size)
    whole = np.ones(size)
    bounds = np.ones(size)
    costs = np.concatenate([cost, np.zeros(size - depths - parts)])
    if smallest is not None:
        whole[-1], bounds[-1], costs[-1] = 0, np.inf, 1
    constraints = [LinearConstraint(csr_array(structure), low, high)]
    if len(matrix):
        constraints.append(LinearConstraint(csr_array(matrix), -np.inf, upper))
    with _silence():
        found = milp(
            costs, integrality=whole, bounds=Bounds(0, bounds), constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )  # fmt: skip
    if found.x is None:
        return None
    chosen = np.round(found.x[: depths + parts]).astype(int)
    value = float(found.fun) if smallest is not None else -float(found.fun)
    return Choice(
        1 + int(np.argmax(chosen[:depths])), tuple(np.flatnonzero(chosen[depths:]).tolist()), value
    )


@contextmanager
def _silence() -> Iterator[None]:
    """HiGHS writes a line of its own to file 1 now and then, past Python; where that is no
    terminal, into C's buffer."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        with suppress(OSError, TypeError, AttributeError):  # not everywhere is C's library so found
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _matrix(
    rows: tuple[Row, ...], once: tuple[tuple[int, ...], ...], size: int, limited: int
) -> tuple[Array, Array]:
    """The rows from `limited` on are at most the last variable. Scaled, so that tolerances are
    the same for bytes and cycles."""
    matrix, upper = np.zeros((len(rows), size)), np.zeros(len(rows))
    for i, row in enumerate(rows):
        taken = np.concatenate([row.depths, row.parts])
        matrix[i, : len(taken)] = taken
        for numbers, amount in row.once:
            matrix[i, len(taken) + once.index(numbers)] = amount
        upper[i] = row.limit
        if i >= limited:
            matrix[i, -1], upper[i] = -1, 0
    return matrix, upper


def _structure(
    problem: Problem, once: tuple[tuple[int, ...], ...], size: int
) -> tuple[Array, Array, Array]:
    """One depth; of each layer one part at most, and none that the depth does not reach; what is
    taken once is taken where one of its parts is."""
    depths = len(problem.depths)
    lines = [_line(size, range(depths))]
    low, high = [1.0], [1.0]
    for layer in sorted(set(problem.layers)):
        own = [depths + i for i, of in enumerate(problem.layers) if of == layer]
        line = _line(size, own)
        line[layer - 1 : depths] -= 1
        lines.append(line)
        low.append(-np.inf)
        high.append(0.0)
        if layer in problem.needed:
            lines.append(_line(size, own))
            low.append(1.0)
            high.append(1.0)
    first = depths + len(problem.parts)
    for number, parts in enumerate(once):
        for part in parts:
            line = _line(size, [depths + part])
            line[first + number] = -1
            lines.append(line)
            low.append(-np.inf)
            high.append(0.0)
    return np.array(lines), np.array(low), np.array(high)


def _line(size: int, ones: range | list[int]) -> Array:
    line = np.zeros(size)
    line[list(ones)] = 1
    return line
