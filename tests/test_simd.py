"""The twin's fast kernels give the bytes of the portable ones: kernel by kernel over random shapes,
values, factors and alignments (tests/c/simd.c, under the sanitizers), and whole training runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sparsetune_kernels as kernels
from c_tools import KERNELS, TESTS, compile_program
from machine import Machine
from patch_cases import SIZES, mixed
from real_models import NAMES, real_model
from schemes import MBV2_99, published
from shared_tasks import shared_folder
from small_models import Array
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.tflite import parse_tflite

WRAP = ("-fwrapv", "-fno-sanitize=signed-integer-overflow")
CASES = {"long_conv": 20}  # of the others:
MANY = 4000
KINDS = (
    *("conv", "pointwise_conv", "long_conv", "depthwise_conv", "fully_connected", "packed"),
    *("columns", "elementwise", "emit", "add_errors", "masks", "conv_grad", "depthwise_grad"),
    *("conv_update", "depthwise_update", "pointwise_grad", "pointwise_update"),
)
LEVELS = {"avx2": 1, "avx512": 2}  # of simd_level.h
STEPS = 3


@pytest.fixture(autouse=True)
def both_versions() -> Iterator[None]:
    """SKIPs where there is one version only."""
    if not kernels.set_simd(True):
        pytest.skip("SKIP: the processor has no AVX2")
    yield
    kernels.set_simd(True)


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("simd.c", tmp_path_factory.mktemp("simd"), ("-DST_SIMD", *WRAP))


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    """Of the vectors that the twin uses; SKIPs where the processor has none so wide."""
    if not kernels.set_simd(request.param):
        pytest.skip(f"SKIP: the processor has no {request.param}")
    return str(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_give_the_same_bytes(compare: Path, kind: str, level: str) -> None:
    command = [str(compare), kind, str(LEVELS[level]), "1", str(CASES.get(kind, MANY))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]


def test_every_kernel_is_swept() -> None:
    header = (KERNELS / "simd.h").read_text()
    sweep = (TESTS / "c" / "simd.c").read_text()
    declared = set(re.findall(r"\b\w+_simd(?=\()", header))
    parts = {"st_update_tap_simd", "st_update_biases_simd"}  # of the updates
    assert len(declared) > len(parts)
    assert declared - set(re.findall(r"\b\w+_simd\b", sweep)) == parts
    assert set(re.findall(r'^    \{"(\w+)", \w+\},$', sweep, re.M)) == set(KINDS)


def states(model: bytes, plan: UpdatePlan, x: Array, y: Array, level: str) -> list[bytes]:
    """Output of an inference, then the state after each training step."""
    kernels.set_simd(level)
    machine = Machine(parse_tflite(model), plan)
    after = [machine.infer(x[0]).tobytes()]
    for i, sample in enumerate(x):
        machine.step(sample, int(y[i]), rate(0.02), 7 + i)
        after.append(bytes(machine.state))
    return after


def check_runs(model: bytes, plan: UpdatePlan, x: Array, y: Array) -> None:
    portable = states(model, plan, x, y, "0")
    assert len(set(portable)) == len(portable), "nothing was learnt"
    for level in LEVELS:  # where there is none so wide, what there is
        assert states(model, plan, x, y, level) == portable, level


@pytest.mark.parametrize("name", NAMES)
def test_real_models_learn_the_same(name: str) -> None:
    task = real_model(name, STEPS)
    for layers, ratio in ((2, 1.0), (6, 0.3)):
        plan = default_plan(parse_tflite(task.model), layers, ratio)
        check_runs(task.model, plan, task.x, task.y)


def test_mobilenet_v2_learns_the_same() -> None:
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: the shared models are not here")
    name = "mobilenet_v2_w0.35_128_int8"
    model = (shared / "models" / "tiny_training" / f"{name}.tflite").read_bytes()
    x = np.load(shared / "golden" / f"litert_ref__tiny_training__{name}.npz")["x"][:STEPS]
    graph = parse_tflite(model)
    for plan in (published(graph, MBV2_99), default_plan(graph, 6)):
        check_runs(model, plan, x, np.arange(STEPS))


@pytest.mark.parametrize("size", SIZES)
def test_gradients_over_patches_learn_the_same(size: int) -> None:
    net, _, plan = mixed(size)
    x = np.stack([net.sample() for _ in range(STEPS)])
    check_runs(net.to_bytes(), plan, x, np.arange(STEPS) % 5)


@pytest.mark.parametrize("value", ["0", "1", "", "avx2"])
def test_the_environment_turns_them_off(value: str) -> None:
    code = "import sparsetune_kernels as kernels; print(kernels.set_simd(None))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SPARSETUNE_SIMD": value, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == str(value != "0")
