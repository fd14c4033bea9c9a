"""The host twin against LiteRT with XNNPACK and PyTorch in float, one thread each, in one run.

    python bench/host_speed.py [--model mbv2] [--torch PYTHON]

ms of one sample, the shortest of many runs. A training step of the twin is a step of the device's
engine; PyTorch trains the same layers, all channels of them (it knows no fewer). two threads:
training steps of two twins at once, as a multiple of what one does alone. PyTorch is looked for in
this Python, in --torch and in build/venvs/*; agreement is the cosine between what the last layer
reads there and in LiteRT's reference kernels. The bars: forward at most 3 times LiteRT's, a step at
least 5 times as fast as PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from emulated import ROOT
from machine import litert_tensors
from networks import NAMES, REPORTED, Network, networks, plan_of
from sparsetune.compile import build_program, source_of
from sparsetune.image import lay_out
from sparsetune.litert import _runtime
from sparsetune.plan import UpdatePlan
from sparsetune_device.channels import make_policy
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image
from whole_program import LABEL, RATE, SEED

SECONDS = 1.5
EARLIER = " (of an earlier run:"
FOLDERS = ("host", "device")  # what torch_net.py needs


@dataclass(frozen=True)
class Speed:
    """ms of a sample; None where it is not installed. together: steps that two threads do in the
    time of one. agreement: cosine between PyTorch's features and LiteRT's."""

    twin_forward: float
    twin_step: float
    together: float
    litert_forward: float
    torch_forward: float | None = None
    torch_step: float | None = None
    agreement: float | None = None
    torch_version: str = "not installed"

    @property
    def to_litert(self) -> float:
        """Forward pass, twin's time to LiteRT's."""
        return self.twin_forward / self.litert_forward

    @property
    def faster_than_torch(self) -> float | None:
        """Training step, PyTorch's time to the twin's."""
        return self.torch_step / self.twin_step if self.torch_step else None


def best_ms(function: Callable[[], Any], seconds: float = SECONDS) -> float:
    """The shortest of many runs: what others do on this machine only makes runs longer."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1000 * min(times)


class Twin:
    """The device's engine over the kernels of this computer."""

    def __init__(self, network: Network, plan: UpdatePlan) -> None:
        layout = lay_out(build_program(network.graph, plan), source_of(network.graph))
        self.engine = Engine(Image(layout.image))
        self.policy = make_policy("cyclic", self.engine.image.layers, SEED)
        self.x = np.ascontiguousarray(network.x[0]).tobytes()
        self.count = 0

    def forward(self) -> None:
        self.engine.sample[:] = self.x
        self.engine.infer()

    def step(self) -> None:
        self.count += 1
        self.engine.sample[:] = self.x
        self.policy.choose(self.count, self.engine.state)
        self.engine.step(LABEL, RATE, self.count)


def samples_together(first: Callable[[], Any], second: Callable[[], Any], seconds: float) -> float:
    """What two threads do in a time, as a multiple of what one does alone in it; best of three."""
    alone = max(_count(seconds, first) for _ in range(3))
    return max(_count(seconds, first, second) for _ in range(3)) / alone


def _count(seconds: float, *functions: Callable[[], Any]) -> int:
    counts = [0] * len(functions)
    end = time.perf_counter() + seconds

    def work(i: int) -> None:
        while time.perf_counter() < end:
            functions[i]()
            counts[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def litert_forward(network: Network) -> Callable[[], Any]:
    """LiteRT as it comes: XNNPACK, one thread."""
    interpreter = _runtime().Interpreter(model_content=network.model, num_threads=1)
    interpreter.allocate_tensors()
    if not any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()):
        raise RuntimeError(f"LiteRT runs {network.title} without XNNPACK")
    source = interpreter.get_input_details()[0]
    x = network.x[:1].reshape(source["shape"])

    def forward() -> None:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()

    return forward


