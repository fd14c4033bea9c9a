"""A learning rate found by trying: short runs on the host twin, judged on samples left out of them.

A rule (rate.py) knows how strongly the layers are driven, but not how steep the way behind them
is: there a rate that is ten times too large ruins a model in a few steps. So the rate that it
proposes is only where the search begins. Nothing here looks at a clock: the same model, plan and
samples give the same rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sparsetune_device.telemetry import parse

from .compile import compile_image
from .cores import core_count
from .data import Dataset, sample_file
from .front import without_front
from .geometry import macs
from .graph import Array, Graph
from .plan import UpdatePlan
from .rate import suggest_rate, two_digits
from .task import Task, task_of
from .twin import Twin

FOLDS = 4  # runs at each rate, each judged on another part of the samples
SAMPLES = 400  # of which parts are made
STEPS = 400  # of a run, at most
WORK = 8_000_000_000  # multiply-accumulates of a run's forward passes, at most
GROUPS = 4  # of accumulated steps, at least
FACTOR = 3  # between two rates
DOWN, UP = 8, 8  # rates below and above the first that are tried at most


def choose_rate(
    graph: Graph,
    plan: UpdatePlan,
    model: bytes,
    data: Dataset | None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The learning rate to start from, as decimal text: tried out where there are samples. options:
    of the device's train(), with which it is tried."""
    first = suggest_rate(graph, plan, model, None if data is None else data.x)
    if data is None or len(data) < 2:
        return first
    return _try_rates(_trial(graph, plan, data, options or {}), first)


def try_rates(graph: Graph, plan: UpdatePlan, data: Dataset, first: str) -> str:
    """Of the rates a FACTOR apart around the first one, that after which the loss on samples that
    were left out is smallest."""
    return _try_rates(_trial(graph, plan, data, {}), first)


def _try_rates(trial: Trial, first: str) -> str:

    def rate(power: int) -> str:
        return two_digits(float(first) * float(FACTOR) ** power)

    return rate(search(lambda power: trial.loss_after(rate(power)), trial.loss_without()))


def search(loss: Callable[[int], float], useless: float) -> int:
    """The power of FACTOR with the smallest loss: downwards until it grows again, and upwards
    where the first one was better than the one below, or none learnt anything. useless: the loss
    that a model has that learns nothing, or only how frequent the classes are: on from there a
    smaller rate may still be better, though the last one was not, and a larger one as well."""
    losses = {0: loss(0)}
    for power in range(-1, -DOWN - 1, -1):
        best = min(losses.values())
        losses[power] = loss(power)
        if best < min(useless, losses[power]):
            break
    for power in range(1, UP + 1):
        best = min(losses.values())
        if losses[power - 1] > best and best < useless:
            break
        losses[power] = loss(power)
    return min(losses, key=lambda power: (losses[power], power))


@dataclass(frozen=True)
class Trial:
    """Runs of `steps` steps on the samples without each of the parts. image, data: of the model
    without its frozen front. options: of train(), but for these runs' own."""

    image: bytes
    task: Task
    data: Dataset
    parts: list[Array]
    steps: int
    options: Mapping[str, Any]

    def loss_after(self, rate: str) -> float:
        """Mean loss on the part left out, or all where that is none, after training on the
        others."""
        with ThreadPoolExecutor(min(core_count(), len(self.parts))) as threads:
            losses = threads.map(lambda i: self._run(i, rate), range(len(self.parts)))
            return float(np.mean(list(losses)))

    def _run(self, number: int, rate: str) -> float:
        left_out = self.parts[number]
        others = np.setdiff1d(np.arange(len(self.data)), left_out)
        with Twin(self.image, sample_file(self.data.part(others), self.task)) as twin:
            ours = {"steps": self.steps, "seed": number + 1, "save_every": 0}
            how = {**self.options, **ours}
            twin.train(lambda line: None, rate=rate, **how)
            judged = self.data.part(left_out) if len(left_out) else self.data
            return self._loss(twin, judged, True)

    def loss_without(self) -> float:
        """The loss of the untrained model, or that of knowing the classes' frequencies alone,
        whichever is smaller."""
        samples = sample_file(self.data, self.task)
        with Twin(self.image, samples) as twin:
            start = self._loss(twin, self.data, False)
        if not self.task.has_classes:
            return start
        shares = np.unique(np.asarray(self.data.y), return_counts=True)[1] / len(self.data)
        return min(start, float(-(shares * np.log(shares)).sum()))

    def _loss(self, twin: Twin, data: Dataset, trained: bool) -> float:
        lines: list[str] = []
        twin.evaluate(lines.append, sample_file(data, self.task), trained)
        event = parse(lines[-1])
        assert event
        return float(event[1]["loss"]) / 65536


def parts_of(data: Dataset, has_classes: bool) -> list[Array]:
    """Indices of the samples to be left out of each run. No class is left out whole: nobody can
    tell what was not shown, and of few samples that would be so by chance. Then classes of one
    sample have no say; where there are no others, all are judged by what they were trained on (a
    part of none)."""
    parts = np.array_split(np.arange(len(data)), min(FOLDS, len(data)))
    if not has_classes:
        return parts
    of, counts = np.unique(np.asarray(data.y), return_inverse=True, return_counts=True)[1:]
    if all((np.bincount(of[part], minlength=len(counts)) < counts).all() for part in parts):
        return parts
    known = np.flatnonzero(counts[of] > 1)
    known = known[np.argsort(of[known], kind="stable")]
    return [known[i::FOLDS] for i in range(min(FOLDS, max(1, len(known))))]


def _trial(graph: Graph, plan: UpdatePlan, data: Dataset, options: Mapping[str, Any]) -> Trial:
    some = data.part(np.random.default_rng(0).permutation(len(data))[:SAMPLES])
    parts = parts_of(some, task_of(graph).has_classes)
    in_ram = tuple(replace(layer, slots=0, reach=0) for layer in plan.layers)
    steps = min(STEPS, max(200, len(data)), WORK // max(1, sum(macs(graph))))
    rest, some = without_front(graph, plan, some)
    image = compile_image(rest, replace(plan, layers=in_ram)).image
    steps = max(32, steps, GROUPS * options.get("accumulate", 1))
    return Trial(image, task_of(rest), some, parts, steps, options)
