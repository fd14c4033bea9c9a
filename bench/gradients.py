"""How near our integer gradients are to the float64 reference. Run: python bench/gradients.py

First random models around every operator, then whole models at real samples, layer by layer.
Figures: the worst cosine, as 1 - cosine, and the worst relative error of the length.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pytest
from gradient_cases import CASES, Distance, compare, distances, sweep, train_all
from machine import Machine
from real_models import NAMES, real_model
from sparsetune.tflite import parse_tflite

RANDOM_MODELS = 200
REAL_SAMPLES = 25


class Worst:
    """The worst distance for each key."""

    def __init__(self) -> None:
        self.rows: dict[tuple[object, ...], tuple[float, float]] = {}
        self.loss = 0.0

    def add(self, key: tuple[object, ...], d: Distance) -> None:
        cosine, length = self.rows.get(key, (1.0, 0.0))
        self.rows[key] = min(cosine, d.cosine), max(length, abs(d.length_ratio - 1))

    def show(self, title: str) -> None:
        print(f"\n{title}; worst error of the loss {self.loss:.1e}")
        for key, (cosine, length) in sorted(self.rows.items(), key=str):
            name = " ".join(str(part) for part in key)
            print(
                f"  {name:<34} 1 - cosine {1 - cosine:8.1e}   length off by {100 * length:5.2f} %"
            )


def random_models() -> None:
    for kind in CASES:
        worst = Worst()
        for _, machine, ours, wanted in sweep(kind, RANDOM_MODELS):
            worst.loss = max(worst.loss, abs(ours.loss - wanted.loss))
            for d in distances(machine.graph, ours, wanted):
                if d.kind == kind:
                    worst.add((kind, d.what), d)
        worst.show(f"{kind}: {RANDOM_MODELS} random models")


def whole_model(name: str) -> None:
    task = real_model(name, REAL_SAMPLES)
    graph = parse_tflite(task.model)
    machine, worst = Machine(graph, train_all(graph)), Worst()
    for x, label in zip(task.x, task.y, strict=True):
        ours, wanted = compare(task.model, machine, x, int(label))
        worst.loss = max(worst.loss, abs(ours.loss - wanted.loss))
        for d in distances(graph, ours, wanted):
            worst.add((f"{d.operator:2}", d.kind, d.what), d)
    worst.show(f"{name}: {REAL_SAMPLES} real samples")


def main(names: Iterable[str] = NAMES) -> None:
    random_models()
    for name in names:
        try:
            whole_model(name)
        except pytest.skip.Exception as reason:
            print(f"\n{name}: {reason}")


if __name__ == "__main__":
    main()
