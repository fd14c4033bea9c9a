"""From PyTorch, Keras and ONNX to a model that trains (docs/CONVERT.md).

Run: python bench/convert.py [FRAMEWORK...]

Each framework needs a Python of its own with its converter: build/venvs/NAME/bin/python, or
SPARSETUNE_TORCH, SPARSETUNE_KERAS, SPARSETUNE_ONNX. Those that are missing are skipped.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sparsetune.cli import main as sparsetune
from sparsetune.compare import judge, layer_errors
from sparsetune.data import Dataset
from sparsetune.litert import litert_accuracy
from sparsetune.quantizer import float_model, quantize_model
from sparsetune.stored import Stored
from sparsetune.tflite import parse_tflite

ROOT = Path(__file__).resolve().parents[1]
CONVERTERS = {"torch": "litert_torch", "keras": "tensorflow", "onnx": "onnx"}  # to be imported
FRAMEWORKS = tuple(CONVERTERS)
SAMPLES, CLASSES, STEPS = 240, 5, 300


def python_of(framework: str) -> Path | None:
    """The interpreter that has the framework's converter, or None."""
    default = ROOT / "build" / "venvs" / framework / "bin" / "python"
    path = Path(os.environ.get(f"SPARSETUNE_{framework.upper()}", default))
    return path if path.exists() and _can_import(path, CONVERTERS[framework]) else None


def _can_import(python: Path, module: str) -> bool:
    script = "import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))"
    return subprocess.run([python, "-c", script, module]).returncode == 0


def convert(framework: str, python: Path, output: Path) -> bytes:
    """The small CNN of that framework as a float .tflite."""
    script = ROOT / "bench" / "converters" / f"from_{framework}.py"
    result = subprocess.run([python, script, output], capture_output=True, text=True, timeout=300)
    if result.returncode:
        raise RuntimeError(f"{script.name}: {result.stderr[-2000:]}")
    return output.read_bytes()


def samples() -> tuple[np.ndarray, np.ndarray]:
    """float32 [SAMPLES, 32, 32, 3] and labels: noise, brighter from class to class."""
    y = np.arange(SAMPLES) % CLASSES
    brightness = 0.3 * (y - CLASSES // 2).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(SAMPLES, 32, 32, 3)).astype(np.float32)
    return noise + brightness[:, None, None, None], y


def row(framework: str, python: Path, folder: Path) -> str:
    """What each step of the chain makes of the framework's model, in one line."""
    real = float_model(convert(framework, python, folder / "float.tflite"), framework)
    (x, y), half = samples(), SAMPLES // 2
    small = Stored.of(quantize_model(real, x[:half]))
    result = judge(real, small, Dataset(x[half:], None))
    worst = layer_errors(real, small, x[half : half + 20])[0]
    graph, stored = parse_tflite(small.data), small.stored_input(x)
    trained = tuned(small.data, stored[:half], y[:half], folder)
    before, after = (litert_accuracy(m, stored[half:], y[half:]) for m in (small.data, trained))
    kinds = ", ".join(dict.fromkeys(op.kind for op in graph.operators))
    return (
        f"{framework:<7} float and int8 agree on {result.agreement:.1%}, output error "
        f"{result.error:.2%}, worst layer {worst.decibels:.0f} dB; accuracy {before:.1%}, "
        f"{after:.1%} after {STEPS} steps; {len(graph.trainable)} layers train; {kinds}"
    )


def tuned(model: bytes, x: np.ndarray, y: np.ndarray, folder: Path) -> bytes:
    """The model with a new head after `sparsetune tune` on the twin: these networks' own scores
    were never trained, and have the range of noise."""
    paths = [folder / name for name in ("int8.tflite", "int8.npz", "trained.tflite", "log.jsonl")]
    paths[0].write_bytes(model)
    np.savez(paths[1], x_train=x, y_train=y)
    source, data, output, log = (str(path) for path in paths)
    rest = ["--twin", "--plain", "--steps", str(STEPS), "--rate", "0.1"]
    with contextlib.redirect_stdout(io.StringIO()):
        status = sparsetune(
            ["tune", source, data, *rest, "--classes", str(CLASSES), "-o", output, "--log", log]
        )
    if status:
        raise RuntimeError("sparsetune tune failed")
    return paths[2].read_bytes()


def main() -> None:
    for framework in sys.argv[1:] or FRAMEWORKS:
        python = python_of(framework)
        if python is None:
            print(f"{framework:<7} SKIP: no Python with its converter (docs/CONVERT.md)")
            continue
        with tempfile.TemporaryDirectory() as folder:
            print(row(framework, python, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
