"""The kernels as an Xtensa core runs them, against the twin: on QEMU's, without MicroPython. Every
buffer stands apart at some alignment, with guard bytes around."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
import sparsetune_kernels as kernels
from gradient_cases import CASES
from machine import Machine
from on_core import (
    GRADIENTS,
    check_equal,
    chosen_channels_and_strips,
    convolutions,
    depthwise_layers,
    memories,
    patches,
    steps_of,
    training_steps,
    two_operands,
    with_gradient,
)
from small_models import Net
from sparsetune.plan import UpdatePlan
from sparsetune_tools.bare import BareMachine
from sparsetune_tools.xtensa import VARIANTS
from sparsetune_tools.xtensa_bare import FOLDER, CountingCore, XtensaCore, build

SHIFTS = range(16)


@pytest.fixture(scope="module", params=list(VARIANTS))
def core(xtensa: object, request: pytest.FixtureRequest) -> Iterator[XtensaCore]:
    """The twin's portable kernels are the reference: its fast ones have scratch of their own."""
    was_fast = kernels.set_simd(None)
    kernels.set_simd(False)
    with XtensaCore(build(request.param)) as core:
        yield core
    kernels.set_simd(was_fast)


@pytest.mark.parametrize("wrong", [1, 2, 3])
@pytest.mark.usefixtures("xtensa")
def test_the_emulated_core_faults_where_words_are_not_aligned(wrong: int) -> None:
    """Else no test here could tell that a kernel does not look at alignment."""
    with XtensaCore() as another:
        another.write(another.data, bytes(range(8)))
        assert another.call("bare_load", another.data + 4).result == 0x07060504
        with pytest.raises(RuntimeError, match="stopped"):
            another.call("bare_load", another.data + wrong)


@pytest.mark.parametrize("shift", SHIFTS)
def test_convolutions(shift: int, core: XtensaCore) -> None:
    for machine in convolutions(shift):
        check_equal(machine, core)


@pytest.mark.parametrize("shift", SHIFTS)
def test_depthwise(shift: int, core: XtensaCore) -> None:
    for machine in depthwise_layers(shift):
        check_equal(machine, core)


@pytest.mark.parametrize("case", CASES)
def test_training_steps(case: str, core: XtensaCore) -> None:
    for machine in training_steps(case):
        check_equal(machine, core)


def test_gradients_over_patches(core: XtensaCore) -> None:
    for machine in patches():
        check_equal(machine, core)


@pytest.mark.parametrize("power", [-14, -4, 6])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients(kind: str, power: int, core: XtensaCore) -> None:
    """Steps that move hardly a weight, and ones that all saturate."""
    for i, machine in enumerate(steps_of(power)):
        check_equal(machine, core, before=with_gradient(kind, i))


@pytest.mark.parametrize("last", [1, 4, 7])
def test_chosen_channels_and_strips(last: int, core: XtensaCore) -> None:
    for machine in chosen_channels_and_strips(last):
        check_equal(machine, core)


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("scale", [1e-8, 0.004, 0.5, 1e4])
def test_two_operands(kind: str, scale: float, core: XtensaCore) -> None:
    for machine in two_operands(kind, scale):
        check_equal(machine, core)


@pytest.mark.usefixtures("xtensa", "portable")
@pytest.mark.parametrize("variant", VARIANTS)
def test_instructions_are_counted(variant: str) -> None:
    """They repeat, all but one or two, and twice the work takes about twice of them."""
    counts = []
    with CountingCore(build(variant)) as counting:
        for channels in (16, 16, 32):
            net = Net((1, 4, 4, 40), -128)
            net.conv(channels, 1)
            machine = Machine(net.to_bytes(), UpdatePlan((), scratch=False))
            machine.load(net.sample())
            board = BareMachine(counting, machine.image.data, [bytes(m) for m in memories(machine)])
            counts.append(board.run(0, 1, False).instructions)
            machine.run(0, 1, False)
            assert board.dump(2) == bytes(machine.arena)
    first, again, twice = counts
    assert abs(first - again) <= 2
    assert 4 * 4 * 40 * 16 < first < 20 * 4 * 4 * 40 * 16
    assert 1.9 < twice / first < 2.1


