"""The kernels as an Xtensa core runs them, against the twin: on QEMU's, without MicroPython. Every
buffer stands apart at some alignment, with guard bytes around."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
import sparsetune_kernels as kernels
from gradient_cases import CASES, ZEROS, train_all
from guards import Scattered
from machine import Machine
from on_core import (
    GRADIENTS,
    SCRATCH,
    check_equal,
    chosen_channels_and_strips,
    convolutions,
    depthwise_layers,
    memories,
    output,
    patches,
    scattered,
    steps_of,
    take_scratch,
    training_steps,
    two_operands,
    with_gradient,
)
from small_models import Net
from sparsetune.arena import Lifetime
from sparsetune.plan import UpdatePlan
from sparsetune.program import Const, Flag, Program
from sparsetune.tflite import parse_tflite
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


class EndsWithScratch(Scattered):
    """Its arena has the scratch at its end, and nothing behind."""

    def _scatter_arenas(
        self, program: Program, lives: list[Lifetime], fast_bytes: int | None
    ) -> tuple[int, int]:
        buffers = sorted((x.buffer for x in lives), key=lambda b: b.name.startswith(SCRATCH))
        self._scatter([(buffer, 16) for buffer in buffers], 0)
        return buffers[-1].offset + buffers[-1].size, 0


@pytest.mark.parametrize("stride", [0, 1, 2])
def test_nothing_behind_the_scratch_is_read(stride: int, core: XtensaCore) -> None:
    """Loops load words ahead. stride 0: pointwise. A board's memory may end there."""
    fast = 0
    for size in range(3, 13):
        net = Net((1, 2 * size, size, 4), 3, size)
        if stride:
            net.depthwise(1, 3, stride=stride, same=True)
        else:
            net.conv(5, 1)
        machine = EndsWithScratch(parse_tflite(net.to_bytes()), UpdatePlan(()), 0)
        machine.load(net.sample())
        board = BareMachine(core, machine.image.data, [bytes(m) for m in memories(machine)])
        board.places[2] = core.data_end - board.sizes[2]
        board.load(2, bytes(machine.arena))
        machine.run(0, 1, False)
        board.run(0, 1, False)
        fast += take_scratch(machine, board, 0)
        assert board.dump(2) == bytes(machine.arena)
    assert fast


def dense_layers(shift: int, is_trained: bool) -> Iterator[Machine]:
    """Several rows of inputs, extreme ones too; weights that are packed, and ones that are not."""
    for i, inputs in enumerate((4, 8, 12, 44, 260, 6)):
        rng = np.random.default_rng((300 + shift, i))
        rows = 1 if is_trained else int(rng.integers(1, 4))
        net = Net((1, rows, inputs), int(rng.choice(ZEROS)), 3 * shift + i)
        most = 127 if i % 2 else int(rng.integers(1, 127))
        weights = rng.choice((-127, -most, most, 127), (9 - i, inputs))
        net.dense(9 - i, weights=weights, **output(rng))
        net.dense(4, **output(rng))
        graph = parse_tflite(net.to_bytes())
        machine = Scattered(graph, train_all(graph) if is_trained else UpdatePlan(()), shift)
        machine.load(rng.choice((-128, 127), net.sample().shape).astype(np.int8))
        yield machine


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("shift", SHIFTS)
def test_fully_connected(shift: int, is_trained: bool, core: XtensaCore) -> None:
    for machine in dense_layers(shift, is_trained):
        check_equal(machine, core, training=is_trained)


@pytest.mark.parametrize("shift", range(4))
def test_rows_of_weights_anywhere(shift: int, core: XtensaCore) -> None:
    """A weight of -128 is not packed, and lies in the image where the file has it."""
    net = Net((1, 8), 3, shift)
    net.dense(7, weights=np.full((7, 8), -128))
    machine = scattered(net, shift)
    weights = machine.ops[0].words[2]
    assert isinstance(weights, Const) and not machine.ops[0].flags & Flag.PACKED
    assert check_equal(machine, core)


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (3, 1), (3, 2), (4, 1)])
@pytest.mark.parametrize("channels", [4, 5])
def test_strides_of_depthwise(channels: int, stride: tuple[int, int], core: XtensaCore) -> None:
    """Windows that begin at either of the two rows that share a word; not all rows at once."""
    fast = 0
    for shift, size in enumerate(((12, 9), (7, 16), (3, 3))):
        net = Net((1, *size, channels), 5 - 2 * shift, shift)
        net.depthwise(1, 3, stride=stride, same=True)
        fast += check_equal(scattered(net, 4 * shift), core)
    assert fast


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
    """What runs here in place of them was compiled with them, and with all else that it has."""
    build("esp32s3")
    text = "".join(file.read_text() for file in (FOLDER / "esp32s3").glob("*.s"))
    assert text.count("\tmulsh\t") > 20 and text.count("\tmuluh\t") > 20
    assert text.count("\tmin\t") > 20 and text.count("\tmax\t") > 20
    assert text.count("\tloop") > 40 and "clamps" in text
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


