"""Damaged images on the RP2040's core, its assembly among it, whole and in two parts: no byte
outside of state and arenas changes, and what the twin's portable kernels refuse is refused, at the
same operator with the same status. Under sanitizers, which see what is read as well:
test_sanitizers.py."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import sparsetune_kernels as kernels
from gradient_cases import CASES
from guards import together
from machine import Machine
from small_models import Array
from sparsetune.numerics import rate
from sparsetune.program import Flag
from sparsetune_tools.bare import DATA, DATA_END, BareCore, BareMachine
from test_both_cores import IN_TURN, IN_TURN_BACK, ONE, Memory, without_scratch
from test_sanitizers import few_channels, swept, with_columns, with_patches, with_strips

pytestmark = pytest.mark.usefixtures("portable")

DAMAGED = 40  # of each model
SLOW = 0.02  # seconds on the twin: a number so large that the emulated core takes minutes
CORES = (ONE, IN_TURN, IN_TURN_BACK)
GAP, PATTERN = 1024, b"\xa5"
ARGUMENTS = 64  # bytes in front of the buffers, which BareMachine writes
OPERATORS = 4  # the header's word with the place of their table
KIND = 29  # where a reference's buffer stands
EXTREMES = (
    0,
    1,
    2,
    3,
    5,
    255,
    4096,
    65535,
    1 << 30,
    (1 << 31) - 1,
    1 << 31,
    3 << 30,
    (1 << 32) - 1,
)
Refusal = tuple[int, int] | None  # operator, status
STATUSES = {
    "buffer too small": 1,
    "not an image": 2,
    "operator points outside": 3,
    "unknown operator": 4,
    "label is not a class": 5,
}


class GuardedCore:
    """An emulated core all of whose RAM holds a pattern, but for what was written since."""

    def __init__(self) -> None:
        self.core = BareCore()
        self.core.write(self.core.data, PATTERN * (DATA_END - self.core.data))
        self.before = bytearray(self.core.read(DATA, DATA_END - DATA))

    def start(self, image: bytes, memory: Memory) -> BareMachine:
        return BareMachine(self.core, image, [bytes(m) for m in memory], GAP)

    def touched(self, board: BareMachine) -> int:
        """Bytes that changed though they are no buffer's; the buffers get the pattern again."""
        after = bytearray(self.core.read(DATA, DATA_END - DATA))
        for number in (1, 2, 3):
            at, size = board.places[number], board.sizes[number]
            after[at - DATA : at - DATA + size] = self.before[at - DATA : at - DATA + size]
            board.load(number, PATTERN * size)
        at = self.core.data - DATA
        after[at : at + ARGUMENTS] = self.before[at : at + ARGUMENTS]
        if after != self.before:  # and so do all others
            self.core.write(DATA, bytes(self.before))
        ours, theirs = (np.frombuffer(ram, np.uint8) for ram in (after, self.before))
        return int(np.count_nonzero(ours != theirs))


@pytest.fixture(scope="module")
def core() -> Iterator[GuardedCore]:
    guarded = GuardedCore()
    with guarded.core:
        yield guarded


@dataclass(frozen=True)
class Moment:
    """An operator that a step runs, and what stands in state and arenas then."""

    at: int
    memory: Memory


def moments(machine: Machine, x: Array) -> list[Moment]:
    """Of the third training step."""
    for seed in range(3):
        machine.control(1, rate(0.05), seed)
        machine.load(x)
        if seed < 2:
            machine.run(0, len(machine.ops))
    found = []
    for at, op in enumerate(machine.ops):
        if not op.flags & (Flag.IN_STRIP | Flag.INFERENCE_ONLY):
            memory = [bytearray(m) for m in (machine.state, machine.arena, machine.cold)]
            found.append(Moment(at, memory))
            machine.run(at, at + 1)
    return found


def other_word(machine: Machine, word: int, rng: np.random.Generator) -> int:
    """An extreme, a neighbour, the same place in another buffer, one near a buffer's end, a random
    word, one bit changed."""
    n = int(rng.integers(1 << 32))
    sizes = [len(m) for m in (machine.image.data, machine.state, machine.arena)]
    kind = min(word >> KIND, 2)
    near_end = kind << KIND | max(sizes[kind] - n % (1 << n % 9) * 4, 0)
    others = (EXTREMES[n % len(EXTREMES)], word + n % 65 - 32, word ^ (n % 8) << KIND, near_end, n,
              word ^ 1 << n % 32)  # fmt: skip
    return others[rng.integers(len(others))] & 0xFFFFFFFF


