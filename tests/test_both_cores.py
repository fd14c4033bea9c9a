"""Operators in two parts (ulab_kernels/cores.h): one part after the other, either one first, leaves
the same memory as the whole, on the twin's portable kernels and on the emulated core."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from c_tools import KERNELS
from conftest import FIRMWARE
from elftools.elf.elffile import ELFFile
from gradient_cases import CASES, draw, train_all
from guards import Scattered
from machine import Machine
from patch_cases import MODELS, SIZES, drawn_plan, mixed
from real_models import NAMES, real_model
from small_models import RELU, Net, wide_front
from sparsetune.image import parse_image
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.program import Buffer, Code, Flag, Slot
from sparsetune.tflite import parse_tflite
from sparsetune_tools.bare import BareCore, BareMachine, build

pytestmark = pytest.mark.usefixtures("portable")

ONE, IN_TURN, IN_TURN_BACK = 0, 2, 3  # st_cores_t
RATE = rate(0.05)
CHANNELS = (1, 2, 3, 6, 7, 12, 13, 24)  # of outputs
SCRATCH = ("lanes", "row", "urow", "filter")  # what is in there afterwards is nobody's business
Run = Callable[[int, int, bool, int], object]
Memory = list[bytearray]


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


def check_equal(
    machine: Machine, place: OnTwin | OnCore, training: bool = True, only: int | None = None
) -> set[Code]:
    """Runs all operators, or the one at `only`, whole and in parts, from the same memory. Returns
    which of them left something else in their scratch then: they were split."""
    skipped = Flag.IN_STRIP | (Flag.INFERENCE_ONLY if training else Flag.TRAINING_ONLY)
    split = set()
    for at, op in enumerate(machine.ops):
        if op.flags & skipped or only not in (None, at):
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


def check_step(machine: Machine, core: BareCore) -> set[Code]:
    """On the twin and on the emulated core; what was split there."""
    check_equal(machine, OnTwin(machine))
    return check_equal(machine, OnCore(machine, core))


@pytest.mark.parametrize("channels", CHANNELS)
def test_forward(channels: int, core: BareCore) -> None:
    """Each kind of convolution, maps with odd numbers of rows, and of one row."""
    for shift, size in enumerate(((5, 4), (1, 7), (3, 3), (8, 8), (1, 2))):
        net = Net((1, *size, channels), zero=7, seed=channels + shift)
        net.conv(channels, 3, activation=RELU, zero=-128)
        if min(size) > 2:
            net.depthwise(1, 3)
        net.conv(channels, 1, zero=3)
        net.conv(channels, (2, 3), stride=2)
        net.pool((1, 2), 1, same=True)
        net.flatten()
        net.dense(channels)
        start = Scattered(parse_tflite(net.to_bytes()), UpdatePlan(()), 3 * shift)
        start.load(net.sample())
        split = check_step(start, core)
        assert channels < 12 or size[0] == 1 or Code.CONV2D in split


@pytest.mark.parametrize("case", CASES)
def test_training_steps(case: str, core: BareCore) -> None:
    """From a new state, whose error tensors have to find their exponents: parts are made again."""
    for seed in range(2):
        drawn = draw(case, seed)
        machine = Scattered(drawn.graph, train_all(drawn.graph), 5 * seed)
        machine.control(seed % 2, RATE, seed)
        machine.load(drawn.x)
        check_step(machine, core)


def test_gradients_over_patches(core: BareCore) -> None:
    split = set()
    for seed, case in enumerate((*MODELS, *MODELS)):
        graph, plan, x, _ = drawn_plan(case, seed)
        machine = Scattered(graph, plan, 5 * seed)
        machine.control(seed % 2, RATE, seed)
        machine.load(x)
        check_step(machine, core)
    for size in SIZES:
        net, graph, plan = mixed(size)
        machine = Machine(graph, plan)
        machine.control(1, RATE, size)
        machine.load(net.sample())
        split |= check_step(machine, core)
    assert Code.CONV2D_UPDATE in split  # an input gradient of these leaves nothing that tells


def test_adding_to_an_error_tensor(core: BareCore) -> None:
    """What is added may not fit, in the first part, the second, both or none; and the tensor's
    largest element, which the next step's shift hangs on, may lie in either."""
    net = Net((1, 6, 5, 8), seed=1)
    start = net.conv(8, 3)
    net.conv(8, 1)
    net.conv(8, (3, 2))
    net.add(start)
    net.flatten()
    net.dense(4)
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, train_all(graph))
    for step in range(4):
        machine.step(net.sample(), step, RATE, step)
    (at,) = (i for i, op in enumerate(machine.ops) if op.flags & Flag.ACCUMULATE)
    machine.run(0, at)
    _, dy, _, _, dx, exponent, shift, of_dy, *_ = machine.ops[at].words
    assert isinstance(dy, Buffer) and isinstance(dx, Buffer)
    assert isinstance(exponent, Slot) and isinstance(shift, Slot) and isinstance(of_dy, Slot)
    rng = np.random.default_rng(2)
    shifts = set()
    for halves in product((1, 300, 4000, dy.limit), repeat=2):
        for there in product((0, 3000, dx.limit), repeat=2):
            for buffer, sizes in ((dy, halves), (dx, there)):
                largest = np.repeat(sizes, buffer.size // 4)
                values = (rng.uniform(-1, 1, largest.size) * largest).round().astype(np.int16)
                end = buffer.offset + buffer.size
                machine.arena[buffer.offset : end] = values.tobytes()
            present = rng.integers(2, 12)
            machine.slot(exponent, np.int16)[:] = machine.slot(of_dy, np.int16) + present - 7
            machine.slot(shift, np.int16)[:] = present + rng.integers(-1, 2)
            place = OnCore(machine, core)
            check_equal(machine, place, only=at)
            check_equal(machine, OnTwin(machine), only=at)
            shifts.add(int(machine.slot(shift, np.int16)[0]))
    assert len(shifts) > 3


@pytest.mark.parametrize("last", [1, 4, 7])
def test_chosen_channels_and_strips(last: int, core: BareCore) -> None:
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, default_plan(graph, last, 0.4, residual=last == 7))
    for seed in range(2):
        machine.control(seed, RATE, seed)
        machine.load(net.sample())
        split = check_step(machine, core)
        assert last > 1 or Code.STRIP in split


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_velocities(share: float, core: BareCore) -> None:
    """Steps that wait, and steps behind which all moves."""
    net = Net((1, 7, 6, 6), seed=3)
    net.conv(10, 3)
    net.depthwise(2, 3)
    net.conv(9, 1)
    net.flatten()
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, replace(default_plan(graph, 4, share), velocity=True))
    for waits in (1, 0, 1, 0):
        machine.control(waits, RATE, waits)
        struct.pack_into("<2I", machine.state, 28, waits, 29491)  # st_control_t
        machine.load(net.sample())
        assert Code.CONV2D_UPDATE in check_step(machine, core)


