"""The search by short runs of whole plans: what is believed of layers after them, and what is
chosen in the end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from machine import litert_tensors
from scipy.stats import multivariate_normal, spearmanr
from shared_tasks import KWS_MODEL, kws_task, shared_folder
from sparsetune import cli
from sparsetune.analytic import analytic_memory
from sparsetune.boardspec import load_spec
from sparsetune.budget import step_time
from sparsetune.data import Dataset
from sparsetune.graph import Array, Graph, input_channels
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, load_plan
from sparsetune.room import Room
from sparsetune.schemes import load_scheme, scheme_plan
from sparsetune.search import belief, learnt
from sparsetune.search.belief import Features, believed
from sparsetune.search.chosen import Limits, Search
from sparsetune.search.gains import Task, Worth, guessed, split, thinned
from sparsetune.search.learnt import learn
from sparsetune.search.rates import Rates
from sparsetune.search.runs import Run, train_and_judge
from sparsetune.search.trials import Trials
from test_search import clothes_like, graph_of, small

PICO = load_spec("pico")
NOWHERE = Room(PICO, 1 << 22, 100)  # RAM is no limit here


def drawn(graph: Graph, rng: np.random.Generator) -> UpdatePlan:
    layers = []
    for op in graph.trainable[:-1]:
        channels = int(input_channels(graph, op) * rng.choice([0, 0.25, 0.5, 1]))
        bias = bool(rng.random() < 0.5)
        if channels or bias:
            layers.append(LayerPlan(op.index, channels, bias))
    return UpdatePlan((*layers, *default_plan(graph, 1).layers))


def drawn_plans(graph: Graph, count: int) -> list[UpdatePlan]:
    rng = np.random.default_rng(8)
    return [drawn(graph, rng) for _ in range(count)]


def losses_of(graph: Graph, plans: list[UpdatePlan], truth: Worth, noise: float) -> list[float]:
    rng = np.random.default_rng(5)
    gains = np.array([truth.of_plan(graph, plan) for plan in plans])
    return np.exp(0.5 - gains + noise * rng.standard_normal(len(plans))).tolist()


def truth_of(graph: Graph, power: float) -> Worth:
    rng = np.random.default_rng(2)
    numbers = [op.index for op in graph.trainable[:-1]]
    weights = {n: float(v) for n, v in zip(numbers, rng.random(len(numbers)) * 0.2, strict=True)}
    return Worth(weights, dict.fromkeys(numbers, 0.02), power)


# What is believed -----------------------------------------------------------------------------


def test_belief_is_the_textbooks() -> None:
    """The same normal distribution in its other form, by precisions; evidence by scipy."""
    rng = np.random.default_rng(1)
    x, values = rng.standard_normal((7, 4)), rng.standard_normal(7)
    root = rng.standard_normal((4, 4))
    mean, covariance, noise = rng.standard_normal(4), root @ root.T, 0.3
    likely, after, spread = belief._after(x, values, (mean, covariance), noise)
    precision = np.linalg.inv(covariance) + x.T @ x / noise**2
    wanted = np.linalg.solve(
        precision, np.linalg.solve(covariance, mean) + x.T @ values / noise**2
    )
    np.testing.assert_allclose(after, wanted, rtol=1e-8)
    np.testing.assert_allclose(spread, np.linalg.inv(precision), rtol=1e-7, atol=1e-12)
    among = multivariate_normal(x @ mean, x @ covariance @ x.T + noise**2 * np.eye(7))
    constant = 7 / 2 * np.log(2 * np.pi)
    assert likely - constant == pytest.approx(among.logpdf(values))


@pytest.mark.parametrize("power", [0.25, 1.0])
def test_runs_tell_what_layers_are_worth(power: float) -> None:
    """Gradients that say nothing are outdone by runs; plans that did not run are ranked."""
    graph, rng = graph_of("small"), np.random.default_rng(4)
    truth = truth_of(graph, power)
    plans = [drawn(graph, rng) for _ in range(80)]
    alike = Worth(dict.fromkeys(truth.weights, 1.0), {})
    found = believed(Features(graph, alike), plans, losses_of(graph, plans, truth, 0.02))
    assert found.power == power
    others = [drawn(graph, rng) for _ in range(40)]
    said, right = ([of.of_plan(graph, p) for p in others] for of in (found.expected(), truth))
    assert spearmanr(said, right)[0] > 0.95


def test_before_runs_gradients_are_believed() -> None:
    graph = graph_of("small")
    prior = guessed(graph)
    plan = replace(UpdatePlan(()), layers=default_plan(graph, 1).layers)
    found = believed(Features(graph, prior), [plan], [1.0]).expected().weights
    said = [prior.weights[n] for n in found]
    assert spearmanr(list(found.values()), said)[0] == pytest.approx(1)


def test_what_did_not_run_is_known_less() -> None:
    """A layer that many plans trained, beside one that none did."""
    graph = graph_of("small")
    numbers = [op.index for op in graph.trainable[:-1]]
    known, unknown = numbers[-1], numbers[0]
    channels = input_channels(graph, graph.operator(known))
    head = default_plan(graph, 1)
    whole = replace(head, layers=(LayerPlan(known, channels, False), *head.layers))
    found = believed(Features(graph, guessed(graph)), [head, whole] * 30, [1.0, 0.8] * 30)
    spread = np.sqrt(np.diag(found.covariance))[1:]
    assert spread[numbers.index(known)] < 0.5 * spread[numbers.index(unknown)]
    assert found.expected().weights[known] == pytest.approx(-np.log(0.8), abs=0.02)


def after_one_layer(channels: bool, bias: bool, gain: float) -> list[tuple[int, Worth]]:
    """For each layer: its number, and what is believed where all layers were thought to be worth
    0.1, and it alone was trained and gained so much."""
    graph = graph_of("small")
    head, numbers = default_plan(graph, 1), [op.index for op in graph.trainable[:-1]]
    features = Features(graph, Worth(dict.fromkeys(numbers, 1.0), {}))
    found = []
    for n in numbers:
        layer = LayerPlan(n, channels * input_channels(graph, graph.operator(n)), bias)
        plans = [head, replace(head, layers=(layer, *head.layers))]
        losses = [1.0, float(np.exp(-gain))]
        found.append((n, believed(features, plans * 10, losses * 10).expected()))
    return found


def test_one_layers_luck_is_not_all_layers() -> None:
    """A layer whose weights gain three times what gradients said makes others look better, but far
    less than itself: gradients may be right about them."""
    for trained, worth in after_one_layer(channels=True, bias=False, gain=0.3):
        others = np.array([w for n, w in worth.weights.items() if n != trained])
        assert worth.weights[trained] == pytest.approx(0.3, abs=0.02)
        assert (0.105 < others).all() and (others < 0.2).all()


def test_what_a_layer_gains_is_its_weights_before_its_bias() -> None:
    """Where both trained, what was not expected of them; biases differ less from layer to layer."""
    for trained, worth in after_one_layer(channels=True, bias=True, gain=0.3):
        of_weights, of_bias = worth.weights[trained] - 0.1, worth.biases[trained]
        assert of_weights + of_bias == pytest.approx(0.2, abs=0.02)
        assert of_weights > 3 * of_bias > 0


def test_a_bias_that_gains_says_most_of_itself() -> None:
    for trained, worth in after_one_layer(channels=False, bias=True, gain=0.1):
        others = [b for n, b in worth.biases.items() if n != trained]
        assert worth.biases[trained] > 1.2 * max(others) > 0


# Runs -----------------------------------------------------------------------------------------


def test_trials_are_whole_runs() -> None:
    """Behind the frozen front, and each once."""
    graph, task = clothes_like()
    trials = Trials(graph, task.samples, Run(40, "0.002"))
    plans = [default_plan(graph, last, 1.0) for last in (1, 3)]
    found = trials.judge([(plan, seed) for plan in plans for seed in (1, 2)])
    for i, plan in enumerate(plans):
        for j, seed in enumerate((1, 2)):
            whole = train_and_judge(graph, plan, task.samples, Run(40, "0.002", seed))
            assert found[2 * i + j] == whole
    assert trials.losses(plans, 2) == [found[1].loss, found[3].loss]
    assert len(trials.known) == 4


def test_trials_have_what_training_will_have() -> None:
    graph, task = clothes_like()
    plan, run = default_plan(graph, 3, 1.0), Run(40, "0.0005")
    trials = Trials(graph, task.samples, run, lambda plan: replace(plan, residual=True))
    fine = train_and_judge(graph, replace(plan, residual=True), task.samples, run)
    assert trials.losses([plan], 1) == [fine.loss]
    assert fine.loss != train_and_judge(graph, plan, task.samples, run).loss


def test_of_several_rates_the_best_stands() -> None:
    """Further seeds run at that alone; so do plans with one rate."""
    graph, task = clothes_like()
    deep, flat = default_plan(graph, 3, 1.0), default_plan(graph, 1)
    rates = {deep: ("2", "0.002"), flat: ("0.002",)}
    trials = Trials(graph, task.samples, Run(40, "5"), rates=rates.__getitem__)

    def alone(plan: UpdatePlan, rate: str, seed: int) -> float:
        return train_and_judge(graph, plan, task.samples, Run(40, rate, seed)).loss

    assert alone(deep, "2", 1) > alone(deep, "0.002", 1)
    assert trials.losses([deep, flat], 1) == [alone(p, "0.002", 1) for p in (deep, flat)]
    assert trials.best == {deep: "0.002", flat: "0.002"}
    rates[deep] = ("never again",)
    assert trials.losses([deep], 2) == [alone(deep, "0.002", 2)]


# At which rates -------------------------------------------------------------------------------


def energy(graph: Graph, model: bytes, x: Array, number: int) -> float:
    """Mean of the sum of a layer's squared inputs, in real units, by LiteRT."""
    t = graph.tensor(graph.operator(number).inputs[0])
    values = [litert_tensors(model, one[None])[t.index].astype(float) for one in x]
    return float(np.mean([((v - t.zero_point) ** 2).sum() * t.scale**2 for v in values]))


