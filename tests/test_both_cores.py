"""Operators in two parts (ulab_kernels/cores.h): one part after the other, either one first, leaves
the same memory as the whole, on the twin's portable kernels and on the emulated core."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sparsetune_kernels as kernels
from guards import Scattered
from machine import Machine
from small_models import RELU, Net
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.program import Buffer, Code, Flag
from sparsetune.tflite import parse_tflite
from sparsetune_tools.bare import BareCore, BareMachine

ONE, IN_TURN, IN_TURN_BACK = 0, 2, 3  # st_cores_t
RATE = rate(0.05)
CHANNELS = (1, 2, 3, 6, 7, 12, 13, 24)  # of outputs
SCRATCH = ("lanes", "row", "urow", "filter")  # what is in there afterwards is nobody's business
Run = Callable[[int, int, bool, int], object]
Memory = list[bytearray]


@pytest.fixture(scope="module", autouse=True)
def portable() -> Iterator[None]:
    """The twin's fast kernels are not split."""
    was_fast = kernels.set_simd(None)
    kernels.set_simd(False)
    yield
    kernels.set_simd(was_fast)


@pytest.fixture(scope="module")
def core() -> Iterator[BareCore]:
    with BareCore() as core:
        yield core


class OnTwin:
    """Runs a machine's program where it is."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run: Run = machine.run

    @property
    def memory(self) -> Memory:
        return [bytearray(m) for m in (self.machine.state, self.machine.arena, self.machine.cold)]

    def load(self, memory: Memory) -> None:
        m = self.machine
        m.state[:], m.arena[:], m.cold[:] = memory


class OnCore:
    """Runs it on the emulated core of an RP2040."""

    def __init__(self, machine: Machine, core: BareCore) -> None:
        memory = [bytes(m) for m in (machine.state, machine.arena, machine.cold)]
        self.board = BareMachine(core, machine.image.data, memory)
        self.run: Run = self.board.run

    @property
    def memory(self) -> Memory:
        return [bytearray(self.board.dump(number)) for number in (1, 2, 3)]

    def load(self, memory: Memory) -> None:
        for number, data in enumerate(memory, 1):
            self.board.load(number, bytes(data))


def without_scratch(machine: Machine, at: int, memory: Memory) -> Memory:
    """The memory, with zeros in all scratch of an operator, or of those of a strip."""
    count = int(str(machine.ops[at].words[0])) if machine.ops[at].code == Code.STRIP else 0
    for op in machine.ops[at : at + 1 + count]:
        for word in op.words:
            if isinstance(word, Buffer) and word.name.startswith(SCRATCH):
                memory[1 + word.is_cold][word.offset : word.offset + word.size] = bytes(word.size)
    return memory


def check_equal(machine: Machine, place: OnTwin | OnCore, training: bool = True) -> set[Code]:
    """Runs all operators whole and in parts, from the same memory. Returns which of them left
    something else in their scratch then: they were split."""
    skipped = Flag.IN_STRIP | (Flag.INFERENCE_ONLY if training else Flag.TRAINING_ONLY)
    split = set()
    for at, op in enumerate(machine.ops):
        if op.flags & skipped:
            continue
        before = place.memory
        place.run(at, at + 1, training, ONE)
        whole = place.memory
        for cores in (IN_TURN, IN_TURN_BACK):
            place.load(before)
            place.run(at, at + 1, training, cores)
            if place.memory != whole:
                split.add(op.code)
            in_parts = without_scratch(machine, at, place.memory)
            wanted = without_scratch(machine, at, [bytearray(m) for m in whole])
            assert in_parts == wanted, (at, op.code.name, cores)
        place.load(whole)
    return split


def train_last(model: bytes, last: int, channels: float = 1.0) -> Machine:
    graph = parse_tflite(model)
    return Machine(graph, default_plan(graph, last, channels))


@pytest.mark.parametrize("channels", CHANNELS)
def test_forward(channels: int, core: BareCore) -> None:
    """Each kind of convolution, maps with odd numbers of rows, and of one row."""
    for shift, size in enumerate(((5, 4), (1, 7), (3, 3), (8, 8))):
        net = Net((1, *size, channels), zero=7, seed=channels + shift)
        net.conv(channels, 3, activation=RELU, zero=-128)
        if min(size) > 2:
            net.depthwise(1, 3)
        net.conv(channels, 1, zero=3)
        net.conv(channels, (2, 3), stride=2)
        net.pool((1, 2), 1, same=True)
        net.flatten()
        net.dense(channels)
        machine = Scattered(parse_tflite(net.to_bytes()), UpdatePlan(()), 3 * shift)
        machine.load(net.sample())
        check_equal(machine, OnTwin(machine))
        split = check_equal(machine, OnCore(machine, core))
        assert channels < 12 or size == (1, 7) or Code.CONV2D in split