@pytest.mark.parametrize("more", [0, 1, 11, 12, 100])
def test_little_scratch(more: int, core: BareCore) -> None:
    """So many words more than the least, which is a pair of channels and a window of 12 words."""
    net = Net((1, 7, 6, 5), seed=more)
    net.conv(14, 3)
    machine = Machine(net.to_bytes())
    (scratch,) = (b for op in machine.ops for b in op.buffers if b.name.startswith("lanes"))
    scratch.size = 4 * (48 + 2 + 12 + more)
    machine.layout = machine.lay_out()
    machine.image = parse_image(machine.layout.image)
    machine.arena = bytearray(machine.image.arena_bytes)
    machine.load(net.sample())
    assert bool(check_step(machine, core)) == (more >= 12)


@pytest.mark.parametrize("name", NAMES)
def test_real_models(name: str, core: BareCore) -> None:
    task = real_model(name, 3)
    graph = parse_tflite(task.model)
    machine = Machine(graph, default_plan(graph, 4))
    for x, y in zip(task.x, task.y, strict=True):
        machine.step(x, int(y), RATE, int(y))
    machine.load(task.x[0])
    assert Code.CONV2D in check_step(machine, core)


# The second core's stack --------------------------------------------------------------------------

PARTS = re.compile(r"\w+_part|input_rows|update_channels")  # what st_split is given
METHOD = "st_method_run"  # what MicroPython calls, the deepest of the methods
# What window_part does not come to, as it has no scratch.
WITH_SCRATCH = {"conv2d_lanes_s8", "depthwise3x3_s8", "fully_connected_fours_s8"}
FRAMES = 144  # bytes: of METHOD and st_program_run, before the second core is started
LOCKOUT = 128  # bytes: an interrupt of the SDK that stops the second core while flash is written


Bytes = dict[str, int]  # of stack, by function
Calls = dict[str, set[str]]


def of_bare(folder: Path) -> tuple[Path, dict[str, Bytes]]:
    """The kernels alone, as an ELF, and by file what the compiler says that each function takes."""
    elf = build(folder, ("-fstack-usage",))
    files = {}
    for file in folder.glob("*.su"):
        found = [line.split("\t")[:2] for line in file.read_text().splitlines()]
        files[file.stem] = {where.rpartition(":")[2]: int(size) for where, size in found}
    return elf, files