def test_a_plan_that_is_driven_harder_has_smaller_rates_as_well() -> None:
    graph, task = clothes_like()
    task = replace(task, model=small().to_bytes())
    numbers = [op.index for op in graph.trainable[:-1]]
    x = task.samples.train.x[:32]
    drives = {n: energy(graph, task.model, x, n) for n in numbers}
    hard, soft = max(drives, key=drives.__getitem__), min(drives, key=drives.__getitem__)

    def of_one(number: int, channels: int = 1) -> UpdatePlan:
        return UpdatePlan((LayerPlan(number, channels, True),))

    power = round(np.log(drives[hard] / drives[soft]) / np.log(3))
    assert power > 1
    found = Rates(task, of_one(soft), "0.010")
    assert found.of(of_one(soft)) == ("0.010",)
    rates = [float(rate) for rate in found.of(of_one(hard))]
    assert rates == pytest.approx([0.01 / 3 ** (power + 1), 0.01 / 3**power, 0.01], rel=0.06)
    assert found.of(of_one(hard, channels=0)) == ("0.010",)  # its bias alone
    rates = [float(rate) for rate in Rates(task, of_one(hard), "0.010").of(of_one(soft))]
    assert rates == pytest.approx([0.01, 0.01 * 3 ** (power - 1), 0.01 * 3**power], rel=0.06)
    assert Rates(task, of_one(hard, channels=0), "0.010").of(of_one(soft)) == ("0.010",)


