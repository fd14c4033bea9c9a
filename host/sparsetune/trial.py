"""A learning rate found by trying: short runs on the host twin.

Softmax gradients are bounded, so that a rule suits them (rate.py). Those of other losses grow with
the error and with the weights that they pass: there a rate that is ten times too large ruins the
model in ten steps, and no rule of ours foretells it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sparsetune_device.channels import make_policy
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image as DeviceImage
from sparsetune_device.schedule import parse_rate

from .compile import compile_image
from .data import Dataset, target_bytes
from .graph import Graph
from .plan import UpdatePlan
from .rate import suggest_rate
from .task import task_of

SAMPLES = 64
STEPS = 192  # of each run
RATES = [f"{digits * 10.0**-power:.9f}" for power in range(6, -1, -1) for digits in (1, 3)]
RUINED = 3.0  # a run that ends at so many times the loss at the start: larger rates are worse
CAUTION = 3  # the best rate of a short run is near the edge; a long run gets a smaller one


def try_rates(graph: Graph, plan: UpdatePlan, data: Dataset) -> str:
    """The rate, as decimal text, after which the loss on a few training samples is smallest,
    divided by CAUTION."""
    some = data.part(np.random.default_rng(0).permutation(len(data))[:SAMPLES])
    in_ram = tuple(replace(layer, slots=0, reach=0) for layer in plan.layers)
    image = compile_image(graph, replace(plan, layers=in_ram)).image
    start = _loss_after(graph, image, some, None)
    best, best_loss = RATES[0], start
    for rate in RATES:
        loss = _loss_after(graph, image, some, rate)
        if loss > RUINED * start:
            break
        if loss < best_loss:
            best, best_loss = rate, loss
    return f"{float(best) / CAUTION:.9f}"


def choose_rate(graph: Graph, plan: UpdatePlan, model: bytes, data: Dataset | None) -> str:
    """The learning rate to start from: by rule, or by trying where there are samples."""
    if graph.loss_name == "softmax" or data is None:
        return suggest_rate(graph, plan, model, None if data is None else data.x)
    return try_rates(graph, plan, data)


def _loss_after(graph: Graph, image: bytes, data: Dataset, rate: str | None) -> float:
    """Mean loss on the samples after a run over them."""
    engine = Engine(DeviceImage(image))
    policy = make_policy("cyclic", engine.image.layers, 1)
    order = np.random.default_rng(1).integers(0, len(data), STEPS if rate else 0)
    for step, i in enumerate(order):
        label = _load(engine, graph, data.part(slice(i, i + 1)))
        policy.choose(step, engine.state)
        engine.step(label, parse_rate(rate), step)
    labels = (_load(engine, graph, data.part(slice(i, i + 1))) for i in range(len(data)))
    return float(np.mean([engine.measure(label)[0] for label in labels]))


def _load(engine: Engine, graph: Graph, sample: Dataset) -> int:
    task = task_of(graph)
    target = target_bytes(sample, task)
    if not task.has_classes:
        engine.target[:] = target
    engine.sample[:] = np.ascontiguousarray(sample.x).tobytes()
    return int.from_bytes(target, "little") if task.has_classes else 0
