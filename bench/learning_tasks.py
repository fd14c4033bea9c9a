"""The tasks of bench/learning.py, each a model and an .npz as `sparsetune tune` takes them, made of
../shared once and kept in build/learning."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from emulated import ROOT  # and the path to tests
from networks import MBV2_MODEL
from shared_tasks import CIFAR_DATA, KWS_DATA, KWS_MODEL
from sparsetune.data import load_npz
from sparsetune.files import write_whole
from sparsetune.head import HeadRequest, with_new_head

FOLDER = ROOT / "build" / "learning"
SIDE = 128  # pixels, of photos as the network takes them
CLASSES = 10
KWS_TEST = 100  # of the 500 samples

Sets = dict[str, Any]


@dataclass(frozen=True)
class LearningTask:
    """name: of its folder, too. sets: the arrays of its .npz. model: in ../shared; it gets a new
    head of so many classes, where that is not 0."""

    name: str
    sets: Callable[[Path], Sets]
    model: str
    classes: int = 0

    def files(self, shared: Path) -> tuple[Path, Path]:
        """(model, samples), made where they are not there yet."""
        model, samples = FOLDER / f"{self.name}.tflite", FOLDER / f"{self.name}.npz"
        if not samples.exists():
            packed = io.BytesIO()
            np.savez(packed, **self.sets(shared))
            write_whole(samples, packed.getbuffer())
        if not model.exists():
            write_whole(model, self._model(shared, samples))
        return model, samples

    def _model(self, shared: Path, samples: Path) -> bytes:
        model = (shared / self.model).read_bytes()
        if not self.classes:
            return model
        return with_new_head(model, HeadRequest(self.classes, x=load_npz(samples)[0].x))


def photos(path: Path) -> tuple[Any, Any]:
    """(uint8 [N, 128, 128, 3], labels) of packed JPEGs; smaller ones are enlarged (bilinear)."""
    from PIL import Image

    packed = np.load(path)
    files, off, y = packed["jpeg"], packed["off"], packed["y"]
    x = np.empty((len(y), SIDE, SIDE, 3), np.uint8)
    for i in range(len(y)):
        photo = Image.open(io.BytesIO(files[off[i] : off[i + 1]].tobytes())).convert("RGB")
        if photo.size != (SIDE, SIDE):
            photo = photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        x[i] = np.asarray(photo)
    return x, y.astype(np.uint8)


def _of_photos(names: tuple[str, str]) -> Callable[[Path], Sets]:
    def sets(shared: Path) -> Sets:
        (x_train, y_train), (x_test, y_test) = (photos(shared / name) for name in names)
        return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}

    return sets


def keywords(shared: Path) -> Sets:
    """The 500 samples in two, by chance but for good."""
    data = np.load(shared / KWS_DATA)
    order = np.random.default_rng(0).permutation(len(data["x"]))
    x, y = data["x"][..., None][order], data["y"].astype(np.uint8)[order]
    train, test = slice(KWS_TEST, None), slice(KWS_TEST)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


TASKS = {
    task.name: task
    for task in (
        LearningTask(
            "cifar",
            _of_photos((CIFAR_DATA.format("train"), CIFAR_DATA.format("test"))),
            MBV2_MODEL,
            CLASSES,
        ),
        LearningTask(
            "clothing",
            _of_photos(("data/clothing10_128_train_dev.npz", "data/clothing10_128_val_dev.npz")),
            MBV2_MODEL,
            CLASSES,
        ),
        LearningTask("kws", keywords, KWS_MODEL),
    )
}