def test_another_loss_has_one_rate() -> None:
    """No rule for how hard a layer is driven held there."""
    graph, task = clothes_like()
    task = replace(task, model=small().to_bytes())
    cut = replace(task, graph=replace(graph, loss="mse"))
    plans = [UpdatePlan((LayerPlan(op.index, 1, True),)) for op in graph.trainable]
    for of, most in ((task, 3), (cut, 1)):
        found = Rates(of, plans[-2], "0.010")
        assert max(len(found.of(plan)) for plan in plans) == most


def heard_elsewhere() -> Task:
    """Keywords through another microphone."""
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    sets = kws_task(shared)
    samples = split(Dataset(sets["x_train"], sets["y_train"]))
    return Task(graph_of("kws"), "0.1", samples, (shared / KWS_MODEL).read_bytes())


def test_a_deep_plan_is_not_judged_where_it_is_ruined() -> None:
    """KWS' first layer is driven 30 times harder than others: at their rate it unlearns all."""
    task = heard_elsewhere()
    graph, run = task.graph, Run(1000, "0.0048")
    middle, deep = (default_plan(graph, last, 1.0) for last in (5, 10))
    found = Rates(task, middle, run.rate)
    fair = Trials(graph, task.samples, run, rates=found.of)
    of_middle, of_deep = fair.losses([middle, deep], 1)
    (ruined,) = Trials(graph, task.samples, run).losses([deep], 1)
    assert of_deep < of_middle < np.log(12) / 2 < ruined


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 2, "STEPS": 60, "SEEDS": (2,)}.items():
        monkeypatch.setattr(learnt, name, value)


