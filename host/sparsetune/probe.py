"""Whether kernels and device code still give the numbers that they gave: a digest of what a
method's first steps tell and learn, in a run that is short, and has all that a long one has."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from sparsetune_device.telemetry import parse

from .compile import compile_image
from .data import Dataset, sample_file
from .errors import SparsetuneError
from .export import parse_checkpoint, trained_tensors
from .graph import Graph
from .image import Image, parse_image
from .plan import UpdatePlan
from .task import task_of
from .twin import Twin

SAMPLES = 25
STEPS = 63  # two and a half epochs: what is drawn anew in each is drawn three times
GROUPS = 2  # of accumulated steps, whole ones: momentum moves nothing before the second
MOST = 20  # steps of a warm-up, and with the same channels, so that both have an end in a probe
RATE = "0.002"


def some_of(data: Dataset) -> Dataset:
    """Samples to probe with, from all over the data: such that lie side by side may be of one
    class."""
    return data.part(np.linspace(0, len(data) - 1, min(SAMPLES, len(data))).astype(int))


def first_steps(graph: Graph, plan: UpdatePlan, data: Dataset, options: dict[str, Any]) -> str:
    """Digest of the losses of a run on some_of() the samples, and of the weights that it learnt:
    the same with and without a frozen front. options: of the device's train(). Raises
    SparsetuneError."""
    found = hashlib.sha256()

    def line(line: str) -> None:
        event = parse(line)
        if event and event[0] == "step":
            found.update(line.split(",ms:")[0].encode())

    image = compile_image(graph, plan).image
    with Twin(image, sample_file(data, task_of(graph))) as twin:
        try:
            checkpoint = twin.train(line, save_every=0, **shortened(options))
        except OSError as error:  # what an earlier run leaves, as `replay` needs it
            raise SparsetuneError(
                f"options {options} need a file ({error}): leave them out"
            ) from error
    found.update(_learnt(graph, parse_image(image), checkpoint))
    return found.hexdigest()[:24]


def _learnt(graph: Graph, image: Image, checkpoint: bytes) -> bytes:
    """Weights and biases, each behind its number: where they lie in a state hangs on the front."""
    tensors = trained_tensors(graph, image, parse_checkpoint(checkpoint, image))
    return b"".join(b"tensor %d: " % index + tensors[index] for index in sorted(tensors))


def shortened(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a probe: what takes long, it has for a short time."""
    group = int(options.get("accumulate", 1))
    short = {"steps": max(STEPS, GROUPS * group), "rate": RATE, "seed": 1}
    if isinstance(options.get("hold"), int):
        short["hold"] = min(options["hold"], max(1, MOST // group) * group)
    return {**options, **short, "warmup": min(int(options.get("warmup", 0)), MOST)}
