"""From PyTorch, Keras and ONNX to a model that trains (docs/CONVERT.md).

Run: python bench/convert.py [FRAMEWORK...]

Each framework needs a Python of its own with its converter: build/venvs/NAME/bin/python, or
SPARSETUNE_TORCH, SPARSETUNE_KERAS, SPARSETUNE_ONNX. Those that are missing are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sparsetune.compare import judge, layer_errors
from sparsetune.data import Dataset
from sparsetune.quantizer import float_model, quantize_model
from sparsetune.stored import Stored
from sparsetune.tflite import parse_tflite

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = ("torch", "keras", "onnx")
SAMPLES = 120


def python_of(framework: str) -> Path | None:
    """The interpreter that has the framework's converter, or None."""
    default = ROOT / "build" / "venvs" / framework / "bin" / "python"
    path = Path(os.environ.get(f"SPARSETUNE_{framework.upper()}", default))
    return path if path.exists() else None


def convert(framework: str, python: Path, output: Path) -> bytes:
    """The small CNN of that framework as a float .tflite."""
    script = ROOT / "bench" / "converters" / f"from_{framework}.py"
    result = subprocess.run([python, script, output], capture_output=True, text=True, timeout=300)
    if result.returncode:
        raise RuntimeError(f"{script.name}: {result.stderr[-2000:]}")
    return output.read_bytes()


def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, 32, 32, 3)).astype(np.float32)


def row(framework: str, python: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        model = convert(framework, python, Path(folder) / "model.tflite")
    real, x = float_model(model, framework), samples()
    small = Stored.of(quantize_model(real, x[:80]))
    graph = parse_tflite(small.data)
    result = judge(real, small, Dataset(x[80:], None))
    worst = layer_errors(real, small, x[80:100])[0]
    kinds = ", ".join(dict.fromkeys(op.kind for op in graph.operators))
    return (
        f"{framework:<7} agreement {result.agreement:7.2%}  output error {result.error:.2%}  "
        f"worst layer {worst.decibels:.0f} dB  {len(graph.trainable)} layers to train; {kinds}"
    )


def main() -> None:
    for framework in sys.argv[1:] or FRAMEWORKS:
        python = python_of(framework)
        print(row(framework, python) if python else f"{framework:<7} SKIP: no Python with it")


if __name__ == "__main__":
    main()