@pytest.mark.usefixtures("few")
def test_what_is_learnt_fits_and_is_the_best_that_ran() -> None:
    graph, task = clothes_like()
    first = guessed(graph)
    lines: list[str] = []
    limits = Limits(NOWHERE, analytic=6000)
    found = [learn(Search(graph, UpdatePlan(()), limits), task, first, lines.append)
             for _ in range(2)]  # fmt: skip
    assert found[0] == found[1]
    assert analytic_memory(graph, found[0].plan).total <= 6000
    assert found[0].tried[found[0].name] == min(found[0].tried.values())
    assert found[0].count >= len(found[0].tried) > 2
    assert sum("around the best" in line for line in lines) == 2 * 2


@pytest.mark.usefixtures("few")
def test_what_the_quick_search_finds_is_among_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its first run was the worst of all."""
    graph, task = clothes_like()
    first, search = guessed(graph), Search(graph, UpdatePlan(()), Limits(NOWHERE, analytic=6000))
    quick = search.best(thinned(graph, first).of).plan
    tried = learnt._Tried(search, task, first, lambda plan: plan)
    others = [plan for plan in drawn_plans(graph, 6) if plan != quick]
    tried.names |= {plan: str(i) for i, plan in enumerate(others)}
    losses = {plan: 9.0 if plan == quick else 1.0 for plan in tried.names}
    monkeypatch.setattr(tried, "losses", lambda of, seed=1: [losses.get(p, 2.0) for p in of])
    assert quick in tried.last() and len(tried.last()) == learnt.LAST + 1
    losses[quick] = 0.5
    assert tried.last()[0] == quick and len(tried.last()) == learnt.LAST
    assert tried.best(tried.last()).plan == quick


def test_published_schemes_that_fit_are_among_those_that_run() -> None:
    graph = graph_of("mbv2")
    for kilobytes, fit in ((100, {"mbv2-49", "mbv2-73", "mbv2-99"}), (60, {"mbv2-49"})):
        search = Search(graph, UpdatePlan(()), Limits(NOWHERE, analytic=1024 * kilobytes))
        names = learnt.published(search)
        assert fit == {name for name in names.values() if name.startswith("mbv2")}
        assert all(analytic_memory(graph, plan).total <= 1024 * kilobytes for plan in names)


def test_what_lies_deeper_is_left_out() -> None:
    graph = graph_of("mbv2")
    search = Search(graph, UpdatePlan(()), Limits(NOWHERE, analytic=100_000))
    for depth in (5, 20):
        plan = search.best(partial(learnt._up_to, guessed(graph), depth)).plan
        reached = [op.index for op in graph.trainable[-depth:]]
        assert plan.layers[0].operator >= reached[0]
        assert analytic_memory(graph, plan).total > 50_000


@pytest.mark.usefixtures("few")
def test_plan_command_searches_by_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, plan = tmp_path / "m.tflite", tmp_path / "d.npz", tmp_path / "p.json"
    model.write_bytes(small().to_bytes())
    _, task = clothes_like()
    both = task.samples.together
    np.savez(data, x=both.x, y=both.y)
    args = ["plan", str(model), "--data", str(data), "--search", "runs", "--ram", "40K"]
    assert cli.main([*args, "-o", str(plan)]) == 0
    out = capsys.readouterr().out
    assert "short runs of" in out and "loss on held-out samples" in out
    assert "the best of" in out and load_plan(plan).layers


def test_a_given_plan_is_held_against_all_limits() -> None:
    graph = graph_of("mbv2")
    plan = replace(scheme_plan(graph, load_scheme("mbv2-49")), scratch=False)
    bytes_, ram = analytic_memory(graph, plan).total, NOWHERE.use(NOWHERE.compile(graph, plan)).used
    assert PICO.clock
    seconds = step_time(NOWHERE.compile(graph, plan).program, graph, PICO.clock).total
    for limits, fits in (
        (Limits(NOWHERE, analytic=bytes_), True),
        (Limits(NOWHERE, analytic=bytes_ - 1), False),
        (Limits(Room(PICO, ram, 100)), True),
        (Limits(Room(PICO, ram - 1, 100)), False),
        (Limits(NOWHERE, seconds=1.02 * seconds), True),
        (Limits(NOWHERE, seconds=0.98 * seconds), False),
    ):
        assert Search(graph, UpdatePlan(()), limits).fits(plan) == fits, limits