def of_frames(elf: Path) -> Bytes:
    """What each compiled function takes at most, by the ELF's call frame information."""
    with elf.open("rb") as file:
        whole = ELFFile(file)
        names = {
            s["st_value"] & ~1: s.name
            for s in whole.get_section_by_name(".symtab").iter_symbols()
            if s["st_info"]["type"] == "STT_FUNC"
        }
        own: Bytes = {}
        for entry in whole.get_dwarf_info().CFI_entries():
            name = names.get(entry.header.get("initial_location", 0))
            if name:
                depth = max((row["cfa"].offset for row in entry.get_decoded().table), default=0)
                own[name] = max(own.get(name, 0), depth)
    return own


def stack_need(own: Bytes, calls: Calls, files: dict[str, Bytes]) -> Bytes:
    """Bytes of stack that each part and METHOD may take, with all that they call; functions of one
    name in several files count as one."""
    calls["st_split"] = {name for name in own if PARTS.fullmatch(name)}
    for stem, sizes in files.items():
        for name in sizes:  # which parts a split has stands in its own file
            if "st_split" in calls.get(name, ()):
                calls[name] = (calls[name] - {"st_split"}) | {f"st_split of {stem}"}
        calls[f"st_split of {stem}"] = {name for name in sizes if PARTS.fullmatch(name)}
        own[f"st_split of {stem}"] = own.get("st_split", 64)
    calls["max_pool_grad_input"] |= {"put_won", "add_won"}
    own["window_part"] += own["st_run_whole_window"]
    calls["window_part"] = calls["st_run_whole_window"] - WITH_SCRATCH

    def need(name: str, callers: tuple[str, ...] = ()) -> int:
        inner = [c for c in calls.get(name, ()) if c != name and c not in callers]
        return own.get(name, 0) + max((need(c, (*callers, name)) for c in inner), default=0)

    return {name: need(name) for name in own if PARTS.fullmatch(name) or name == METHOD}


def of_listing(elf: Path) -> tuple[Bytes, Calls]:
    """What each function pushes (for those in assembly), and which ones it calls."""
    command = ["arm-none-eabi-objdump", "-d", str(elf)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    own: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            name = head[1]
        elif push := re.search(r"\tpush\t\{(.+)\}", line):
            ranges = re.sub(r"r(\d+)-r(\d+)", lambda m: "," * (int(m[2]) - int(m[1])), push[1])
            own[name] = own.get(name, 0) + 4 * (ranges.count(",") + 1)
        elif less := re.search(r"\tsub\tsp, #(\d+)", line):
            own[name] = own.get(name, 0) + int(less[1])
        elif call := re.search(r"\tbl?(?:\.n)?\t[0-9a-f]+ <([^+>]+)>", line):
            called = re.sub(r"^__(\w+)_veneer$", r"\1", call[1])  # on the way from flash to RAM
            calls.setdefault(name, set()).add(called)
    return own, calls


def check_fit(need: Bytes) -> None:
    text = (KERNELS / "bind_core1.c").read_text()
    part, whole, rest = (
        int(re.findall(rf"#define {name} (\d+)", text)[0])
        for name in ("PART_STACK", "ITS_STACK", "RUN_STACK")
    )
    print("bytes of stack:", need)
    method = need.pop(METHOD)
    assert len(need) >= 8
    assert max(need.values()) <= part
    assert part + LOCKOUT <= whole
    assert max(need.values()) < method <= rest + FRAMES
    text = (KERNELS / "bind_micropython.c").read_text()
    assert method <= int(re.findall(r"#define METHOD_STACK (\d+)", text)[0])


def test_parts_fit_the_second_cores_stack(tmp_path: Path) -> None:
    elf, files = of_bare(tmp_path)
    own, calls = of_listing(elf)
    for sizes in files.values():
        own |= {name: max(own.get(name, 0), size) for name, size in sizes.items()}
    check_fit(stack_need(own, calls, files))


def test_parts_of_the_firmware_fit_the_second_cores_stack(tmp_path: Path) -> None:
    """As it is built: other functions may have been inlined there, and its loops lie in RAM."""
    if not FIRMWARE.exists():
        pytest.skip("SKIP: no firmware: run make firmware")
    elf = FIRMWARE.with_suffix(".elf")
    own, calls = of_listing(elf)
    check_fit(stack_need(own | of_frames(elf), calls, of_bare(tmp_path)[1]))
