"""Which channels a step trains: each policy against its definition, the scores that `importance`
draws by against NumPy in float64, what is kept over a checkpoint, and the share that is visited."""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
import sparsetune_kernels as kernels
from gradient_cases import draw as draw_case
from machine import Array, Machine
from small_models import RELU, Net
from sparsetune import cli
from sparsetune.boardspec import load_spec
from sparsetune.compile import compile_image
from sparsetune.digits import changed_sets
from sparsetune.errors import SparsetuneError
from sparsetune.geometry import Geometry
from sparsetune.graph import Graph, input_channels
from sparsetune.image import ABSENT, Image, parse_image
from sparsetune.magnitude import by_magnitude
from sparsetune.memory import Beside, predict
from sparsetune.numerics import rate
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, leave_in_flash
from sparsetune.program import Buffer, Code, Const, Op, Slot
from sparsetune.share import convolution_weights, plan_of_share, updated_share
from sparsetune.tflite import parse_tflite
from sparsetune.twin import STORE_BYTES, Twin
from sparsetune_device.channels import POLICIES, make_policy, steps_of
from sparsetune_device.choices import CHOICE
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image as DeviceImage

SIGMAS = 5.0
UNSEEN = (0, 0)
MOST_LEFT = 2560  # bytes of RAM that may be promised too few
SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")


# Drawing --------------------------------------------------------------------------------------


def drawn(scores: list[tuple[int, int]], chosen: int, seed: int) -> tuple[int, ...]:
    """Channels that kernels.draw chooses. scores: (mantissa, exponent) each."""
    state = bytearray(b"".join(struct.pack("<Hh", *score) for score in scores))
    at = len(state)
    state += bytes(2 * chosen + 2)
    tree = np.zeros(len(scores), np.uint32)
    kernels.draw(state, 0, len(scores), at, chosen, tree, seed)
    return struct.unpack_from(f"<{chosen}H", state, at)


def shares(weights: list[float], chosen: int) -> Array:
    """How often each channel is among those drawn one after the other, by definition."""
    total = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), chosen):
        chance, left = 1.0, sum(weights)
        for i in order:
            chance, left = chance * weights[i] / left, left - weights[i]
        total[list(order)] += chance
    return total


def check_shares(scores: list[tuple[int, int]], weights: list[float], chosen: int) -> None:
    count = 6000
    found = Counter(i for seed in range(count) for i in drawn(scores, chosen, seed))
    for i, share in enumerate(shares(weights, chosen)):
        spread = SIGMAS * np.sqrt(count * share * (1 - share)) + 1
        assert abs(found[i] - count * share) <= spread, (i, found[i] / count, share)


def score(value: float) -> tuple[int, int]:
    mantissa, exponent = rate(value)
    return mantissa, exponent


@pytest.mark.parametrize("chosen", [1, 3, 5])
def test_channels_are_drawn_in_proportion_to_their_scores(chosen: int) -> None:
    weights = [1.0, 2.0, 3.0, 0.5, 8.0, 0.75]
    check_shares([score(w * 2.0**-20) for w in weights], weights, chosen)


def test_channels_never_trained_count_as_the_highest() -> None:
    scores = [score(1.0), UNSEEN, score(4.0), UNSEEN, score(2.0)]
    check_shares(scores, [1.0, 4.0, 4.0, 4.0, 2.0], 2)


def test_all_channels_count_alike_before_the_first_step() -> None:
    check_shares([UNSEEN] * 7, [1.0] * 7, 3)


def test_no_channel_counts_less_than_a_sixteenth_of_the_mean() -> None:
    scores = [score(4.0), score(2.0**-30), (1 << 15, -(1 << 15)), score(4.0)]
    check_shares(scores, [4.0, 2 / 16, 2 / 16, 4.0], 1)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 336])
