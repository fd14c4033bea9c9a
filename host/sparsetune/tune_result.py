"""What `sparsetune tune` tells at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .boardspec import BoardSpec
from .errors import SparsetuneError
from .judge import Score
from .monitor import Run, describe_effort

ENDS = 20  # steps that first and last loss are averaged over


@dataclass
class Result:
    """What a run came to. before, after: by LiteRT on the held-out samples. differing: bytes
    in which the trained model's outputs on `checked` training samples differ between board and
    LiteRT, or why that could not be found out. curve: where the losses are drawn, or why not."""

    before: Score
    after: Score
    held_out: int
    run: Run
    step_time: str
    checked: int
    differing: int | SparsetuneError
    output: Path
    log: Path
    curve: str

    def lines(self, spec: BoardSpec) -> list[str]:
        is_known = isinstance(self.differing, int)
        found = f"{self.differing} differing bytes" if is_known else "not compared"
        lines = [
            f"{self.before.name} on {self.held_out} held-out samples (LiteRT): "
            f"{self.before} before, {self.after} after",
            self._loss(),
            f"time: {self.step_time}",
            *self._events(spec),
            f"trained model against LiteRT on {self.checked} samples: {found}",
        ]
        where = [f"trained model: {self.output}", f"log: {self.log}", f"loss curve: {self.curve}"]
        return [*lines, *where, *self._doubts()]

    def _doubts(self) -> Iterator[str]:
        """The last word, as it was all for nothing."""
        if self.after.is_worse_than(self.before):
            yield (
                f"warning: the model got worse, from {self.before} to {self.after} on "
                f"{self.held_out} held-out samples: keep the one that you had, and try a lower "
                "--rate, fewer layers (--last), or more samples"
            )
        elif self.after == self.before and self.before.may_improve:
            yield "warning: the model got no better: try a higher --rate, or more --steps"

    def _loss(self) -> str:
        losses = self.run.losses
        ends = max(1, min(ENDS, len(losses) // 2))
        first, last = np.mean(losses[:ends]), np.mean(losses[-ends:])
        return f"loss: {first:.4f} (first {ends} steps) to {last:.4f} (last {ends})"

    def _events(self, spec: BoardSpec) -> Iterator[str]:
        """What the run told beside its losses."""
        events = self.run.events
        if memory := events.get("mem"):
            yield (
                f"peak memory on the board: {spec.ram_bytes - memory['free']:,} of "
                f"{spec.ram_bytes:,} bytes of RAM, with MicroPython's own {spec.own_bytes:,} (not "
                "counted by --ram and `plan`)"
            )
        if effort := events.get("effort"):
            yield describe_effort(effort)
        if store := events.get("store"):
            yield (
                f"store in flash: {store['columns']:,} columns written; {store['erases']:,} erases "
                f"ever, at most {store['most']:,} of a sector"
            )
        if cache := events.get("cache"):
            yield (
                f"cache of the frozen front: {cache['used']:,} steps began behind it; "
                f"{cache['bytes']:,} bytes written to the file system"
            )
        if self.run.visited:
            yield self.run.visited
