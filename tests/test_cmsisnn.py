"""Our kernels against CMSIS-NN's own test vectors, operator by operator: 0 differing bytes.

The vectors come with multipliers and shifts, so each runs as a program of one operator that is put
together here, without a .tflite. CMSIS-NN rounds twice when it requantises, as TFLite's reference
kernels do for all but FULLY_CONNECTED, which rounds once, as ours does: on these vectors both come
to the same (test_fully_connected_rounded_either_way).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sparsetune_kernels as kernels
from shared_tasks import shared_folder
from sparsetune.geometry import Geometry
from sparsetune.image import Source, lay_out
from sparsetune.inputs import Input
from sparsetune.program import Buffer, Code, Const, Op, Program
from sparsetune.task import Task

Array = npt.NDArray[Any]
Config = dict[str, int]
FILE = "golden/cmsisnn_int8_vectors_dev.npz"


@dataclass(frozen=True)
class Case:
    """One of CMSIS-NN's: what it runs on, and what must come out."""

    name: str
    config: Config
    arrays: dict[str, Array]

    def __getitem__(self, key: str) -> int:
        return self.config[key]

    @property
    def expected(self) -> Array:
        size = self.config.get("DST_SIZE", 0)
        found = [self.arrays[n] for n in ("output_ref", "output") if n in self.arrays]
        return next(a for a in found if not size or a.size == size)


def run_one(
    op: Op, x: Buffer, y: Buffer, values: Array, others: tuple[Buffer, Array] | None = None
) -> Array:
    """The output of a program that is one operator."""
    program = Program([op], forward=1, input=x, output=y)
    source = Source(bytes(32), Task("mse", 1, 1.0, 0), Input((1, x.size), 1.0, 0), (0, 0))
    layout = lay_out(program, source)
    arena, state = bytearray(layout.arena_bytes), bytearray(64)
    arena[x.offset : x.offset + x.size] = values.astype(np.int8).tobytes()
    if others:
        arena[others[0].offset : others[0].offset + others[0].size] = others[1].tobytes()
    kernels.run(layout.image, state, arena, bytearray(), b"", 0, 1, 0)
    return np.frombuffer(bytes(arena[y.offset : y.offset + y.size]), np.int8)


def in_batches(make: Callable[[], tuple[Op, Buffer, Buffer]], batches: int, x: Array) -> Array:
    parts = []
    for part in x.reshape(batches, -1):
        op, source, sink = make()
        parts.append(run_one(op, source, sink, part))
    return np.concatenate(parts)


def requants(multipliers: Array, shifts: Array) -> Const:
    return Const(np.stack([multipliers, shifts], axis=1).astype("<i4").tobytes())


def conv(case: Case, code: Code = Code.CONV2D) -> Array:
    c, a = case.config, case.arrays
    depthwise = code == Code.DEPTHWISE_CONV2D
    groups = 1 if depthwise else c["IN_CH"] // c.get("FILTER_CH", c["IN_CH"])
    g = Geometry(
        *(c["INPUT_H"], c["INPUT_W"], c["IN_CH"], c["OUTPUT_H"], c["OUTPUT_W"], c["OUT_CH"]),
        *(c["FILTER_Y"], c["FILTER_X"], c["STRIDE_Y"], c["STRIDE_X"]),
        *(c["DILATION_Y"], c["DILATION_X"], c["PAD_Y"], c["PAD_X"]),
        *(-c["INPUT_OFFSET"], c["OUTPUT_OFFSET"]),
        *(c["OUT_ACTIVATION_MIN"], c["OUT_ACTIVATION_MAX"], 0, groups),
    )
    bias = Const(a["biases"].astype("<i4").tobytes())
    factors = requants(a["output_mult"], a["output_shift"])

    def make() -> tuple[Op, Buffer, Buffer]:
        x = Buffer("t0", g.in_positions * g.in_c)
        y = Buffer("t1", g.out_positions * g.out_c)
        weights = Const(a["weights"].tobytes())
        return Op(code, (g.const(), x, weights, bias, factors, None, 0, y)), x, y

    return in_batches(make, c["INPUT_BATCHES"], a["input"])


def depthwise(case: Case) -> Array:
    return conv(case, Code.DEPTHWISE_CONV2D)


def fully_connected(case: Case, code: Code = Code.FULLY_CONNECTED) -> Array:
    c, a = case.config, case.arrays
    inputs, outputs = c["ACCUMULATION_DEPTH"], c["OUT_CH"]
    ends = -c["INPUT_OFFSET"], c["OUTPUT_OFFSET"]
    limits = c["OUT_ACTIVATION_MIN"], c["OUT_ACTIVATION_MAX"]
    g = Geometry(1, 1, inputs, 1, 1, outputs, 1, 1, 1, 1, 1, 1, 0, 0, *ends, *limits)
    assert not c.get("FILTER_OFFSET")
    if "OUTPUT_MULTIPLIER" in c:
        multipliers = np.full(outputs, c["OUTPUT_MULTIPLIER"])
        shifts = np.full(outputs, c["OUTPUT_SHIFT"])
    else:
        multipliers, shifts = a["output_multiplier"], a["output_shift"]
    biases = a["biases"] if "biases" in a else a["bias"]
    bias = Const(biases.astype("<i4").tobytes())

    def make() -> tuple[Op, Buffer, Buffer]:
        x, y, weights = Buffer("t0", inputs), Buffer("t1", outputs), Const(a["weights"].tobytes())
        factors = requants(multipliers, shifts)
        return Op(code, (g.const(), x, weights, bias, factors, None, 0, y)), x, y

    return in_batches(make, c["INPUT_BATCHES"], a["input"])