@cache
def torch_python(given: str = "") -> str:
    """A Python that can import torch; empty where there is none."""
    venvs = sorted((ROOT / "build" / "venvs").glob("*/bin/python"))
    for python in (given, sys.executable, *map(str, venvs)):
        if (
            python
            and subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
        ):
            return python
    return ""


def ask_torch(network: Network, plan: UpdatePlan, python: str) -> dict[str, Any]:
    request = dict(
        graph=network.graph, x=network.x, label=LABEL, seconds=SECONDS,
        trained=frozenset(p.operator for p in plan.layers if p.channels),
        biases=frozenset(p.operator for p in plan.layers if p.bias),
    )  # fmt: skip
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in FOLDERS)}
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        file.write(pickle.dumps(request))
        file.flush()
        command = [python, str(ROOT / "bench" / "torch_net.py"), file.name]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return dict(json.loads(done.stdout))


def measure_host(network: Network, given: str = "") -> Speed:
    plan = plan_of(network)
    inference, training, other = (Twin(network, p) for p in (UpdatePlan(()), plan, plan))
    forward, litert = best_ms(inference.forward), best_ms(litert_forward(network))
    speed = Speed(
        min(forward, best_ms(inference.forward)),  # before LiteRT and behind it
        best_ms(training.step),
        samples_together(training.step, other.step, SECONDS),
        litert,
    )
    python = torch_python(given)
    if not python:
        return speed
    found = ask_torch(network, plan, python)
    agreement = cosine(np.array(found["features"]), features_of(network))
    return replace(
        speed, torch_forward=found["forward"], torch_step=found["step"], agreement=agreement,
        torch_version=found["version"],
    )  # fmt: skip


def with_earlier_torch(speed: Speed, kept: dict[str, Any], run: str) -> Speed:
    """Where there is no PyTorch, the figures that were kept of it, told as those of `run`."""
    if speed.torch_step or not kept.get("torch_step"):
        return speed
    names = ("torch_forward", "torch_step", "agreement", "torch_version")
    earlier = {name: kept[name] for name in names}
    if EARLIER not in earlier["torch_version"]:
        earlier["torch_version"] += f"{EARLIER} {run})"
    return replace(speed, **earlier)


def features_of(network: Network) -> Any:
    """What the last layer reads of the first sample, by LiteRT's reference kernels, in real
    numbers."""
    graph = network.graph
    tensor = graph.tensor(graph.trainable[-1].inputs[0])
    values = litert_tensors(network.model, network.x[:1])[tensor.index].astype(float)
    return ((values - tensor.zero_point) * tensor.scale).ravel()


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


COLUMNS = ("forward", "LiteRT", "ratio", "PyTorch", "step", "PyTorch", "faster", "threads",
           "agreement")  # fmt: skip


def table(speeds: dict[str, Speed]) -> Iterator[str]:
    yield f"{'ms a sample':<24}" + "".join(f"{name:>10}" for name in COLUMNS)
    for title, s in speeds.items():
        figures = (
            *(s.twin_forward, s.litert_forward, s.to_litert, s.torch_forward),
            *(s.twin_step, s.torch_step, s.faster_than_torch, s.together, s.agreement),
        )
        cells = ("-" if figure is None else f"{figure:.3f}" for figure in figures)
        yield f"{title:<24}" + "".join(f"{cell:>10}" for cell in cells)
    versions = {s.torch_version for s in speeds.values()}
    yield f"LiteRT {litert_version()} with XNNPACK; PyTorch {', '.join(sorted(versions))}"


def litert_version() -> str:
    for package in ("ai-edge-litert", "tflite-runtime"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, action="append")
    parser.add_argument("--torch", default="", metavar="PYTHON", help="a Python that has torch")
    options = parser.parse_args()
    found = networks(options.model or REPORTED)
    print(*table({n.title: measure_host(n, options.torch) for n in found}), sep="\n")


if __name__ == "__main__":
    main()
