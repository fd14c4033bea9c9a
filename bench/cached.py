"""An epoch on the twin with and without the cached prefix.

    python bench/cached.py [--samples N] [--plan NAME] [--residual] [--repeats N]
    python bench/cached.py --emulated

CIFAR-10 as JPEGs (the training file alone), enlarged to 128 x 128, MobileNetV2-w0.35@128 int8 with
a new head of 10 classes, MCUNetV3's published 100 KB scheme (MbV2-99), one core; other plans beside
it. ms of a step are processor time, so that what others do on this machine has little part in
them, and the least of --repeats runs; the seconds of the epoch are by the clock. The bars: an epoch
of 20,000 within 4 minutes, and 3 times as fast from the second one on. --residual: with 8 more bits
of each trained weight.
--emulated: KWS on the emulated Pico, whole steps, one core.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import runs
import sparsetune_kernels as kernels
from emulated import FIRMWARE
from schemes import MBV2_99, published
from shared_tasks import CIFAR_DATA, Features, shared_folder
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.graph import Graph
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.image import Image, parse_image
from sparsetune.plan import UpdatePlan, default_plan, load_plan
from sparsetune.tflite import parse_tflite
from sparsetune.twin import Twin
from sparsetune_device.engine import RATE, Engine
from sparsetune_device.image import Image as DeviceImage
from sparsetune_device.schedule import parse_rate
from sparsetune_tools.emulated_pico import EmulatedPico

MODEL = "models/tiny_training/mobilenet_v2_w0.35_128_int8.tflite"
RATE_TEXT, SIDE, SEED, REPEATS = "0.002", 128, 1, 30
FEW = 32  # samples on the emulated Pico
# Within 100 KB as MbV2-99 (analytic.py), less deep. later: biases of the last 19 convolutions, all
# weights of 33, 36, 39, 45 and 48 and half of 42, counted from 0; latest: of 16, and from 36 on.
RESULTS = Path(__file__).parent / "results"
PLANS: dict[str, Callable[[Graph], UpdatePlan]] = {
    "MbV2-99": lambda graph: published(graph, MBV2_99),
    "later": lambda graph: load_plan(RESULTS / "later-99.json"),
    "latest": lambda graph: load_plan(RESULTS / "latest-96.json"),
    "last 6, half": lambda graph: default_plan(graph, 6),
    "last 2, half": lambda graph: default_plan(graph, 2),
    "head": lambda graph: default_plan(graph, 1),
}


def enlarged(folder: Path, count: int) -> Dataset:
    """The first images of a random order; int8 = pixel - 128."""
    from PIL import Image as Picture

    data = np.load(folder / CIFAR_DATA.format("train"))
    packed, offsets, labels = data["jpeg"], data["off"], data["y"]
    chosen = np.random.default_rng(SEED).permutation(len(labels))[:count]
    x: Features = np.empty((len(chosen), SIDE, SIDE, 3), np.int8)
    for at, i in enumerate(chosen):
        photo = Picture.open(io.BytesIO(packed[offsets[i] : offsets[i + 1]].tobytes()))
        large = photo.convert("RGB").resize((SIDE, SIDE), Picture.Resampling.BILINEAR)
        x[at] = (np.asarray(large).astype(np.int16) - 128).astype(np.int8)
    return Dataset(x, labels[chosen])


@dataclass(frozen=True)
class Epoch:
    """ms: of a step, processor time. seconds: of the epoch, by the clock."""

    ms: float
    seconds: float


def epochs(twin: Twin, samples: int, count: int, cache: int) -> list[Epoch]:
    """What each epoch of a run took."""
    marks: list[tuple[float, float]] = []

    def on_line(line: str) -> None:
        if line.startswith(("#start", "#epoch")):
            marks.append((time.process_time(), time.perf_counter()))

    options = {"steps": count * samples, "rate": RATE_TEXT, "save_every": 0, "discard": True}
    twin.train(on_line, cache=cache, **options)
    pairs = zip(marks, marks[1:], strict=False)
    return [Epoch(1000 * (b[0] - a[0]) / samples, b[1] - a[1]) for a, b in pairs]


def fastest(begin: Callable[[], Twin], options: tuple[int, int, int], repeats: int) -> list[Epoch]:
    """Of each epoch, that of the run in which it took the least of the processor. begin: a twin
    without a cache. options: of epochs."""
    found = []
    for _ in range(repeats):
        with begin() as twin:
            found.append(epochs(twin, *options))
    return [min(same, key=lambda epoch: epoch.ms) for same in zip(*found, strict=True)]


def kernels_ms(image: Image, data: Dataset) -> dict[str, float]:
    """Of the parts of a step, the shortest of many runs."""
    engine = Engine(DeviceImage(image.data))
    struct.pack_into("<Ii", engine.state, RATE, *parse_rate(RATE_TEXT))
    buffers = (engine.image.data, engine.state, engine.arena, engine.cold, engine.store)
    loss = engine.image.loss_ops
    spans = {"front": (0, image.cut_at), "rest, forward": (image.cut_at, loss),
             "backward and updates": (loss, image.ops)}  # fmt: skip
    best = dict.fromkeys(spans, 1e9)
    for i in range(REPEATS):
        engine.sample[:] = data.x[i % len(data)].tobytes()
        for name, span in spans.items():
            begin = time.perf_counter()
            kernels.run(*buffers, *span, 1)
            best[name] = min(best[name], 1000 * (time.perf_counter() - begin))
    return best


def measure(
    name: str, graph: Graph, plan: UpdatePlan, data: Dataset, file: Path, repeats: int
) -> Iterator[str]:
    layout = compile_image(graph, plan, RATE_TEXT)
    image = parse_image(layout.image)
    samples = len(data)
    begin = partial(Twin, image.data, file)
    plain = fastest(begin, (samples, 1, 0), repeats)[0]
    filling, cached = fastest(begin, (samples, 2, samples), repeats)
    size = samples * (8 + image.cut_bytes)
    yield (
        f"{name}: {image.cut_at} of {image.ops} operators lie in front, {image.cut_bytes:,} bytes "
        f"cross; a cache of {samples:,} samples has {size:,} bytes"
    )
    for title, epoch in (("without", plain), ("filling", filling), ("with", cached)):
        yield f"  {title:<8} {epoch.ms:.3f} ms a step, {epoch.seconds:.1f} s an epoch by the clock"
    parts = kernels_ms(image, data)
    told = ", ".join(f"{part} {ms:.3f}" for part, ms in parts.items())
    python = cached.ms - parts["rest, forward"] - parts["backward and updates"]
    yield f"  {plain.ms / cached.ms:.2f} times as fast; kernels, ms: {told}; all else {python:.3f}"


def emulated(folder: Path) -> Iterator[str]:
    """Medians over the steps of an epoch of FEW samples."""
    task = runs.kws_task(folder)
    sets = {"x_train": task.train.x[:FEW], "y_train": task.train.y[:FEW]}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    with tempfile.TemporaryDirectory() as place:
        flash = Path(place) / "flash.bin"
        with EmulatedPico(FIRMWARE, flash) as pico, Board.connect(pico.port) as board:
            for last in (1, 4, 6):
                few = runs.make_task(
                    task.model, sets, lambda graph, last=last: default_plan(graph, last),
                    **{**task.options, "steps": 2 * FEW, "cores": 1},
                )  # fmt: skip
                plain = step_ms(board, few)
                few.options["cache"] = FEW
                cached = step_ms(board, few)
                figures = [float(np.median(ms)) for ms in (plain, cached[:FEW], cached[FEW:])]
                yield (
                    f"KWS, last {last}: {few.image.cut_bytes:,} bytes cross; emulated ms a step: "
                    "without {:.1f}, filling {:.1f}, with {:.1f}".format(*figures)
                )


def step_ms(board: Board, task: runs.Task) -> list[float]:
    lines = runs.board_train(board, task)[0]
    return [float(line.split("ms:")[1]) for line in lines if line.startswith("loss:")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--plan", choices=list(PLANS), action="append")
    parser.add_argument("--residual", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--emulated", action="store_true")
    options = parser.parse_args()
    folder = shared_folder()
    if folder is None:
        print("SKIP: there is no ../shared")
        return
    if options.emulated:
        for line in emulated(folder):
            print(line, flush=True)
        return
    data = enlarged(folder, options.samples)
    model = with_new_head((folder / MODEL).read_bytes(), HeadRequest(10, x=data.x[:64]))
    graph = parse_tflite(model)
    task = parse_image(compile_image(graph, PLANS["head"](graph)).image).task
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "train.dat"
        file.write_bytes(sample_file(data, task))
        for name in options.plan or PLANS:
            plan = replace(PLANS[name](graph), residual=options.residual)
            for line in measure(name, graph, plan, data, file, options.repeats):
                print(line, flush=True)


if __name__ == "__main__":
    main()
