"""One run of a comparison on the twin, in a process of its own:

    python -m sparsetune.twin_run REQUEST.json

tells the lines of run_lines.py.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsetune_device.telemetry import parse

from .errors import SparsetuneError
from .run_lines import Progress, last_loss, tell
from .twin import Twin

USUAL = ("start", "at", "epoch", "mem", "saved", "done")  # events that are no result


@dataclass
class TwinRun:
    """image: path. samples: folder with train.dat, and select.dat and test.dat where there are
    any. options: of the device's train(). epoch: its steps. store_bytes: see Twin. counts_right:
    whether an answer is right or wrong."""

    image: str
    samples: str
    options: dict[str, Any]
    epoch: int
    store_bytes: int
    counts_right: bool = True
    folders: list[str] = field(default_factory=list)  # that a user's policy is imported from


class Watcher:
    """Takes the lines of a run: losses, events, and the accuracy after each epoch, which is
    measured when the next one begins, as only then its checkpoint is written."""

    def __init__(self, twin: Twin, judge: Any) -> None:
        self.twin = twin
        self.judge = judge
        self.losses: list[float] = []
        self.digest = hashlib.sha256()
        self.events: dict[str, Any] = {}
        self.curve: list[tuple[int, float]] = []
        self.is_due = False
        self.progress = Progress()

    def line(self, line: str) -> None:
        event = parse(line)
        if event is None:
            return
        if event[0] == "epoch":
            self.is_due = True
        elif event[0] == "step":
            if self.is_due:
                self.look()
            self.losses.append(float(event[1]["loss"]))
            self.digest.update((line.split(",ms:")[0] + "\n").encode())
            self.progress.at(len(self.losses))
        elif event[0] not in USUAL:
            self.events[event[0]] = event[1]

    def look(self) -> None:
        self.is_due = False
        found = self.judge("select.dat")
        if found is not None:
            self.curve.append((len(self.losses), found))


def do(request: TwinRun) -> dict[str, Any]:
    """The record of a run: curve of the held-out accuracy (share; of other losses the mean loss,
    less than zero), that on the test samples, losses, events, seconds of the processor."""
    sys.path[:0] = request.folders
    samples = Path(request.samples)
    image = Path(request.image).read_bytes()
    began = time.process_time()
    with Twin(image, samples / "train.dat", request.store_bytes) as twin:

        def judge(name: str) -> float | None:
            path = samples / name
            return score(twin, path, request.counts_right) if path.exists() else None

        watcher = Watcher(twin, judge)
        twin.train(watcher.line, save_every=request.epoch, **request.options)
        watcher.look()
        seconds = time.process_time() - began
        return {
            "curve": watcher.curve,
            "test": judge("test.dat"),
            "steps": len(watcher.losses),
            "loss": last_loss(watcher.losses),
            "lines": watcher.digest.hexdigest()[:24],
            "events": watcher.events,
            "cpu_seconds": seconds,
        }


def score(twin: Twin, samples: Path, counts_right: bool, trained: bool = True) -> float:
    """Share of right answers; where there is no right and wrong, the mean loss, less than zero."""
    lines: list[str] = []
    twin.evaluate(lines.append, samples, trained)
    event = parse(lines[-1])
    assert event
    found = event[1]
    if counts_right:
        return float(found["correct"] / found["total"])
    return -float(found["loss"]) / 65536


def main(path: str) -> int:
    try:
        tell(result=do(TwinRun(**json.loads(Path(path).read_text()))))
    except (SparsetuneError, ValueError, MemoryError) as error:
        tell(error=" ".join(str(error).split()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