def test_a_draw_is_a_subset(count: int) -> None:
    rng = np.random.default_rng(count)
    scores = [score(float(v)) for v in rng.lognormal(0, 3, count)]
    for chosen in {1, (count + 1) // 2, count}:
        channels = drawn(scores, chosen, count)
        assert len(set(channels)) == chosen and max(channels) < count
        assert drawn(scores, chosen, count) == channels
    assert sorted(drawn(scores, count, 3)) == list(range(count))


def test_scores_of_damaged_states_lead_nowhere_else() -> None:
    rng = np.random.default_rng(1)
    for seed in range(200):
        count = int(rng.integers(1, 40))
        words = rng.integers(0, 1 << 16, (count, 2))
        scores = [(int(m), int(e) - (1 << 15)) for m, e in words]
        channels = drawn(scores, count, seed)
        assert sorted(channels) == list(range(count))


def test_a_shuffle_is_uniform() -> None:
    count, orders = 4000, []
    for seed in range(count):
        order = np.zeros(5, np.uint16)
        kernels.shuffle(order, 5, seed)
        assert sorted(order) == list(range(5))
        orders.append(order)
    for place, value in itertools.product(range(5), range(5)):
        found = sum(order[place] == value for order in orders)
        assert abs(found - count / 5) <= SIGMAS * np.sqrt(count * 0.2 * 0.8)


def test_a_shuffle_is_the_one_that_it_always_was() -> None:
    """What Python did before C: runs of old seeds stay as they were."""
    order, want = np.zeros(50, np.uint16), list(range(50))
    kernels.shuffle(order, 50, 7)
    for i in range(49, 0, -1):
        j = kernels.random(7, i) % (i + 1)
        want[i], want[j] = want[j], want[i]
    assert order.tolist() == want


def test_marks_are_counted_once() -> None:
    state = bytearray(4) + struct.pack("<5H", 1, 9, 1, 30, 4)
    assert kernels.mark(state, 0, 11, 4, 5) == 3  # 30 is not there: the step itself refuses it
    assert state[:4] == bytes([0b10010, 0b10, 0, 0])
    assert kernels.mark(state, 0, 11, 4, 5) == 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shuffle", (bytearray(9), 5, 1)),
        ("draw", (bytearray(24), 0, 5, 20, 3, bytearray(20), 1)),
        ("draw", (bytearray(28), 0, 5, 20, 3, bytearray(16), 1)),
        ("draw", (bytearray(40), 0, 5, 20, 6, bytearray(20), 1)),
        ("draw", (bytearray(40), 0, 5, 21, 3, bytearray(20), 1)),
        ("draw", (bytearray(40), -4, 5, 20, 3, bytearray(20), 1)),
        ("draw", (bytearray(40), 0, 0, 20, 0, bytearray(20), 1)),
        ("draw", (bytearray(40), 0, 1 << 31, 20, 3, bytearray(20), 1)),
        ("mark", (bytearray(8), 7, 9, 0, 2)),
        ("mark", (bytearray(8), 0, 9, 6, 2)),
        ("mark", (bytearray(8), 0, 9, 3, 2)),
    ],
)
def test_what_reaches_outside_is_refused(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"outside|too short"):
        getattr(kernels, name)(*arguments)


# Scores ---------------------------------------------------------------------------------------


