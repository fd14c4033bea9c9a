"""Checks of the float network, by a Python that has torch (tests/test_compare.py runs it)."""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from sparsetune.float_net import FloatNet
from sparsetune.float_run import Augment, FloatRequest, Reader, Samples, Trainer


def front_and_rest(graph, front, rest):
    x = np.random.default_rng(0).integers(-128, 128, (5, 8, 8, 3), np.int8)
    samples = Samples(x, torch.zeros(5, dtype=torch.int64))
    with torch.no_grad():
        batch = Reader(graph).batch(samples, slice(5))
        whole = FloatNet(graph)(batch)
        parts = FloatNet(rest)(FloatNet(front, is_front=True)(batch))
        one = FloatNet(graph)(batch[:1])
    assert whole.shape == (5, 4) and whole.std() > 0
    assert torch.allclose(whole, parts, atol=1e-5) and torch.allclose(whole[:1], one, atol=1e-5)


def channels_in_turns(rest, plan):
    """Half of twelve channels: two steps move all of them, one only its own; frozen ones none."""
    layers = tuple((p.operator, p.channels, p.bias) for p in plan.layers)
    request = FloatRequest(None, rest, "", "", layers, 1, 0.1, 2, 0.0, 1)
    shape = rest.tensor(rest.input).shape[1:]
    x = np.random.default_rng(1).normal(0, 1, (4, *shape)).astype(np.float32)
    trainer = Trainer(request, {"train": Samples(x, torch.tensor([0, 1, 2, 3]))})
    before = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    conv = plan.layers[0]
    assert 0 < conv.channels < before[f"w{conv.operator}"].shape[1]
    for step, window in ((0, slice(0, conv.channels)), (1, slice(conv.channels, None))):
        old = getattr(trainer.net, f"w{conv.operator}").detach().clone()
        trainer.step(trainer.parts["train"], np.arange(4), step, 100)
        moved = (getattr(trainer.net, f"w{conv.operator}") != old).flatten(2).any(2).any(0)
        wanted = torch.zeros_like(moved)
        wanted[window] = True
        assert (moved == wanted).all(), (moved, wanted)
    trained = {f"w{p.operator}" for p in plan.layers} | {f"b{p.operator}" for p in plan.layers}
    for name, p in trainer.net.named_parameters():
        assert (name in trained) == bool((p != before[name]).any()), name


def moved(x, mirrored, down, right):
    """[height, width, channels], one place after the other; the edge is repeated."""
    found = np.empty_like(x)
    height, width, _ = x.shape
    for i in range(height):
        for j in range(width):
            a, b = min(max(i + down, 0), height - 1), min(max(j + right, 0), width - 1)
            found[i, j] = x[a, width - 1 - b if mirrored else b]
    return found


def mirrored_and_moved():
    """Each draw is one of all that are allowed, and all of them come up."""
    x = np.random.default_rng(2).integers(-128, 128, (4, 5, 3), np.int8)
    ways = [(m, d, r) for m in (0, 1) for d in (-1, 0, 1) for r in (-2, -1, 0, 1, 2)]
    wanted = [moved(x, *way).tobytes() for way in ways]
    augment = Augment(1, 1, 2, seed=3)
    drawn = [np.ascontiguousarray(augment(x)).tobytes() for _ in range(600)]
    assert set(drawn) == set(wanted) and len(set(wanted)) == 30


graph, front, rest, plan = pickle.loads(Path(sys.argv[1]).read_bytes())
front_and_rest(graph, front, rest)
print("front and rest")
channels_in_turns(rest, plan)
print("channels in turns")
mirrored_and_moved()
print("mirrored and moved")