class Outputs:
    """Sums become outputs in the loops of MAC16. All lies at some distance in the core's memory."""

    JOB, GEOMETRY, W, X, Y = (256, 0, 512, 16384, 32768)
    OUT = 24  # of st_mac16_job_t
    TAPS_OUT = 36  # of st_mac16_taps_t

    def __init__(self, core: XtensaCore, zero: int, lo: int, hi: int) -> None:
        self.core = core
        words = np.zeros(20, "<i4")
        words[[15, 16, 17]] = zero, lo, hi
        core.write(core.data + self.GEOMETRY, words.tobytes())

    def _made(self, name: str, out: int, bias: int, factor: tuple[int, int], n: int) -> np.ndarray:
        data, (multiplier, shift) = self.core.data, factor
        out += data + self.JOB
        self.core.call("st_mac16_begin", out, data + self.GEOMETRY)
        self.core.call("st_mac16_prepare", out, bias & 0xFFFFFFFF, multiplier, shift & 0xFFFFFFFF)
        self.core.write(out + 44, struct.pack("<I", self.core.symbols["bare_exactly"]))
        if out == data + self.JOB + self.TAPS_OUT:
            self.core.write(out + 24, struct.pack("<2i", -128, 127))
        self.core.call(name, data + self.JOB)
        return np.frombuffer(self.core.read(data + self.Y, n), np.int8)

    def of_windows(self, sums: np.ndarray, bias: int, factor: tuple[int, int]) -> np.ndarray:
        inputs = np.zeros((len(sums), 4), "<i2")
        inputs[:, 0], inputs[:, 1] = (sums - bias) // 32767, (sums - bias) % 32767
        data = self.core.data
        x, w, y = data + self.X, data + self.W, data + self.Y
        self.core.write(x, inputs.tobytes())
        self.core.write(w, np.array([32767, 1, 0, 0], "<i2").tobytes())
        self.core.write(data + self.JOB, struct.pack("<6I", x, w, y, y + len(sums), 1, 0))
        return self._made("st_mac16_windows", self.OUT, bias, factor, len(sums))

    def of_taps(self, sums: np.ndarray, bias: int, factor: tuple[int, int]) -> np.ndarray:
        """Of the middle column of every second window. Two rows."""
        inputs = np.zeros((2 * len(sums) + 6, 2), "<i2")
        at = 2 * np.arange(len(sums)) + 1 + 2 * (np.arange(len(sums)) >= len(sums) // 2)
        inputs[at, 0], inputs[at, 1] = (sums - bias) // 32767, (sums - bias) % 32767
        data, half = self.core.data, len(sums) // 2
        x, w, y = data + self.X, data + self.W, data + self.Y
        self.core.write(x, inputs.tobytes())
        self.core.write(w, np.array([0, 0, 32767, 1, *[0] * 6], "<i2").tobytes())
        job = (w, x, x, y, 1, half, 2, 4 * (2 * half + 2), 0)
        self.core.write(data + self.JOB, struct.pack("<9I", *job))
        return self._made("st_mac16_taps_2_lower", self.TAPS_OUT, bias, factor, 2 * half)


@pytest.mark.parametrize("shift", range(-31, 4))
def test_sums_become_outputs(shift: int, core: XtensaCore) -> None:
    """All shifts, sums near ties among them. Taps know no activation. What the loops call in the
    middle has one of its own, which leaves LBEG, LEND and LCOUNT as it likes."""
    rng = np.random.default_rng(shift + 31)
    zero, lo, hi = ((-128, -128, 127), (5, -100, 90), (127, -128, 127))[shift % 3]
    outputs = Outputs(core, zero, lo, hi)
    for multiplier in (1 << 30, (1 << 31) - 1, int(rng.integers(1 << 30, 1 << 31))):
        factor = multiplier, shift
        sums = sums_near_ties(rng, factor)
        for bias in (-(1 << 30), 0, 1 << 30):
            mine = sums[(sums - bias >= -(1 << 29)) & (sums - bias <= 1 << 29)]
            mine = mine[: len(mine) // 2 * 2]
            if not len(mine):
                continue
            wanted = np.array([rounded_twice(int(s), factor) + zero for s in mine])
            got = outputs.of_windows(mine, bias, factor)
            np.testing.assert_array_equal(got, np.clip(wanted, lo, hi))
            got = outputs.of_taps(mine, bias, factor)
            np.testing.assert_array_equal(got, np.clip(wanted, -128, 127))
