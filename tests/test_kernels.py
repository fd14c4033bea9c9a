"""Forward kernels: bit for bit LiteRT's reference kernels, and nothing outside their buffers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sparsetune_kernels as kernels
from gradient_cases import ACTIVATIONS, SIZES, ZEROS, random_map, random_output, random_window
from machine import Machine, litert_tensors
from shared_tasks import shared_folder
from small_models import RELU, Array, Net
from sparsetune.errors import SparsetuneError
from sparsetune.litert import predict

pytestmark = pytest.mark.usefixtures("each_version")


def inputs_of(net: Net, count: int = 3) -> Array:
    """Random inputs and the two extremes."""
    shape = net.shapes[net.source][1:]
    extremes = [np.full(shape, v, np.int8) for v in (-128, 127)]
    return np.stack([net.sample()[0] for _ in range(count)] + extremes)


def assert_bit_exact(net: Net) -> None:
    model, x = net.to_bytes(), inputs_of(net)
    machine = Machine(model)
    for sample, wanted in zip(x, predict(model, x), strict=True):
        np.testing.assert_array_equal(machine.infer(sample), wanted.ravel())


def draws(seed: int, count: int) -> list[Any]:
    """`count` random generators: one for each case of a sweep."""
    return [np.random.default_rng((seed, i)) for i in range(count)]


@pytest.mark.parametrize("block", range(4))
def test_conv(block: int) -> None:
    for rng in draws(block, 25):
        net = random_map(rng)
        window = random_window(rng, *net.shapes[net.at][1:3])
        net.conv(int(rng.choice(SIZES)), **window, **random_output(rng))
        assert_bit_exact(net)


@pytest.mark.parametrize("groups", [2, 3, 4, 12])
def test_conv_in_groups(groups: int) -> None:
    for rng in draws(15 + groups, 15):
        net = random_map(rng)
        net.conv(groups * int(rng.choice((1, 2, 5))), 1, zero=int(rng.choice(ZEROS)))
        window = random_window(rng, *net.shapes[net.at][1:3])
        net.conv(groups * int(rng.choice((1, 3))), groups=groups, **window, **random_output(rng))
        assert_bit_exact(net)


@pytest.mark.parametrize("block", range(4))
def test_depthwise(block: int) -> None:
    for rng in draws(10 + block, 25):
        net = random_map(rng)
        window = random_window(rng, *net.shapes[net.at][1:3])
        net.depthwise(int(rng.choice((1, 1, 2, 3))), **window, **random_output(rng))
        assert_bit_exact(net)


def test_fully_connected() -> None:
    for rng in draws(20, 40):
        rows = int(rng.choice((1, 1, 3)))
        shape = (1, rows, int(rng.choice(SIZES))) if rows > 1 else (1, int(rng.choice(SIZES)))
        net = Net(shape, int(rng.choice(ZEROS)), int(rng.integers(1 << 30)))
        bias, per_channel = (bool(b) for b in rng.integers(2, size=2))
        net.dense(int(rng.choice(SIZES)), per_channel, bias=bias, **random_output(rng))
        assert_bit_exact(net)


def test_average_pool() -> None:
    for rng in draws(30, 60):
        net = random_map(rng)
        window = random_window(rng, *net.shapes[net.at][1:3])
        window.pop("dilation")
        sizes = np.broadcast_to(window["kernel"], 2)
        window["same"] |= bool((sizes > net.shapes[net.at][1:3]).any())
        net.pool(**window, activation=ACTIVATIONS[rng.integers(4)])
        assert_bit_exact(net)


def test_average_pool_rounds_ties_away_from_zero() -> None:
    """Windows of two and four elements over all pairs of neighbours' sums."""
    values = np.array(list(itertools.product((-128, -3, -2, -1, 0, 1, 2, 127), repeat=2)), np.int8)
    for kernel in ((1, 2), (2, 2)):
        net = Net((1, 2, 2, 64))
        net.pool(kernel)
        model, x = net.to_bytes(), np.stack([values, values[::-1]]).reshape(1, 2, 64, 2)
        x = np.ascontiguousarray(x.transpose(0, 1, 3, 2))
        np.testing.assert_array_equal(Machine(model).infer(x), predict(model, x)[0].ravel())


def test_average_pool_of_large_windows() -> None:
    for kernel in ((63, 64), (16, 255), (51, 80)):
        net = Net((1, *kernel, 2), seed=kernel[0])
        net.pool(kernel)
        assert_bit_exact(net)


def test_add() -> None:
    for rng in draws(40, 60):
        net = random_map(rng)
        x = net.at
        net.conv(
            net.shapes[x][3],
            1,
            zero=int(rng.choice(ZEROS)),
            scale=float(rng.choice((0.001, 0.02, 0.5))),
        )
        scale = float(rng.choice((0.0, 0.004, 0.05, 2.0)))
        net.add(x, ACTIVATIONS[rng.integers(4)], int(rng.choice(ZEROS)), scale)
        assert_bit_exact(net)