def pool(case: Case, is_max: bool) -> Array:
    c = case.config
    g = Geometry(
        *(c["INPUT_H"], c["INPUT_W"], c["INPUT_C"], c["OUTPUT_H"], c["OUTPUT_W"], c["OUTPUT_C"]),
        *(c["FILTER_H"], c["FILTER_W"], c["STRIDE_H"], c["STRIDE_W"], 1, 1),
        *(c["PADDING_H"], c["PADDING_W"], 0, 0, c["ACTIVATION_MIN"], c["ACTIVATION_MAX"]),
    )

    def make() -> tuple[Op, Buffer, Buffer]:
        x = Buffer("t0", g.in_positions * g.in_c)
        y = Buffer("t1", g.out_positions * g.out_c)
        if is_max:
            return Op(Code.MAX_POOL, (g.const(), x, None, y)), x, y
        return Op(Code.AVG_POOL, (g.const(), x, y)), x, y

    return in_batches(make, c["BATCH_SIZE"], case.arrays["input_tensor"])


def mul(case: Case) -> Array:
    c, a = case.config, case.arrays
    n = c["DST_SIZE"]
    axes = [1, 1, 1, n] + [0, 0, 0, 1] * 2
    zeros = [-c["INPUT1_OFFSET"], -c["INPUT2_OFFSET"], c["OUTPUT_OFFSET"]]
    factors = [0, 0, 0, 0, c["OUTPUT_MULT"], c["OUTPUT_SHIFT"]]
    limits = [c["OUT_ACTIVATION_MIN"], c["OUT_ACTIVATION_MAX"]]
    params = Const(struct.pack("<23i", *axes, *zeros, *factors, *limits))
    left, y = Buffer("t0", n), Buffer("t2", n)
    op = Op(Code.MUL, (params, left, Const(a["input2"].tobytes()), y))
    return run_one(op, left, y, a["input1"])


def softmax(case: Case) -> Array:
    c = case.config
    smallest = max(c["DIFF_MIN"], -255)  # no difference of int8 values is below that
    words = (c["NUM_ROWS"], c["ROW_SIZE"], c["INPUT_MULT"], c["INPUT_LEFT_SHIFT"], smallest)
    x, y = Buffer("t0", c["DST_SIZE"]), Buffer("t1", c["DST_SIZE"])
    op = Op(Code.SOFTMAX, (Const(struct.pack("<5i", *words)), x, y))
    return run_one(op, x, y, case.arrays["input"])


RUNNERS: dict[str, Callable[[Case], Array]] = {
    "avgpooling": lambda case: pool(case, False),
    "maxpooling": lambda case: pool(case, True),
    "depthwise": depthwise,
    "in_ch_one_out_ch_larger_one": depthwise,
    "fully_connected": fully_connected,
    "fc_per_ch": fully_connected,
    "mul": mul,
    "softmax": softmax,
    # All others are convolutions.
    "basic": conv,
    "conv": conv,
    "grouped_conv": conv,
    "kernel1x1": conv,
}


def runner_of(name: str) -> Callable[[Case], Array]:
    return next(RUNNERS[start] for start in RUNNERS if name.startswith(start))


@cache
def cases() -> dict[str, Case]:
    folder = shared_folder()
    if folder is None:
        return {}
    file = np.load(folder / FILE)
    found: dict[str, dict[str, Array]] = {}
    for key in file.files:
        name, _, array = key.partition("/")
        found.setdefault(name, {})[array] = file[key]
    configs = (
        json.loads(str(file["config"]))
        if file["config"].dtype.kind == "U"
        else json.loads(bytes(file["config"]))
    )
    return {name: Case(name, config, found[name]) for name, config in configs.items()}


def each(start: str = "") -> list[Any]:
    names = [name for name in cases() if name.startswith(start)]
    return names or [pytest.param("", marks=pytest.mark.skip("SKIP: no ../shared"))]


@pytest.mark.parametrize("name", each())
def test_no_byte_differs(name: str) -> None:
    case = cases()[name]
    ours, wanted = runner_of(name)(case), case.expected
    assert ours.size == wanted.size > 0
    print(f"{name}: {wanted.size} bytes, {np.count_nonzero(ours != wanted)} differ")
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("name", each("f"))
def test_fully_connected_rounded_either_way(name: str) -> None:
    """Rounded twice, as CMSIS-NN does it, or once."""
    case = cases()[name]
    assert name.startswith(("fully_connected", "fc_"))
    np.testing.assert_array_equal(fully_connected(case, Code.CONV2D), case.expected)
    np.testing.assert_array_equal(fully_connected(case), case.expected)


def test_every_vector_is_run() -> None:
    """There is none that we have no operator for."""
    if not cases():
        pytest.skip("SKIP: no ../shared")
    pairs = [(runner_of(name)(case), case.expected) for name, case in cases().items()]
    differ = sum(int(np.count_nonzero(ours != wanted)) for ours, wanted in pairs)
    size = sum(wanted.size for _, wanted in pairs)
    print(f"CMSIS-NN: {len(pairs)} of {len(cases())} vectors, {size} bytes, {differ} differ")
    assert len(pairs) == 36 and len({runner_of(name) for name in cases()}) == 7 and not differ


@pytest.mark.parametrize("name", each())
def test_a_wrong_input_is_noticed(name: str) -> None:
    """The comparison itself: another input gives other bytes."""
    case = cases()[name]
    key = next(k for k in case.arrays if k.startswith("input"))
    x = case.arrays[key]
    differ = 0
    for other in (~x, np.full_like(x, -128), np.full_like(x, 127)):
        wrong = replace(case, arrays={**case.arrays, key: other})
        differ += int(np.count_nonzero(runner_of(name)(wrong) != case.expected))
    assert differ > 0
