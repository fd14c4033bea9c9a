"""The models that gradients and sanitizers are tried on, with real samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import sparsetune
from shared_tasks import CIFAR_MODEL, KWS_MODEL, cifar_task, kws_task, shared_folder
from small_models import Array

DIGITS_MODEL = Path(sparsetune.__file__).parent / "models" / "digits_int8.tflite"
NAMES = ("kws", "resnet", "digits")


@dataclass(frozen=True)
class RealModel:
    """model: the .tflite. x: int8 samples, y: their labels."""

    model: bytes
    x: Array
    y: Array


def real_model(name: str, count: int) -> RealModel:
    """One of NAMES with `count` samples. Skips the test where it is not to be had."""
    if name == "digits":
        pytest.importorskip("sklearn", reason="SKIP: scikit-learn is not installed (extra: demo)")
        from sparsetune import digits

        sets = digits.changed_sets()
        return RealModel(
            DIGITS_MODEL.read_bytes(), sets["x_train"][:count], sets["y_train"][:count]
        )
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    path = folder / (KWS_MODEL if name == "kws" else CIFAR_MODEL)
    sets = kws_task(folder) if name == "kws" else cifar_task(folder, count, count)
    return RealModel(path.read_bytes(), sets["x_train"][:count], sets["y_train"][:count])
