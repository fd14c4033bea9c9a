"""TinyProp in whole runs: skipped steps, what a run tells of its effort, and that it goes on where
it was broken off; on the twin and on the emulated Pico."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
import sparsetune_device.engine as engine
from sparsetune import cli
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.export import Checkpoint, trained_tensors
from sparsetune.image import parse_image
from sparsetune.monitor import describe_effort
from sparsetune.plan import default_plan, load_plan, save_plan
from sparsetune_device.effort import Effort, Threshold, make_rule, threshold
from sparsetune_device.momentum import Groups
from sparsetune_device.worth import AGE_AT, LEAST, ONE, SETTLED, Worth, logarithm, probability
from test_training import check_board_against_twin, check_memory, needs_shared

SHARED = shared_tasks.shared_folder()
V1 = "0.05:0.5:0.9"


def with_policy(task: runs.Task, policy: str, **options: Any) -> runs.Task:
    plan = replace(default_plan(task.graph, 6), tinyprop=policy)
    image = parse_image(compile_image(task.graph, plan).image)
    return replace(task, image=image, options={**task.options, **options})


def told(lines: list[str]) -> dict[str, Any]:
    return runs.events(lines, "effort")[-1]


def test_counting_alone_changes_no_line() -> None:
    task = runs.digits_task(steps=60)
    plain, lines = (runs.twin_train(with_policy(task, policy))[0] for policy in ("", "1:1:1"))
    assert runs.losses(lines) == runs.losses(plain)
    assert not runs.events(plain, "effort")
    effort = told(lines)
    assert effort["n"] == 60 and effort["steps"] == 10000
    assert 0 < effort["backward"] < 10000  # errors behind a ReLU are zero in part


def test_all_is_the_mean_of_forward_and_backward() -> None:
    task = with_policy(runs.digits_task(steps=60), V1)
    effort = told(runs.twin_train(task)[0])
    forward, backward = task.image.macs
    whole = (10000 * forward + effort["backward"] * backward) / (forward + backward)
    assert effort["all"] == pytest.approx(whole, abs=1)


def test_a_smaller_share_is_less_effort() -> None:
    task = runs.digits_task(steps=60)
    efforts = [
        told(runs.twin_train(with_policy(task, policy))[0])["backward"]
        for policy in ("1:1:1", "0.3:0.8:1", "0.1:0.4:1", "0:0.1:0.8")
    ]
    assert efforts == sorted(efforts, reverse=True) and efforts[-1] < efforts[0] / 3


def above(lines: list[str], share: float) -> tuple[int, int]:
    """(steps at that share of the largest norm of late or above, steps close to it), redone from
    the losses that are told: 2 (1 - p)."""
    most, done, near = 0.0, 0, 0
    for line in runs.losses(lines):
        norm = 2 * (1 - np.exp(-float(line.split(",")[0][5:])))
        most = max(norm, most * (1 - 2.0**-10))
        done += norm >= share * most
        near += abs(norm - share * most) < 2e-3
    return done, near


@pytest.mark.parametrize("skip", ["0.05", "0.3", "0.9"])
def test_steps_are_skipped_where_the_gradient_is_small(skip: str) -> None:
    task = with_policy(runs.digits_task(steps=300), "1:1:1", skip=skip)
    lines = runs.twin_train(task)[0]
    done, near = above(lines, float(skip))
    effort = told(lines)
    assert len(runs.losses(lines)) == effort["n"] == 300
    assert abs(effort["steps"] * 300 / 10000 - done) <= near + 1
    assert 0 < done < 300


def test_a_skipped_step_learns_nothing() -> None:
    task = runs.digits_task(steps=1)
    samples, labels = task.train.x, task.train.y
    machine = engine.Engine(engine_image(task.image.data))
    effort = Effort(machine, Threshold("0.9"))
    skipped = 0
    for i in range(60):
        machine.sample[:] = samples[i].tobytes()
        before, done = bytes(machine.state[64:]), effort.done
        effort.step(int(labels[i]), (40000, -22), i)
        if effort.done == done:
            skipped += 1
            assert machine.state[64:] == before or is_loss_alone(machine, before)
    assert 0 < skipped < 60


def is_loss_alone(machine: engine.Engine, before: bytes) -> bool:
    """Nothing but exponent and shift of the loss' own error tensor differ."""
    after = bytes(machine.state[64:])
    return sum(a != b for a, b in zip(before, after, strict=True)) <= 4