@pytest.mark.usefixtures("xtensa")
def test_an_s3s_kernels_have_its_products() -> None:
    """What runs here in place of them was compiled with them."""
    build("esp32s3")
    text = "".join(file.read_text() for file in (FOLDER / "esp32s3").glob("*.s"))
    assert text.count("\tmulsh\t") > 20 and text.count("\tmuluh\t") > 20
    assert "__umulsidi3" not in text


def rounded_twice(total: int, factor: tuple[int, int]) -> int:
    """TFLite's MultiplyByQuantizedMultiplier, of its documentation: in Python's integers."""
    multiplier, shift = factor
    left, right = max(shift, 0), max(-shift, 0)
    total = (total << left) + (1 << 31) & 0xFFFFFFFF
    high = (total - (1 << 31)) * multiplier + (1 << 30) >> 31
    half = 1 << right >> 1
    return (high + half >> right) if high >= 0 else -(-high + half >> right)


def sums_near_ties(rng: np.random.Generator, factor: tuple[int, int]) -> np.ndarray:
    """Also those that saturate, and the extremes."""
    multiplier, shift = factor
    outputs = rng.integers(-300, 300, 40) + rng.choice((0.0, 0.5, 0.5, 0.5), 40)
    near = np.rint(outputs * 2.0 ** (31 - shift) / multiplier)[:, None] + np.arange(-3, 4)
    most = (1 << 31) - 1
    anywhere = rng.integers(-most, most, 40)
    extremes = (-most - 1, -most, most, 0, 1, -1)
    all_of_them = np.concatenate([near.ravel(), anywhere, extremes])
    return np.clip(all_of_them, -most - 1, most).astype(np.int64)


@pytest.mark.parametrize("shift", range(-31, 4))
def test_sums_become_outputs(shift: int, core: XtensaCore) -> None:
    """In the loop of MAC16: all shifts, sums near ties among them."""
    rng = np.random.default_rng(shift + 31)
    zero, lo, hi = ((-128, -128, 127), (5, -100, 90), (127, -128, 127))[shift % 3]
    geometry, job, x, w, y = (core.data + at for at in (0, 128, 256, 16384, 20480))
    words = np.zeros(20, "<i4")
    words[[5, 15, 16, 17]] = 1, zero, lo, hi  # outputs side by side
    core.write(geometry, words.tobytes())
    core.write(w, np.array([32767, 1, 0, 0], "<i2").tobytes())
    for multiplier in (1 << 30, (1 << 31) - 1, int(rng.integers(1 << 30, 1 << 31))):
        sums = sums_near_ties(rng, (multiplier, shift))
        for bias in (-(1 << 30), 0, 1 << 30):
            mine = sums[(sums - bias >= -(1 << 29)) & (sums - bias <= 1 << 29)]
            inputs = np.zeros((len(mine), 4), "<i2")
            inputs[:, 0], inputs[:, 1] = (mine - bias) // 32767, (mine - bias) % 32767
            core.write(x, inputs.tobytes())
            core.write(job, struct.pack("<4I80x", x, w, y, y + len(mine)))
            core.call("st_mac16_begin", job, geometry)
            core.call("st_mac16_prepare", job, bias & 0xFFFFFFFF, multiplier, shift & 0xFFFFFFFF)
            if len(mine):
                core.call("st_mac16_windows", job)
            got = np.frombuffer(core.read(y, len(mine)), np.int8)
            wanted = [rounded_twice(int(s), (multiplier, shift)) + zero for s in mine]
            np.testing.assert_array_equal(got, np.clip(wanted, lo, hi))
