"""Damaged and foreign models: one line that says what is wrong, no crash, no hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_tasks import shared_folder
from small_models import wide_front
from sparsetune.errors import SparsetuneError
from sparsetune.tflite import read_tflite

ROOT = Path(__file__).resolve().parents[1]
COPIES = int(os.environ.get("SPARSETUNE_DAMAGED_COPIES", "200"))  # in all, over the shared models


def try_all(model: Path, *arguments: object) -> list[list[dict[str, Any]]]:
    """What the commands made of each copy of a model."""
    command = [sys.executable, str(ROOT / "tests" / "damage.py"), str(model), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "tests")
    done = result.stdout.splitlines()
    assert result.returncode == 0, f"copy {len(done)} of {model.name}: {result.stderr[-2000:]}"
    return [json.loads(line) for line in done]


def assert_clean(model: Path, copies: list[list[dict[str, Any]]]) -> int:
    """Every refusal is one line; returns how many copies were refused."""
    for i, outcomes in enumerate(copies):
        for outcome in outcomes:
            assert outcome["status"] in (0, 1), (model.name, i, outcome)
            assert outcome["seconds"] < 20, (model.name, i, outcome)
            lines = outcome["stderr"].splitlines()
            assert len(lines) == outcome["status"], (model.name, i, outcome)
            assert "unexpected" not in outcome["stderr"], (model.name, i, outcome)
    return sum(any(o["status"] for o in outcomes) for outcomes in copies)


def check(model: Path, first: int, count: int) -> None:
    copies = try_all(model, first, count)
    assert len(copies) == count
    refused = assert_clean(model, copies)
    print(f"{model.name}: {refused} of {count} damaged copies refused, the others still a model")


def test_models_of_our_own(tmp_path: Path) -> None:
    small = tmp_path / "small.tflite"
    small.write_bytes(wide_front().to_bytes())
    check(small, 0, 60)
    check(ROOT / "host" / "sparsetune" / "models" / "digits_int8.tflite", 100, 40)


def shared_models() -> list[Path]:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    return sorted(p for p in (folder / "models").rglob("*.tflite") if "fuzz" not in p.parts[-2])


def is_importable(model: Path) -> bool:
    """Float models and those with operators that we have not are refused undamaged, too."""
    try:
        read_tflite(model)
    except SparsetuneError:
        return False
    return True


def test_damaged_copies_of_the_shared_models() -> None:
    models = [model for model in shared_models() if is_importable(model)]
    share = -(-COPIES // len(models))
    for i, model in enumerate(models):
        check(model, 1000 * i, share)


@pytest.mark.parametrize(
    "name, shape", [("ad01_fp32", (640,)), ("kws_ref_model_float32", (49, 10, 1))]
)
def test_damaged_float_models_are_not_quantised(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    pytest.importorskip("litert_quantizer", reason="SKIP: the extra `quantize` is not installed")
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    samples = tmp_path / "s.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(size=(10, *shape)).astype(np.float32))
    model = folder / "models" / "mlcommons" / f"{name}.tflite"
    copies = try_all(model, 7000, 25, samples)
    refused = assert_clean(model, copies)
    print(f"{name}: {refused} of {len(copies)} damaged copies refused")
    assert len(copies) == 25 and refused > 0


def test_the_seeds_of_a_fuzzer() -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    for model in sorted((folder / "models" / "tflm_fuzz").glob("*.tflite")):
        copies = try_all(model, "whole")
        assert assert_clean(model, copies) == 1
        print(copies[0][0]["stderr"].strip())


def test_an_lstm_is_refused_by_name() -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    model = folder / "models" / "tflm" / "trained_lstm_int8.tflite"
    outcome = try_all(model, "whole")[0][0]
    assert outcome["status"] == 1 and "UNIDIRECTIONAL_SEQUENCE_LSTM" in outcome["stderr"]
