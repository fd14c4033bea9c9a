"""Rewrites of the model that leave its numbers as they are: what converters leave behind and the
board need not do."""

from __future__ import annotations

from collections.abc import Callable

from .graph import Graph

PASSES: tuple[Callable[[Graph], Graph], ...] = ()


def simplify(graph: Graph) -> Graph:
    """The same function of the input, in fewer or simpler operators. Operators and tensors keep
    the numbers that they have in the file."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return graph
