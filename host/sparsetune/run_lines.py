"""What a run of a comparison tells, in lines of JSON that jobs.py reads: `{"steps": N}` on its way,
`{"result": ...}` or `{"error": ...}` at its end. twin_run.py and float_run.py tell the same; the
latter's Python has torch, and may have little else."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

TOLD_EVERY = 0.5  # seconds
LAST = 256  # samples that the last loss is averaged over


def tell(**told: Any) -> None:
    """Ends the run where nobody listens any more: then its comparison was killed."""
    try:
        print(json.dumps(told), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


class Progress:
    """Tells steps that are done, not too often."""

    def __init__(self) -> None:
        self.told = 0.0

    def at(self, steps: int) -> None:
        now = time.monotonic()
        if now - self.told > TOLD_EVERY:
            self.told = now
            tell(steps=steps)


def last_loss(losses: Sequence[float], batch: int = 1) -> float:
    """The mean over the last steps, of so many samples each."""
    ends = losses[-max(1, LAST // batch) :]
    return sum(ends) / len(ends)
