"""All cores: parts of a task at once. Threads do, because what takes long is C that lets go of
Python's lock: our kernels, and LiteRT's."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

SMALLEST = 8  # samples that are worth a thread

T = TypeVar("T")


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parts(count: int, work: Callable[[range], T]) -> list[T]:
    """work(part) for parts that together are range(count), each in a thread of its own; the results
    in the order of the parts. Raises what the first part that fails raises."""
    parts = max(1, min(core_count(), count // SMALLEST))
    ranges = [range(count * i // parts, count * (i + 1) // parts) for i in range(parts)]
    if parts == 1:
        return [work(ranges[0])]
    with ThreadPoolExecutor(parts) as threads:
        return list(threads.map(work, ranges))
