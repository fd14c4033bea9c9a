"""What `sparsetune quantize` costs the shared float models. Run: python bench/quantize.py [NAME...]

Calibration and judged samples are disjoint. "rarer" is the agreement on the samples for which the
float model has its less frequent answer, where it has but two.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from float_tasks import MODELS, FloatTask, float_task
from shared_tasks import shared_folder
from sparsetune import litert
from sparsetune.compare import Judgement, judge, layer_errors
from sparsetune.errors import SparsetuneError
from sparsetune.quantizer import float_model, load_library, quantize_model
from sparsetune.stored import Stored

HEAD = (
    f"{'model':<7} {'judged':>6} {'accuracy float, int8':>21} {'agreement':>9} {'rarer':>12} "
    f"{'output error':>12} {'seconds':>7}  worst layer"
)


def row(name: str, task: FloatTask) -> str:
    """One line of the table."""
    began = time.time()
    real = float_model(task.model, name)
    small = Stored.of(quantize_model(real, task.x))
    seconds = time.time() - began
    result = judge(real, small, task.held_out)
    worst = layer_errors(real, small, task.held_out.x[:20])[0]
    return (
        f"{name:<7} {result.samples:>6} {_accuracies(result):>21} {_percent(result.agreement):>9} "
        f"{_rarer(real, small, task):>12} {result.error:>12.2%} {seconds:>7.1f}  "
        f"{worst.operator} {worst.kind} {worst.decibels:.1f} dB"
    )


def _accuracies(result: Judgement) -> str:
    if result.accuracies is None:
        return "no labels"
    return ", ".join(f"{share:.2%}" for share in result.accuracies)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _rarer(real: Stored, small: Stored, task: FloatTask) -> str:
    x = task.held_out.x
    wanted = litert.predict(real.data, x, fast=True).reshape(len(x), -1)
    if wanted.shape[1] != 2:
        return "-"
    top = wanted.argmax(axis=1)
    rarer = top == np.bincount(top, minlength=2).argmin()
    got = litert.predict(small.data, small.stored_input(x[rarer])).reshape(rarer.sum(), -1)
    return f"{np.mean(got.argmax(axis=1) == top[rarer]):.1%} of {rarer.sum()}"


def main(names: Iterable[str]) -> None:
    folder = shared_folder()
    if folder is None:
        print("SKIP: there is no ../shared")
        return
    try:
        load_library()
    except SparsetuneError as error:
        print(f"SKIP: {error}")
        return
    print(HEAD)
    for name in names:
        print(row(name, float_task(folder, name)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or MODELS)
