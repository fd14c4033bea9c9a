"""PyTorch, Keras and ONNX through their own converters, quantised, trained on the twin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sparsetune.cli import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import convert


@pytest.mark.parametrize("framework", convert.FRAMEWORKS)
def test_from_framework_to_trained_model(framework: str, tmp_path: Path, capsys: Any) -> None:
    python = convert.python_of(framework)
    if python is None:
        pytest.skip(f"SKIP: no Python with {framework}'s converter (docs/CONVERT.md)")
    model = tmp_path / "model.tflite"
    convert.convert(framework, python, model)
    x, y = convert.samples()
    np.savez(tmp_path / "s.npz", x=x, y=y)
    data, small = tmp_path / "int8.npz", tmp_path / "model_int8.tflite"
    assert not main(
        ["quantize", str(model), "--samples", str(tmp_path / "s.npz"), "--data-out", str(data)]
    )
    told = capsys.readouterr().out
    assert "the same largest output on" in told and small.is_file()
    # Both take the samples: int8 ones, and the float ones as they were.
    for samples in (data, tmp_path / "s.npz"):
        rest = ["--steps", "20", "--plain", "--log", str(tmp_path / "log.jsonl")]
        output = str(tmp_path / "trained.tflite")
        assert not main(["tune", str(small), str(samples), "--twin", "-o", output, *rest])
        assert "0 differing bytes" in capsys.readouterr().out