def engine_image(data: bytes) -> Any:
    from sparsetune_device.image import Image

    return Image(data)


@pytest.mark.parametrize("rule", [{"skip": "0.3"}, {"effort": 25}], ids=["skip", "effort"])
def test_a_broken_run_goes_on_as_if_it_had_not_been(rule: dict[str, Any]) -> None:
    """What a rule remembers and the setting are in the checkpoint."""
    task = with_policy(runs.digits_task(), V1, steps=300, schedule="linear", **rule)
    straight, unbroken = runs.twin_train(task)
    broken: list[str] = []

    def pull_the_plug(line: str) -> None:
        broken.append(line)
        if len(runs.losses(broken)) == 170:
            raise KeyboardInterrupt

    with runs.Twin(task.image.data, task.samples) as twin:
        with pytest.raises(KeyboardInterrupt):
            twin.train(pull_the_plug, **task.options)
        rest: list[str] = []
        assert twin.train(rest.append, resume=True) == unbroken
    assert rule.items() <= runs.events(rest, "start")[0].items()
    lines = [line.split(",")[0] for line in runs.losses(broken + rest)]
    assert lines == [line.split(",")[0] for line in runs.losses(straight)]


def test_a_resumed_run_may_take_the_other_rule() -> None:
    task = with_policy(runs.digits_task(), "1:1:1", steps=20, skip="0.3")
    with runs.Twin(task.image.data, task.samples) as twin:
        lines: list[str] = []
        twin.train(lines.append, **task.options)
        twin.train(lines.append, resume=True, steps=30, effort=25)
        twin.train(lines.append, resume=True, steps=40, skip="0.5")
        twin.train(lines.append, resume=True, steps=50)
    rules = [(event["skip"], event["effort"]) for event in runs.events(lines, "start")]
    assert rules == [("0.3", 0), ("", 25), ("0.5", 0), ("0.5", 0)]


RULES = {"none": {"skip": "", "effort": 0}, "skip": {"skip": "0.3"}, "effort": {"effort": 25}}


@pytest.mark.parametrize("way", ["skip effort", "effort skip", "effort none skip"])
def test_the_other_rule_begins_anew(way: str) -> None:
    """It takes nothing of what the one before remembered, in other units, for its own."""
    task = with_policy(runs.digits_task(), "1:1:1", effort=0)
    with runs.Twin(task.image.data, task.samples) as twin:
        for i, rule in enumerate(way.split()):
            lines: list[str] = []
            options = {"resume": True} if i else task.options
            twin.train(lines.append, **{**options, "steps": 300 * (i + 1), **RULES[rule]})
    if rule == "effort":
        assert told(lines)["steps"] == pytest.approx(2500, abs=600)
    else:
        done, near = above(lines, 0.3)
        assert abs(told(lines)["steps"] * 300 / 10000 - done) <= near + 1
        assert 0 < done < 300


def test_each_epoch_tells_its_effort() -> None:
    task = with_policy(runs.digits_task(), V1)
    few = replace(task, train=task.train.part(slice(20)), options={**task.options, "steps": 50})
    assert [e["n"] for e in runs.events(runs.twin_train(few)[0], "effort")] == [20, 40, 50]


# A share of the steps -----------------------------------------------------------------------------


