"""Training steps with both cores of an RP2040, projected from emulated halves, no bus contention.

    python bench/cores.py [--model resnet8] [--operators] [--whole]
    python bench/cores.py --model mine.tflite

The emulator has one core. The kernels run there, without MicroPython, and do both parts of each
operator one after the other (ulab_kernels/cores.h); of two parts the longer one is counted, and
HANDSHAKE for each pair; START_STOP for each step. What is left out: that both cores wait for the
same RAM banks and the same flash cache. --whole: steps with all that is between the kernels, on an
emulated Pico whose two cores take turns, and what START_STOP is there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from emulated import FIRMWARE, HERTZ, flash_with
from machine import Machine
from networks import Network, add_model_option, networks, plan_of, tell_errors
from sparsetune.board import Board
from sparsetune.program import Flag
from sparsetune.push import push_file
from sparsetune.romfs import build_romfs
from sparsetune_tools.bare import BareCore, BareMachine, build
from sparsetune_tools.emulated_pico import MARK_PORT, EmulatedPico
from sparsetune_tools.shell import BUILD
from steps import DATA, samples_of
from whole_program import machine_of

MODELS = ("cnn4", "kws", "resnet8", "mbv2")
ONE_CORE, BOTH_CORES = 0, 1  # st_cores_t
# Cycles, counted in the listing of the firmware (bind_core1.c): 66 to hand a part over, 24 until it
# runs on the second core, 27 until the first one knows that it is done.
HANDSHAKE = 117
# As --whole measures it. The boot ROM, which answers seven times, does so at once there.
START_STOP = 965
STEPS = 17
GIVEN, DONE, BOTH_DONE = 1, 2, 3  # marks
SECOND = f"""
#define MARK(tag) (*(volatile uint32_t *)0xe0000000u = (tag))
int st_core1_start(void) {{ return 1; }}
int st_core1_give(st_part_work_t *work, const void *job, st_part_t part) {{
    MARK({GIVEN});
    work(job, part);
    MARK({DONE});
    return 1;
}}
void st_core1_wait(void) {{ MARK({BOTH_DONE}); }}
int st_core1_is_lost(void) {{ return 0; }}
void st_core1_stop(void) {{ }}
"""


@dataclass(frozen=True)
class Work:
    """Cycles of one operator or more. parted: of `one`, what is done in parts; pairs of them."""

    one: int
    both: int
    parted: int
    pairs: int

    def __add__(self, other: Work) -> Work:
        return Work(self.one + other.one, self.both + other.both, self.parted + other.parted,
                    self.pairs + other.pairs)  # fmt: skip

    @property
    def gain(self) -> float:
        return self.one / self.both


NOTHING = Work(0, 0, 0, 0)


def core_with_two() -> BareCore:
    return BareCore(build(BUILD / "bare-cores", ("-DST_CORE_1",), SECOND))


def measure(network: Network, core: BareCore) -> dict[str, Work]:
    """Of a training step, by kind of operator."""
    machine = machine_of(network.graph, plan_of(network), network.x[:1])
    memory = [bytes(m) for m in (machine.state, machine.arena, machine.cold)]
    board = BareMachine(core, machine.image.data, memory)
    empty = board.run(0, 0).cycles
    found: dict[str, Work] = {}
    for i, op in enumerate(machine.ops):
        if not op.flags & (Flag.IN_STRIP | Flag.INFERENCE_ONLY):
            name = op.code.name
            found[name] = found.get(name, NOTHING) + _operator(board, i, empty)
    return found


def _operator(board: BareMachine, i: int, empty: int) -> Work:
    """Runs it whole, then in parts, from the same memory; that must leave the same state."""
    before = [board.dump(number) for number in (1, 2, 3)]
    one = board.run(i, i + 1, True, ONE_CORE).cycles - empty
    state = board.dump(1)
    for number, data in enumerate(before, 1):
        board.load(number, data)
    board.core.marks()
    in_turn = board.run(i, i + 1, True, BOTH_CORES).cycles - empty
    if board.dump(1) != state:
        raise RuntimeError(f"operator {i}: in parts it leaves another state")
    parts = list(_parts(board.core.marks()))
    both = in_turn - sum(min(pair) for pair in parts) + HANDSHAKE * len(parts)
    return Work(one, both, sum(map(sum, parts)), len(parts))


def _parts(marks: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cycles of the second and of the first part, for each pair."""
    for given, done, both_done in zip(*(iter(marks),) * 3, strict=True):
        assert (given[0], done[0], both_done[0]) == (GIVEN, DONE, BOTH_DONE)
        yield done[1] - given[1], both_done[1] - done[1]


