"""Training runs that tests and benches share: a task, an image, and the twin or a board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shared_tasks
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.digits import changed_sets
from sparsetune.graph import Graph
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.image import Image, parse_image
from sparsetune.kept import with_kept
from sparsetune.plan import UpdatePlan, default_plan, leave_in_flash, with_patches
from sparsetune.push import push_file, push_rom
from sparsetune.tflite import read_tflite
from sparsetune.transfer import BOARD_TRAINED, pull_checkpoint
from sparsetune.trial import choose_rate
from sparsetune.twin import STORE_BYTES, Twin
from sparsetune_device.telemetry import parse

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "host" / "sparsetune" / "models" / "digits_int8.tflite"
CKPT = BOARD_TRAINED


@dataclass(frozen=True)
class Task:
    """A model with data and a plan, compiled. options: of the device's train()."""

    name: str
    model: Path
    graph: Graph
    image: Image
    train: Dataset
    test: Dataset
    options: dict[str, Any]

    @property
    def samples(self) -> bytes:
        return self._file(self.train)

    @property
    def held_out(self) -> bytes:
        return self._file(self.test)

    def _file(self, data: Dataset) -> bytes:
        return sample_file(data, self.image.task)


def make_task(
    model: Path, sets: dict[str, Any], plan: Callable[[Graph], UpdatePlan], **options: Any
) -> Task:
    graph = read_tflite(model)
    image = parse_image(compile_image(graph, plan(graph)).image)
    train = Dataset(sets["x_train"], sets["y_train"])
    test = Dataset(sets["x_test"], sets["y_test"])
    return Task(model.stem, model, graph, image, train, test, options)


def digits_task(steps: int = 40, seed: int = 1, residual: bool = False) -> Task:
    """The demo's task."""
    options = {"steps": steps, "rate": "0.02", "seed": seed, "policy": "random"}
    return make_task(
        DIGITS, changed_sets(seed), lambda g: default_plan(g, 6, residual=residual), **options
    )


def kws_task(shared: Path, steps: int = 200, seed: int = 1) -> Task:
    """Keyword spotting through another microphone, with the plan and the rate that a user gets:
    the samples to adapt with decide, the held-out ones have no say."""
    model, sets = shared / shared_tasks.KWS_MODEL, shared_tasks.kws_task(shared)
    graph = read_tflite(model)
    train = Dataset(sets["x_train"], sets["y_train"])
    rate = choose_rate(graph, default_plan(graph, 6), model.read_bytes(), train)
    options = {"steps": steps, "rate": rate, "seed": seed, "policy": "cyclic"}
    return make_task(model, sets, lambda g: default_plan(g, 6), **options)


def kws_in_patches_task(shared: Path, weights_only: bool = False, steps: int = 100) -> Task:
    """The same with gradients over patches of its maps, those of weights alone, which read codes,
    or both."""
    task = kws_task(shared, steps)
    sets = {"x_train": task.train.x, "y_train": task.train.y}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    plan = default_plan(task.graph, 6)
    plan = with_kept(task.graph, plan, 10) if weights_only else with_patches(task.graph, plan, 2)
    assert sum(layer.patch > 1 for layer in plan.layers) == 5
    assert any(layer.weights_only for layer in plan.layers) == weights_only
    return make_task(task.model, sets, lambda g: plan, **task.options)


def kws_in_flash_task(shared: Path, steps: int = 20) -> Task:
    """The same with its large layers left in flash, and channels that take turns in RAM."""
    task = kws_task(shared, steps)
    sets = {"x_train": task.train.x, "y_train": task.train.y}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    plan = leave_in_flash(task.graph, default_plan(task.graph, 6, 0.25), STORE_BYTES)
    assert any(layer.reach for layer in plan.layers)
    return make_task(task.model, sets, lambda g: plan, **{**task.options, "hold": 1})


def cifar_task(shared: Path, steps: int = 20, seed: int = 1) -> Task:
    """ResNet-8 on CIFAR-10 photos that went through JPEG."""
    options = {"steps": steps, "rate": "0.002", "seed": seed, "policy": "cyclic"}
    model = shared / shared_tasks.CIFAR_MODEL
    sets = shared_tasks.cifar_task(shared)
    cut = {**sets, "x_train": sets["x_train"][:100], "y_train": sets["y_train"][:100]}
    return make_task(model, cut, lambda g: default_plan(g, 4), **options)


