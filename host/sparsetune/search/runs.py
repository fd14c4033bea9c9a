"""Short training runs on the twin, judged on samples that were held out of them. What no plan of a
family trains runs once for all samples (front.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sparsetune_device.telemetry import parse

from ..compile import compile_image
from ..data import Dataset, sample_file
from ..export import parse_checkpoint, trained_tensors
from ..front import without_front
from ..graph import Graph
from ..image import parse_image
from ..plan import UpdatePlan
from ..task import task_of
from ..twin import Twin


@dataclass(frozen=True)
class Samples:
    """train: learnt from. held: judged on."""

    train: Dataset
    held: Dataset

    @property
    def together(self) -> Dataset:
        y = None
        if self.train.y is not None and self.held.y is not None:
            y = np.concatenate([self.train.y, self.held.y])
        return Dataset(np.concatenate([self.train.x, self.held.x]), y)

    def with_x(self, both: Dataset) -> Samples:
        """The same samples as they are at another place of the model."""
        cut = len(self.train)
        return Samples(both.part(slice(0, cut)), both.part(slice(cut, len(both))))


@dataclass(frozen=True)
class Run:
    """How long, at which rate (decimal text), and the seed of all that is random."""

    steps: int
    rate: str
    seed: int = 1


@dataclass(frozen=True)
class Judged:
    """On the held-out samples. loss: mean, natural logarithm. right: share, where answers are right
    or wrong."""

    loss: float
    right: float


def behind_front(graph: Graph, plan: UpdatePlan, samples: Samples) -> tuple[Graph, Samples]:
    """Model and samples behind what a plan leaves frozen in front. Plans that train no more layers
    may share them."""
    rest, both = without_front(graph, plan, samples.together)
    return rest, samples.with_x(both)


def train_and_judge(graph: Graph, plan: UpdatePlan, samples: Samples, run: Run) -> Judged:
    with _trained(graph, plan, samples.train, run) as twin:
        return _judge(twin, graph, samples.held)


def trained_graph(graph: Graph, plan: UpdatePlan, data: Dataset, run: Run) -> Graph:
    """The model as it is after training."""
    rest, behind = without_front(graph, plan, data)
    with _trained(rest, plan, behind, run) as twin:
        image = parse_image((twin.path / "model.img").read_bytes())
        checkpoint = parse_checkpoint(twin.pull(), image)
    tensors = list(graph.tensors)
    for index, data_bytes in trained_tensors(rest, image, checkpoint).items():
        old = graph.tensor(index)
        assert old.data is not None
        stored = np.frombuffer(data_bytes, "u1" if old.dtype == "int8" else "<i4")
        values = stored.astype(np.int16) - graph.shift(index) if old.dtype == "int8" else stored
        values = values.astype(np.int8) if old.dtype == "int8" else values.astype(np.int32)
        tensors[index] = replace(old, data=values.reshape(old.data.shape))
    return replace(graph, tensors=tuple(tensors))


def _trained(graph: Graph, plan: UpdatePlan, data: Dataset, run: Run) -> Twin:
    in_ram = tuple(replace(layer, slots=0, reach=0) for layer in plan.layers)
    image = compile_image(graph, replace(plan, layers=in_ram, model="")).image
    twin = Twin(image, sample_file(data, task_of(graph)))
    how = {"steps": run.steps, "seed": run.seed, "save_every": 0, "rate": run.rate}
    twin.train(lambda line: None, **how)
    return twin


def _judge(twin: Twin, graph: Graph, held: Dataset) -> Judged:
    lines: list[str] = []
    twin.evaluate(lines.append, sample_file(held, task_of(graph)), trained=True)
    event = parse(lines[-1])
    assert event
    return Judged(event[1]["loss"] / 65536, event[1]["correct"] / event[1]["total"])
