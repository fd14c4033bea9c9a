"""Feeds damaged models to the command line, in a process of its own: prints one JSON line for each.

    python tests/damage.py MODEL FIRST COUNT      copies FIRST .. FIRST + COUNT - 1 (seeds)
    python tests/damage.py MODEL whole            the file as it is
    python tests/damage.py MODEL FIRST COUNT NPZ  copies of a float model, quantised with samples
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sparsetune.cli import main

LIMIT_S = 120  # by the clock, of a command that hangs


def damaged(data: bytes, seed: int) -> bytes:
    """One of seven kinds of damage, somewhere."""
    rng = np.random.default_rng(seed)
    buffer = bytearray(data)
    kind = int(rng.integers(7))
    at = int(rng.integers(8, len(buffer) - 8))
    if kind == 0:  # bits
        for place in rng.integers(0, len(buffer), int(rng.integers(1, 30))):
            buffer[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # bytes
        for place in rng.integers(0, len(buffer), int(rng.integers(1, 200))):
            buffer[place] = int(rng.integers(256))
    elif kind == 2:
        del buffer[at:]
    elif kind == 3:  # a stretch of zeros
        length = int(rng.integers(1, 400))
        buffer[at : at + length] = bytes(len(buffer[at : at + length]))
    elif kind == 4:  # two blocks change places
        other, length = int(rng.integers(8, len(buffer) - 8)), int(rng.integers(4, 300))
        a, b = bytes(buffer[at : at + length]), bytes(buffer[other : other + length])
        n = min(len(a), len(b))
        buffer[at : at + n], buffer[other : other + n] = b[:n], a[:n]
    else:  # huge or small numbers where offsets and lengths stand: metadata lies at both ends
        for _ in range(int(rng.integers(1, 8))):
            near = int(rng.integers(min(4000, len(buffer) // 8)))
            place = 4 * (near if kind == 5 else len(buffer) // 4 - 1 - near)
            values = (0, 1, 4, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
            value = int(values[rng.integers(len(values))])
            buffer[place : place + 4] = value.to_bytes(4, "little")
    return bytes(buffer)


def try_command(arguments: list[str]) -> dict[str, Any]:
    """Status, what was said on stderr, and seconds of the processor of one command."""
    said = io.StringIO()
    start = time.process_time()
    signal.alarm(LIMIT_S)
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of litert-quantizer, which quantizer.py keeps away
        status = main(arguments)
    signal.alarm(0)
    return {"status": status, "stderr": said.getvalue(), "seconds": time.process_time() - start}


def try_model(data: bytes, folder: Path, samples: str | None = None) -> list[dict[str, Any]]:
    model = folder / "model.tflite"
    model.write_bytes(data)
    if samples:
        output = str(folder / "int8.tflite")
        return [try_command(["quantize", str(model), "--samples", samples, "-o", output])]
    commands = (["inspect", str(model)], ["plan", str(model)], ["build", str(model)])
    return [try_command(command) for command in commands]


def run() -> None:
    data = Path(sys.argv[1]).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[2] == "whole":
            print(json.dumps(try_model(data, Path(folder))))
            return
        first, count = int(sys.argv[2]), int(sys.argv[3])
        samples = sys.argv[4] if len(sys.argv) > 4 else None
        for seed in range(first, first + count):
            outcomes = try_model(damaged(data, seed), Path(folder), samples)
            print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    run()
