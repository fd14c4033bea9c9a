"""The one exception that sparsetune shows to its user, and what it doubts."""

from collections.abc import Iterable


class SparsetuneError(Exception):
    """What is wrong and what to do about it, in one line. more: where there are several things to
    do, a line for each.

    The command line prints it as `sparsetune: error: <message>` and exits with status 1.
    """

    def __init__(self, message: str, *more: str) -> None:
        super().__init__(message)
        self.more = more


def warn(doubts: Iterable[str]) -> None:
    """Say what can be done, but will hardly be meant; a line each, among those of progress."""
    for doubt in doubts:
        print(f"warning: {doubt}", flush=True)
