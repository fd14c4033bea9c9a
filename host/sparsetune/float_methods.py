"""The float baseline of a comparison: PyTorch on the dequantised network, as float_run.py has it.
torch need not be in this Python: one that has it does these runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparsetune_device.augment import parse_augment

from .errors import SparsetuneError
from .graph import Graph
from .methods import parse_keys
from .plan import LayerPlan, UpdatePlan, default_plan

VERSION = 1  # of what decides about the numbers in float_run.py and float_net.py
KINDS = ("last", "all", "same")
RATES = ("0.003", "0.01", "0.03", "0.1")
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class FloatMethod:
    """kind: last (the last layer alone), all (full fine-tuning) or same (what a method trains; of:
    its name, empty for the first). rate: decimal text, empty where it is to be found. augment: as
    train() takes it; flip and shift alone. smoothing: of labels, as a plan has it."""

    name: str
    kind: str
    of: str = ""
    batch: int = 64
    momentum: float = 0.0
    rate: str = ""
    augment: str = ""
    smoothing: float = 0.0

    def plan(self, graph: Graph, of: UpdatePlan | None) -> UpdatePlan:
        """of: the plan of the method that it is to be the same as. Raises SparsetuneError."""
        if self.kind == "last":
            return default_plan(graph, 1, 1)
        if self.kind == "all":
            return default_plan(graph, len(graph.trainable), 1)
        if of is None:
            raise SparsetuneError(f"--float {self.name}: there is no method {self.of or 'to take'}")
        layers = (LayerPlan(p.operator, p.channels, p.bias) for p in of.layers)
        return UpdatePlan(tuple(layers), loss=of.loss)

    def settings(self) -> dict[str, Any]:
        """What decides about its numbers, beside plan, rate and seed."""
        told = {"float": VERSION, "batch": self.batch, "momentum": self.momentum}
        more = {"augment": self.augment, "smoothing": self.smoothing}
        return told | {name: value for name, value in more.items() if value}

    def moves(self) -> tuple[int, int, int]:
        """Whether samples are mirrored, and places that they are moved along each axis."""
        asked = parse_augment(self.augment) if self.augment else {}
        down, right = asked.get("shift", (0, 0))
        return ("flip" in asked, down, right)


def parse_floats(texts: list[str]) -> list[FloatMethod]:
    """KIND, or KIND:KEY=VALUE,... as the types below. Raises SparsetuneError."""
    return [_parse(text) for part in texts for text in _split(part)]


def _split(text: str) -> list[str]:
    return [text] if ":" in text else text.split(",")


def _parse(text: str) -> FloatMethod:
    kind, colon, rest = text.partition(":")
    keys = parse_keys(rest, text) if colon else {}
    if kind not in KINDS:
        raise SparsetuneError(f"--float {kind}: choose {', '.join(KINDS)}")
    types: dict[str, type] = {
        "of": str, "batch": int, "momentum": float, "rate": str, "augment": str,
        "smoothing": float,
    }  # fmt: skip
    values: dict[str, Any] = {}
    for key, value in keys.items():
        if key not in types:
            raise SparsetuneError(f"--float {text} has {key}: choose among {', '.join(types)}")
        try:
            values[key] = types[key](value)
        except ValueError:
            raise SparsetuneError(f"--float {text}: {key}={value} is no number") from None
    method = FloatMethod(f"fp32 {text}", kind, **values)
    _check_augment(method, text)
    shares = (method.momentum, method.smoothing)
    if method.batch < 1 or not all(0 <= s < 1 for s in shares) or not _is_rate(method.rate or "1"):
        raise SparsetuneError(
            f"--float {text}: give a batch from 1 on, a momentum and a smoothing from 0 to below "
            "1, and a rate above 0"
        )
    return method


def _check_augment(method: FloatMethod, text: str) -> None:
    try:
        asked = parse_augment(method.augment) if method.augment else {}
    except ValueError as error:
        raise SparsetuneError(f"--float {text}: {error}") from None
    if set(asked) - {"flip", "shift"}:
        raise SparsetuneError(f"--float {text}: it augments by flip and shift alone")


def _is_rate(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


@cache
def torch_python(given: str = "") -> str:
    """A Python that can import torch: the one given, this one, or one in build/venvs of the
    project. Empty where there is none."""
    venvs = sorted((PACKAGE.parents[1] / "build" / "venvs").glob("*/bin/python"))
    for python in (given, sys.executable, *map(str, venvs)):
        if python and _has_torch(python):
            return python
    return ""


def _has_torch(python: str) -> bool:
    try:
        done = subprocess.run([python, "-c", "import torch"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def command(python: str, request: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Writes the request; the command that does it. request: of FloatRequest."""
    path.write_bytes(pickle.dumps(request))
    return (python, "-m", "sparsetune.float_run", str(path))


def environment() -> tuple[tuple[str, str], ...]:
    """For a Python that knows nothing of us."""
    folders = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return (("PYTHONPATH", os.pathsep.join(filter(None, folders))), ("OMP_NUM_THREADS", "1"))


def layers_of(plan: UpdatePlan) -> tuple[tuple[int, int, bool], ...]:
    """As FloatRequest has them."""
    return tuple((p["operator"], p["channels"], p["bias"]) for p in map(asdict, plan.layers))
