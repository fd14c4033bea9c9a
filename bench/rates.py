"""What learning rates come to, on the twin: python bench/rates.py [TASK...] (docs/DESIGN.md)

Accuracy on held-out samples, the mean of three seeds, of max(200, samples) steps: before, at the
careful guess without samples, at the rule's rate where the search begins, at the rate that is found
by trying (sparsetune.trial), which sees training samples alone, and at the best of a grid.

The networks of Keras are trained here by a Python with TensorFlow (see convert.py); they and those
of ../shared are left out where there is none.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from convert import python_of
from networks import MBV2_MODEL
from runs import DIGITS
from shared_tasks import CIFAR_MODEL, KWS_MODEL, Sets, cifar_task, kws_task, shared_folder
from sparsetune.boardspec import load_spec
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, fit_dataset, load_npz, sample_file
from sparsetune.digits import changed_sets
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.inputs import input_of
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.quantizer import float_model, quantize_model
from sparsetune.rate import suggest_rate
from sparsetune.room import Room
from sparsetune.search.asked import plan_within
from sparsetune.task import task_of
from sparsetune.tflite import parse_tflite
from sparsetune.trial import choose_rate
from sparsetune.twin import Twin
from sparsetune_device.telemetry import parse

GRID = [f"{digit * 10.0**-power:.6f}".rstrip("0") for power in range(5, 0, -1) for digit in (1, 3)]
SEEDS = (1, 2, 3)
HEAD = f"{'task':<22} {'before':>6} {'guess':>18} {'rule':>18} {'tried':>18} {'grid':>18} seconds"


@dataclass
class Task:
    """layers: the last ones that train, 0: what `tune` chooses."""

    name: str
    model: bytes
    train: Dataset
    test: Dataset
    layers: int = 0

    def __post_init__(self) -> None:
        self.graph = parse_tflite(self.model)
        source, self.task = input_of(self.graph), task_of(self.graph)
        self.train = fit_dataset(self.train, source, self.task)
        self.test = fit_dataset(self.test, source, self.task)

    @cached_property
    def plan(self) -> UpdatePlan:
        if self.layers:
            return default_plan(self.graph, self.layers)
        spec = load_spec("pico")
        room = Room(spec, spec.heap_bytes, len(self.train), spec.store_bytes)
        return plan_within(self.graph, room)

    @cached_property
    def image(self) -> bytes:
        in_ram = tuple(replace(layer, slots=0, reach=0) for layer in self.plan.layers)
        return compile_image(self.graph, replace(self.plan, layers=in_ram)).image

    def accuracy(self, rate: str) -> float:
        return float(np.mean([self._accuracy(rate, seed) for seed in SEEDS]))

    def _accuracy(self, rate: str, seed: int) -> float:
        steps, lines = max(200, len(self.train)), []
        with Twin(self.image, sample_file(self.train, self.task)) as twin:
            twin.train(lambda line: None, steps=steps, rate=rate, seed=seed, save_every=0)
            twin.evaluate(lines.append, sample_file(self.test, self.task), trained=True)
        found = parse(lines[-1])[1]
        return found["correct"] / found["total"]


def row(task: Task) -> str:
    """One line of the table."""
    rates = [suggest_rate(task.graph, task.plan, task.model, x) for x in (None, task.train.x)]
    began = time.monotonic()
    rates.append(choose_rate(task.graph, task.plan, task.model, task.train))
    seconds = time.monotonic() - began
    accuracies = [task.accuracy(rate) for rate in ["0", *rates]]
    best, at = max((task.accuracy(rate), rate) for rate in GRID)
    columns = [f"{a:.1%} at {r:>8}" for a, r in zip(accuracies[1:], rates, strict=True)]
    columns.append(f"{best:.1%} at {at:>8}")
    cells = " ".join(f"{column:>18}" for column in columns)
    return f"{task.name:<22} {accuracies[0]:>6.1%} {cells} {seconds:>7.1f}"


def _of_sets(name: str, model: Path, sets: Sets) -> Task:
    train, test = (Dataset(sets[f"x_{part}"], sets[f"y_{part}"]) for part in ("train", "test"))
    return Task(name, model.read_bytes(), train, test)


def photos(path: Path, count: int) -> Dataset:
    """Photos of clothes as int8 [N, 128, 128, 3]."""
    from PIL import Image

    packed = np.load(path)
    files, off = packed["jpeg"], packed["off"]
    chosen = np.random.default_rng(0).permutation(len(packed["y"]))[:count]
    x = [
        np.asarray(Image.open(io.BytesIO(files[off[i] : off[i + 1]].tobytes())).convert("RGB"))
        for i in chosen
    ]
    return Dataset(np.stack(x), packed["y"][chosen])


def clothes(shared: Path, layers: int) -> Task:
    """MobileNetV2 with a new head."""
    parts = [shared / "data" / f"clothing10_128_{name}_dev.npz" for name in ("train", "val")]
    train, test = photos(parts[0], 400), photos(parts[1], 341)
    request = HeadRequest(10, x=train.x)
    model = with_new_head((shared / MBV2_MODEL).read_bytes(), request)
    return Task(f"clothes, last {layers}", model, train, test, layers)


def of_keras(shared: Path) -> Iterator[Task]:
    python = python_of("keras")
    if python is None:
        print("networks of Keras: SKIP: no Python with TensorFlow (docs/CONVERT.md)")
        return
    script = Path(__file__).parent / "converters" / "train_keras.py"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, script, shared, folder], check=True, capture_output=True)
        for path in sorted(Path(folder).glob("*.tflite")):
            samples = path.with_suffix(".npz")
            with np.load(samples) as arrays:
                sets = {name: arrays[name] for name in arrays.files}
            model = quantize_model(float_model(path.read_bytes(), path.stem), sets.pop("x"))
            np.savez(samples, **sets)
            train, test = load_npz(samples)
            assert test is not None
            yield Task(path.stem, model, train, test)


def tasks() -> Iterator[Task]:
    """All that can be had here, one after the other."""
    yield _of_sets("digits", DIGITS, changed_sets())
    shared = shared_folder()
    if shared is None:
        print("the others: SKIP: there is no ../shared")
        return
    kws = shared / KWS_MODEL
    yield _of_sets("KWS, other microphone", kws, kws_task(shared, adapt=300))
    yield _of_sets("KWS, as it was", kws, kws_task(shared, False, adapt=300))
    yield _of_sets("ResNet-8, JPEG", shared / CIFAR_MODEL, cifar_task(shared, 400, 1000))
    yield from (clothes(shared, layers) for layers in (1, 6))
    yield from of_keras(shared)


def main(wanted: list[str]) -> None:
    print(HEAD)
    for task in tasks():
        if not wanted or any(task.name.startswith(name) for name in wanted):
            print(row(task), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