def scored(graph: Graph) -> UpdatePlan:
    """All layers train half of their channels."""
    layers = [
        LayerPlan(op.index, (input_channels(graph, op) + 1) // 2, graph.bias_of(op) is not None)
        for op in graph.trainable
    ]
    return UpdatePlan(tuple(layers), scores=True)


def norms_of(machine: Machine, op: Op) -> Array:
    """The L1 norm of each chosen channel's weight gradient, float64: sums over all positions of
    the errors times the channel's values, taken from what the operator is about to read."""
    geometry, dy, exponent, kept, _, chosen = op.words[:6]
    assert isinstance(geometry, Const) and isinstance(dy, Buffer) and isinstance(kept, Buffer)
    assert isinstance(exponent, Slot) and isinstance(chosen, int)
    g = Geometry(*struct.unpack("<20i", geometry.data))
    errors = machine.read(dy, np.int16).astype(np.float64).reshape(g.out_h, g.out_w, g.out_c)
    values = machine.read(kept, np.int8).astype(np.float64) - g.x_zero
    depthwise = op.code == Code.DEPTHWISE_CONV2D_UPDATE
    values = values.reshape(g.in_h, g.in_w, g.groups, -1)[..., :chosen]
    total = np.zeros(chosen)
    for ky, kx in itertools.product(range(g.kernel_h), range(g.kernel_w)):
        sums = np.zeros((g.out_c, g.groups, chosen))
        for oy, ox in itertools.product(range(g.out_h), range(g.out_w)):
            y = oy * g.stride_h - g.pad_h + ky * g.dilation_h
            x = ox * g.stride_w - g.pad_w + kx * g.dilation_w
            if 0 <= y < g.in_h and 0 <= x < g.in_w:
                sums += errors[oy, ox][:, None, None] * values[y, x]
        total += _own(machine, op, g, np.abs(sums)) if depthwise else _in_groups(g, np.abs(sums))
    scale: float = 2.0 ** int(machine.slot(exponent, np.int16)[0])
    return total * scale


def _in_groups(g: Geometry, sums: Array) -> Array:
    """Output channels see the inputs of their own group alone."""
    each = sums.reshape(g.groups, -1, g.groups, sums.shape[2])
    return np.asarray(sum(each[i, :, i].sum(0) for i in range(g.groups)))


def _own(machine: Machine, op: Op, g: Geometry, sums: Array) -> Array:
    """Outputs of a depthwise layer see one input each."""
    where = op.words[4]
    channels = (
        machine.slot(where, np.uint16)
        if isinstance(where, Slot)
        else np.arange(g.in_c)
    )
    each = sums[:, 0].reshape(g.in_c, -1, sums.shape[2])
    return np.array([each[channel, :, i].sum() for i, channel in enumerate(channels)])


def score_values(machine: Machine, op: Op) -> Array:
    """Of the channels that a SCORES operator has written, float64."""
    scores, channels = op.words[5], op.words[2]
    assert isinstance(scores, Slot) and isinstance(channels, Slot)
    pairs = machine.slot(scores, np.uint16).reshape(-1, 2)
    values = pairs[:, 0] * 2.0 ** pairs[:, 1].astype(np.int16).astype(np.float64)
    return np.asarray(values[machine.slot(channels, np.uint16)])


CASES = ("CONV_2D", "CONV_2D: groups", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("case", CASES)
def test_scores_are_means_of_gradient_norms(case: str) -> None:
    """Three steps on the same channels: the first norm, then each an eighth of the mean."""
    checked = 0
    for number in range(6):
        task = draw_case(case, number)
        machine = Machine(task.graph, scored(task.graph))
        means: dict[int, Array] = {}
        norms: dict[int, Array] = {}
        for step in range(3):
            x = np.roll(task.x, step)
            for _, op in machine.walk(x, task.target):
                if op.code.name.endswith("CONV2D_UPDATE"):
                    norms[op.source] = norms_of(machine, op)
            for op in (o for o in machine.ops if o.code == Code.SCORES):
                now, old = norms[op.source], means.get(op.source)
                means[op.source] = now if old is None else old + (now - old) / 8
                found = score_values(machine, op)
                np.testing.assert_allclose(found, means[op.source], rtol=2e-3, atol=1e-30)
                checked += 1
    assert checked >= 12


def test_scores_of_columns_are_those_of_layers_in_ram() -> None:
    task = runs.digits_task(steps=24)
    plan = default_plan(task.graph, 6, 0.25)
    found = []
    for some in (plan, leave_in_flash(task.graph, plan, STORE_BYTES)):
        same = replace(some, layers=tuple(
            replace(layer, channels=of.channels) for layer, of in zip(
                some.layers, leave_in_flash(task.graph, plan, STORE_BYTES).layers, strict=True)
        ), scores=True)
        image = parse_image(compile_image(task.graph, same).image)
        with Twin(image.data, task.samples) as twin:
            options = {**task.options, "policy": "cyclic", "hold": 2}
            state = twin.train(lambda line: None, **options)[32:]
        found.append([
            state[layer.scores_at : layer.scores_at + 4 * layer.in_channels]
            for layer in image.layers
            if layer.scores_at != ABSENT and layer.chosen < layer.in_channels
        ])
    assert found[0] == found[1] and any(any(part) for part in found[0])


@pytest.mark.usefixtures("each_version")
def test_scores_change_nothing_that_is_learnt() -> None:
    task = runs.digits_task(steps=30)
    told = []
    for scores in (False, True):
        plan = replace(default_plan(task.graph, 6, 0.3), scores=scores)
        image = parse_image(compile_image(task.graph, plan).image)
        lines: list[str] = []
        with Twin(image.data, task.samples) as twin:
            twin.train(lines.append, **task.options)
        told.append(runs.losses(lines))
    assert told[0] == told[1]


# Policies -------------------------------------------------------------------------------------


class Chooser:
    """One layer of 24 input channels, five of which a step trains, and what a policy chooses."""

    def __init__(self, policy: str, seed: int = 5) -> None:
        net = Net((1, 5, 5, 24), seed=2)
        net.conv(6, 3, activation=RELU, zero=-128)
        net.flatten()
        net.dense(4, scale=0.02)
        self.net, self.graph = net, parse_tflite(net.to_bytes())
        head = LayerPlan(2, input_channels(self.graph, self.graph.operator(2)))
        plan = UpdatePlan((LayerPlan(0, 5), head), scores=policy == "importance")
        self.engine = Engine(DeviceImage(compile_image(self.graph, plan).image))
        self.policy = make_policy(policy, self.engine.image.layers, seed)

    def choose(self, number: int) -> list[int]:
        self.policy.choose(number, self.engine.state)
        at = self.engine.image.layers[0].channels_at
        return list(struct.unpack_from("<5H", self.engine.state, at))

    def step(self, number: int) -> list[int]:
        chosen = self.choose(number)
        self.engine.sample[:] = self.net.sample().tobytes()
        self.engine.step(number % 4, rate(0.01), number)
        return chosen


def test_a_choice_for_an_epoch_is_uniform_and_drawn_anew() -> None:
    chooser, count = Chooser("random-epoch"), 3000
    choices = [chooser.choose(number) for number in range(count)]
    assert choices == [Chooser("random-epoch").choose(number) for number in range(count)]
    found = Counter(itertools.chain(*choices))
    share = 5 / 24
    for channel in range(24):
        spread = SIGMAS * np.sqrt(count * share * (1 - share))
        assert abs(found[channel] - count * share) <= spread
    common = np.mean([len(set(a) & set(b)) for a, b in itertools.pairwise(choices)])
    assert abs(common - 25 / 24) < 0.1  # of a walk without replacement it were near 0
    assert Chooser("random-epoch", 6).choose(0) != choices[0]


def test_magnitude_stays_with_the_largest_weights() -> None:
    chooser = Chooser("magnitude")
    tensor = chooser.graph.tensor(chooser.graph.operator(0).inputs[1])
    assert tensor.data is not None
    real = tensor.data.astype(np.float64) * np.reshape(tensor.scales, (-1, 1, 1, 1))
    norms = np.sqrt((real**2).sum((0, 1, 2)))
    want = np.argsort(norms)[-5:]
    for number in (0, 1, 7):
        assert sorted(chooser.step(number)) == sorted(want.tolist())


@pytest.mark.parametrize("case", CASES)
def test_magnitudes_of_every_kind_of_layer(case: str) -> None:
    """By changing one input channel: the output of a linear layer grows with its weights."""
    for number in range(4):
        graph = draw_case(case, number).graph
        for op in graph.trainable:
            order = by_magnitude(graph, op)
            channels = input_channels(graph, op)
            assert sorted(order.tolist()) == list(range(channels))
            tensor = graph.tensor(op.inputs[1])
            assert tensor.data is not None
            data = tensor.data.astype(np.float64) - tensor.zero_point
            axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
            scales = np.broadcast_to(np.asarray(tensor.scales, float), data.shape[axis])
            shape = [1] * data.ndim
            shape[axis] = -1
            squares = (data * scales.reshape(shape)) ** 2
            each = data.shape[-1] // channels
            norms = [squares[..., i * each : (i + 1) * each].sum() for i in range(channels)]
            ranked = np.asarray(norms)[order]
            assert (np.diff(ranked) <= 1e-12 * ranked.max()).all()


def test_importance_follows_the_scores_and_reaches_all() -> None:
    chooser = Chooser("importance")
    choices = [chooser.step(number) for number in range(400)]
    again = Chooser("importance")
    assert [again.step(number) for number in range(400)] == choices
    assert set(itertools.chain(*choices[:16])) == set(range(24))  # those never seen come first
    at = chooser.engine.image.layers[0].scores_at
    pairs = np.frombuffer(chooser.engine.state, np.uint16, 48, at).reshape(-1, 2)
    scores = pairs[:, 0] * 2.0 ** pairs[:, 1].astype(np.int16)
    before = chooser.engine.state[:]
    found: Counter[int] = Counter()
    for number in range(1000, 2000):
        found.update(chooser.choose(number))
    weights = [max(s, np.mean(scores) / 16) for s in scores]
    rank = np.corrcoef(np.argsort(np.argsort(weights)), [found[i] for i in range(24)])[0, 1]
    assert rank > 0.7
    assert chooser.engine.state[at : at + 96] == before[at : at + 96]  # choosing alone learns none


def test_importance_without_scores_is_refused() -> None:
    task = runs.digits_task()
    with pytest.raises(ValueError, match="--scores"):
        make_policy("importance", DeviceImage(task.image.data).layers, 1)


@pytest.mark.parametrize(
    ("hold", "policy", "steps"),
    [(0, "cyclic", 0), (7, "random-epoch", 7), (0, "random-epoch", 50), ("epoch", "cyclic", 50)],
)
def test_how_long_a_choice_stays(hold: Any, policy: str, steps: int) -> None:
    assert steps_of(hold, make_policy(policy, [], 1), 50) == steps


@pytest.mark.parametrize("hold", [-1, "week"])
def test_other_holds_are_refused(hold: Any) -> None:
    with pytest.raises(ValueError, match="a number of steps, or epoch"):
        steps_of(hold, make_policy("cyclic", [], 1), 50)


# Runs -----------------------------------------------------------------------------------------


def task_for(policy: str, steps: int, in_flash: bool = False, **options: Any) -> runs.Task:
    task = runs.digits_task(steps=steps)
    plan = default_plan(task.graph, 6, 0.2)
    if in_flash:
        plan = leave_in_flash(task.graph, plan, STORE_BYTES)
    plan = replace(plan, scores=policy == "importance")
    image = parse_image(compile_image(task.graph, plan).image)
    return replace(task, image=image, train=task.train.part(slice(12)),
                   options={**task.options, "policy": policy, **options})


@pytest.mark.parametrize("in_flash", [False, True])
@pytest.mark.parametrize("hold", [1, 5, "epoch"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_is_an_unbroken_one(policy: str, hold: Any, in_flash: bool) -> None:
    """Also broken off in the middle of a hold; the share that was visited goes on as well."""
    task = task_for(policy, 40, in_flash, hold=hold)
    whole, state = runs.twin_train(task)
    with Twin(task.image.data, task.samples) as twin:
        first: list[str] = []
        options = {**task.options, "schedule": "cosine"}

        def until(line: str) -> None:
            first.append(line)
            if len(runs.losses(first)) == 17:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            twin.train(until, **options)
        rest: list[str] = []
        again = twin.train(rest.append, resume=True)
    assert again[32:] == state[32:]
    lines = [line.split(",")[0] for line in runs.losses(first + rest)]  # acc begins anew
    assert lines == [line.split(",")[0] for line in runs.losses(whole)]
    ends = [runs.events(lines, "visited")[-1] for lines in (rest, whole)]
    assert ends[0]["weights"] == ends[1]["weights"]


class OfMyOwn:
    def __init__(self, layers: Any, seed: int) -> None:
        self.inner: Any = make_policy("static", layers, seed)

    def choose(self, number: int, state: bytearray) -> None:
        self.inner.choose(number, state)


def test_a_policy_that_is_a_class_is_asked_for_again() -> None:
    """No text brings it back, and another one would make another run of it."""
    task = task_for("cyclic", 20, schedule="constant")
    unbroken = runs.twin_train(replace(task, options={**task.options, "policy": OfMyOwn}))[1]
    with runs.Twin(task.image.data, task.samples) as twin:
        twin.train(print, **{**task.options, "policy": OfMyOwn, "steps": 9})
        with pytest.raises(SparsetuneError, match="a class of your own.*: give it again"):
            twin.train(print, resume=True, steps=20)
        resumed = twin.train(print, resume=True, steps=20, policy=OfMyOwn)
    size = task.image.state_bytes
    assert resumed[32 : 32 + size] == unbroken[32 : 32 + size]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_visited_share_is_what_was_visited(policy: str) -> None:
    task = task_for(policy, 36, hold=8)
    seen: dict[int, set[int]] = {}
    wanted = []

    class Watching:
        def __init__(self, layers: Any, seed: int) -> None:
            self.layers = [layer for layer in layers if layer.is_sparse]
            self.inner: Any = make_policy(policy, layers, seed)

        def choose(self, number: int, state: Any) -> None:
            self.inner.choose(number, state)
            for layer in self.layers:
                found = struct.unpack_from(f"<{layer.chosen}H", state, layer.channels_at)
                seen.setdefault(layer.operator, set()).update(found)
            wanted.append(visited_weights(task, seen))

    lines, _ = runs.twin_train(replace(task, options={**task.options, "policy": Watching}))
    told = runs.events(lines, "visited")
    assert [event["weights"] for event in told] == sorted({e["weights"] for e in told})
    assert all(event["weights"] == wanted[event["step"] - 1] for event in told)
    assert told[-1]["weights"] == wanted[-1]
    trained = sum(
        task.graph.tensor(task.graph.operator(layer.operator).inputs[1]).size
        for layer in task.image.layers
    )
    assert {event["of"] for event in told} == {trained}
    is_fixed = policy in ("static", "magnitude")
    assert (len(told) == 1) == is_fixed and (told[-1]["weights"] < trained) >= is_fixed


def visited_weights(task: runs.Task, seen: dict[int, set[int]]) -> int:
    total = 0
    for layer in task.image.layers:
        size = task.graph.tensor(task.graph.operator(layer.operator).inputs[1]).size
        channels = len(seen[layer.operator]) if layer.operator in seen else layer.in_channels
        total += size * channels // layer.in_channels
    return total


def test_nothing_is_told_where_all_channels_train() -> None:
    task = runs.digits_task(steps=10)
    image = parse_image(compile_image(task.graph, default_plan(task.graph, 2, 1.0)).image)
    lines, _ = runs.twin_train(replace(task, image=image))
    assert not runs.events(lines, "visited")


def test_a_state_is_new_before_the_first_choice() -> None:
    image: Image = task_for("importance", 1).image
    assert image.initial_state()[CHOICE : CHOICE + 4] == bytes(4)


@needs_shared
@pytest.mark.parametrize("policy", ["random-epoch", "magnitude", "importance"])
def test_kws_on_the_emulated_pico(emulated_pico, policy: str) -> None:
    """100 steps of which epochs have 40: lines, checkpoint and memory are the twin's."""
    assert SHARED
    task = runs.kws_task(SHARED, steps=100)
    plan = replace(default_plan(task.graph, 6, 0.25), scores=policy == "importance")
    image = parse_image(compile_image(task.graph, plan).image)
    options = {**task.options, "policy": policy}
    task = replace(task, image=image, train=task.train.part(slice(40)), options=options)
    lines = runs.equal_runs(emulated_pico.port, task)
    use = predict(task.image, 40, load_spec("pico"), Beside(chooses=True))
    told = runs.events(lines, "mem")[-1]["free"]
    print(f"{policy}: heap free {told:,}, predicted {use.free:,}")
    assert use.free <= told <= use.free + MOST_LEFT  # random-epoch alone has orders as well


# Shares of the weights ------------------------------------------------------------------------


def two_convolutions() -> Graph:
    """3x3 of 12 to 8, depthwise of 8, 1x1 of 8 to 16 channels, and a head: 864 + 72 + 128."""
    net = Net((1, 6, 6, 12), seed=4)
    net.conv(8, 3)
    net.depthwise(1, 3)
    net.conv(16, 1)
    net.flatten()
    net.dense(3, scale=0.02)
    return parse_tflite(net.to_bytes())


def test_the_share_of_convolution_weights() -> None:
    graph = two_convolutions()
    assert convolution_weights(graph) == 12 * 8 * 9 + 8 * 9 + 8 * 16
    plan = UpdatePlan((LayerPlan(0, 3), LayerPlan(1, 8), LayerPlan(2, 0), LayerPlan(4, 5)))
    assert updated_share(graph, plan) == pytest.approx(100 * (3 * 8 * 9 + 8 * 9) / 1064)


@pytest.mark.parametrize("percent", [9, 10, 25, 50, 80, 93, 94, 100])
def test_a_plan_of_a_share(percent: float) -> None:
    """The same ratio everywhere, within the share, and no larger one would be."""
    graph = two_convolutions()
    plan = plan_of_share(graph, 4, percent)
    first, depthwise, second, head = plan.layers
    assert updated_share(graph, plan) <= percent
    assert depthwise.channels == 0 and depthwise.bias and head.channels == 16 * 36
    more = [12 * 8 * 9 / 12 * (first.channels + 1) + 16 * second.channels,
            72 * first.channels + 16 * (second.channels + 1)]
    ratios = [(first.channels + 1) / 12, (second.channels + 1) / 8]
    nearest = more[int(np.argmin(ratios))]
    if first.channels < 12 and second.channels < 8 and ratios[0] != ratios[1]:
        assert 100 * nearest / 1064 > percent
    assert abs(first.channels / 12 - second.channels / 8) <= 1 / 8


def test_a_share_that_no_plan_has() -> None:
    graph = two_convolutions()
    with pytest.raises(SparsetuneError, match="train fewer layers"):
        plan_of_share(graph, 4, 8)  # 72 + 16 of 1064
    for percent in (0, -1, 101):
        with pytest.raises(SparsetuneError, match="is not in"):
            plan_of_share(graph, 4, percent)


def test_plan_tells_the_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(runs.DIGITS), "--last", "6", "--share", "10"]) == 0
    told = capsys.readouterr().out
    found = re.search(r"([0-9.]+) % of the convolution weights", told)
    assert found and 0 < float(found[1]) <= 10
    assert cli.main(["plan", str(runs.DIGITS), "--share", "10", "--ratio", "1"]) == 1
    assert "leave out --ratio" in capsys.readouterr().err


def test_tune_with_importance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores come with the policy; the summary and the log tell what was visited."""
    sets = changed_sets(1)
    np.savez(tmp_path / "s.npz", x=sets["x_train"][:60], y=sets["y_train"][:60])
    log = tmp_path / "log.jsonl"
    run = ["tune", str(runs.DIGITS), str(tmp_path / "s.npz"), "--twin", "--plain", "--last", "6"]
    run += ["--share", "8", "--policy", "importance", "--hold", "epoch", "--rate", "0.01"]
    run += ["--steps", "200", "--log", str(log), "-o", str(tmp_path / "t.tflite")]
    assert cli.main(run) == 0
    told = capsys.readouterr().out
    events = [json.loads(line) for line in log.read_text().splitlines()]
    visited = [event for event in events if event["kind"] == "visited"]
    weights = [event["weights"] for event in visited]
    assert weights == sorted(weights) and len(weights) > 2  # once an epoch of 48 samples
    share = weights[-1] / visited[-1]["of"]
    assert f"visited: {share:.1%} of the trained layers' weights" in told
