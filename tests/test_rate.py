"""The learning rate that a user gets who names none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import DIGITS
from small_models import Net
from sparsetune import cli, trial
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.digits import changed_sets
from sparsetune.front import without_front
from sparsetune.plan import default_plan
from sparsetune.task import task_of
from sparsetune.tflite import parse_tflite
from sparsetune.trial import DOWN, UP, search, try_rates
from sparsetune.twin import Twin
from sparsetune_device.telemetry import parse


def searched(losses: dict[int, float], useless: float) -> tuple[int, list[int]]:
    """(power chosen, powers tried in their order); powers that are not named cost 9."""
    tried: list[int] = []

    def loss(power: int) -> float:
        tried.append(power)
        return losses.get(power, 9.0)

    return search(loss, useless), tried


@pytest.mark.parametrize(("group", "steps"), [(1, 200), (50, 200), (200, 800)])
def test_a_trial_has_whole_groups(group: int, steps: int) -> None:
    """Without any it would learn nothing, at every rate."""
    net = Net((1, 8), seed=1)
    net.dense(4)
    graph = parse_tflite(net.to_bytes())
    x = np.concatenate([net.sample() for _ in range(20)])
    plan = replace(default_plan(graph, 1), velocity=True)
    data = Dataset(x, np.arange(20) % 4)
    assert trial._trial(graph, plan, data, {"accumulate": group}).steps == steps


def test_a_rate_that_is_right_is_kept() -> None:
    assert searched({-1: 2, 0: 1, 1: 1.5}, 3) == (0, [0, -1, 1])


def test_down_while_a_smaller_rate_is_better() -> None:
    assert searched({0: 5, -1: 4, -2: 1, -3: 2}, 3) == (-2, [0, -1, -2, -3])


def test_down_from_where_the_model_is_ruined() -> None:
    """All of these are ruined, some by chance a little less: worse than a model that learns
    nothing."""
    ruined = {0: 5.1, -1: 5.2, -2: 5.0, -3: 5.3}
    assert searched({**ruined, -4: 1, -5: 2}, 3) == (-4, [0, -1, -2, -3, -4, -5])


def test_up_while_a_larger_rate_is_better() -> None:
    assert searched({-1: 4, 0: 3, 1: 2, 2: 1, 3: 2}, 5) == (2, [0, -1, 1, 2, 3])


def test_up_where_no_smaller_rate_learns() -> None:
    """A smaller rate changes less, which is no merit where nothing is learnt; some more of the way
    up may ruin the model before a rate is large enough."""
    flat = {power: 2.35 - 0.001 * (power < -2) for power in range(-DOWN, 1)}
    assert searched({**flat, 1: 2.46, 2: 2.39, 3: 1.92, 4: 2.2}, 2.13)[0] == 3
    tried = searched({**flat, 1: 2.46, 2: 2.39, 3: 1.92, 4: 2.2}, 2.13)[1]
    assert tried == [0, *range(-1, -DOWN - 1, -1), 1, 2, 3, 4]


def test_the_search_ends() -> None:
    assert searched({}, 1)[1] == [0, *range(-1, -DOWN - 1, -1), *range(1, UP + 1)]
    falling = {power: float(-power) for power in range(-DOWN, UP + 1)}
    assert searched(falling, 5)[0] == UP


def digits() -> tuple[bytes, Dataset, Dataset]:
    """(model, 200 samples to train on, the others)."""
    sets = changed_sets()
    train = Dataset(sets["x_train"][:200], sets["y_train"][:200])
    return DIGITS.read_bytes(), train, Dataset(sets["x_test"], sets["y_test"])


def accuracy(model: bytes, train: Dataset, test: Dataset, rate: str) -> float:
    graph = parse_tflite(model)
    lines: list[str] = []
    image = compile_image(graph, default_plan(graph, 6)).image
    with Twin(image, sample_file(train, task_of(graph))) as twin:
        twin.train(lambda line: None, steps=200, rate=rate)
        twin.evaluate(lines.append, sample_file(test, task_of(graph)), trained=True)
    event = parse(lines[-1])
    assert event
    return float(event[1]["correct"] / event[1]["total"])


def skipped() -> Net:
    """Two layers, two with a way around them, two more."""
    net = Net((1, 8, 8, 3), seed=4)
    net.conv(8, 3, stride=2)
    start = net.conv(8, 1)
    net.depthwise(1, 3)
    net.conv(8, 1)
    net.add(start)
    net.conv(12, 1)
    net.flatten()
    net.dense(4)
    net.softmax()
    return net


@pytest.mark.parametrize(("last", "left"), [(1, 2), (2, 4), (3, 7), (5, 8), (6, 9)])
def test_runs_without_the_frozen_front_end_the_same(
    last: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """left: operators; within what has a way around it there is no place to cut."""
    net = skipped()
    graph, rng = parse_tflite(net.to_bytes()), np.random.default_rng(1)
    plan = default_plan(graph, last)
    data = Dataset(rng.integers(-128, 128, (24, 8, 8, 3), np.int8), np.arange(24) % 4)
    short = trial._trial(graph, plan, data, {})
    monkeypatch.setattr(trial, "without_front", lambda graph, plan, data: (graph, data))
    whole = trial._trial(graph, plan, data, {})
    assert len(without_front(graph, plan, data)[0].operators) == left
    assert [t.loss_without() for t in (short, whole)] == [whole.loss_without()] * 2
    losses = [t.loss_after("0.01") for t in (short, whole)]
    assert losses[0] == losses[1] != whole.loss_without()
    assert (len(short.image) < len(whole.image)) == (left < len(graph.operators))


def test_an_autoencoder_is_not_cut() -> None:
    """Its target is the sample."""
    net = Net((1, 6), seed=1)
    net.dense(3)
    net.dense(6)
    graph, data = parse_tflite(net.to_bytes()), Dataset(np.zeros((9, 6), np.int8), None)
    assert graph.loss_name == "autoencoder"
    assert without_front(graph, default_plan(graph, 1), data) == (graph, data)
    numbers = replace(graph, loss="mse")
    assert len(without_front(numbers, default_plan(graph, 1), data)[0].operators) == 1


@pytest.mark.parametrize("counts", [[1, 1, 2], [3, 2, 0, 1], [9, 1, 1], [2, 2, 2, 2], [40, 60, 2]])
def test_no_class_is_left_out_whole(counts: list[int]) -> None:
    y = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = trial.parts_of(Dataset(np.zeros((len(y), 1), np.int8), y), True)
    left_out = np.concatenate(parts)
    assert len(set(left_out)) == len(left_out) >= 2
    for part in parts:
        rest = np.delete(y, part)
        assert len(part) and set(y[part]) <= set(rest)
        assert set(rest) == set(y)


def test_samples_of_a_class_each_are_judged_by_themselves() -> None:
    (part,) = trial.parts_of(Dataset(np.zeros((5, 1), np.int8), np.arange(5)), True)
    assert not len(part)


@pytest.mark.parametrize("seed", range(4))
def test_few_samples_give_a_rate_that_learns(seed: int) -> None:
    """Of half of the digits one, of the others two: parts by chance left out whole classes."""
    model, train, test = digits()
    order = np.random.default_rng(seed).permutation(len(train))
    y = np.asarray(train.y)[order]
    few = [order[y == digit][: 1 + digit % 2] for digit in range(10)]
    some = train.part(np.concatenate(few))
    graph = parse_tflite(model)
    rate = try_rates(graph, default_plan(graph, 6), some, "0.003")
    before, after = (accuracy(model, some, test, r) for r in ("0", rate))
    print(f"{rate}: {before:.1%} to {after:.1%}")
    assert after > before + 0.1


@pytest.mark.parametrize("first", ["3", "0.00002"])
def test_from_a_rate_that_is_far_off(first: str) -> None:
    """A rule may be wrong by a factor of a hundred, in both directions. Twice the same."""
    model, train, test = digits()
    graph = parse_tflite(model)
    found = [try_rates(graph, default_plan(graph, 6), train, first) for _ in (1, 2)]
    assert found[0] == found[1]
    at_first, tried = (accuracy(model, train, test, rate) for rate in (first, found[0]))
    print(f"{first}: {at_first:.1%}, {found[0]}: {tried:.1%}")
    assert at_first < 0.5 and tried > 0.65


def test_what_is_said_of_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`build` tells a guess from a measured rate, and does not guess higher than it measures."""
    _, train, _ = digits()
    path, image = tmp_path / "s.npz", tmp_path / "m.img"
    np.savez(path, x=train.x, y=train.y)
    rates = []
    for more, said in (((), "guessed, .*: give --data"), (("--data", path), "measured")):
        assert not cli.main(["build", *map(str, (DIGITS, *more, "-o", image))])
        told = re.search(rf"learning rate ([\d.]+) \({said}", capsys.readouterr().out)
        assert told
        rates.append(float(told[1]))
    assert rates[0] < rates[1]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1e-3", "0.001"), ("2.5E-4", "0.00025"), ("1e0", "1"), ("0.05", "0.05"), ("3e4", "30000")],
)
def test_rates_in_scientific_notation(text: str, rate: str) -> None:
    """The device reads decimal numbers alone."""
    assert cli.build_parser().parse_args(["train", "--rate", text]).rate == rate


@pytest.mark.parametrize("text", ["1e-12", "1e999999", "fast", "-1e-3", "nan", "1e-3e"])
def test_rates_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", f"--rate={text}", "--port", "/nowhere"]) == 1
    assert "is not a decimal number such as 0.05" in capsys.readouterr().err


def test_the_twin_s_time_is_this_computer_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, train, _ = digits()
    np.savez(tmp_path / "s.npz", x=train.x[:40], y=train.y[:40])
    args = ("tune", DIGITS, tmp_path / "s.npz", "--twin", "--rate", "1e-2", "--steps", 4, "--plain")
    log = ("-o", tmp_path / "o.tflite", "--log", tmp_path / "log.jsonl")
    assert not cli.main([str(arg) for arg in (*args, *log)])
    out = capsys.readouterr().out
    assert re.search(r"^time: \S+ \S+ a step, on this computer \(`plan` estimates", out, re.M)
    assert "learning rate 0.01 (yours)" in out and "measuring" not in out