def bound_of(word: int) -> float:
    """The norm that a word of the state stands for: between powers of two it is linear."""
    return float(2.0 ** (word >> 15) * (1 + (word & ONE - 1) / ONE))


def test_logarithms_and_probabilities_against_floats() -> None:
    rng = np.random.default_rng(0)
    numbers = [1, 2, 3, 32767, 32768, 65535, 65536, (1 << 30) - 1]
    numbers += [int(n) for n in 2 ** rng.uniform(0, 30, 300)]
    for n in numbers:
        assert bound_of(logarithm(n)) == pytest.approx(n, rel=2**-14)
        for share in (0.0, 0.001, 0.3, 0.999, 1.0, 3.0):
            norm = min(int(n * share), (1 << 30) - 1)
            want = min(1.0, norm / bound_of(logarithm(n)))
            assert probability(norm, logarithm(n)) / ONE == pytest.approx(want, abs=2**-13)


def test_the_mean_of_a_samples_rates_is_the_rate() -> None:
    """Whatever its norm: what is drawn less often learns at a higher rate. Of a small share of the
    steps it is less than was asked for."""
    rule, rate, draws = Worth(25), (40000, -22), 4000
    for norm in (70, 700, 7000, 70000, 700000):
        bound, total = logarithm(70000), 0.0
        for seed in range(draws):
            if rule.look(norm, bound, seed):
                mantissa, exponent = rule.rate(rate)
                assert 1 << 15 <= mantissa < 1 << 16
                total += mantissa * 2.0**exponent
        chance = max(LEAST / ONE, min(1.0, norm / 70000))
        spread = np.sqrt((1 - chance) / chance / draws)
        mean = total / draws / (0.375 * rate[0] * 2.0 ** rate[1])
        assert mean == pytest.approx(1, abs=4 * spread + 1e-3)


@pytest.mark.parametrize("percent", [1, 10, 25, 60, 99])
@pytest.mark.parametrize("scale", [1.0, 3e-4, 300.0])
def test_the_share_is_held_whatever_the_norms(percent: int, scale: float) -> None:
    """Also where they fall over a run, from a first one that tells little: the bound moves by no
    more than its logarithm's range, and so does the count, once its pace has settled."""
    rng, rule = np.random.default_rng(1), Worth(percent)
    word = done = settled = late = 0
    steps = 4000
    for step in range(steps):
        if step == SETTLED:
            settled, late = word, done
        norm = int(65536 * scale * 2 * rng.random() ** 3 * (1 - 0.9 * step / steps))
        goes_on = rule.look(norm, word, step)
        word = rule.after(goes_on)
        assert 0 < word & (1 << AGE_AT) - 1 and word < 1 << 30
        done += goes_on
    counted = 32 * (100 * (done - late) - percent * (steps - SETTLED))
    assert counted == pytest.approx(word - settled, abs=2)
    assert done / steps == pytest.approx(percent / 100, abs=0.04)


@pytest.mark.parametrize("percent", [10, 25, 60])
@pytest.mark.parametrize("first", [1 / 200, 1.0, 10.0])
def test_a_short_run_holds_its_share(percent: int, first: float) -> None:
    """Whatever the model makes of its first sample: one that it knows says nothing of the others.
    Five points, and what chance adds in a run by itself."""
    shares = []
    for seed in range(20):
        rng, rule = np.random.default_rng(seed), Worth(percent)
        word = done = 0
        for step in range(240):
            norm = 65536 * first if step == 0 else 65536 * 2 * rng.random() ** 3
            goes_on = rule.look(int(norm), word, 1000 * seed + step)
            word = rule.after(goes_on)
            done += goes_on
        shares.append(done / 240)
        assert done / 240 == pytest.approx(percent / 100, abs=0.08)
    assert np.mean(shares) == pytest.approx(percent / 100, abs=0.05)


