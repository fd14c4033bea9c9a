"""Chains run row by row: the same bytes as in the plain order, less memory."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from gradient_cases import SIZES, random_map, random_output, random_window
from machine import Machine
from shared_tasks import shared_folder
from small_models import Array, Net, wide_front
from sparsetune.arena import lifetimes, live_bytes, lower_bound
from sparsetune.compile import build_program
from sparsetune.litert import predict
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.program import Code, Program
from sparsetune.strips import chains, fuse
from sparsetune.tflite import parse_tflite

pytestmark = pytest.mark.usefixtures("each_version")

PLAIN = UpdatePlan((), strips=False, scratch=False)


class FusedMachine(Machine):
    """A model in which one chain after the other was made a strip, whether it saves memory or
    not, until none is left; which ones is up to `choose`."""

    def __init__(self, model: bytes, choose: random.Random) -> None:
        self.choose = choose
        super().__init__(model, PLAIN)

    def build(self, plan: UpdatePlan) -> Program:
        program = super().build(plan)
        while found := list(chains(program)):
            fuse(program, self.choose.choice(found))
        return program


def random_chain(rng: Any) -> Net:
    """Two to six convolutions and poolings behind one another."""
    net = random_map(rng)
    net.conv(4, 1)
    net.conv(4, 1)
    for _ in range(int(rng.integers(0, 6))):
        window = random_window(rng, *net.shapes[net.at][1:3])
        kind = rng.integers(5)
        if kind == 0:
            net.conv(int(rng.choice(SIZES)), **window, **random_output(rng))
        elif kind == 1:
            net.depthwise(int(rng.choice((1, 2))), **window, **random_output(rng))
        elif kind == 2:
            net.unary("HARD_SWISH", zero=int(rng.choice((-128, 9))))
        else:
            del window["dilation"]
            sizes = np.broadcast_to(window["kernel"], 2)
            window["same"] |= bool((sizes > net.shapes[net.at][1:3]).any())
            net.pool(**window, kind=("AVERAGE", "MAX")[kind - 3])
    return net


@pytest.mark.parametrize("block", range(4))
def test_strips_give_the_same_bytes(block: int) -> None:
    for seed in range(40):
        rng = np.random.default_rng((90, block, seed))
        net = random_chain(rng)
        machine = FusedMachine(model := net.to_bytes(), random.Random(seed))
        assert any(op.code == Code.STRIP for op in machine.ops)
        x = np.stack([net.sample()[0] for _ in range(2)])
        machine.arena[:] = b"\x5a" * len(machine.arena)  # rows that were never made would show
        for sample, wanted in zip(x, predict(model, x), strict=True):
            np.testing.assert_array_equal(machine.infer(sample), wanted.ravel(), str(seed))


def test_a_stride_beyond_the_kernel_skips_rows() -> None:
    """Rows between two windows are read by nobody."""
    net = Net((1, 31, 5, 3), zero=4)
    net.conv(4, 3, same=True)
    net.conv(4, 1, stride=5, same=False)
    net.conv(4, 3, stride=4, same=True)
    model, x = net.to_bytes(), net.sample()
    wanted = predict(model, x)[0].ravel()
    np.testing.assert_array_equal(FusedMachine(model, random.Random(1)).infer(x[0]), wanted)


@pytest.mark.parametrize("shape", [(1, 30, 4, 1), (1, 12, 10, 1), (1, 6, 10, 2), (1, 6, 5, 4)])
def test_a_map_that_is_cut_into_other_rows(shape: tuple[int, ...]) -> None:
    """A RESHAPE between two stages: what the second one reads are not the rows that were made."""
    net = Net((1, 6, 5, 3), zero=4)
    net.conv(4, 3)
    net.reshape(shape)
    net.pool((2, 1), kind="MAX")
    net.conv(3, 1)
    model, x = net.to_bytes(), net.sample()
    wanted = predict(model, x)[0].ravel()
    np.testing.assert_array_equal(FusedMachine(model, random.Random(1)).infer(x[0]), wanted)


def test_the_front_is_fused_where_it_makes_the_peak() -> None:
    graph = parse_tflite(wide_front().to_bytes())
    plain = lower_bound(lifetimes(build_program(graph, PLAIN)))
    fused = build_program(graph, UpdatePlan((), scratch=False))
    # Expanded maps: 16 * 16 * 32 bytes each. As windows of three rows and one row:
    rows = 3 * 16 * 32 + 16 * 32
    assert plain == 2 * 16 * 16 * 32
    assert lower_bound(lifetimes(fused)) == 2 * 16 * 16 * 4 + rows
    assert sum(op.code == Code.STRIP for op in fused.ops) == 2


def test_what_trains_is_not_fused() -> None:
    """Operators that leave something for backward stay whole."""
    graph = parse_tflite(wide_front().to_bytes())
    program = build_program(graph, default_plan(graph, 4))
    trained = {layer.operator for layer in program.layers}
    first = min(trained)
    for at, op in enumerate(program.ops):
        if op.code == Code.STRIP:
            count = op.words[0]
            assert isinstance(count, int)
            assert all(o.source < first for o in program.ops[at : at + count + 1])


def test_training_behind_a_strip_is_the_same() -> None:
    graph = parse_tflite((net := wide_front()).to_bytes())
    plan = default_plan(graph, 1)
    fused, plain = Machine(graph, plan), Machine(graph, UpdatePlan(plan.layers, strips=False))
    assert any(op.code == Code.STRIP for op in fused.ops)
    for step in range(5):
        x = net.sample()
        losses = [m.step(x, step % 3, (40000, -20), step) for m in (fused, plain)]
        assert losses[0] == losses[1]
    assert fused.state == plain.state


def test_live_bytes_by_hand() -> None:
    """Input 4x4x1 lives with the row of 16 bytes that the convolution makes of it, and so on."""
    net = Net((1, 4, 4, 1))
    net.conv(2, 1)
    net.conv(3, 1)
    program = build_program(parse_tflite(net.to_bytes()), PLAIN)
    assert live_bytes(lifetimes(program)) == [16 + 32, 32 + 48]


def test_fewer_bytes_in_real_models() -> None:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    for name in ("mlcommons/vww_96_int8", "mlcommons/pretrainedResnet_quant"):
        graph = parse_tflite((folder / "models" / f"{name}.tflite").read_bytes())
        golden = np.load(folder / "golden" / f"litert_ref__{name.replace('/', '__')}.npz")
        fused, plain = Machine(graph, UpdatePlan((), scratch=False)), Machine(graph, PLAIN)
        print(f"{name}: arena {plain.layout.arena_bytes} plain, {fused.layout.arena_bytes} fused")
        assert fused.layout.arena_bytes < 0.8 * plain.layout.arena_bytes
        for x, y in zip(golden["x"], golden["y0"], strict=True):
            np.testing.assert_array_equal(fused.infer(x), y.ravel())


def damaged_words(machine: Machine) -> Array:
    at = next(i for i, op in enumerate(machine.ops) if op.code == Code.STRIP)
    words = np.frombuffer(machine.image.data, "<u4")
    table = int(words[4]) // 4
    return words[int(words[table + at]) // 4 :]


DAMAGES = [(1, 0), (1, 1), (1, 99), (2, 0), (2, 1), (2, 9), (3, 0), (3, 1 << 29)]


@pytest.mark.parametrize("word, value", DAMAGES)
def test_a_damaged_strip_is_refused(word: int, value: int) -> None:
    net = wide_front()
    machine = Machine(net.to_bytes(), UpdatePlan(()))
    image = bytearray(machine.image.data)
    at = len(image) - damaged_words(machine).nbytes + 4 * word
    image[at : at + 4] = value.to_bytes(4, "little")
    machine.image = type("Damaged", (), {**vars(machine.image), "data": bytes(image)})
    with pytest.raises(ValueError, match="operator"):
        machine.run(0, len(machine.ops), training=False)
