"""How long the forward pass and a training step of a model as a float network of PyTorch take.

Run by bench/host_speed.py with a Python that has torch: reads a Request, pickled as a dict, from a
file, prints the answer as JSON. It imports nothing of sparsetune but the graph and
its network.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sparsetune.float_net import FloatNet
from sparsetune.graph import Graph
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Request:
    """x: int8 samples [n, ...]. trained: operators whose weights a step trains. biases: those whose
    bias it trains. seconds: how long to try each."""

    graph: Graph
    x: Any
    label: int
    trained: frozenset[int]
    biases: frozenset[int]
    seconds: float


def real_input(graph: Graph, x: Any) -> Tensor:
    """One sample, NCHW."""
    tensor = graph.tensor(graph.input)
    values = (x[:1].astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)
    return torch.tensor(np.moveaxis(values, -1, 1).copy() if values.ndim == 4 else values)


def stepper(net: FloatNet, request: Request, x: Tensor) -> Callable[[], Any]:
    """A training step of the parameters asked for; all others are frozen."""
    wanted = {f"w{i}" for i in request.trained} | {f"b{i}" for i in request.biases}
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in wanted)
    rule = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-4)
    label = torch.tensor([request.label])

    def step() -> None:
        rule.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), label).backward()
        rule.step()

    return step


def best_ms(function: Callable[[], Any], seconds: float) -> float:
    """The shortest of many runs: what others do on this machine only makes runs longer."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1000 * min(times)


def answer(request: Request) -> dict[str, Any]:
    torch.set_num_threads(1)
    net, x = FloatNet(request.graph).eval(), real_input(request.graph, request.x)
    with torch.no_grad():
        net(x)
        features = net.features
        last = features.permute(0, 2, 3, 1) if features.dim() == 4 else features
        forward = best_ms(lambda: net(x), request.seconds)
    step = best_ms(stepper(net, request, x), request.seconds)
    told = {"version": torch.__version__, "forward": forward, "step": step}
    return told | {"features": last.numpy().ravel().tolist()}


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        print(json.dumps(answer(Request(**pickle.load(file)))))
