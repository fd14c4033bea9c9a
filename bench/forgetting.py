"""What a model forgets that learns a second task, with and without earlier samples among the new.

    python bench/forgetting.py [SEEDS]

Task A, then task B from its checkpoint, on the twin and as the board would do it: the run on A
leaves some of its samples (`keep`), the run on B takes them in a share of its steps (`replay`).
Accuracy on held-out samples of both, mean and range over the seeds; these have no say in anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import shared_tasks
from cached import MODEL, SIDE
from shared_tasks import shared_folder
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.graph import Graph
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.image import Image, parse_image
from sparsetune.plan import default_plan
from sparsetune.tflite import parse_tflite
from sparsetune.trial import choose_rate
from sparsetune.twin import Twin
from sparsetune_device.telemetry import parse

# (kept samples, percent of the steps); 0: nothing against forgetting.
WAYS = ((0, 0), (20, 25), (100, 25), (100, 50), (400, 50))


@dataclass(frozen=True)
class Pair:
    """Two tasks that one model learns, the second one behind the first. epochs: of each."""

    name: str
    model: bytes
    first: tuple[Dataset, Dataset]
    second: tuple[Dataset, Dataset]
    last: int
    epochs: int


def halves(folder: Path, seed: int) -> Pair:
    """MobileNetV2 with a new head: five classes of CIFAR-10, then the other five."""
    sets = shared_tasks.cifar_task(folder, 2400, 1000, seed)
    model = (folder / MODEL).read_bytes()
    parts = []
    for low in (0, 5):
        pair = []
        for kind in ("train", "test"):
            x, y = sets[f"x_{kind}"], sets[f"y_{kind}"]
            mine = (y >= low) & (y < low + 5)
            pair.append(Dataset(large(x[mine]), y[mine]))
        parts.append((pair[0], pair[1]))
    model = with_new_head(model, HeadRequest(10, x=parts[0][0].x[:64]))
    return Pair("CIFAR-10, classes 0-4 then 5-9", model, parts[0], parts[1], 3, 1)


def large(x: shared_tasks.Features) -> shared_tasks.Features:
    from PIL import Image as Picture

    pixels = (x.astype(np.int16) + 128).astype(np.uint8)
    size, how = (SIDE, SIDE), Picture.Resampling.BILINEAR
    made = np.stack([np.asarray(Picture.fromarray(p).resize(size, how)) for p in pixels])
    return (made.astype(np.int16) - 128).astype(np.int8)


def microphones(folder: Path, seed: int) -> Pair:
    """Keyword spotting: the microphone that the model knows, then another one."""
    parts = []
    for shifted in (False, True):
        sets = shared_tasks.kws_task(folder, shifted, seed)
        pair = [Dataset(sets[f"x_{kind}"], sets[f"y_{kind}"]) for kind in ("train", "test")]
        parts.append((pair[0], pair[1]))
    model = (folder / shared_tasks.KWS_MODEL).read_bytes()
    return Pair("KWS, one microphone then another", model, parts[0], parts[1], 6, 3)


TASKS: tuple[Callable[[Path, int], Pair], ...] = (halves, microphones)


def accuracy(twin: Twin, image: Image, data: Dataset, trained: bool) -> float:
    lines: list[str] = []
    twin.evaluate(lines.append, sample_file(data, image.task), trained)
    event = parse(lines[-1])
    assert event
    return 100 * float(event[1]["correct"]) / len(data)


def run(pair: Pair, image: Image, rate: str, way: tuple[int, int], seed: int) -> list[float]:
    """Accuracy on A before, behind A, behind B; on B behind B."""
    keep, share = way
    first, second = (sample_file(half[0], image.task) for half in (pair.first, pair.second))
    steps = pair.epochs * len(pair.first[0])
    how = {"rate": rate, "seed": seed, "schedule": "constant", "save_every": 0, "keep": keep}
    with Twin(image.data, first) as twin:
        found = [accuracy(twin, image, pair.first[1], False)]
        twin.train(lambda line: None, steps=steps, **how)
        found.append(accuracy(twin, image, pair.first[1], True))
        (twin.path / "train.dat").write_bytes(second)
        steps += pair.epochs * len(pair.second[0])
        twin.train(lambda line: None, steps=steps, resume=True, replay=share, **how)
        for half in (pair.first, pair.second):
            found.append(accuracy(twin, image, half[1], True))
    return found


def table(make: Callable[[Path, int], Pair], folder: Path, seeds: int) -> Iterator[str]:
    pairs = [make(folder, seed) for seed in range(seeds)]
    graph: Graph = parse_tflite(pairs[0].model)
    plan = default_plan(graph, pairs[0].last)
    rate = choose_rate(graph, plan, pairs[0].model, pairs[0].first[0])
    image = parse_image(compile_image(graph, plan, rate).image)
    stored = "tensors" if 0 < image.cut_bytes < image.input_bytes else "samples"
    each = min(image.cut_bytes or 1 << 30, image.input_bytes)
    yield f"{pairs[0].name}: rate {rate}, epochs {pairs[0].epochs}, {stored} of {each:,} bytes"
    yield f"{'kept':>6} {'share':>6} {'A before':>9} {'A':>7} {'A after B':>20} {'B':>20}"
    for keep, share in WAYS:
        runs = [run(p, image, rate, (keep, share), seed + 1) for seed, p in enumerate(pairs)]
        before, learnt, after, second = np.array(runs).T
        ends = " ".join(f"{v.mean():>7.1f} ({v.min():.1f}-{v.max():.1f})" for v in (after, second))
        yield f"{keep:>6} {share:>5}% {before.mean():>9.1f} {learnt.mean():>7.1f} {ends}"


def main(seeds: int) -> None:
    folder = shared_folder()
    if folder is None:
        print("SKIP: there is no ../shared")
        return
    for make in TASKS:
        for line in table(make, folder, seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