def test_add_of_a_tensor_to_itself() -> None:
    net = Net((1, 3, 3, 4), zero=17)
    net.add(net.at, zero=-5)
    assert_bit_exact(net)


def test_softmax() -> None:
    for rng in draws(50, 60):
        depth, rows = int(rng.choice((1, 2, 10, 17, 256))), int(rng.choice((1, 1, 3)))
        shape = (1, depth) if rows == 1 else (1, rows, depth)
        scale = float(rng.choice((1e-4, 0.004, 0.05, 0.2, 1.0, 16.0)))
        net = Net(shape, int(rng.choice(ZEROS)), 1, scale=scale)
        net.softmax(float(rng.choice((1.0, 0.5, 3.0))))
        assert_bit_exact(net)


# Scales for which the multiplier is a left shift, nearly 1, tiny, or 0 in 32 bits.
@pytest.mark.parametrize("scale", [1e-7, 1e-5, 3e-4, 1.0, 1e3, 1e6, 3e8])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
def test_extreme_output_scales(kind: str, scale: float) -> None:
    for zero in ZEROS:
        net = Net((1, 4, 4, 3) if kind != "dense" else (1, 12), zero, seed=zero + 128)
        add = {"conv": net.conv, "depthwise": net.depthwise, "dense": net.dense}[kind]
        add(*([5] if kind != "depthwise" else [2]), zero=-zero - 1, scale=scale)
        assert_bit_exact(net)


@pytest.mark.parametrize("value", [-127, 0, 127])
def test_extreme_weights(value: int) -> None:
    """All weights alike and inputs at the ends of the range: the largest sums there are."""
    net = Net((1, 8, 8, 17), zero=127)
    net.conv(4, 5, weights=np.full((4, 5, 5, 17), value), scale=300.0, zero=3)
    net.depthwise(2, 3, weights=np.full((1, 3, 3, 8), value), scale=2e4)
    net.flatten()
    net.dense(3, weights=np.full((3, 512), value), scale=1e7)
    assert_bit_exact(net)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
def test_exact_ties(kind: str) -> None:
    """Factors that are powers of two put one sum in eight half way between two steps."""
    net = Net((1, 1, 12, 8), zero=3, seed=9, scale=0.5)
    rest: dict[str, Any] = {"scale": 1.0, "zero": -7, "scales": np.full(8, 0.25)}
    weights = net.rng.integers(-3, 4, 64)
    if kind == "conv":
        net.conv(8, weights=weights.reshape(8, 1, 1, 8), **rest)
    elif kind == "depthwise":
        net.depthwise(1, 1, weights=weights[:8].reshape(1, 1, 1, 8), **rest)
    else:
        net.dense(8, True, weights=weights.reshape(8, 8), **rest)
    assert_bit_exact(net)


def test_sizes_that_no_kernel_takes_are_refused_with_a_reason() -> None:
    net = Net((1, 1, 300, 1))
    net.pool((1, 257))
    with pytest.raises(SparsetuneError, match="AVERAGE_POOL_2D .* too large"):
        Machine(net.to_bytes())


def test_wide_fully_connected() -> None:
    """More inputs than any convolution has channels."""
    net = Net((1, 20000), seed=4)
    net.dense(3)
    assert_bit_exact(net)


def test_fully_connected_model_equals_the_golden_file() -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    golden = np.load(folder / "golden" / "litert_ref__mlcommons__ad01_int8.npz")
    machine = Machine((folder / "models" / "mlcommons" / "ad01_int8.tflite").read_bytes())
    for x, y in zip(golden["x"], golden["y0"], strict=True):
        np.testing.assert_array_equal(machine.infer(x), y)


def mixed_net(seed: int) -> Net:
    """All operators, a residual branch, a reshape and an add onto the input of a branch."""
    net = Net((1, 9, 7, 5), zero=17, seed=seed)
    a = net.conv(8, 3, stride=2, activation=RELU, zero=-128)
    net.depthwise(1, 3, zero=9)
    b = net.add(a, RELU, zero=-128)
    net.conv(8, 1, zero=0)
    net.add(b, zero=-3)
    net.pool(2, 2)
    net.flatten()
    net.dense(6)
    net.softmax()
    return net


@pytest.mark.parametrize("seed", range(5))
def test_whole_model_and_every_tensor_inside(seed: int) -> None:
    net = mixed_net(seed)
    model = net.to_bytes()
    machine, x = Machine(model), net.sample()
    wanted = litert_tensors(model, x)
    machine.load(x)
    for i, op in enumerate(machine.ops):
        machine.run(i, i + 1, training=False)
        tensor = machine.graph.operator(op.source).outputs[0]
        np.testing.assert_array_equal(machine.read(op.buffers[-1], np.int8), wanted[tensor].ravel())


