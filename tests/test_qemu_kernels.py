"""The kernels of the native modules for Cortex-M4F (RP2350) and RISC-V (ESP32-C3), their very
object files (flavour small: compiled alike), against the twin: in QEMU, without MicroPython. Every
buffer stands apart at some alignment, with guard bytes around."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sparsetune_kernels as kernels
from gradient_cases import CASES
from on_core import (
    GRADIENTS,
    check_equal,
    chosen_channels_and_strips,
    convolutions,
    depthwise_layers,
    patches,
    steps_of,
    training_steps,
    two_operands,
    with_gradient,
)
from sparsetune_tools import qemu_bare
from sparsetune_tools.qemu_bare import PROCESSORS, QemuCore
from tool_chains import set_up

SHIFTS = range(16)


@pytest.fixture(scope="module", params=[*PROCESSORS, "rv32imc small"])
def core(request: pytest.FixtureRequest) -> Iterator[QemuCore]:
    """Of an ESP32-C3 in two flavours (natmod.mk). The twin's portable kernels are the reference:
    its fast ones have scratch of their own."""
    arch, _, flavour = request.param.partition(" ")
    set_up(lambda: qemu_bare.require_emulator(arch))
    was_fast = kernels.set_simd(None)
    kernels.set_simd(False)
    with QemuCore(arch, flavour == "small") as core:
        yield core
    kernels.set_simd(was_fast)


def test_a_fault_is_told(core: QemuCore) -> None:
    with QemuCore(core.arch) as another, pytest.raises(RuntimeError, match="stopped"):
        another.call("bare_load", 4)


@pytest.mark.parametrize("shift", SHIFTS)
def test_convolutions(shift: int, core: QemuCore) -> None:
    for machine in convolutions(shift):
        check_equal(machine, core)


@pytest.mark.parametrize("shift", SHIFTS)
def test_depthwise(shift: int, core: QemuCore) -> None:
    for machine in depthwise_layers(shift):
        check_equal(machine, core)


@pytest.mark.parametrize("case", CASES)
def test_training_steps(case: str, core: QemuCore) -> None:
    for machine in training_steps(case):
        check_equal(machine, core)


def test_gradients_over_patches(core: QemuCore) -> None:
    for machine in patches():
        check_equal(machine, core)


@pytest.mark.parametrize("power", [-14, -4, 6])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients(kind: str, power: int, core: QemuCore) -> None:
    """Steps that move hardly a weight, and ones that all saturate."""
    for i, machine in enumerate(steps_of(power)):
        check_equal(machine, core, before=with_gradient(kind, i))


@pytest.mark.parametrize("last", [1, 4, 7])
def test_chosen_channels_and_strips(last: int, core: QemuCore) -> None:
    for machine in chosen_channels_and_strips(last):
        check_equal(machine, core)


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("scale", [1e-8, 0.004, 0.5, 1e4])
def test_two_operands(kind: str, scale: float, core: QemuCore) -> None:
    for machine in two_operands(kind, scale):
        check_equal(machine, core)
