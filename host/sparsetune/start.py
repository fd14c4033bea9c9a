"""Where the command `sparsetune` begins: Ctrl-C is one line while the rest is imported, too."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> int:
    """Returns the exit status."""
    # A handler, as an exception would be lost in modules that take any for a missing package.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from .cli import main as command

    signal.signal(signal.SIGINT, before)
    return command()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"sparsetune: interrupted\n")
    os._exit(130)
