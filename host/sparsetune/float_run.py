"""One run of a comparison in float, by a Python that has torch (float_methods.py starts it):

    python -m sparsetune.float_run REQUEST.pickle

tells the lines of run_lines.py. Parameters that do not train are left as they are; where
that is a whole front, its features are made once, and kept.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .float_net import FloatNet
from .graph import Graph, Operator
from .run_lines import Progress, last_loss, tell

Change = Callable[[Any], Any]  # of one sample
PIECE = 256  # samples that are judged, or made features of, at a time
PARTS = ("train", "select", "test")


@dataclass(frozen=True)
class FloatRequest:
    """front, graph: as front.split_front has them. samples: folder with the model's int8 samples
    (front_cache.py). features: where those behind the front are kept. layers: of the plan,
    (operator, channels a step, whether the bias trains). epochs: of all training samples; 0: only
    the features are made. augment: whether samples are mirrored, and places that they are moved
    along each axis. smoothing: the share of a label's probability that all classes get alike."""

    front: Graph | None
    graph: Graph
    samples: str
    features: str
    layers: tuple[tuple[int, int, bool], ...]
    epochs: int
    rate: float
    batch: int
    momentum: float
    seed: int
    augment: tuple[int, int, int] = (0, 0, 0)
    smoothing: float = 0.0


@dataclass(frozen=True)
class Samples:
    """x: [N, ...] NHWC, int8 as stored, or float32 features. y: classes."""

    x: Any
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


class Reader:
    """Samples as what the net takes: real numbers, NCHW."""

    def __init__(self, graph: Graph) -> None:
        source = graph.tensor(graph.input)
        self.scale, self.zero = source.scale, source.zero_point

    def batch(self, samples: Samples, which: Any, changed: Change | None = None) -> Tensor:
        x = np.array(samples.x[which])
        if changed:
            x = np.stack([changed(sample) for sample in x])
        if x.dtype == np.int8:
            x = (x.astype(np.float32) - self.zero) * np.float32(self.scale)
        found = torch.from_numpy(np.ascontiguousarray(x))
        return found.permute(0, 3, 1, 2) if found.dim() == 4 else found  # channels last in memory


def read_samples(path: Path, shape: tuple[int, ...]) -> Samples:
    """A sample file (docs/FORMAT.md), left on the disk."""
    with path.open("rb") as file:
        head = struct.unpack("<4s8I", file.read(36))
        count, _, _, size, targets_at, samples_at = head[2:8]
        file.seek(targets_at)
        y = np.frombuffer(file.read(count * size), "<u1" if size == 1 else "<u2")
    x = np.memmap(path, np.int8, "r", samples_at, (count, *shape))
    return Samples(x, torch.from_numpy(y.astype(np.int64)))


def load_parts(request: FloatRequest) -> dict[str, Samples]:
    """What the net learns from and is judged on, those that there are."""
    whole = request.front or request.graph
    shape = whole.tensor(whole.input).shape[1:]
    found = {}
    for name in PARTS:
        path = Path(request.samples) / f"{name}.dat"
        if path.exists():
            stored = read_samples(path, shape)
            features = Path(request.features) / f"{name}.npy"
            found[name] = Samples(_features(request.front, stored, features), stored.y)
    return found


def _features(front: Graph | None, samples: Samples, path: Path) -> Any:
    if front is None:
        return samples.x
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.npy")
        np.save(part, _through(front, samples))
        part.replace(path)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def _through(front: Graph, samples: Samples) -> Any:
    net, reader = FloatNet(front, is_front=True).eval(), Reader(front)
    net = net.to(memory_format=torch.channels_last)
    found = []
    for piece in _pieces(len(samples)):
        y = net(reader.batch(samples, piece))
        found.append((y.permute(0, 2, 3, 1) if y.dim() == 4 else y).numpy().copy())
        tell(steps=0)
    return np.concatenate(found)


def _pieces(count: int) -> Iterator[slice]:
    return (slice(i, min(count, i + PIECE)) for i in range(0, count, PIECE))


class Augment:
    """Maps [height, width, channels], mirrored in every second draw, and moved; what comes in
    repeats the edge. As the board does it (ulab_kernels/augment.h), by other draws."""

    def __init__(self, flip: int, down: int, right: int, seed: int) -> None:
        self.flip, self.most = flip, (down, right)
        self.random = np.random.default_rng([seed, 1])

    def __call__(self, x: Any) -> Any:
        if self.flip and self.random.integers(2):
            x = x[:, ::-1]
        pads = [(most, most) for most in self.most] + [(0, 0)]
        wide = np.pad(x, pads, "edge")
        down, right = (int(self.random.integers(2 * most + 1)) for most in self.most)
        return wide[down : down + x.shape[0], right : right + x.shape[1]]