def place_of(image: Array, at: int) -> int:
    """The word that an operator begins with."""
    return int(image[image[OPERATORS] // 4 + at]) // 4


def damaged(machine: Machine, at: int, rng: np.random.Generator) -> bytes:
    """The image with one or two words changed: of the operator (or one of its strip), or among the
    first behind one of its references into the image; or one word copied over another."""
    good = np.frombuffer(machine.image.data, "<u4")
    bad = good.copy()
    first = at + int(rng.integers(len(together(machine.ops, at))))
    op = place_of(good, first)
    words = op + np.arange(1, int(good[op]) >> 16)
    for _ in range(int(rng.integers(1, 3))):
        place = int(rng.choice(words))
        behind = int(good[place]) // 4
        if rng.random() < 0.3 and behind + 20 < len(good):
            place = behind + int(rng.integers(20))
        bad[place] = other_word(machine, int(good[place]), rng)
        if rng.random() < 0.2:
            bad[place] = good[rng.choice(words)]
    return bad.tobytes()


def moves(good: bytes, bad: bytes) -> bool:
    """Whether a word that changed is, or was, more than a small number: a reference, or a factor
    that the host would not write. Then operands may meet, and what comes out hangs on the order in
    which a kernel reads and writes, which is its own."""
    before, after = (np.frombuffer(image, "<u4") for image in (good, bad))
    return bool(((before | after)[before != after] >> KIND).any())


def run_on_twin(image: bytes, step: Moment) -> tuple[Refusal, Memory]:
    """The memory that is left, too. Raises AssertionError where a byte behind it changed."""
    guarded = [bytearray(m + PATTERN * GAP) for m in step.memory]
    inner = [memoryview(g)[: len(m)] for g, m in zip(guarded, step.memory, strict=True)]
    refusal = None
    try:
        kernels.run(image, *inner, b"", step.at, step.at + 1, True)
    except ValueError as error:
        found = re.match(r"operator (\d+): (.*)", str(error))
        assert found, error
        refusal = int(found[1]), next(n for t, n in STATUSES.items() if found[2].startswith(t))
    for memory, view in zip(guarded, inner, strict=True):
        assert memory[len(view) :] == PATTERN * GAP
    return refusal, [bytearray(view) for view in inner]


def is_slow(image: bytes, step: Moment) -> bool:
    begin = time.perf_counter()
    run_on_twin(image, step)
    return time.perf_counter() - begin > SLOW


def run_on_board(board: BareMachine, at: int, cores: int) -> Refusal:
    try:
        board.run(at, at + 1, True, cores)
    except RuntimeError as error:
        found = re.match(r"operator (\d+): status (\d+)", str(error))
        assert found, error  # else it stopped at a fault
        return int(found[1]), int(found[2])
    return None


def run_both(
    core: GuardedCore, image: bytes, step: Moment, cores: int
) -> tuple[bool, list[Memory]]:
    """Whether it was refused, and the memories that the twin and the board left. Raises
    AssertionError where they do not agree about that, or another byte changed."""
    wanted, twins = run_on_twin(image, step)
    board = core.start(image, step.memory)
    assert run_on_board(board, step.at, cores) == wanted
    ours = [bytearray(board.dump(number)) for number in (1, 2, 3)]
    assert core.touched(board) == 0
    return wanted is not None, [twins, ours]


def check(machine: Machine, x: Array, core: GuardedCore, seed: int) -> list[bool]:
    """Of those damaged images that still ran, with nothing moved: whether all memory was the same
    afterwards."""
    rng = np.random.default_rng((seed, len(machine.image.data)))
    steps, same = moments(machine, x), []
    for n in range(DAMAGED):
        step = steps[rng.integers(len(steps))]
        image = damaged(machine, step.at, rng)
        if is_slow(image, step):
            continue
        is_refused, both = run_both(core, image, step, CORES[n % 3])
        if not is_refused and not moves(machine.image.data, image):
            twins, ours = (without_scratch(machine, step.at, m) for m in both)
            same.append(ours == twins)
    return same


def assert_same(same: list[bool]) -> None:
    """A number that became larger may still let operands meet, and a place of scales that moved
    within the image has others beyond what sums have room for; neither happens often."""
    print(f"{len(same)} ran with nothing moved, {same.count(False)} of them to other bytes")
    assert len(same) > 20 and same.count(False) <= len(same) // 40


def test_every_operator(core: GuardedCore) -> None:
    same = []
    for seed, case in enumerate(CASES):
        machine, x, _ = swept(case, seed)
        same += check(machine, x[0], core, seed)
    assert_same(same)


def test_few_channels(core: GuardedCore) -> None:
    same = []
    for seed in range(30):
        machine, x, _ = few_channels(seed)
        same += check(machine, x[0], core, seed)
    assert_same(same)


def test_patches(core: GuardedCore) -> None:
    same = []
    for seed in range(30):
        machine, x, _ = with_patches((2, 4, 7)[seed % 3])
        same += check(machine, x[0], core, seed)
    assert_same(same)


def test_strips_and_columns(core: GuardedCore) -> None:
    same = []
    for make in (with_strips, with_columns):
        machine, x, _ = make()
        for seed in range(4):
            same += check(machine, x[0], core, seed)
    assert_same(same)


# At the very end of a buffer ----------------------------------------------------------------------


def furthest(step: int, is_good: Callable[[int], bool]) -> int:
    """The largest number for which it is, where 0 is good and from somewhere on none is. step:
    what all but the last few lie apart."""
    low, high = 0, 1
    while is_good(high * step):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle * step) else (low, middle)
    return max(n for n in range(low * step, low * step + step) if is_good(n))


def at_the_end(machine: Machine, step: Moment) -> Iterator[bytes]:
    """For each reference of an operator to a buffer that is written: it points so far behind that
    the twin just does not refuse it."""
    good = np.frombuffer(machine.image.data, "<u4")
    op = place_of(good, step.at)

    def moved(place: int, by: int) -> bytes:
        bad = good.copy()
        bad[place] += by
        return bad.tobytes()

    def is_taken(place: int, by: int) -> bool:
        return run_on_twin(moved(place, by), step)[0] is None

    for place in range(op + 1, op + (int(good[op]) >> 16)):
        if good[place] >> KIND in (1, 2, 3):
            yield moved(place, furthest(4, lambda by, place=place: is_taken(place, by)))


@pytest.mark.parametrize("make", [*CASES, "few channels", "columns", "patches"])
def test_operands_at_the_end_of_their_buffers(core: GuardedCore, make: str) -> None:
    others = {"few channels": few_channels, "columns": with_columns, "patches": with_patches}
    machine, x, _ = others[make]() if make in others else swept(make, 1)
    for step in moments(machine, x[0]):
        for n, image in enumerate(at_the_end(machine, step)):
            assert not run_both(core, image, step, CORES[(n + step.at) % 3])[0]
