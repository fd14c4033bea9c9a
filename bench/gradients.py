"""How near our integer gradients are to the float64 reference. Run: python bench/gradients.py

First random models around every operator (tests/gradient_cases.py): how many, how many tensors'
gradients, the worst cosine (as 1 - cosine) and the worst relative error of a length among them
(where sums nearly cancel, as in the bias of a layer with one channel), and the bytes that a
training step touched though they were not its own, in 16 of the models, with each alignment from 0
to 15. Then whole models at real samples, layer by layer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pytest
from gradient_cases import CASES, Distance, compare, distances, draw, sweep, train_all
from guards import Job, guarded
from machine import Machine
from real_models import NAMES, real_model
from sparsetune.tflite import parse_tflite

RANDOM_MODELS = 200
REAL_SAMPLES = 25


class Worst:
    """The worst distance among those that were added."""

    def __init__(self) -> None:
        self.tensors, self.cosine, self.length = 0, 1.0, 0.0

    def add(self, d: Distance) -> None:
        self.tensors += 1
        self.cosine = min(self.cosine, d.cosine)
        self.length = max(self.length, abs(d.length_ratio - 1))

    def __str__(self) -> str:
        return f"{1 - self.cosine:10.1e} {100 * self.length:8.2f} %"


def random_models() -> None:
    print(f"{'operator':<26} {'cases':>5} {'tensors':>7} 1 - cosine length off guards touched")
    total = Worst()
    for case in CASES:
        worst, touched = Worst(), touched_in(case)
        for _, machine, ours, wanted in sweep(case, RANDOM_MODELS):
            for d in distances(machine.graph, ours, wanted):
                worst.add(d)
                total.add(d)
        print(f"{case:<26} {RANDOM_MODELS:5} {worst.tensors:7} {worst} {touched:14}")
    print(f"{'all':<26} {RANDOM_MODELS * len(CASES):5} {total.tensors:7} {total}")


def touched_in(case: str) -> int:
    """Bytes that were touched and must not be."""
    found = 0
    for shift in range(16):
        drawn = draw(case, shift)
        job = Job(drawn.graph, train_all(drawn.graph), drawn.x, drawn.target)
        found += sum(touched for _, touched in guarded(job, shift))
    return found


def whole_model(name: str) -> None:
    task = real_model(name, REAL_SAMPLES)
    graph = parse_tflite(task.model)
    machine, loss = Machine(graph, train_all(graph)), 0.0
    rows: dict[tuple[int, str, str], Worst] = {}
    for x, label in zip(task.x, task.y, strict=True):
        ours, wanted = compare(task.model, machine, x, int(label))
        loss = max(loss, abs(ours.loss - wanted.loss))
        for d in distances(graph, ours, wanted):
            rows.setdefault((d.operator, d.kind, d.what), Worst()).add(d)
    print(f"\n{name}: {REAL_SAMPLES} real samples; worst error of the loss {loss:.1e}")
    for (operator, kind, what), worst in sorted(rows.items()):
        print(f"  {operator:2} {kind:<20} {what:<10} {worst}")


def main(names: Iterable[str] = NAMES) -> None:
    random_models()
    for name in names:
        try:
            whole_model(name)
        except pytest.skip.Exception as reason:
            print(f"\n{name}: {reason}")


if __name__ == "__main__":
    main()