def vww_task(shared: Path, steps: int = 5) -> Task:
    """Visual wake words on the photos of its golden file; the labels are made up."""
    model = shared / "models" / "mlcommons" / "vww_96_int8.tflite"
    x = np.load(shared / "golden" / "litert_ref__mlcommons__vww_96_int8.npz")["x"]
    y = np.arange(len(x)) % 2
    sets = {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2]}
    options = {"steps": steps, "rate": "0.005", "seed": 1, "policy": "cyclic"}
    return make_task(model, sets, lambda g: default_plan(g, 6), **options)


def mobilenet_v2_task(shared: Path, folder: Path, steps: int = 5) -> Task:
    """MobileNetV2-w0.35 at 128 x 128 with a new head of ten classes, on the clothes of its golden
    file. folder: for the model with that head."""
    name = "mobilenet_v2_w0.35_128_int8"
    source = shared / "models" / "tiny_training" / f"{name}.tflite"
    x = np.load(shared / "golden" / f"litert_ref__tiny_training__{name}.npz")["x"][:4]
    model = folder / "clothes.tflite"
    model.write_bytes(with_new_head(source.read_bytes(), HeadRequest(10, x=x)))
    y = np.arange(len(x)) % 10
    sets = {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2]}
    options = {"steps": steps, "rate": "0.005", "seed": 1, "policy": "cyclic"}
    return make_task(model, sets, lambda g: default_plan(g, 6), **options)


def equal_runs(port: str, task: Task) -> list[str]:
    """The board's lines of a run whose telemetry and checkpoint are the twin's."""
    twin_lines, twin_checkpoint = twin_train(task)
    with Board.connect(port) as board:
        lines, checkpoint = board_train(board, task)
    assert len(losses(lines)) == task.options["steps"]
    assert telemetry(lines) == telemetry(twin_lines)
    assert checkpoint == twin_checkpoint
    return lines


def losses(lines: list[str]) -> list[str]:
    """Step lines without their time."""
    return [line.split(",ms:")[0] for line in lines if line.startswith("loss:")]


def events(lines: list[str], kind: str) -> list[dict[str, Any]]:
    """Fields of all events of a kind."""
    parsed = [parse(line) for line in lines]
    return [fields for event, fields in filter(None, parsed) if event == kind]


def outputs(lines: list[str]) -> bytes:
    """The raw outputs that evaluate(outputs=True) told, one after the other."""
    return b"".join(bytes.fromhex(fields["hex"][1:]) for fields in events(lines, "output"))


def telemetry(lines: list[str]) -> list[str]:
    """All that twin and board must agree on: no times, no memory, no paths."""
    told = [line for line in lines if not line.startswith(("#mem", "#saved"))]
    return [line.split(",ms:")[0] for line in told]


def twin_train(task: Task) -> tuple[list[str], bytes]:
    """(lines, checkpoint) of the run on the twin."""
    lines: list[str] = []
    with Twin(task.image.data, task.samples) as twin:
        return lines, twin.train(lines.append, **task.options)


def push(board: Board, task: Task) -> None:
    push_rom(board, {"model.img": task.image.data})
    for earlier in (CKPT, f"{CKPT}.old"):  # of other tests: the file system is small
        if board.has_file(earlier):
            board.remove_file(earlier)
    push_file(board, "/sparsetune/train.dat", task.samples)


def board_call(board: Board, function: str, data: str, **options: Any) -> list[str]:
    """Runs train or evaluate on the board from a fresh start; returns its lines."""
    words = "".join(f", {name}={value!r}" for name, value in options.items())
    lines: list[str] = []
    board.stream(
        f"from sparsetune_device.main import {function}\n"
        f"{function}('/rom/model.img', {data!r}{words})",
        lines.append,
    )
    return lines


def board_train(board: Board, task: Task) -> tuple[list[str], bytes]:
    """(lines, checkpoint) of the run on a board."""
    push(board, task)
    lines = board_call(board, "train", "/sparsetune/train.dat", save_to=CKPT, **task.options)
    return lines, pull_checkpoint(board)


def board_outputs(board: Board, samples: bytes, checkpoint: str | None = None) -> bytes:
    """Raw outputs of the board's model for other samples."""
    push_file(board, "/sparsetune/check.dat", samples)
    lines = board_call(
        board, "evaluate", "/sparsetune/check.dat", checkpoint=checkpoint, outputs=True
    )
    board.remove_file("/sparsetune/check.dat")
    return outputs(lines)


def as_int8(data: bytes) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.frombuffer(data, np.int8)