@pytest.mark.parametrize("steps", [100, 240])
def test_a_resumed_bound_keeps_its_pace(steps: int) -> None:
    """The word alone says how fast the bound moves: another rule that gets it goes on alike."""
    rule, word = Worth(25), 0
    for step in range(steps):
        word = rule.after(rule.look(65536, word, step))
    other = Worth(25)
    ages, moves = [], []
    for each in (rule, other):
        each.look(65536, word, steps)
        ages.append(each.age)
        moves.append(each.after(False))
    assert ages[0] == ages[1] == min(steps, SETTLED) and moves[0] == moves[1]


@pytest.mark.parametrize("percent", [10, 25, 50])
def test_a_run_holds_its_effort(percent: int) -> None:
    task = with_policy(runs.digits_task(steps=600), "1:1:1", effort=percent)
    lines = runs.twin_train(task)[0]
    effort = told(lines)
    assert len(runs.losses(lines)) == effort["n"] == 600
    assert effort["steps"] == pytest.approx(100 * percent, abs=400)
    assert lines != runs.twin_train(replace(task, options={**task.options, "seed": 2}))[0]


def test_what_is_learnt_is_looked_at_now_and_then() -> None:
    """A sample without a loss is drawn once in 128 times, and then learns at 128 times the rate
    (of which 1.5 times the share of the steps is taken)."""
    rule, draws = Worth(20), 40000
    drawn = sum(rule.look(0, logarithm(1 << 24), seed) for seed in range(draws))
    assert drawn == pytest.approx(draws / 128, rel=0.2)  # 3.5 standard deviations
    mantissa, exponent = rule.rate((40000, -22))
    assert mantissa * 2.0**exponent == pytest.approx(128 * 1.5 * 0.2 * 40000 * 2**-22, rel=1e-3)


def with_velocity(task: runs.Task, **options: Any) -> runs.Task:
    plan = replace(default_plan(task.graph, 6), velocity=True, tinyprop="1:1:1")
    image = parse_image(compile_image(task.graph, plan).image)
    return replace(task, image=image, options={**task.options, **options})


def weights_of(task: runs.Task, machine: engine.Engine) -> dict[int, bytes]:
    return trained_tensors(task.graph, task.image, Checkpoint(0, bytes(machine.state), {}))


class SkipsAll:
    """A rule that would."""

    SIGN = 1

    def look(self, norm: int, word: int, seed: int) -> bool:
        return False

    def force(self) -> None:
        pass

    def rate(self, rate: Any) -> Any:
        return rate

    def after(self, goes_on: bool) -> int:
        return 0


def test_a_skipped_sample_of_a_group_has_no_gradient() -> None:
    """In a group of three the first two are skipped: the same as with a rate of 0 for them. The
    third one moves the weights, though the rule would skip it."""
    task = with_velocity(runs.digits_task(steps=1))
    rate, ends = (40000, -17), []
    for is_skipped in (True, False):
        machine = engine.Engine(engine_image(task.image.data))
        groups = Groups(machine, 3, "0")
        effort = Effort(machine, SkipsAll() if is_skipped else None, 3)
        for step in range(12):
            machine.sample[:] = task.train.x[0].tobytes()
            groups.begin(step)
            learns = step == 11 or is_skipped and step > 8  # first exponents settle
            effort.step(int(task.train.y[0]), rate if learns else (0, 0), step)
        assert effort.done == (4 if is_skipped else 12)
        ends.append(weights_of(task, machine))
    assert ends[0] == ends[1]
    assert ends[0] != weights_of(task, engine.Engine(engine_image(task.image.data)))


@pytest.mark.parametrize("rule", [{"skip": "0.999"}, {"effort": 40}], ids=["skip", "effort"])
def test_groups_with_skipped_samples(rule: dict[str, Any]) -> None:
    """One of four is never skipped."""
    task = with_velocity(runs.digits_task(steps=200), accumulate=4, **rule)
    effort = told(runs.twin_train(task)[0])
    assert 2500 <= effort["steps"] < 4800


