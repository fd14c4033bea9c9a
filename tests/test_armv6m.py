"""The kernels as the Cortex-M0+ runs them, its assembly among them, against the twin: on the
emulated core, without MicroPython. Every buffer stands apart at some alignment, with guard bytes
around."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sparsetune_kernels as kernels
from gradient_cases import CASES, ZEROS
from guards import Scattered
from machine import Machine
from on_core import (
    CHANNELS,
    GRADIENTS,
    RATE,
    SCRATCH,
    check_equal,
    chosen_channels_and_strips,
    convolutions,
    depthwise_layers,
    memories,
    patches,
    scattered,
    steps_of,
    training_steps,
    two_operands,
    with_gradient,
)
from small_models import NONE, RELU, Net
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.program import Buffer, Flag
from sparsetune.tflite import parse_tflite
from sparsetune_tools.bare import BareCore, BareMachine, build_small
from uint8_models import to_uint8

RAM = 0x20010000


@pytest.fixture(scope="module", params=["full", "small"])
def core(request: pytest.FixtureRequest) -> Iterator[BareCore]:
    """In two flavours (natmod.mk). The twin's portable kernels are the reference: those of its fast
    ones that have scratch of their own leave that of the image alone."""
    was_fast = kernels.set_simd(None)
    kernels.set_simd(False)
    with BareCore(build_small() if request.param == "small" else None) as core:
        yield core
    kernels.set_simd(was_fast)


def is_fast(core: BareCore) -> bool:
    """Whether it has ways that make use of scratch: the small flavour has none."""
    return "st_add_rows_words" in core.symbols


@pytest.mark.parametrize("is_hot", [False, True])
@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_the_emulated_core_faults_where_words_are_not_aligned(wrong: int, is_hot: bool) -> None:
    """Else no test here could tell that a kernel does not look at alignment. is_hot: the emulator
    has translated the loop."""
    with BareCore() as core:
        core.write(RAM, bytes(1000))
        places = [RAM, RAM + 200, 16, RAM + 400]  # of inputs, weights, their number, sums
        for _ in range(100 if is_hot else 0):
            core.call("st_six_packed", *places)
        places[wrong] += 2
        with pytest.raises(RuntimeError, match="stopped"):
            core.call("st_six_packed", *places)


@pytest.mark.parametrize("shift", range(16))
def test_convolutions(shift: int, core: BareCore) -> None:
    fast = sum(check_equal(machine, core) for machine in convolutions(shift))
    assert (fast > 0) == is_fast(core)


@pytest.mark.parametrize("shift", range(16))
def test_depthwise(shift: int, core: BareCore) -> None:
    fast = sum(check_equal(machine, core) for machine in depthwise_layers(shift))
    assert (fast > 0) == is_fast(core)


@pytest.mark.parametrize("weight_zero", [128, 60])
@pytest.mark.parametrize("shift", range(4))
def test_any_depthwise(shift: int, weight_zero: int, core: BareCore) -> None:
    """Several outputs of an input, taps apart, and weights that have a zero point."""
    for seed, (multiplier, dilation) in enumerate(((2, 1), (1, 2), (3, 2))):
        net = Net((1, 6, 7, 3), 5 - seed, seed)
        net.depthwise(multiplier, (2, 3), dilation=dilation, same=True)
        model = parse_tflite(to_uint8(net, weight_zero))
        machine = Scattered(model, UpdatePlan(()), 3 * shift + seed)
        machine.load(net.sample())
        check_equal(machine, core)


# Depthwise layers between two ReLUs, by pairs of outputs (ulab_kernels/depthwise_pairs.h).


def between_relus(size: tuple[int, int], channels: int, seed: int, **rest: Any) -> Net:
    net = Net((1, *size, channels), -128, seed)
    net.depthwise(1, 3, activation=RELU, zero=-128, **rest)
    return net


@pytest.mark.parametrize("shift", range(16))
def test_pairs(shift: int, core: BareCore) -> None:
    """From inputs that all sums have room for to ones that none have; by one core and in two parts,
    either first."""
    for i in range(8):
        rng = np.random.default_rng((200 + shift, i))
        size = int(rng.integers(2, 9)), int(rng.integers(2, 10))
        if not i:
            size = (40, 3) if shift % 2 else (2, 33)
        channels = int(rng.choice(CHANNELS))
        most = (128, 86)[i // 4]
        weights = rng.integers(1 - most, most, (1, 3, 3, channels))
        net = between_relus(size, channels, 9 * shift + i, weights=weights)
        machine = scattered(net, shift)
        machine.load(rng.integers(-128, (-100, -50, 0, 128)[i % 4], net.shapes[net.source]))
        assert check_equal(machine, core, cores=(0, 2, 3)[i % 3]) == is_fast(core)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("weight", [127, 85])
def test_largest_parted_sums(weight: int, sign: int, core: BareCore) -> None:
    """The largest sums of two products, and of three."""
    for signs in ([1, 1, 1], [1, -1, 1], [-1, -1, -1]):
        weights = np.full((1, 3, 3, 5), weight * sign) * np.reshape(signs, (1, 3, 1, 1))
        net = between_relus((6, 5), 5, 3, weights=weights)
        for value in (-128, 127):
            machine = scattered(net, 4)
            machine.load(np.where(np.indices((6, 5, 5)).sum(0) % 7, value, -value - 1))
            assert check_equal(machine, core) == is_fast(core)


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 2e-3, 4e-3, 0.01, 0.1, 1.0, 30.0, 1e3])
def test_scales_between_relus(scale: float, core: BareCore) -> None:
    """All factors; sums far beyond the output's range; biases beyond what pairs of sums are
    requantised with."""
    rng = np.random.default_rng(3)
    for least in (-127, 60):
        weights = rng.integers(least, 128, (1, 3, 3, 8))
        for most, bias in ((-90, 1000), (-90, 1 << 27), (-120, (1 << 31) - 1), (128, 1 << 30)):
            biases = rng.integers(-bias, bias, 8).astype(np.int32)
            biases[:2] = -bias, bias
            net = between_relus((4, 6), 8, 3, scale=scale, bias=biases, weights=weights)
            machine = scattered(net, 4)
            machine.load(rng.integers(-128, most, (4, 6, 8)))
            assert check_equal(machine, core) == is_fast(core)


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_points_beside_small_inputs(sign: int, core: BareCore) -> None:
    """Rows that meet the padding only on their left and right, which is larger than they are."""
    net = Net((1, 70, 3, 2), 127)
    net.depthwise(1, 3, activation=RELU, zero=-128, weights=np.full((1, 3, 3, 2), 100 * sign))
    machine = scattered(net, 4)
    machine.load(np.full((70, 3, 2), -128))
    assert check_equal(machine, core) == is_fast(core)


def run_once(net: Net, x: Any, core: BareCore) -> int:
    """Cycles of it, all memory compared."""
    machine = scattered(net, 4)
    machine.load(x)
    board = BareMachine(core, machine.image.data, [bytes(m) for m in memories(machine)])
    cycles = board.run(0, 1).cycles
    assert check_equal(machine, core) == is_fast(core)
    return cycles


@pytest.mark.parametrize("size", [(8, 8), (2, 9), (5, 4)])
@pytest.mark.parametrize("signs", ["plus", "minus", "both"])
def test_pairs_up_to_their_limit(signs: str, size: tuple[int, int], core: BareCore) -> None:
    """Inputs as large as nine products have room for 16 bits take the faster way, and no larger
    ones: at both ends of the sums the outputs are the same."""
    values = [127, 90, 3, -127, 64, 1, 77, -5, 101]
    weights = np.stack([np.roll(values, i).reshape(1, 3, 3) for i in range(6)], -1)
    if signs != "both":
        weights = abs(weights) * (1 if signs == "plus" else -1)
    rng = np.random.default_rng(7)
    bias = rng.integers(-9000, 9000, 6).astype(np.int32)
    took = []
    largest = 0xFFFF // int(np.abs(values).sum())
    for most in (largest, largest + 1):
        net = between_relus(size, 6, 1, weights=weights, bias=bias)
        x = rng.choice((-128, most - 128), (*size, 6)).astype(np.int8)
        x[0, 0] = most - 128
        took.append(run_once(net, x, core))
        took.append(run_once(net, np.full_like(x, most - 128), core))
    assert max(took[:2]) < min(took[2:]) or not is_fast(core)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["conv", "pointwise", "dense", "depthwise", "stride 2"])
def test_extremes(kind: str, sign: int, core: BareCore) -> None:
    """All weights +-127 and all inputs -128 or 127: the largest sums that share a word."""
    channels, kernel, size = 12, 3, 6
    if kind in ("pointwise", "dense"):  # so many inputs that the sum of weights takes over 16 bits
        channels, kernel, size = 600, 1, 2
    for value in (-128, 127):
        net = Net((1, size, size, channels), zero=-value - 1)
        weights = np.full((10, kernel, kernel, channels), 127 * sign)
        weights[1::2] *= -1
        if kind == "dense":
            net.dense(10, weights=weights.reshape(10, channels))
        elif kind in ("conv", "pointwise"):
            net.conv(10, kernel, weights=weights)
        else:
            weights = np.full((1, 3, 3, channels), 127 * sign)
            net.depthwise(1, 3, weights=weights, stride=2 if kind == "stride 2" else 1)
        machine = scattered(net, 4)
        machine.load(np.full((size, size, channels), value))
        takes_scratch = is_fast(core) and kind != "dense"  # whose scratch the twin uses, too
        assert check_equal(machine, core) == takes_scratch


def test_a_weight_of_minus_128_is_not_packed(core: BareCore) -> None:
    """Two of them times -128 would not fit into the half of a word."""
    for least in (-127, -128):
        net = Net((1, 8))
        net.dense(7, weights=np.full((7, 8), least))
        machine = scattered(net, 4)
        assert bool(machine.ops[0].flags & Flag.PACKED) == (least == -127)
        machine.load(np.full((1, 8), -128))
        check_equal(machine, core)


@pytest.mark.parametrize("scale", [1e-5, 3e-4, 1e-3, 0.01, 0.1, 1.0, 30.0, 1e3])
def test_output_scales(scale: float, core: BareCore) -> None:
    """Factors that are reduced to 16 bits, that have too few to drop, and that are none."""
    for shift in range(3):
        net = Net((1, 4, 5, 8), zero=3, seed=shift)
        net.conv(9, 1, scale=scale, zero=-5)
        assert check_equal(scattered(net, 4), core) == is_fast(core)
        net = Net((1, 4, 5, 8), zero=3, seed=shift)
        net.depthwise(1, 3, scale=scale, zero=100)
        assert check_equal(scattered(net, 4), core) == is_fast(core)


def sums_near_ties(factors: Any, rng: Any) -> Any:
    """One a factor: what becomes nearly n + 1/2, of all n and some beyond the range of an int8."""
    ties = (rng.integers(-300, 300, len(factors)) + 0.5) / factors
    return np.clip(np.floor(ties) + rng.integers(-2, 4, len(factors)), -(2**31), 2**31 - 1)


@pytest.mark.parametrize("activation", [NONE, RELU])
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_sums_near_ties(kind: str, activation: int, core: BareCore) -> None:
    """Weights of 0, so that the sums are the biases: with all factors of 32-bit arithmetic."""
    channels, x_scale, scale = 600, 0.02, 0.05
    for seed in range(4):
        rng = np.random.default_rng(seed)
        factors = 2.0 ** rng.uniform(-31, -2, channels)
        net = Net((1, 2, 2, channels if kind == "depthwise" else 4), 5, scale=x_scale)
        rest = {
            "scales": factors * scale / x_scale,
            "scale": scale,
            "activation": activation,
            "bias": sums_near_ties(factors, rng).astype(np.int32),
            "zero": (-128, 7)[seed % 2],
        }
        if kind == "depthwise":
            net.depthwise(1, 3, weights=np.zeros((1, 3, 3, channels)), **rest)
        else:
            net.conv(channels, 1, weights=np.zeros((channels, 1, 1, 4)), **rest)
        machine = scattered(net, 4)
        assert check_equal(machine, core) == is_fast(core)
        assert len(set(machine.arena)) > 60


@pytest.mark.parametrize("positions", [1, 2, 3])
def test_small_maps(positions: int, core: BareCore) -> None:
    """From two positions on, filters of 1x1 go by words of weights."""
    for inputs, channels in ((64, 12), (17, 33), (5, 1)):
        net = Net((1, 1, positions, inputs), zero=-5, seed=inputs)
        net.conv(channels, 1, activation=RELU, zero=-128)
        assert check_equal(scattered(net, inputs), core) == (is_fast(core) and positions > 1)


@pytest.mark.parametrize("case", CASES)
def test_training_steps(case: str, core: BareCore) -> None:
    for machine in training_steps(case):
        check_equal(machine, core)


def test_gradients_over_patches(core: BareCore) -> None:
    for machine in patches():
        check_equal(machine, core)


@pytest.mark.parametrize("power", [-14, -4, 6])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients(kind: str, power: int, core: BareCore) -> None:
    """Pointwise and other layers; steps that move hardly a weight, and ones that all saturate."""
    for i, machine in enumerate(steps_of(power)):
        check_equal(machine, core, before=with_gradient(kind, i))


@pytest.mark.parametrize("last", [1, 4, 7])
def test_chosen_channels_and_strips(last: int, core: BareCore) -> None:
    for machine in chosen_channels_and_strips(last):
        assert check_equal(machine, core) or not is_fast(core)


def test_too_little_scratch_is_refused() -> None:
    net = Net((1, 6, 6, 4))
    net.conv(8, 1)
    machine = Machine(net.to_bytes())
    op = machine.ops[0]
    words = np.frombuffer(machine.image.data, "<u4").copy()
    size = next(w for w in op.words if isinstance(w, Buffer) and w.name.startswith(SCRATCH)).size
    (at,) = np.flatnonzero(words == size // 4)
    words[at] = 1
    with pytest.raises(ValueError, match="impossible parameters"):
        kernels.run(words.tobytes(), machine.state, machine.arena, machine.cold, b"", 0, 1, 1)


@pytest.mark.parametrize("chosen", range(1, 18))
def test_few_channels_and_rows_of_zeros_behind_them(chosen: int, core: BareCore) -> None:
    """By rows of errors, by words of values, of more positions than are gathered at once, of all
    numbers of them that a loop of four leaves, and in tiles of output channels; and more channels
    than that, in blocks."""
    sizes, outputs_of = (5, 9, 1, 11, 13, 6, 12, 18), (24, 70, 12, 7, 9, 66, 20, 9)
    for seed, (size, outputs) in enumerate(zip(sizes, outputs_of, strict=True)):
        stride = 2 if 4 <= seed < 7 else 1
        net = Net((1, size, max(size - seed, 1), 18), (3, -128, 127)[seed % 3], seed)
        kernel = 1 if seed % 2 else 3
        net.conv(outputs, kernel, stride=stride, activation=RELU, zero=-128)
        net.mean((1, 2), False)
        net.dense(3)
        graph = parse_tflite(net.to_bytes())
        first, head = (op.index for op in graph.trainable)
        plan = UpdatePlan((LayerPlan(first, chosen), LayerPlan(head, 0)), residual=chosen % 3 == 2)
        machine = Scattered(graph, plan, (0, 4, 2, 12)[seed % 4])  # errors as words, but for one
        machine.control(1, RATE, seed)
        machine.load(net.sample())
        check_equal(machine, core, before=with_gradient("some" if seed % 2 else "no zeros", seed))


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 0.004, 0.02, 0.5, 1e4])
def test_two_operands(kind: str, scale: float, core: BareCore) -> None:
    """All int8 pairs of them, and one that is broadcast; factors of all sizes, the larger one's not
    shifted at all."""
    for machine in two_operands(kind, scale):
        check_equal(machine, core)


@pytest.mark.parametrize("kind", ["ADD", "SUB"])
@pytest.mark.parametrize("share", [2.0**-n for n in (10, 13, 14, 17, 19, 20, 21, 23)])
def test_small_operands(kind: str, share: float, core: BareCore) -> None:
    """An output counts in little more than the sums' own unit, which therefore must be equal to the
    last bit; the smaller operand, of this share, comes first or second."""
    for seed in range(4):
        net = Net((1, 4, 4, 64), ZEROS[seed % 3], seed)
        shape = (1, 4, 4, 64) if seed < 2 else (1, 1, 1, 64)
        large = float(net.q[net.at].scale[0])
        other = net.constant(shape, 7, large * share * (1 + seed / 5))
        net.binary(kind, other, seed, scale=large * 1.1 * 2.0**-19, swapped=bool(seed & 1))
        machine = Machine(net.to_bytes())
        x = np.full((1, 4, 4, 64), ZEROS[seed % 3], np.int8)
        assert len(set(machine.infer(x))) > 1
        machine.load(x)
        check_equal(machine, core)


@pytest.mark.usefixtures("portable")
def test_few_channels_and_sums_take_their_fast_ways() -> None:
    """Tests compare bytes, which the slow ways give too."""
    net = Net((1, 6, 6, 18), -128)
    net.conv(24, 1)
    other = net.at
    for _ in range(3):
        net.conv(24, 1)
    net.add(other)
    net.mean((1, 2), False)
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    layers = [LayerPlan(op.index, n) for op, n in zip(graph.trainable, (2, 3, 4, 7), strict=False)]
    machine = Machine(graph, UpdatePlan(tuple(layers)))
    machine.control(1, RATE, 1)
    machine.load(net.sample())
    with BareCore(count=True) as counting:
        check_equal(machine, counting)
        spent = counting.profile()
    fast = ("st_add_errors", "st_add_one_word", "st_add_two_words", "st_step_rows", "st_sum_rows")
    for name in (*fast, "st_terms"):
        assert spent.get(name, 0) > 100, name
    assert "st_gather" in counting.symbols and spent.get("st_gather", 0) == 0