# Buffers ------------------------------------------------------------------------------------------


REST = (bytearray(), b"")  # no arena of slow memory, no store


def placed(data: bytes, offset: int) -> tuple[memoryview, Callable[[], bool]]:
    """A copy of data `offset` bytes behind a 64-byte boundary, guards around it; and whether the
    guards are as they were."""
    guard = 256
    home = np.full(len(data) + 2 * guard + 64, 0xA5, np.uint8)
    at = guard + (-(home.ctypes.data + guard) % 64) + offset
    view = memoryview(home)[at : at + len(data)]
    view[:] = data
    return view, lambda: bool((home[:at] == 0xA5).all() and (home[at + len(data) :] == 0xA5).all())


@pytest.fixture(scope="module")
def training() -> tuple[Machine, Array]:
    from sparsetune.plan import LayerPlan, UpdatePlan
    from sparsetune.tflite import parse_tflite

    net = mixed_net(1)
    graph = parse_tflite(net.to_bytes())
    chosen = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 20}
    layers = tuple(LayerPlan(op.index, chosen[op.kind]) for op in graph.trainable)
    return Machine(graph, UpdatePlan(layers)), net.sample()


def run_placed(machine: Machine, x: Array, offsets: tuple[int, int, int]) -> tuple[bytes, bytes]:
    """State and arena after a training step in buffers at the given offsets, guards intact."""
    machine.load(x)
    machine.control(2, (40000, -14), 7)
    image, state, arena = (
        placed(bytes(data), offset)
        for data, offset in zip(
            (machine.image.data, machine.state, machine.arena), offsets, strict=True
        )
    )
    kernels.run(image[0], state[0], arena[0], *REST, 0, len(machine.ops), 1)
    assert bytes(image[0]) == machine.image.data
    assert image[1]() and state[1]() and arena[1]()
    return bytes(state[0]), bytes(arena[0])


@pytest.mark.parametrize("which", range(3))
def test_alignment(training: tuple[Machine, Array], which: int) -> None:
    """Any multiple of 4 gives the same bytes; anything else is refused before a byte changes."""
    wanted = run_placed(*training, (0, 0, 0))
    assert wanted[0] != bytes(training[0].state)
    for offset in range(16):
        offsets = tuple(offset if i == which else 0 for i in range(3))
        if offset % 4 == 0:
            assert run_placed(*training, offsets) == wanted  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match="aligned"):
                run_placed(*training, offsets)  # type: ignore[arg-type]


def test_buffers_that_are_too_small_are_refused(training: tuple[Machine, Array]) -> None:
    machine, x = training
    machine.load(x)
    ops = len(machine.ops)
    for cut in (4, len(machine.arena) // 2, len(machine.arena)):
        arena = bytearray(machine.arena[: len(machine.arena) - cut])
        with pytest.raises(ValueError, match="outside"):
            kernels.run(machine.image.data, bytearray(machine.state), arena, *REST, 0, ops, 1)
    for size in (0, 28):
        with pytest.raises(ValueError, match="too small"):
            kernels.run(machine.image.data, bytearray(size), machine.arena, *REST, 0, ops, 1)
    for size in (0, 60, len(machine.image.data) - 4):
        with pytest.raises(ValueError):
            kernels.run(machine.image.data[:size], machine.state, machine.arena, *REST, 0, ops, 1)


def test_operator_ranges(training: tuple[Machine, Array]) -> None:
    machine, _ = training
    for begin, end in ((-1, 2), (3, 2), (0, len(machine.ops) + 1), (1 << 31, 0)):
        with pytest.raises(ValueError):
            kernels.run(machine.image.data, machine.state, machine.arena, *REST, begin, end, 1)


@pytest.mark.parametrize("label", [-1, 6, 1 << 30, -(1 << 31)])
def test_labels_out_of_range(training: tuple[Machine, Array], label: int) -> None:
    machine, x = training
    with pytest.raises(ValueError, match="label"):
        machine.step(x, label, (0, 0))


def test_operators_touch_nothing_but_their_own_buffers(training: tuple[Machine, Array]) -> None:
    """After each operator, only the arena buffers that it names differ from before."""
    machine, x = training
    for _, op in machine.walk(x, 2):
        before = np.frombuffer(bytes(machine.arena), np.uint8)
        own = np.zeros(len(before), bool)
        for buffer in op.buffers:
            own[buffer.offset : buffer.offset + buffer.size] = True
        yield_point = machine.ops.index(op)
        machine.run(yield_point, yield_point + 1)
        after = np.frombuffer(bytes(machine.arena), np.uint8)
        assert (before[~own] == after[~own]).all(), op.code
        machine.arena[:] = before.tobytes()
