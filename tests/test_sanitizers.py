"""The kernels under address and undefined-behaviour sanitizers, strict compilers, and a look at
what the compiler for the RP2040's core makes of them."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sparsetune_kernels as kernels
from c_tools import KERNELS, SOURCES, STRICT, TESTS, compile_program, compiler
from gradient_cases import CASES, draw, train_all
from machine import Machine
from patch_cases import MODELS, drawn_plan, in_codes, in_patches, mixed
from real_models import NAMES, real_model
from small_models import RELU, Array, Net, wide_front
from sparsetune.graph import input_channels
from sparsetune.numerics import rate
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan
from sparsetune.program import Code
from sparsetune.tflite import parse_tflite

STEPS = 4
DAMAGED_IMAGES = 200
# Damaged numbers may overflow any sum: harmless as long as it wraps. What must not happen is an
# access outside the buffers, a division by zero, an impossible shift.
WRAP = ("-fwrapv", "-fno-sanitize=signed-integer-overflow")


# The versions of the kernels: portable, the twin's fast ones where the processor has them, and what
# stands in C beside the assembly for Cortex-M0+, and for Xtensa.
VERSIONS = {"portable": (), "simd": ("-DST_SIMD",), "lanes": ("-DST_LANES=1",),
            "mac16": ("-DST_MAC16=1",)}


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """Flags for the C compiler; the twin runs the same version meanwhile."""
    is_fast = request.param == "simd"
    if is_fast and not kernels.set_simd(True):
        pytest.skip("SKIP: the processor has no AVX2")
    kernels.set_simd(is_fast)
    yield VERSIONS[request.param]
    kernels.set_simd(True)


@pytest.fixture(scope="module")
def replay(version: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("replay.c", tmp_path_factory.mktemp("replay"), version)


@pytest.fixture(scope="module")
def replay_wrapping(version: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("replay.c", tmp_path_factory.mktemp("wrapping"), (*WRAP, *version))


def sparse_machine(model: bytes, last: int, residual: bool) -> Machine:
    """The last layers train; of every layer half of the channels."""
    graph = parse_tflite(model)
    layers = [
        LayerPlan(op.index, -(-input_channels(graph, op) // 2), graph.bias_of(op) is not None)
        for op in graph.trainable[-last:]
    ]
    return Machine(graph, UpdatePlan(tuple(layers), residual, scores=True))


def common_operators(residual: bool = True) -> tuple[Machine, Array, Array]:
    """A small model of the most common operators, all layers trained."""
    net = Net((1, 9, 8, 3), zero=17, seed=2)
    a = net.conv(6, 3, dilation=2, activation=RELU, zero=-128)
    net.depthwise(1, 3)
    net.add(a)
    net.depthwise(2, (3, 2), stride=(2, 1), same=False)
    net.pool((2, 3), 2, same=True, activation=RELU)
    net.flatten()
    net.dense(8)
    net.softmax()
    net.dense(5, scale=0.03)
    net.softmax()
    machine = sparse_machine(net.to_bytes(), 9, residual)
    return machine, np.stack([net.sample() for _ in range(STEPS)]), np.arange(STEPS) % 5


def swept(case: str, seed: int) -> tuple[Machine, Array, Array]:
    """One of the models that the gradients are swept over: among them are all operators."""
    drawn = draw(case, seed)
    machine = Machine(drawn.graph, train_all(drawn.graph))
    outputs = drawn.graph.tensor(drawn.graph.logits).size
    return machine, np.stack([drawn.x] * 2), np.arange(2) % outputs


def with_strips() -> tuple[Machine, Array, Array]:
    """A front that runs row by row, the last layer trained."""
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    machine = Machine(graph, default_plan(graph, 1))
    assert any(op.code == Code.STRIP for op in machine.ops)
    return machine, np.stack([net.sample() for _ in range(STEPS)]), np.arange(STEPS) % 3


def few_channels(seed: int = 0) -> tuple[Machine, Array, Array]:
    """A layer of which a few channels learn, which have kernels of their own."""
    rng = np.random.default_rng(seed)
    net = Net((1, *(int(n) for n in rng.integers(5, 16, 2)), 9), 3, seed)
    net.conv(int(rng.integers(3, 20)), (3, 1)[seed % 2], activation=RELU, zero=-128)
    net.mean((1, 2), False)
    net.dense(3)
    graph = parse_tflite(net.to_bytes())
    first, head = (op.index for op in graph.trainable)
    plan = UpdatePlan((LayerPlan(first, int(rng.integers(1, 8))), LayerPlan(head, 2)))
    return Machine(graph, plan), np.stack([net.sample() for _ in range(2)]), np.arange(2)


def with_patches(size: int = 2) -> tuple[Machine, Array, Array]:
    """Gradients over patches: of half of the channels, and of a layer that does not train. What
    patches of 2 keep is codes."""
    net, graph, plan = mixed(size)
    plan = in_codes(plan) if size == 2 else plan
    return Machine(graph, plan), np.stack([net.sample() for _ in range(2)]), np.arange(2)


def drawn_patches(case: str, seed: int) -> tuple[Machine, Array, Array]:
    graph, plan, x, _ = drawn_plan(case, seed)
    return Machine(graph, plan), np.stack([x] * 2), np.arange(2)


# Share of the channels, in flash, standardised.
VELOCITIES = ((1, False, False), (2, False, True), (2, True, False), (1, False, True))


def with_velocity(share: int, columns: bool, standard: bool) -> tuple[Machine, Array, Array]:
    """Layers whose steps go into a velocity: of all channels, of some, in flash."""
    net = Net((1, 9, 8, 4), zero=17, seed=2)
    net.conv(10, 3, activation=RELU, zero=-128)
    net.depthwise(2, 3)
    net.conv(12, 1, groups=1 + (not columns))
    net.flatten()
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    layers = []
    for op in graph.trainable:
        channels = -(-input_channels(graph, op) // share)
        slots = channels if columns and op.kind != "DEPTHWISE_CONV_2D" else 0
        layers.append(LayerPlan(op.index, channels, graph.bias_of(op) is not None, slots))
    machine = Machine(graph, UpdatePlan(tuple(layers), not columns, velocity=True))
    bring_columns(machine)
    # st_control_t: none waits, momentum 0.9, a gain.
    struct.pack_into("<2I", machine.state, 28, 2 * standard, 29491)
    struct.pack_into("<Hh", machine.state, 48, 40000, -9)
    return machine, np.stack([net.sample() for _ in range(STEPS)]), np.arange(STEPS) % 5


def with_columns(patch: int = 1) -> tuple[Machine, Array, Array]:
    """Layers that stay in flash; the columns that the device would bring are brought here."""
    net = wide_front()
    graph = parse_tflite(net.to_bytes())
    layers = [
        LayerPlan(op.index, 2, True, 0 if op.kind == "DEPTHWISE_CONV_2D" else 3)
        for op in graph.trainable
    ]
    machine = Machine(graph, in_patches(graph, UpdatePlan(tuple(layers), scores=True), patch))
    bring_columns(machine)
    return machine, np.stack([net.sample() for _ in range(STEPS)]), np.arange(STEPS) % 3


def bring_columns(machine: Machine) -> None:
    for layer in machine.program.layers:
        if layer.columns:
            table = machine.slot(layer.columns.table, np.uint32)
            assert layer.channels
            chosen = machine.slot(layer.channels, np.uint16)
            others = np.setdiff1d(np.arange(layer.in_channels), chosen)
            for i, channel in enumerate([*chosen, *others][: layer.columns.slots]):
                table[channel] = 1 << 29 | layer.columns.pool.offset + i * layer.columns.size


def with_selection() -> tuple[Machine, Array, Array]:
    """Layers whose errors are selected, one of them depthwise with some of its channels."""
    net = Net((1, 9, 8, 3), zero=17, seed=2)
    net.conv(18, 3, stride=2, activation=RELU, zero=-128)
    net.depthwise(1, 3)
    net.conv(20, 1)
    net.flatten()
    net.dense(17)
    graph = parse_tflite(net.to_bytes())
    layers = [LayerPlan(op.index, -(-input_channels(graph, op) // 2)) for op in graph.trainable]
    machine = Machine(graph, UpdatePlan(tuple(layers), tinyprop="0.1:0.6:0.9"))
    return machine, np.stack([net.sample() for _ in range(STEPS)]), np.arange(STEPS) % 17


def recording(machine: Machine, x: Array, y: Array) -> bytes:
    """The file that tests/c/replay.c reads."""
    image = machine.image
    samples = [np.ascontiguousarray(s, np.int8).tobytes() for s in x]
    sizes = [len(image.data), image.state_bytes, image.arena_bytes, image.input_bytes]
    head = struct.pack("<7i", *sizes, image.input_at, len(samples), image.ops)
    steps = [
        struct.pack("<iIiI", label, *rate(0.05), 100 + i) + sample
        for i, (label, sample) in enumerate(zip(y.tolist(), samples, strict=True))
    ]
    return head + image.data + bytes(machine.state) + b"".join(steps)


def run(program: Path, *arguments: object) -> list[str]:
    command = [str(program), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()


def test_training_steps_are_clean_and_equal_those_of_the_twin(replay: Path, tmp_path: Path) -> None:
    machine, x, y = common_operators()
    check_replay(replay, tmp_path / "small.rec", machine, x, y)
    check_replay(replay, tmp_path / "strips.rec", *with_strips())
    check_replay(replay, tmp_path / "columns.rec", *with_columns())
    check_replay(replay, tmp_path / "columns.rec", *with_columns(2))
    for size in (2, 4, 7):
        check_replay(replay, tmp_path / "patches.rec", *with_patches(size))
    for how in VELOCITIES:
        check_replay(replay, tmp_path / "velocity.rec", *with_velocity(*how))
    check_replay(replay, tmp_path / "selection.rec", *with_selection())


def test_gradients_over_patches_are_clean(replay: Path, tmp_path: Path) -> None:
    for case in MODELS:
        for seed in range(6):
            check_replay(replay, tmp_path / "case.rec", *drawn_patches(case, seed))


def test_every_operator_is_clean(replay: Path, tmp_path: Path) -> None:
    codes = set()
    for case in CASES:
        for seed in range(4):
            machine, x, y = swept(case, seed)
            check_replay(replay, tmp_path / "case.rec", machine, x, y)
            codes |= {op.code for op in machine.ops}
    others = [with_strips()[0], with_columns()[0], with_patches()[0], with_selection()[0]]
    assert codes | {op.code for machine in others for op in machine.ops} == set(Code)


@pytest.mark.parametrize("name", NAMES)
def test_real_models_are_clean(replay: Path, tmp_path: Path, name: str) -> None:
    task = real_model(name, STEPS)
    machine = sparse_machine(task.model, 4, name == "digits")
    check_replay(replay, tmp_path / name, machine, task.x, task.y)


def check_replay(program: Path, file: Path, machine: Machine, x: Array, y: Array) -> None:
    file.write_bytes(recording(machine, x, y))
    *losses, checksum = run(program, file)
    for i, loss in enumerate(losses):
        machine.arena[:] = bytes(len(machine.arena))
        assert machine.step(x[i], int(y[i]), rate(0.05), 100 + i) * 65536 == int(loss)
    assert int(checksum) == checksum_of(bytes(machine.state))


# Two cores ----------------------------------------------------------------------------------------

ONE_CORE, BOTH_CORES, IN_TURN, IN_TURN_BACK = range(4)  # st_cores_t
THREADS = ("-g", "-O1", "-fsanitize=thread", "-pthread", "-DST_CORE_1")


@pytest.fixture(scope="module", params=["portable", "lanes"])
def two_cores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """replay with a thread as the second core."""
    second = str(TESTS / "c" / "core1_thread.c")
    flags = ("-D_POSIX_C_SOURCE=200809L", *VERSIONS[request.param], second)
    return compile_program("replay.c", tmp_path_factory.mktemp("threads"), flags, THREADS)


def check_two_cores(program: Path, file: Path, machine: Machine, x: Array, y: Array) -> None:
    """The thread sanitizer sees no byte that both cores touch, and all ways give the same."""
    file.write_bytes(recording(machine, x, y))
    whole = run(program, file, ONE_CORE)
    for cores in (BOTH_CORES, IN_TURN, IN_TURN_BACK):
        assert run(program, file, cores) == whole, cores


def test_two_cores_share_nothing(two_cores: Path, tmp_path: Path) -> None:
    check_two_cores(two_cores, tmp_path / "small.rec", *common_operators())
    check_two_cores(two_cores, tmp_path / "strips.rec", *with_strips())
    check_two_cores(two_cores, tmp_path / "columns.rec", *with_columns())
    check_two_cores(two_cores, tmp_path / "patches.rec", *with_patches())
    for how in VELOCITIES:
        check_two_cores(two_cores, tmp_path / "velocity.rec", *with_velocity(*how))
    check_two_cores(two_cores, tmp_path / "selection.rec", *with_selection())


def test_two_cores_share_nothing_in_any_operator(two_cores: Path, tmp_path: Path) -> None:
    for case in CASES:
        check_two_cores(two_cores, tmp_path / "case.rec", *swept(case, 1))


@pytest.mark.parametrize("name", NAMES)
def test_two_cores_share_nothing_in_real_models(
    two_cores: Path, tmp_path: Path, name: str
) -> None:
    task = real_model(name, 2)
    machine = sparse_machine(task.model, 4, name == "digits")
    check_two_cores(two_cores, tmp_path / name, machine, task.x[:2], task.y[:2])


def checksum_of(state: bytes) -> int:
    """As replay.c: st_mix32 of each byte in turn."""
    total = 0
    for byte in state:
        total ^= byte
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            total = (total ^ total >> shift) * factor & 0xFFFFFFFF
        total ^= total >> 16
    return total


def check_damaged(program: Path, file: Path, seed: int) -> dict[str, int]:
    """Damaged images, whole and in two parts, either one first: what the whole refuses, they refuse
    at the same operator. How often each status came."""
    lines = run(program, file, ONE_CORE, seed, DAMAGED_IMAGES)
    assert run(program, file, IN_TURN if seed % 2 else IN_TURN_BACK, seed, DAMAGED_IMAGES) == lines
    counts = {status: int(rest.split()[0]) for status, rest in (ln.split(": ") for ln in lines)}
    assert sum(counts.values()) == DAMAGED_IMAGES
    return counts


@pytest.mark.parametrize(
    "name",
    ["small", "few", "strips", "columns", "patches", "velocity", "selection", "digits", "kws"],
)
def test_damaged_images_never_leave_their_buffers(
    replay_wrapping: Path, tmp_path: Path, name: str
) -> None:
    """The image's checksum is Python's to check; C must survive what passes by."""
    ours = {"small": common_operators, "strips": with_strips, "columns": with_columns,
            "few": few_channels, "patches": with_patches, "selection": with_selection,
            "velocity": partial(with_velocity, 2, True, True)}  # fmt: skip
    if name in ours:
        machine, x, y = ours[name]()
    else:
        task = real_model(name, 1)
        machine, x, y = sparse_machine(task.model, 9, True), task.x, task.y
    file = tmp_path / name
    file.write_bytes(recording(machine, x, y))
    for seed in range(2 if name in ours else 1):
        counts = check_damaged(replay_wrapping, file, seed * 10007)
        assert counts["ok"] < DAMAGED_IMAGES * 3 // 4, "hardly any damage was noticed"


@pytest.mark.parametrize("case", CASES)
def test_damaged_operators_never_leave_their_buffers(
    replay_wrapping: Path, tmp_path: Path, case: str
) -> None:
    file = tmp_path / "case.rec"
    for seed in range(2):
        file.write_bytes(recording(*swept(case, seed)))
        check_damaged(replay_wrapping, file, seed)


@pytest.mark.parametrize("case", MODELS)
def test_damaged_patches_never_leave_their_buffers(
    replay_wrapping: Path, tmp_path: Path, case: str
) -> None:
    file = tmp_path / "case.rec"
    for seed in range(2):
        file.write_bytes(recording(*drawn_patches(case, seed)))
        check_damaged(replay_wrapping, file, seed)


# Compilers ----------------------------------------------------------------------------------------

CORTEX_M0 = ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb", "-ffreestanding")
CHECKED = ("-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Wstrict-prototypes", "-Wundef")


def compile_object(source: Path, folder: Path, command: tuple[str, ...], *flags: str) -> Path:
    target = folder / (source.stem + ".o")
    arguments = [compiler(command[0]), *command[1:], *STRICT, *flags, "-c", str(source)]
    result = subprocess.run([*arguments, "-o", str(target)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target


@pytest.mark.parametrize("command", [("cc",), CORTEX_M0], ids=["host", "cortex-m0plus"])
@pytest.mark.parametrize("optimise", ["-O0", "-O2", "-Os"])
def test_compilers_have_nothing_to_say(
    tmp_path: Path, command: tuple[str, ...], optimise: str
) -> None:
    for source in SOURCES:
        compile_object(source, tmp_path, command, optimise, *CHECKED)
        if source.name.startswith(("simd_", "run_")):
            compile_object(source, tmp_path, command, optimise, *CHECKED, "-DST_SIMD")


def calls(source: Path, folder: Path, *flags: str) -> dict[str, set[str]]:
    """Function -> what it calls from the compiler's run-time library, on the RP2040's core."""
    compiled = compile_object(source, folder, CORTEX_M0, *flags)
    dump = subprocess.run(
        ["arm-none-eabi-objdump", "-dr", str(compiled)], capture_output=True, text=True, check=True
    )
    found: dict[str, set[str]] = {}
    function = ""
    for line in dump.stdout.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            function = head[1]
        elif call := re.search(r"R_ARM_\w+\s+(__\w+)", line):
            found.setdefault(function, set()).add(call[1])
    return found


FLOAT = re.compile(r"__aeabi_[fdhi]2|__aeabi_[fd]|__aeabi_[ul]+2[fd]|__(add|sub|mul|div)[sd]f")
DIVISION = re.compile(r"__aeabi_[u]?(idiv|ldiv)|__gnu_[u]?ldivmod|__[u]?divdi3|__[u]?moddi3")

# Where a division stands, once a position, window or call; never once an element.
DIVISIONS = {
    "st_shuffle",  # once a channel, where an order is drawn anew
    "weigh",  # once a draw
    "st_output_of",  # once an input position and kernel tap
    "avg_pool_s8",  # once a window
    "share_of",  # once a position and window
    "add_windows",  # once a position and tap
    "depthwise_conv2d_s8",  # once a call
    "input_position",  # once a position, as the next one
    "depthwise_position",
    "add_taps",  # once a position
    "depthwise_conv2d_update",  # once a tap
    "update_same_taps",  # once a tap
    "update_tiled",  # once a call, as the next two
    "st_tile_depthwise",
    "even_parts",
    "sum_channel",  # once a tap and output channel, where there are groups
    "correlate",  # once a tap
    "st_update_velocities",  # once a tap and output channel
    "standard_step",  # once a filter, where a group of steps ends
    "update_rest",  # once a tap, as the next one
    "update_words",
    "st_words_make",  # once a tap
    "shape_ok",  # once a call
    "part_of",  # once an error tensor, as the next one
    "add_chosen",
    "place_channels",  # once a call
    "st_group_inputs",  # where there are groups
    "st_group_outputs",  # where there are groups
    "group_outputs",  # once a position, where there are groups
    "mean_ok",  # once a call
    "tiling",  # once a call
    "move_depthwise",  # once a call and core, as the next two
    "pairs_part",
    "rows_part",
    "weight_count",  # once a call
    "cut_of",  # once an operator, where it is split
    "gather_all",  # once some positions
    "widen_windows",  # once some windows
    "cut",  # once a call
    "packed_outputs",  # once six outputs
    "fully_connected_packed_rows",  # once a call
    "st_outputs_of",  # once a position
    "mean_of",  # once a filter
    "patch_mean",  # once a patch
    "patch_of",  # once a position
    "share_out",  # once a patch and row of the map
    "st_run_patch_values",  # once a call
    "st_run_loss",  # once a step
    "ratio_kept",  # once a level
    "append_number",  # error text
}


def test_no_floating_point_on_the_board(tmp_path: Path) -> None:
    for source in SOURCES:
        for function, called in calls(source, tmp_path, "-O2").items():
            assert not [c for c in called if FLOAT.match(c)], (source.name, function, called)


def test_divisions_stand_outside_of_element_loops(tmp_path: Path) -> None:
    """Compiled without inlining, so that each division is found in the function it stands in."""
    found = {
        function
        for source in SOURCES
        for function, called in calls(source, tmp_path, "-O1", "-fno-inline").items()
        if any(DIVISION.match(c) for c in called)
    }
    print("functions that divide:", ", ".join(sorted(found)))
    assert found <= DIVISIONS, found - DIVISIONS


def test_the_search_for_calls_finds_them(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text(
        "float f(float a);\nfloat f(float a) { return a * 3; }\nint g(int, int);\n"
        "int g(int a, int b) { return a / b; }\n"
    )
    found = calls(source, tmp_path, "-O2")
    assert any(FLOAT.match(c) for c in found["f"])
    assert any(DIVISION.match(c) for c in found["g"])


def test_kernels_include_nothing_but_freestanding_headers() -> None:
    allowed = {"stddef.h", "stdint.h"}
    vectors = {"simd_vector.h": {"immintrin.h"}}  # of CPython alone
    for path in sorted(KERNELS.glob("*.[ch]")):
        if not path.name.startswith(("bind_", "natmod_")):
            included = set(re.findall(r"#include <(.+)>", path.read_text()))
            assert included <= allowed | vectors.get(path.name, set()), path.name