class Masks:
    """Of layers that train some of their input channels a step: a window that moves on, as the
    policy `cyclic` has it. A gradient of the others is set to zero."""

    def __init__(self, net: FloatNet, request: FloatRequest) -> None:
        self.parts: list[tuple[Tensor, int, int]] = []
        named = dict(net.named_parameters())
        for operator, channels, _ in request.layers:
            weight = named[f"w{operator}"]
            is_depthwise = request.graph.operator(operator).kind == "DEPTHWISE_CONV_2D"
            count = weight.shape[0 if is_depthwise else 1]
            if 0 < channels < count:
                self.parts.append((weight, channels, 0 if is_depthwise else 1))

    def apply(self, step: int) -> None:
        for weight, channels, axis in self.parts:
            count = weight.shape[axis]
            windows = -(-count // channels)
            begin = min(step % windows * channels, count - channels)
            assert weight.grad is not None
            weight.grad.narrow(axis, 0, begin).zero_()
            weight.grad.narrow(axis, begin + channels, count - begin - channels).zero_()


class Trainer:
    """SGD with a cosine rate. Steps are counted in samples."""

    def __init__(self, request: FloatRequest, parts: dict[str, Samples]) -> None:
        self.request, self.parts = request, parts
        self.net = FloatNet(request.graph).to(memory_format=torch.channels_last)
        self.reader = Reader(request.graph)
        wanted = {f"w{i}" for i, channels, _ in request.layers if channels}
        wanted |= {f"b{i}" for i, _, bias in request.layers if bias}
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in wanted)
        chosen = [p for p in self.net.parameters() if p.requires_grad]
        self.rule = torch.optim.SGD(chosen, lr=request.rate, momentum=request.momentum)
        self.masks = Masks(self.net, request)
        self.augment = Augment(*request.augment, request.seed) if any(request.augment) else None
        self.curve: list[tuple[int, float]] = []
        self.losses: list[tuple[int, float]] = []
        self.progress = Progress()

    def run(self) -> None:
        train = self.parts["train"]
        count, batch = len(train), self.request.batch
        each = -(-count // batch)
        for epoch in range(self.request.epochs):
            order = np.random.default_rng([self.request.seed, epoch]).permutation(count)
            for i in range(each):
                which = np.sort(order[i * batch : (i + 1) * batch])
                self.step(train, which, epoch * each + i, self.request.epochs * each)
                self.progress.at(epoch * count + i * batch)
            if "select" in self.parts:
                self.curve.append(((epoch + 1) * count, self.score("select")))
            if not math.isfinite(self.losses[-1][1]):
                break  # ruined for good

    def step(self, train: Samples, which: Any, step: int, steps: int) -> None:
        rate = self.request.rate * (1 + math.cos(math.pi * step / steps)) / 2
        for group in self.rule.param_groups:
            group["lr"] = rate
        self.rule.zero_grad(set_to_none=True)
        x = self.reader.batch(train, which, self.augment)
        smoothing = self.request.smoothing
        loss = F.cross_entropy(self.net(x), train.y[which], label_smoothing=smoothing)
        loss.backward()
        self.masks.apply(step)
        self.rule.step()
        self.losses.append((len(which), loss.item()))

    @torch.no_grad()
    def score(self, name: str) -> float:
        samples = self.parts[name]
        right = 0
        for piece in _pieces(len(samples)):
            answers = self.net(self.reader.batch(samples, piece)).argmax(1)
            right += int((answers == samples.y[piece]).sum())
        return right / len(samples)

def do(request: FloatRequest) -> dict[str, Any]:
    """The record of a run, as twin_run.do has it."""
    torch.set_num_threads(1)
    torch.manual_seed(request.seed)
    parts = load_parts(request)
    if not request.epochs:
        return {}
    began = time.process_time()
    trainer = Trainer(request, parts)
    trainer.run()
    seconds = time.process_time() - began
    loss = last_loss([loss for _, loss in trainer.losses], request.batch)
    return {
        "curve": trainer.curve,
        "test": trainer.score("test") if "test" in parts else None,
        "steps": sum(count for count, _ in trainer.losses),
        "loss": loss if math.isfinite(loss) else None,
        "events": {},
        "cpu_seconds": seconds,
        "torch": torch.__version__,
    }


def unsupported(graph: Graph) -> Operator | None:
    """The first operator that FloatNet does not know."""
    return next(
        (
            op
            for op in graph.operators
            if not hasattr(FloatNet, op.kind.lower())
            and not (op.kind == "SOFTMAX" and op is graph.last)
        ),
        None,
    )


def main(path: str) -> int:
    with open(path, "rb") as file:
        request = FloatRequest(**pickle.load(file))
    strange = unsupported(request.graph) or (request.front and unsupported(request.front))
    if strange:
        tell(error=f"the float network has no {strange.kind}: leave out --float")
    else:
        tell(result=do(request))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