def total(found: dict[str, Work]) -> Work:
    """Of a step."""
    return sum(found.values(), Work(0, START_STOP, 0, 0))


def table(steps: dict[str, dict[str, Work]]) -> Iterator[str]:
    yield f"{'ms, kernels of a step':<28}{'one core':>10}{'both':>10}{'gain':>8}{'pairs':>8}"
    for title, found in steps.items():
        yield _line(title, total(found))

    yield (
        f"in both: {HANDSHAKE} cycles for each pair of parts, {START_STOP} for each step to start "
        "and stop the second core"
    )


def operators(found: dict[str, Work]) -> Iterator[str]:
    for name, work in sorted(found.items(), key=lambda item: -item[1].both):
        yield _line("  " + name, work)


def _line(title: str, work: Work) -> str:
    one, both = (cycles / HERTZ * 1000 for cycles in (work.one, work.both))
    return f"{title:<28}{one:>10.2f}{both:>10.2f}{work.gain:>8.2f}{work.pairs:>8,}"


def figures(found: dict[str, Work]) -> dict[str, dict[str, int]]:
    """As kept in JSON."""
    return {name: asdict(work) for name, work in {**found, "all": total(found)}.items()}


def all_steps(names: tuple[str, ...] = MODELS) -> dict[str, tuple[Network, dict[str, Work]]]:
    with core_with_two() as core:
        return {network.name: (network, measure(network, core)) for network in networks(names)}


# Whole steps on an emulated Pico --------------------------------------------------------------

RUN_NOTHING = """
import machine, struct, sparsetune_kernels as k
image = struct.pack("<6I", 0x4d495453, k.abi(), 64, 0, 64, 0) + bytes(40)
state = bytearray(64)
def run(how, mark=machine.mem32, port={port}):
    mark[port] = 0
    k.run(image, state, bytearray(), bytearray(), b"", 0, 0, how)
    mark[port] = 1
for how in (0, 2) * 8:
    run(how)
"""
TRAIN = """
from sparsetune_device.main import train
train("/rom/model.img", {data!r}, steps={steps}, seed=1, cores={cores})
"""


def whole_steps(network: Network) -> Iterator[str]:
    """What a step takes on one core and on both, and what starting and stopping takes."""
    machine = Machine(network.graph, plan_of(network))
    with tempfile.TemporaryDirectory() as folder:
        flash = flash_with(Path(folder), build_romfs({"model.img": machine.image.data}))
        with EmulatedPico(FIRMWARE, flash, cores=2) as pico, Board.connect(pico.port) as board:
            push_file(board, DATA, samples_of(network, machine, STEPS))
            one, both = (_ms(board, cores) for cores in (1, 2))
            pico.marks()
            board.exec(RUN_NOTHING.format(port=MARK_PORT))
            marks = [mark.cycles for mark in pico.marks()]
    spent = [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]
    yield f"{network.title:<28}{one:>10.1f}{both:>10.1f}{one / both:>8.2f}"
    # The least: the USB interrupts some of them.
    yield f"  start and stop: {min(spent[1::2]) - min(spent[::2])} cycles"


def _ms(board: Board, cores: int) -> float:
    """Of a step, the median."""
    lines: list[str] = []
    board.stream(TRAIN.format(data=DATA, steps=STEPS, cores=cores), lines.append)
    return median(float(line.split(",ms:")[1]) for line in lines if ",ms:" in line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_option(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--operators", action="store_true", help="by kind of operator, too")
    which.add_argument("--whole", action="store_true", help="whole steps, on an emulated Pico")
    options = parser.parse_args()
    if options.whole:
        print(f"{'ms of a whole step':<28}{'one core':>10}{'both':>10}{'gain':>8}")
        for network in networks(tuple(options.model or ("kws",))):
            print(*whole_steps(network), sep="\n", flush=True)
        return
    found = {n.title: work for n, work in all_steps(tuple(options.model or MODELS)).values()}
    head, *lines, end = table(found)
    print(head)
    for line, work in zip(lines, found.values(), strict=True):
        print(line, *(operators(work) if options.operators else ()), sep="\n")
    print(end)


if __name__ == "__main__":
    tell_errors(main)
