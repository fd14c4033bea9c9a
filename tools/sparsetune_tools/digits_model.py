"""Trains the demo's model on scikit-learn's digits and writes it as an int8 .tflite.

    PYTHONPATH=host:tools python -m sparsetune_tools.digits_model --seed 1

Needs numpy, scikit-learn, flatbuffers and ai-edge-litert, and half a minute. The same seed
gives the same file on the same machine and NumPy; elsewhere float sums may round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sparsetune import digits
from sparsetune.litert import LiteRTError, litert_accuracy
from threadpoolctl import threadpool_limits

from sparsetune_tools import numpy_net as net
from sparsetune_tools.quantise import to_tflite

EPOCHS = 40
BATCH = 32
RATE = 3e-3
SMOOTHING = 0.1  # keeps logits small: an over-confident model starts its adaptation badly
MAX_TURN = 12.0  # degrees; far from the change that the demo adapts to
MODEL = Path("host/sparsetune/models/digits_int8.tflite")


def build(rng: np.random.Generator) -> net.Network:
    """A convolution, two depthwise + pointwise pairs, and a third pair with a residual ADD."""
    return net.Network(
        [
            net.Conv(rng, 1, 16, k=3, stride=2),
            net.Depthwise(rng, 16, k=3, stride=1),
            net.Conv(rng, 16, 32, k=1, stride=1),
            net.Depthwise(rng, 32, k=3, stride=2),
            net.Conv(rng, 32, 48, k=1, stride=1),
            net.Residual(
                [net.Depthwise(rng, 48, k=3, stride=1), net.Conv(rng, 48, 48, 1, 1, relu=False)]
            ),
            net.AveragePool(2),
            net.Reshape(),
            net.Dense(rng, 4 * 48, 10),
        ]
    )


def train(
    network: net.Network, raw: digits.Pixels, y: digits.Labels, rng: np.random.Generator
) -> None:
    """Train all layers with Adam and a cosine rate on digits `raw` [N, 8, 8] (0..16)."""
    optimiser = net.Adam(network.trainable())
    for epoch in range(EPOCHS):
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        losses = []
        for chosen in _batches(len(y), rng):
            logits = network.forward(_augmented(raw[chosen], rng))
            loss, gradient = net.softmax_gradient(logits, y[chosen], SMOOTHING)
            network.backward(gradient)
            optimiser.step(rate)
            losses.append(loss)
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {np.mean(losses):.4f}", flush=True)


def report(network: net.Network, model: bytes, seed: int) -> dict[str, Any]:
    """Accuracies on images that pre-training did not see, float and int8, and what was made."""
    normal, changed = digits.normal_sets(), digits.changed_sets()
    x, y = normal["x_test"], normal["y_test"]
    return {
        "made_by": "python -m sparsetune_tools.digits_model",
        "seed": seed,
        "sha256": hashlib.sha256(model).hexdigest(),
        "bytes": len(model),
        "normal_images": len(y),
        "normal_accuracy_float": round(network.accuracy(to_real(x), y), 4),
        "normal_accuracy_int8": round(litert_accuracy(model, x, y), 4),
        "changed_accuracy_int8": round(
            litert_accuracy(model, changed["x_test"], changed["y_test"]), 4
        ),
    }


def to_real(x: digits.Images) -> net.Array:
    """int8 images as the real numbers 0..1 that they stand for."""
    return (x.astype(np.float32) + 128) / np.float32(255)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="digits_model", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=MODEL)
    options = parser.parse_args(arguments)
    try:
        with threadpool_limits(1):  # the matrices are small, and the order of sums stays fixed
            facts = make(options.seed, options.output)
    except (digits.DigitsError, LiteRTError, OSError) as error:
        print(f"digits_model: {error}", file=sys.stderr)
        return 1
    print(json.dumps(facts, indent=2))
    return 0


def make(seed: int, output: Path) -> dict[str, Any]:
    """Train with `seed`, write `output` and its facts beside it as .json; returns the facts."""
    rng = np.random.default_rng(seed)
    raw, labels = digits.load()
    seen, _ = digits.pool_split(len(labels))
    network = build(rng)
    train(network, raw[seen], labels[seen], rng)
    calibration = to_real(digits.normal_sets()["x_train"])
    model = to_tflite(network, calibration, f"sparsetune demo: digits 16x16, seed {seed}")
    facts = report(network, model, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(model)
    output.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def _batches(count: int, rng: np.random.Generator) -> list[npt.NDArray[np.intp]]:
    order = rng.permutation(count)
    return [order[start : start + BATCH] for start in range(0, count, BATCH)]


def _augmented(raw: digits.Pixels, rng: np.random.Generator) -> net.Array:
    """A batch as a hand-held camera sees it: turned, lit and moved a little."""
    turn, contrast = rng.uniform(-MAX_TURN, MAX_TURN), rng.uniform(0.9, 1.0)
    seen = digits.photograph(raw, digits.Camera(turn, contrast)) / np.float32(255)
    return np.stack([np.roll(image, rng.integers(-1, 2, 2), axis=(0, 1)) for image in seen])


if __name__ == "__main__":
    sys.exit(main())