@pytest.mark.parametrize("percent", [-1, 100, "a", 2.5])
def test_other_efforts_are_refused(percent: Any) -> None:
    with pytest.raises(ValueError, match="whole number of percent from 1 to 99"):
        make_rule("", percent)


@pytest.mark.parametrize("text", ["1", "2.5", "-0.1", "a", "1e-3"])
def test_other_thresholds_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError):
        threshold(text)
    assert cli.main(["tune", str(runs.DIGITS), "no.npz", "--twin", f"--skip={text}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "0.1", "0.5", "0.999", "0.000001", ""])
def test_thresholds_are_shares(text: str) -> None:
    assert threshold(text) == int(float(text or "0") * 32768 + 1e-9)


def test_the_plan_keeps_its_policy(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    command = ["plan", str(runs.DIGITS), "--last", "4", "--tinyprop", V1, "-o", str(path)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "tinyprop 0.05:0.5:0.9: 0.05 to 0.5 of a layer's error channels stay" in shown
    assert load_plan(path).tinyprop == V1
    old = save_plan(replace(load_plan(path), tinyprop="")).replace(b',\n  "tinyprop": ""', b"")
    path.write_bytes(old)
    assert load_plan(path).tinyprop == ""
    assert cli.main([*command[:5], "0.5"]) == 1
    assert "give LEAST:MOST:DAMPING" in capsys.readouterr().err


def test_what_cannot_be_combined_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", str(runs.DIGITS), "--last", "6", "--tinyprop", V1, "--patch", "2"]
    assert cli.main(command) == 1
    assert "leave out one" in capsys.readouterr().err
    tune = ["tune", str(runs.DIGITS), "no.npz", "--twin", "--skip", "0.5", "--effort", "25"]
    assert cli.main(tune) == 1
    assert "skip and effort are two rules: leave out one" in capsys.readouterr().err


def test_momentum_and_selection() -> None:
    """Counting alone changes nothing there either; a selection does."""
    task, losses = runs.digits_task(steps=60), []
    for policy in ("", "1:1:1", V1):
        plan = replace(default_plan(task.graph, 6), tinyprop=policy, velocity=True)
        image = parse_image(compile_image(task.graph, plan).image)
        options = {**task.options, "momentum": "0.5"}
        losses.append(runs.losses(runs.twin_train(replace(task, image=image, options=options))[0]))
    assert losses[0] == losses[1] != losses[2]


def test_effort_for_people() -> None:
    text = describe_effort({"n": 7, "steps": 7400, "backward": 2130, "all": 5200})
    assert "74.0% of the steps" in text and "21.3% of the mult" in text and "52.0%" in text
    assert describe_effort({"n": 7, "steps": 7400}).endswith("behind their loss")


# On the emulated Pico -----------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("policy", "rule"),
    [(V1, {}), (V1, {"skip": "0.3"}), ("1:1:1", {"effort": 25})],
    ids=["v1", "skip", "effort"],
)
def test_kws_on_the_emulated_pico(emulated_pico, policy: str, rule: dict[str, Any]) -> None:
    """100 steps and more, lines and checkpoint equal to the twin's."""
    assert SHARED
    task = with_policy(runs.kws_task(SHARED, steps=110), policy, **rule)
    with Board.connect(emulated_pico.port) as board:
        lines = check_board_against_twin(board, task)
    print(f"KWS, {policy} {rule}: {describe_effort(told(lines))}")
    assert (told(lines)["steps"] < 10000) == bool(rule)


@pytest.mark.parametrize("rule", [{"skip": "0.3"}, {"effort": 25}], ids=["skip", "effort"])
def test_memory_where_only_steps_are_skipped(emulated_pico, rule: dict[str, Any]) -> None:
    task = with_policy(runs.digits_task(steps=17), "", **rule)
    with Board.connect(emulated_pico.port) as board:
        check_memory(task, runs.board_train(board, task)[0])


