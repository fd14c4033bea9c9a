"""Real tasks from the shared models and data, for tests and benches.

The folder is named by SPARSETUNE_SHARED, else it is `../shared` beside the project. A clone has
none: then `shared_folder()` is None, and the callers SKIP.

A task is a dict of x_train, y_train, x_test, y_test: int8 images or features as the model takes
them, uint8 labels.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Sets = dict[str, npt.NDArray[Any]]
Features = npt.NDArray[np.int8]

KWS_MODEL = "models/mlcommons/kws_ref_model.tflite"
CIFAR_MODEL = "models/mlcommons/pretrainedResnet_quant.tflite"
KWS_DATA = "data/kws01_mfcc_dev.npz"
CIFAR_DATA = "data/cifar10_jpeg_{}_dev.npz"

# The fixed shift of the KWS task: a microphone 18 dB less sensitive, behind a cover that damps
# what lies above 1 kHz by 12 dB an octave (two first-order low-passes).
MICROPHONE_GAIN_DB = -18.0
MICROPHONE_CUTOFF_HZ = 1000.0
MICROPHONE_ORDER = 2

# How MLPerf Tiny makes its features: 40 mel bands from 20 to 4000 Hz, natural log, DCT-II.
MEL_BANDS, MEL_LOW_HZ, MEL_HIGH_HZ, COEFFICIENTS = 40, 20.0, 4000.0, 10
KWS_INPUT_SCALE = 0.5847029  # of kws_ref_model: real = scale * (q - 83)


def shared_folder() -> Path | None:
    """The folder with the shared models and data, or None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SPARSETUNE_SHARED", beside))
    return folder if (folder / KWS_MODEL).is_file() else None


def kws_task(folder: Path, shifted: bool = True, seed: int = 0, adapt: int = 400) -> Sets:
    """Keyword spotting, x int8 [N, 49, 10, 1]: `adapt` of 500 to adapt with, the rest held out.

    With `shifted`, all samples are heard through the other microphone.
    """
    data = np.load(folder / KWS_DATA)
    x: Features = through_microphone(data["x"]) if shifted else data["x"]
    order = np.random.default_rng(seed).permutation(len(x))
    return _sets(x[..., None], data["y"], order[:adapt], order[adapt:])


def through_microphone(x: Features) -> Features:
    """KWS features [..., 10] as the other microphone gives them, saturated to int8.

    A filter multiplies the spectrum, so it adds to its logarithm, and so it adds a constant to
    each cepstral coefficient: the shift is one fixed vector.
    """
    steps = np.rint(microphone_offset() / KWS_INPUT_SCALE).astype(int)
    return np.clip(x.astype(int) + steps, -128, 127).astype(np.int8)


def microphone_offset() -> npt.NDArray[np.float64]:
    """What the microphone adds to the ten coefficients, in the features' real units."""
    edges = np.linspace(_mel(MEL_LOW_HZ), _mel(MEL_HIGH_HZ), MEL_BANDS + 2)
    hertz = 700 * np.expm1(edges[1:-1] / 1127)
    damping = 0.5 * MICROPHONE_ORDER * np.log1p((hertz / MICROPHONE_CUTOFF_HZ) ** 2)
    log_gain = np.log(10) / 20 * MICROPHONE_GAIN_DB - damping
    bands = np.arange(MEL_BANDS) + 0.5
    cosines = np.cos(np.pi / MEL_BANDS * np.outer(np.arange(COEFFICIENTS), bands))
    return np.asarray(np.sqrt(2 / MEL_BANDS) * cosines @ log_gain)


def cifar_task(folder: Path, train: int = 100, test: int = 100, seed: int = 0) -> Sets:
    """CIFAR-10 as JPEGs, x int8 [N, 32, 32, 3] (pixel - 128): the files' train and test parts."""
    x_train, y_train = _jpegs(folder / CIFAR_DATA.format("train"), train, seed)
    x_test, y_test = _jpegs(folder / CIFAR_DATA.format("test"), test, seed)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _jpegs(path: Path, count: int, seed: int) -> tuple[Features, npt.NDArray[np.uint8]]:
    from PIL import Image

    data = np.load(path)
    packed, offsets = data["jpeg"], data["off"]
    chosen = np.random.default_rng(seed).permutation(len(data["y"]))[:count]
    files = [packed[offsets[i] : offsets[i + 1]].tobytes() for i in chosen]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(f)).convert("RGB")) for f in files])
    return (pixels.astype(np.int16) - 128).astype(np.int8), data["y"][chosen].astype(np.uint8)


def _mel(hertz: float) -> float:
    return float(1127 * np.log1p(hertz / 700))


def _sets(
    x: Features, y: npt.NDArray[Any], train: npt.NDArray[Any], test: npt.NDArray[Any]
) -> Sets:
    y = y.astype(np.uint8)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
