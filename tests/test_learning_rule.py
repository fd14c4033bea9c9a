"""The learning rule: unbiased rounding, saturation, what a step may change; and error tensors."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from c_tools import Probe
from machine import Machine
from small_models import Array, Net
from sparsetune.image import ABSENT, CONTROL_BYTES
from sparsetune.numerics import rate
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.tflite import parse_tflite
from sparsetune_device.channels import POLICIES, make_policy
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image

BIAS_LIMIT = 2**30
SIGMAS = 5.0


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(tmp_path_factory.mktemp("probe"))


def step_words(step: float, total: int, error_exponent: int = -20) -> tuple[list[int], Fraction]:
    """Rates for which the sum `total` makes a step of about `step`, and the exact step, in the
    precision that the kernel keeps: 15 bits of the product of both rates."""
    weight_rate, learning_rate = rate(40.0), rate(step / total / 40.0 * 2.0**-error_exponent)
    mantissa = weight_rate[0] * learning_rate[0] >> 17
    exponent = weight_rate[1] + learning_rate[1] + error_exponent + 17
    return [*weight_rate, *learning_rate, error_exponent], Fraction(total) * mantissa * Fraction(
        2
    ) ** exponent


def is_biased(mean: float, step: float, count: int) -> bool:
    """Whether `count` roundings with this mean are beyond what chance explains."""
    fraction = step % 1
    return abs(mean - step) > SIGMAS * np.sqrt(fraction * (1 - fraction) / count) + 1e-9


STEPS = (0.003, 0.04, 0.25, 0.5, 0.9, 1.3, 2.97, 17.5)
COUNT = 40000


@pytest.mark.parametrize("along", ["weights of a step", "steps of a weight"])
@pytest.mark.parametrize("total", [1, -3, 1000, -(2**20), 2**30])
def test_rounding_is_unbiased(probe: Probe, total: int, along: str) -> None:
    for step in STEPS:
        words, exact = step_words(step * np.sign(total), total)
        many = np.arange(COUNT)
        seed, index = (9, many) if along == "weights of a step" else (many * 7919, 11)
        got = probe("weight", *words, seed, 0, 0, 0, total, index)[:, 0]
        assert not is_biased(-float(got.mean()), float(exact), COUNT), (step, exact)
        assert set(got.tolist()) <= {-floor(exact), -floor(exact) - 1}


def test_the_bound_tells_rounding_to_nearest_and_truncation_apart() -> None:
    for step in STEPS:
        nearest, truncated = round(step), int(step)
        assert is_biased(nearest, step, COUNT) or step == 0.5, step
        assert is_biased(truncated, step, COUNT), step


def test_steps_below_what_31_bits_resolve_still_add_up(probe: Probe) -> None:
    """Where the shift is beyond the random bits."""
    total = 2**30
    words, exact = step_words(0.02, total)
    words[1] -= 12  # a step of 0.02 / 4096 from a sum so large that its product is 46 bits long
    got = probe("weight", *words, np.arange(400000), 0, 0, 0, total, 3)[:, 0]
    assert abs(-got.sum() - float(exact) / 4096 * 400000) < SIGMAS * 2


@pytest.mark.parametrize("total", [1, -77, 2**20, -(2**30)])
def test_rows_round_without_bias_and_their_slots_apart(probe: Probe, total: int) -> None:
    """Two neighbours share a hash: one must tell nothing about the other, nor one slot about any
    other of its row."""
    rows = 65536 // 64
    for step in (0.02, 0.25, 0.5, 0.9):
        words, exact = step_words(step * np.sign(total), total)
        moved = -probe("row", *words, 5, 64 * np.arange(rows), total).astype(float)
        assert not is_biased(float(moved.mean()), float(exact), moved.size), (step, exact)
        for apart in (1, 2, 3, 8):
            first, second = (moved - moved.mean())[:, :-apart], (moved - moved.mean())[:, apart:]
            even, odd = (first * second)[:, ::2], (first * second)[:, 1::2]
            for products in (even, odd):
                likeness = float(products.mean() / moved.var())
                assert abs(likeness) < SIGMAS / np.sqrt(products.size), (step, apart, likeness)


def test_biases_round_without_bias(probe: Probe) -> None:
    for step in STEPS:
        words, exact = step_words(step, 321)
        got = probe("bias", *words, np.arange(COUNT), 0, 321)[:, 0]
        assert not is_biased(-float(got.mean()), float(exact), COUNT), step


def random_records(rng: np.random.Generator, count: int) -> Array:
    """Rates, exponents and sums of all magnitudes, the extremes among them."""
    return np.stack(
        [
            rng.choice((0, 2**15, 2**16 - 1, 40000), count),
            rng.integers(-40, 40, count),
            rng.choice((0, 2**15, 2**16 - 1, 50000), count),
            rng.integers(-60, 20, count),
            rng.integers(-60, 20, count),
            rng.integers(0, 2**31, count),
        ]
    )


def exact_steps(records: Array, totals: Array) -> list[Fraction]:
    return [
        Fraction(int(t)) * (int(m) * int(lr) >> 17) * Fraction(2) ** int(e + le + ee + 17)
        for t, (m, e, lr, le, ee, _) in zip(totals, records.T, strict=True)
    ]


def clamp(value: int, limit: int) -> int:
    return max(-limit, min(limit, value))


@pytest.mark.parametrize("residual", [False, True])
def test_weights_saturate_and_never_wrap(probe: Probe, residual: bool) -> None:
    rng = np.random.default_rng(1)
    records = random_records(rng, 20000)
    count = records.shape[1]
    weights = rng.choice((-127, -126, -1, 0, 1, 126, 127), count)
    fractions = np.where(np.abs(weights) < 127, rng.choice((-128, -1, 0, 127), count), 0) * residual
    totals = rng.choice((-(2**31), 2**31 - 1, 1, -1, 0, 12345, -678), count)
    got = probe("weight", *records, weights, fractions, int(residual), totals, np.arange(count))
    unit = 256 if residual else 1
    for i, step in enumerate(exact_steps(records, totals)):
        before = int(weights[i]) * unit + int(fractions[i])
        after = int(got[i, 0]) * unit + int(got[i, 1]) * residual
        wanted = {clamp(before - floor(step) - up, 127 * unit) for up in (0, 1)}
        assert after in wanted, (i, before, after, float(step))
        assert step or after == before


def test_biases_saturate_and_never_wrap(probe: Probe) -> None:
    rng = np.random.default_rng(2)
    records = random_records(rng, 20000)
    count = records.shape[1]
    biases = rng.choice((-BIAS_LIMIT, 1 - BIAS_LIMIT, -1, 0, 7, BIAS_LIMIT), count)
    totals = rng.choice((-32767, 32767, 1, -1, 0, 99), count)
    got = probe("bias", *records, biases, totals)[:, 0]
    for i, step in enumerate(exact_steps(records, totals)):
        steps = (clamp(floor(step) + up, 2**31 - 1) for up in (0, 1))
        assert got[i] in {clamp(int(biases[i]) - s, BIAS_LIMIT) for s in steps}, (i, float(step))


def test_a_step_of_zero_changes_nothing(probe: Probe) -> None:
    """Also -128, which no update makes but a model may hold."""
    weights = np.arange(-128, 128)
    for lr, total in ((0, 12345), (40000, 0)):
        for residual in (0, 1):
            got = probe("weight", 40000, 0, lr, 0, 0, 1, weights, 0, residual, total, 5)
            assert (got[:, 0] == weights).all() and not got[:, 1].any()


# Error tensors ------------------------------------------------------------------------------------

COUNT_OF_TENSOR = 64


def emitted(probe: Probe, limit: Array, shift: Array, old: tuple[Array, Array] | None, sums: Array):
    """(real values, one unit of the result, raw data) of error tensors written from sums; old:
    exponents and data that are there already."""
    exponents, data = old if old else (np.zeros(len(sums)), np.zeros_like(sums))
    got = probe("emit", limit, shift, -5, int(old is not None), exponents, data, sums)
    units = 2.0 ** got[:, :1]
    return got[:, 2:] * units, units, got[:, 2:]


def wild_sums(rng: np.random.Generator, count: int) -> Array:
    """Tensors whose elements differ by up to 2^31, in rising order, falling, and mixed."""
    bits = rng.uniform(0, 31, (count, COUNT_OF_TENSOR))
    bits[: count // 3].sort(axis=1)
    bits[count // 3 : count // 2] = -np.sort(-bits[count // 3 : count // 2], axis=1)
    bits[-count // 4 :] /= 4
    return (2.0**bits * rng.choice((-1, 1), bits.shape)).astype(np.int64)


def test_error_tensors_of_any_range_neither_saturate_nor_wrap(probe: Probe) -> None:
    rng = np.random.default_rng(3)
    sums = wild_sums(rng, 3000)
    limit = rng.choice((1, 255, 8191, 32767), len(sums))
    shift = rng.integers(0, 20, len(sums))
    values, units, data = emitted(probe, limit, shift, None, sums)
    assert (np.abs(data) <= limit[:, None]).all()
    assert (np.abs(values - sums / 32) <= units).all()


def test_error_tensors_use_the_bits_they_have(probe: Probe) -> None:
    """Where the scale grew, the peak is at least half the limit: nothing was halved in vain."""
    rng = np.random.default_rng(4)
    sums = wild_sums(rng, 1000)
    data = emitted(probe, 8191, 0, None, sums)[2]
    grew = np.abs(sums).max(axis=1) > 8191
    assert (np.abs(data[grew]).max(axis=1) >= 8191 // 2).all()


def test_small_values_vanish_beside_a_huge_one(probe: Probe) -> None:
    """Halved many times, a 1 must not stay a 1: summed over a map it would drown the rest."""
    sums = np.ones((1, COUNT_OF_TENSOR), np.int64)
    sums[0, -1] = 2**30
    data = emitted(probe, 255, 0, None, sums)[2]
    assert not data[0, :-1].any() and data[0, -1] > 127


def test_halving_is_unbiased(probe: Probe) -> None:
    """What was written before the scale grew is off by no more than chance, on average."""
    rng = np.random.default_rng(5)
    sums = rng.integers(-255, 256, (2000, COUNT_OF_TENSOR))
    sums[:, -1] = 255 * 2**4
    values, units, _ = emitted(probe, 255, 0, None, sums)
    error = ((values - sums / 32) / units)[:, :-1]
    assert abs(error.mean()) < 0.01


def test_accumulating_adds(probe: Probe) -> None:
    """Onto tensors of finer, equal and coarser scales."""
    rng = np.random.default_rng(6)
    sums = wild_sums(rng, 3000)
    exponents = rng.integers(-30, 25, len(sums))
    data = rng.integers(-32767, 32768, sums.shape)
    limit = rng.choice((255, 8191, 32767), len(sums))
    data = np.clip(data, -limit[:, None], limit[:, None])
    shift = rng.integers(0, 20, len(sums))
    values, units, raw = emitted(probe, limit, shift, (exponents, data), sums)
    assert (np.abs(raw) <= limit[:, None]).all()
    assert (np.abs(values - (sums / 32 + data * 2.0 ** exponents[:, None])) <= 1.5 * units).all()


def test_the_next_step_starts_where_this_one_ended_or_a_bit_finer(probe: Probe) -> None:
    sums = np.full((3, COUNT_OF_TENSOR), [[20000], [100], [0]])
    got = probe("emit", 1000, 10, 0, 0, 0, np.zeros_like(sums), sums)
    assert got[:, 1].tolist() == [9, 9, 9]
    sums = np.full((1, COUNT_OF_TENSOR), 2**30)
    assert probe("emit", 1000, 0, 0, 0, 0, np.zeros_like(sums), sums)[0, 1] == 21


# Dynamic selection --------------------------------------------------------------------------------


class SparseRun:
    """A small model of which a plan trains some channels of some layers, run by the device code."""

    CHOSEN = {0: 2, 2: 5, 3: 3}  # operator -> channels a step; operator 1 is frozen

    def __init__(self, policy: str = "cyclic", residual: bool = False, bias: bool = True) -> None:
        self.net = net = Net((1, 6, 6, 3), seed=1)
        net.conv(8, 3)
        net.depthwise(1, 3)
        net.conv(7, 1)
        net.conv(6, 3)
        net.flatten()
        net.dense(4, scale=0.02)
        self.graph = parse_tflite(net.to_bytes())
        layers = tuple(LayerPlan(op, n, bias) for op, n in self.CHOSEN.items())
        plan = UpdatePlan(layers, residual, scores=policy == "importance")
        self.machine = Machine(self.graph, plan)
        self.engine = Engine(Image(self.machine.image.data))
        self.policy = make_policy(policy, self.engine.image.layers, 5)
        self.number = 0

    def weights(self) -> dict[int, Array]:
        """Operator -> weights (with their fractions) [out, taps, in]."""
        result = {}
        for layer in self.machine.image.layers:
            parts = [(layer.weights_at, 256), (layer.residual_at, 1)]
            stored = [
                np.frombuffer(self.engine.state, np.int8, layer.weights_bytes, at).astype(int)
                * unit
                for at, unit in parts
                if at != ABSENT
            ]
            result[layer.operator] = sum(stored).reshape(layer.out_channels, -1, layer.in_channels)
        return result

    def channels(self) -> dict[int, list[int]]:
        return {
            layer.operator: np.frombuffer(
                self.engine.state, np.uint16, layer.chosen, layer.channels_at
            ).tolist()
            if layer.channels_at != ABSENT
            else list(range(layer.in_channels))
            for layer in self.machine.image.layers
        }

    def step(self, learning_rate: float = 0.5) -> None:
        self.policy.choose(self.number, self.engine.state)
        self.engine.sample[:] = self.net.sample().tobytes()
        self.engine.step(self.number % 4, rate(learning_rate), 1000 + self.number)
        self.number += 1


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_only_chosen_channels_change(policy: str, residual: bool) -> None:
    run = SparseRun(policy, residual)
    changed = {op: False for op in run.CHOSEN}
    for _ in range(12):
        before = run.weights()
        run.step()
        chosen, after = run.channels(), run.weights()
        for op, weights in after.items():
            others = np.setdiff1d(np.arange(weights.shape[2]), chosen[op])
            assert (weights[:, :, others] == before[op][:, :, others]).all()
            assert len(set(chosen[op])) == run.CHOSEN[op]
            changed[op] |= bool((weights != before[op]).any())
    assert all(changed.values())


@pytest.mark.parametrize("policy", ["static", "cyclic", "random"])
def test_which_channels_are_visited(policy: str) -> None:
    """Cyclic and random reach all of them in each round of ceil(all / chosen) steps."""
    run = SparseRun(policy)
    rounds = {
        layer.operator: -(-layer.in_channels // layer.chosen) for layer in run.machine.image.layers
    }
    seen: dict[int, set[int]] = {op: set() for op in rounds}
    for number in range(24):
        run.step()
        for op, chosen in run.channels().items():
            seen[op].update(chosen)
            if (number + 1) % rounds[op] == 0:
                expected = run.machine.graph.tensor(run.graph.operator(op).inputs[0]).shape[3]
                assert len(seen[op]) == (run.CHOSEN[op] if policy == "static" else expected)
                seen[op].clear()


def test_random_subsets_differ_between_rounds_and_seeds() -> None:
    orders = []
    for seed in (5, 6):
        run = SparseRun("random")
        run.policy = make_policy("random", run.engine.image.layers, seed)
        rounds = []
        for _ in range(8):
            run.step()
            rounds.append(tuple(run.channels()[3]))
        orders.append(tuple(rounds))
    assert orders[0] != orders[1] and len(set(orders[0])) > 3


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("bias", [False, True])
def test_frozen_parameters_never_change(bias: bool) -> None:
    """Frozen weights are in the image, which is only read; frozen biases too."""
    run = SparseRun(bias=bias)
    image = bytes(run.engine.image.data)
    for _ in range(6):
        run.step()
    assert bytes(run.engine.image.data) == image
    trained = {layer.operator for layer in run.machine.image.layers if layer.bias_at != ABSENT}
    assert trained == (set(run.CHOSEN) if bias else set())
    assert {layer.operator for layer in run.machine.image.layers} == set(run.CHOSEN)


@pytest.mark.usefixtures("each_version")
def test_a_learning_rate_of_zero_changes_nothing() -> None:
    run = SparseRun(residual=True)
    before = run.weights()
    for _ in range(5):
        run.step(0.0)
    assert all((w == before[op]).all() for op, w in run.weights().items())


@pytest.mark.usefixtures("each_version")
@pytest.mark.parametrize("learning_rate", [1e3, 1e9])
def test_absurd_learning_rates_saturate(learning_rate: float) -> None:
    """Every weight stays within [-127, 127], and forward still runs."""
    run = SparseRun()
    for _ in range(6):
        run.step(learning_rate)
    assert max(np.abs(w).max() for w in run.weights().values()) == 127 * 256


def test_rounding_depends_on_the_seed_and_on_nothing_else() -> None:
    states = []
    for seed in (1, 1, 2):
        run = SparseRun()
        run.engine.sample[:] = run.net.sample().tobytes()
        run.engine.step(1, rate(0.01), seed)
        states.append(bytes(run.engine.state)[CONTROL_BYTES:])  # without the control block
    assert states[0] == states[1] != states[2]
