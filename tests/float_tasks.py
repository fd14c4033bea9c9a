"""Float models of ../shared with real samples: some to calibrate with, others to judge by.

Labels where the data have them. The person detector and the fruit model have no data of their own
here; they see photos of clothes, and CIFAR-10's pictures enlarged.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shared_tasks import KWS_DATA, KWS_INPUT_SCALE
from small_models import Array
from sparsetune.data import Dataset

KWS_INPUT_ZERO = 83
MODELS = {
    "vww": "models/mlcommons/vww_96_float.tflite",
    "resnet": "models/mlcommons/pretrainedResnet.tflite",
    "kws": "models/mlcommons/kws_ref_model_float32.tflite",
    "mnv2": "models/mnv2_035_224_float/model_unquant.tflite",
    "ad": "models/mlcommons/ad01_fp32.tflite",
}
# What their makers made int8 of them, with data of their own to calibrate with.
MADE_INT8 = {
    "vww": "models/mlcommons/vww_96_int8.tflite",
    "resnet": "models/mlcommons/pretrainedResnet_quant.tflite",
    "kws": "models/mlcommons/kws_ref_model.tflite",
    "ad": "models/mlcommons/ad01_int8.tflite",
}
CALIBRATION = {"mnv2": 100, "kws": 100, "ad": 96}  # samples; others 200


@dataclass(frozen=True)
class FloatTask:
    """A float model. x: float32 samples to calibrate with. held_out: others."""

    model: bytes
    x: Array
    held_out: Dataset


def float_task(folder: Path, name: str) -> FloatTask:
    """One of MODELS. folder: shared_folder(). Needs Pillow, but for kws and ad."""
    count = CALIBRATION.get(name, 200)
    makers = {"vww": _vww, "resnet": _resnet, "kws": _kws, "mnv2": _mnv2, "ad": _anomalies}
    x, held_out = makers[name](folder, count)
    return FloatTask((folder / MODELS[name]).read_bytes(), x, held_out)


def _kws(folder: Path, count: int) -> tuple[Array, Dataset]:
    data = np.load(folder / KWS_DATA)
    steps = data["x"][..., None].astype(np.float32) - KWS_INPUT_ZERO
    x = steps * np.float32(KWS_INPUT_SCALE)
    order = np.random.default_rng(0).permutation(len(x))
    held = order[count:]
    return x[order[:count]], Dataset(x[held], data["y"][held])


def _resnet(folder: Path, count: int) -> tuple[Array, Dataset]:
    data = np.load(folder / "data/cifar10_lossless_dev.npz")
    chosen = np.linspace(0, len(data["x_train"]) - 1, count).astype(int)
    test = Dataset(data["x_test"].astype(np.float32), data["y_test"])
    return data["x_train"][chosen].astype(np.float32), test


def _vww(folder: Path, count: int) -> tuple[Array, Dataset]:
    x, test = (pictures / np.float32(255) for pictures in _pictures(folder, count, (341, 500), 96))
    return x, Dataset(test, None)


def _mnv2(folder: Path, count: int) -> tuple[Array, Dataset]:
    scale = np.float32(127.5)
    x, test = (pictures / scale - 1 for pictures in _pictures(folder, count, (200, 100), 224))
    return x, Dataset(test, None)


def _pictures(
    folder: Path, count: int, judged: tuple[int, int], size: int
) -> tuple[Array, Array]:
    """`count` pictures to calibrate with, half clothes, half CIFAR-10; others to judge by, so many
    of each."""
    half = count // 2
    x = [_clothes(folder, "train", half, size), _enlarged(folder, "train", half, size)]
    clothes, cifar = judged
    test = [_clothes(folder, "val", clothes, size), _enlarged(folder, "test", cifar, size)]
    return np.concatenate(x), np.concatenate(test)


def _anomalies(folder: Path, count: int) -> tuple[Array, Dataset]:
    """Windows of five frames of one recording; the later ones are held out."""
    file = folder / "data/ad01_normal_id_01_00000000_hist_librosa.bin"
    frames = np.fromfile(file, "<f4").reshape(200, 128)
    x = np.stack([frames[i : i + 5].ravel() for i in range(196)])
    return x[:count], Dataset(x[count + 5 :], None)


def _clothes(folder: Path, part: str, count: int, size: int) -> Array:
    """float32 [count, size, size, 3] in 0..255, evenly spaced in the file."""
    from PIL import Image

    data = np.load(folder / f"data/clothing10_128_{part}_dev.npz")
    packed, offsets = data["jpeg"], data["off"]
    chosen = np.linspace(0, len(offsets) - 2, count).astype(int)
    files = [packed[offsets[i] : offsets[i + 1]].tobytes() for i in chosen]
    return _resized([Image.open(io.BytesIO(f)).convert("RGB") for f in files], size)


def _enlarged(folder: Path, part: str, count: int, size: int) -> Array:
    from PIL import Image

    pictures = np.load(folder / "data/cifar10_lossless_dev.npz")[f"x_{part}"][:count]
    return _resized([Image.fromarray(picture) for picture in pictures], size)


def _resized(pictures: list[object], size: int) -> Array:
    from PIL import Image

    kind = Image.Resampling.BILINEAR
    return np.stack([np.asarray(p.resize((size, size), kind), np.float32) for p in pictures])
