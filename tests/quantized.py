"""A float model made int8: what it loses by that, and that the twin computes what LiteRT does."""

from __future__ import annotations

import numpy as np
from machine import Machine
from small_models import Array
from sparsetune import litert
from sparsetune.compare import Judgement, judge
from sparsetune.data import Dataset
from sparsetune.quantizer import quantize_model
from sparsetune.stored import Stored

MEASURED = 40  # samples that the ranges are from; the others are judged on


def quantized(real: Stored, x: Array) -> tuple[Stored, Judgement]:
    small = Stored.of(quantize_model(real, x[:MEASURED]))
    return small, judge(real, small, Dataset(x[MEASURED:], None))


def check_twin(small: Stored, x: Array) -> None:
    stored = small.stored_input(x)
    machine = Machine(small.data)
    for sample, wanted in zip(stored, litert.predict(small.data, stored), strict=True):
        np.testing.assert_array_equal(machine.infer(sample), wanted.ravel())
