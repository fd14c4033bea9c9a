"""Fixtures that several tests share."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import own_port
import pytest
import sparsetune_kernels as kernels

TESTS = Path(__file__).parent
ROOT = TESTS.parent
# What a shell starts in the background ignores Ctrl-C, and so would all that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
FIRMWARE = ROOT / "build" / "firmware" / "SPARSETUNE_PICO" / "firmware.bin"


@pytest.fixture(scope="module")
def emulated_pico(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A running emulated Pico with the project's firmware and a flash of its own, for one file of
    tests: what a run leaves on a board decides about no other, in whichever order they come.

    `emulated_pico.port_link` names its port for good, `.port` until the next plug().
    """
    if not FIRMWARE.exists():
        pytest.skip("no firmware is built: run make firmware")
    from sparsetune_tools.emulated_pico import EmulatedPico

    folder = tmp_path_factory.mktemp("pico")
    pico = EmulatedPico(
        firmware=FIRMWARE,
        flash=folder / "flash.bin",
        port_link=folder / "port",
        bootsel=folder / "RPI-RP2",
    )
    pico.start()  # with a firmware at hand, an emulator that does not start is a failure
    yield pico
    pico.stop()


@pytest.fixture
def stand_in() -> Iterator[Callable[..., str]]:
    """Start stand-ins for a board (see stand_in_board.py); returns their port."""
    with contextlib.ExitStack() as running:

        def start(*arguments: object) -> str:
            stand_in = own_port.StandIn("stand_in_board.py", *arguments)
            running.callback(stand_in.kill)
            start.kill = stand_in.kill  # type: ignore[attr-defined]
            return stand_in.port

        yield start


@pytest.fixture
def portable() -> Iterator[None]:
    """The portable kernels, which use all scratch of the image and can be split; the twin's fast
    ones have their own."""
    was_fast = kernels.set_simd(None)
    kernels.set_simd(False)
    yield
    kernels.set_simd(was_fast)


@pytest.fixture(params=["simd", "portable"])
def each_version(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test runs twice: on the twin's fast kernels, and on the portable ones."""
    was_fast = kernels.set_simd(None)
    if kernels.set_simd(request.param == "simd") != (request.param == "simd"):
        pytest.skip("SKIP: the processor has no AVX2")
    yield
    kernels.set_simd(was_fast)


@pytest.fixture(scope="session")
def xtensa() -> object:
    """The compiler for what runs in QEMU's Xtensa core, which is there too."""
    from sparsetune_tools.xtensa import toolchain_and_emulator
    from tool_chains import set_up

    return set_up(toolchain_and_emulator)


@pytest.fixture(scope="session")
def unix_micropython() -> Path:
    """MicroPython for this machine, the project's own build."""
    from sparsetune_tools import unix

    return unix.build()
