"""Compiles small C programs around the kernels, with the compiler as strict as it gets."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import Array

TESTS = Path(__file__).parent
KERNELS = TESTS.parent / "ulab_kernels"
SOURCES = sorted(p for p in KERNELS.glob("*.c") if not p.name.startswith(("bind_", "natmod_")))
STRICT = shlex.split("-std=c99 -Wall -Wextra -Wpedantic -Werror")
SANITIZE = shlex.split("-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all")


def compiler(name: str = os.environ.get("CC", "cc")) -> str:
    """The command, or a visible skip where it is missing."""
    if shutil.which(name) is None:
        pytest.skip(f"SKIP: there is no {name}")
    return name


def compile_program(
    source: str, folder: Path, flags: Sequence[str] = (), sanitize: Sequence[str] = SANITIZE
) -> Path:
    """tests/c/<source> together with all kernels."""
    program = folder / Path(source).stem
    command = [compiler(), *STRICT, *sanitize, *flags, f"-I{KERNELS}", "-o", str(program)]
    command += [str(TESTS / "c" / source), *map(str, SOURCES)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


class Probe:
    """Calls of single C functions: see tests/c/probe.c for the records."""

    def __init__(self, folder: Path) -> None:
        self.program = compile_program("probe.c", folder)

    def __call__(self, function: str, *columns: Any) -> Array:
        """Columns of int32 (broadcast against each other; 2-D ones side by side) -> int64
        [records, results]."""
        parts = [np.asarray(c, np.int64) for c in columns]
        count = max((len(p) for p in parts if p.ndim), default=1)
        wide = [
            np.broadcast_to(
                p.reshape(-1, 1) if p.ndim < 2 else p, (count, p.shape[1] if p.ndim == 2 else 1)
            )
            for p in parts
        ]
        records = np.concatenate(wide, axis=1).astype(np.uint32).tobytes()
        result = subprocess.run([self.program, function], input=records, capture_output=True)
        assert result.returncode == 0, result.stderr.decode()[-2000:]
        return np.frombuffer(result.stdout, np.int32).reshape(count, -1).astype(np.int64)
