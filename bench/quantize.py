"""What `sparsetune quantize` costs the shared float models. Run: python bench/quantize.py [NAME...]

Calibration and judged samples are disjoint. Each row names its bar: at most a point less of
accuracy where there are labels, else the same answer for 95 %. The autoencoder has no answer and no
bar. "rarer" is the agreement on the samples for which the float model has its less frequent answer,
where it has but two. The last columns are the int8 model that the makers of the float one made of
it, on the same samples.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from float_tasks import MADE_INT8, MODELS, FloatTask, float_task
from shared_tasks import shared_folder
from sparsetune import litert
from sparsetune.compare import Judgement, judge, layer_errors
from sparsetune.errors import SparsetuneError
from sparsetune.quantizer import float_model, load_library, quantize_model
from sparsetune.stored import Stored

LEAST_AGREEMENT, MOST_POINTS = 0.95, 1.0
HEAD = (
    f"{'model':<7} {'judged':>6} {'accuracy float, int8':>20} {'agreement':>9} {'rarer':>12} "
    f"{'error':>6} {'seconds':>7}  {'bar':<32} {'makers: accuracy':>16} {'agreement':>9} "
    f"{'error':>6}  worst layer"
)


def row(name: str, task: FloatTask, made: Path | None) -> str:
    """One line of the table. made: an int8 model to compare with."""
    began = time.time()
    real = float_model(task.model, name)
    small = Stored.of(quantize_model(real, task.x))
    seconds = time.time() - began
    result = judge(real, small, task.held_out)
    worst = layer_errors(real, small, task.held_out.x[:20])[0]
    made_result = judge(real, Stored.of(made.read_bytes()), task.held_out) if made else None
    return (
        f"{name:<7} {result.samples:>6} {_accuracies(result):>20} {_percent(result.agreement):>9} "
        f"{_rarer(real, small, task):>12} {result.error:>6.2%} {seconds:>7.1f}  "
        f"{_bar(result):<32} {_made(made_result)}  "
        f"{worst.operator} {worst.kind} {worst.decibels:.1f} dB"
    )


def _bar(result: Judgement) -> str:
    if result.accuracies is not None:
        lost = 100 * (result.accuracies[0] - result.accuracies[1])
        return f"{lost:.2f} of <= 1 point lost: {_verdict(lost <= MOST_POINTS)}"
    if result.agreement is not None:
        return f"agreement >= 95 %: {_verdict(result.agreement >= LEAST_AGREEMENT)}"
    return "none"


def _verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def _made(result: Judgement | None) -> str:
    if result is None:
        return f"{'-':>16} {'-':>9} {'-':>6}"
    accuracy = None if result.accuracies is None else result.accuracies[1]
    return f"{_percent(accuracy):>16} {_percent(result.agreement):>9} {result.error:>6.2%}"


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
        made = folder / MADE_INT8[name] if name in MADE_INT8 else None
        print(row(name, float_task(folder, name), made), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or MODELS)
