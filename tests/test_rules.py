"""Update rules beside the ordinary one: without quantisation-aware scaling, with coarse errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import runs
from gradient_cases import CASES, train_all
from gradients import Reference, cosine, length_ratio, measure
from machine import DY_AT, Machine, gradient_read_by, litert_tensors
from small_models import Net
from sparsetune import cli
from sparsetune.errors import SparsetuneError
from sparsetune.graph import per_channel_scales
from sparsetune.plan import check_plan, default_plan, load_plan
from sparsetune.program import Buffer
from sparsetune.rate import suggest_rate
from sparsetune.tflite import parse_tflite
from sparsetune.trial import choose_rate

LAYERS = ("CONV_2D", "CONV_2D: groups", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
COSINE, LENGTH = 0.99, 0.05  # as in test_gradients.py


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", LAYERS)
def test_without_qas_a_step_is_that_of_the_stored_integers(case: str, seed: int) -> None:
    """The gradient with respect to a stored integer is the real one times its scale (the chain
    rule); measured in real units a step is then the square of the scale too small."""
    net = CASES[case](np.random.default_rng(seed))
    model, x = net.to_bytes(), net.sample()
    graph = parse_tflite(model)
    wanted = Reference(graph, litert_tensors(model, x), 2).result
    for op in graph.trainable:
        scales = per_channel_scales(graph, op)
        axis = -1 if op.kind.startswith("D") else 0
        gradient = np.moveaxis(wanted.weights[op.index], axis, -1)
        wanted.weights[op.index] = np.moveaxis(gradient * scales**2, -1, axis)
        if op.index in wanted.biases:
            unit = graph.tensor(op.inputs[0]).scale * scales
            wanted.biases[op.index] = wanted.biases[op.index] * unit**2
    machine = Machine(graph, replace(train_all(graph), qas=False))
    ours = measure(machine, x, 2, wanted)
    assert ours.weights.keys() == wanted.weights.keys()
    for op, gradient in [*ours.weights.items(), *ours.biases.items()]:
        other = wanted.weights[op] if gradient.ndim > 1 else wanted.biases[op]
        assert cosine(gradient, other) > COSINE and abs(length_ratio(gradient, other) - 1) < LENGTH


@dataclass
class ErrorsRead:
    """Of every error tensor that a backward operator read, after some steps: its largest mantissa,
    and how it lies to the reference's."""

    peaks: list[int] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)


def errors_of(bits: int) -> ErrorsRead:
    net = Net((1, 8, 8, 3), seed=3)
    net.conv(8, 3)
    net.depthwise(1, 3)
    net.conv(6, 1)
    net.flatten()
    net.dense(5, scale=0.03)
    model = net.to_bytes()
    graph = parse_tflite(model)
    machine, found = Machine(graph, replace(train_all(graph), error_bits=bits)), ErrorsRead()
    for _ in range(30):  # the shifts settle
        x = net.sample()
        wanted = Reference(graph, litert_tensors(model, x), 2).result
        for _, op in machine.walk(x, 2):
            read = gradient_read_by(machine, op)
            if read is None or not read.values.any():
                continue
            dy = op.words[DY_AT[op.code][0]]
            assert isinstance(dy, Buffer)
            found.peaks.append(int(np.abs(machine.read(dy, np.int16).astype(int)).max()))
            if not read.masked:
                other = wanted.outputs[op.source].ravel()
                found.cosines.append(cosine(read.values.ravel(), other))
                found.lengths.append(length_ratio(read.values.ravel(), other))
    return found


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("bits", [4, 6, 8, 12])
def test_errors_of_fewer_bits(bits: int) -> None:
    """None beyond the limit, all of it used, and as right as so many bits can be."""
    found, limit = errors_of(bits), 2 ** (bits - 1) - 1
    assert max(found.peaks) <= limit and np.median(found.peaks) > limit / 4
    assert 0 < 1 - np.mean(found.cosines) < 1 / limit**2 * 30
    assert abs(np.mean(found.lengths) - 1) < 1 / limit


def test_the_plan_keeps_the_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    base = ["plan", str(runs.DIGITS), "-o", str(file)]
    assert cli.main([*base, "--no-qas", "--error-bits", "8"]) == 0
    plan = load_plan(file)
    assert (plan.qas, plan.error_bits) == (False, 8)
    old = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("qas", "error_bits")}
    file.write_text(json.dumps(old))
    assert (load_plan(file).qas, load_plan(file).error_bits) == (True, 16)
    image = tmp_path / "x.img"
    build = ["build", str(runs.DIGITS), "--plan", str(file), "-o", str(image)]
    assert cli.main(build) == 0
    before = image.read_bytes()
    assert cli.main([*build, "--error-bits", "8"]) == 0
    assert image.read_bytes() != before
    capsys.readouterr()
    assert cli.main([*build, "--error-bits", "17"]) == 1
    assert "errors of 17 bits: choose 4 to 16" in capsys.readouterr().err


def test_bits_that_are_none() -> None:
    task = runs.digits_task(steps=1)
    plan = default_plan(task.graph, 1)
    for bits in (0, 3, 17):
        with pytest.raises(SparsetuneError, match="choose 4 to 16"):
            check_plan(task.graph, replace(plan, error_bits=bits))


def test_a_rate_is_found_without_qas() -> None:
    """It lies orders of magnitude from the usual one, and the search still ends where the model
    learns."""
    task = runs.digits_task(steps=1)
    model = runs.DIGITS.read_bytes()
    plans = [replace(default_plan(task.graph, 6), qas=qas) for qas in (True, False)]
    few = task.train.part(slice(200))
    usual, plain = (float(suggest_rate(task.graph, p, model, few.x)) for p in plans)
    assert plain > 100 * usual
    rate = choose_rate(task.graph, plans[1], model, few)
    plain_task = runs.make_task(
        runs.DIGITS,
        {"x_train": few.x, "y_train": few.y, "x_test": task.test.x, "y_test": task.test.y},
        lambda graph: plans[1],
        steps=300, rate=rate,
    )
    lines = runs.twin_train(plain_task)[0]
    losses = [float(line.split(",")[0][5:]) for line in runs.losses(lines)]
    assert np.mean(losses[-60:]) < 0.6 * np.mean(losses[:20])
