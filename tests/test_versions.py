"""Other versions of MicroPython than the one that all else is tested on: the device package in what
their project publishes (no native code there), and modules, package and firmware of one more
version as it comes from Debian. README's matrix says no more than that."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import sparsetune_kernels
from shared_tasks import shared_folder
from sparsetune.board import Board
from sparsetune.native import device_files
from sparsetune_tools import firmware, natmod, qemu_port, sources, versions, xtensa_port
from sparsetune_tools.device_package import compile_package
from sparsetune_tools.emulated_pico import EmulatedPico
from sparsetune_tools.shell import Missing, ToolError
from test_native_module import DEVICE, METHODS, call_of, files_of, kws_of, twin_answer
from test_qemu_modules import CHECKPOINT
from test_qemu_modules import files_of as sent_to
from test_stock import PICO_MPY, resnet_of, trains_as_the_twin
from tool_chains import set_up

SHARED = shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no shared models and data")
PINNED = versions.pinned()
NEWER = sources.NEWER_MICROPYTHON.version

# The package, in each version ----------------------------------------------------------------

ABOUT = "import sys\nprint(sys.version)\nprint(sys.implementation._mpy)"
IMPORT_ALL = "for name in {names!r}:\n    print(__import__('sparsetune_device.' + name))"
# What a run may ask for beside: these bring in code of their own.
ASKED = {
    "plain": {},
    "augmented": {"augment": "shift=1,gain=10", "decay": "0.001", "hold": "epoch", "keep": 20},
    "fewer whole steps": {"effort": 40, "cache": 50, "policy": "magnitude"},
}


@pytest.fixture(scope="module")
def package() -> dict[str, bytes]:
    """As it is sent to a board, compiled by the compiler of one version."""
    compile_package()
    files = device_files(PICO_MPY)
    assert {Path(name).suffix for name in files} == {".mpy"}
    return {f"sparsetune_device/{name}": data for name, data in files.items()}


def printed(version: str, script: str, files: dict[str, bytes]) -> list[str]:
    set_up(versions.install)
    return versions.run_script(version, script, files, sparsetune_kernels)


@pytest.mark.parametrize("version", PINNED)
def test_each_version_takes_modules_of_ours(version: str) -> None:
    """Those of version 6.3: py/persistentcode.c."""
    about, mpy = printed(version, ABOUT, {})
    assert f"MicroPython v{PINNED[version].partition('-')[0]}" in about
    assert int(mpy) & 0x3FF == PICO_MPY & 0x3FF == 6 | 3 << 8


@pytest.mark.parametrize("version", PINNED)
def test_each_version_answers_as_the_twin(version: str) -> None:
    """The stand-in for the kernels, which hands their calls on."""
    assert "\n".join([*printed(version, METHODS, {}), ""]) == twin_answer()


@pytest.mark.parametrize("version", PINNED)
def test_each_version_loads_the_whole_package(version: str, package: dict[str, bytes]) -> None:
    names = sorted({Path(name).stem for name in package} - {"__init__"})
    assert len(names) > 20
    told = printed(version, IMPORT_ALL.format(names=names), package)
    assert len(told) == len(names)


def check_lines(lines: list[str], task: runs.Task) -> None:
    """Telemetry and checkpoint, which CHECKPOINT prints, are the twin's."""
    begins = "#checkpoint "
    pieces = [line.removeprefix(begins) for line in lines if line.startswith(begins)]
    told = [line for line in lines if not line.startswith(begins)]
    twin_lines, twin_checkpoint = runs.twin_train(task)
    assert len(runs.losses(told)) == task.options["steps"]
    assert runs.telemetry(told) == runs.telemetry(twin_lines)
    assert bytes.fromhex("".join(pieces)) == twin_checkpoint


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("version", PINNED)
def test_the_package_trains_on_each_version(
    version: str, asked: str, package: dict[str, bytes]
) -> None:
    task = runs.digits_task(steps=20)
    task.options.update(ASKED[asked])
    files = {**package, "model.img": task.image.data, "train.dat": task.samples}
    check_lines(printed(version, call_of(task) + CHECKPOINT, files), task)


def test_an_error_there_is_told() -> None:
    set_up(versions.install)
    with pytest.raises(RuntimeError, match="ValueError: 42"):
        printed(next(iter(PINNED)), "print(1)\nraise ValueError(42)", {})


# Modules of one version in another -----------------------------------------------------------


@pytest.fixture(scope="module")
def newer() -> sources.Trees:
    return set_up(sources.newer)


def test_a_version_that_nobody_has_any_more_is_a_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone(*_: object) -> None:
        raise ToolError("E: Version '1.26.1+ds-1' for 'micropython' was not found")

    sources.ensure()
    monkeypatch.setattr(sources, "DOWNLOADS", tmp_path)
    monkeypatch.setattr(sources, "download", gone)
    monkeypatch.setattr(sources, "updated_apt", gone)
    with pytest.raises(Missing, match="was not found"):
        sources.newer()


def task_of(model: str, steps: int = 10) -> runs.Task:
    """On which any of these boards has room to train."""
    assert SHARED is not None
    return kws_of(SHARED, 2, steps) if model == "KWS" else resnet_of(SHARED, steps)


@needs_shared
def test_a_stock_pico_of_a_newer_version(newer: sources.Trees, tmp_path: Path) -> None:
    """`push` sends it what was built of the other version's sources."""
    for flavour in natmod.FLAVOURS:
        natmod.build("armv6m", flavour=flavour)
    compile_package()
    with EmulatedPico(firmware.build("stock", newer).folder / "firmware.uf2") as pico:
        with Board.connect(pico.port) as board:
            info = board.identify()
            assert info.micropython == NEWER and not info.has_kernels
        for model in ("KWS", "ResNet-8"):
            trains_as_the_twin(pico, task_of(model), tmp_path)


@needs_shared
@pytest.mark.parametrize("model", ["KWS", "ResNet-8"])
@pytest.mark.parametrize("arch", list(qemu_port.MACHINES))
def test_modules_in_a_newer_version(
    newer: sources.Trees, arch: str, model: str, tmp_path: Path
) -> None:
    set_up(lambda: qemu_port.require_emulator(arch))
    natmod.build(arch)
    compile_package()
    task = task_of(model)
    script = f"import sys\nprint('#version', sys.version)\n{call_of(task)}{CHECKPOINT}"
    files = sent_to(arch, task, "full")
    lines = qemu_port.run_script(arch, script, files, tmp_path, newer).splitlines()
    assert f"MicroPython v{NEWER}" in lines[0]
    check_lines(lines[1:], task)


@needs_shared
@pytest.mark.parametrize("model", ["KWS", "ResNet-8"])
def test_an_xtensa_module_in_a_newer_version(
    newer: sources.Trees, xtensa: object, model: str, tmp_path: Path
) -> None:
    task, folder = task_of(model), tmp_path / "board"
    files_of(task, folder)
    shutil.copy(natmod.build("xtensawin", "qemu"), folder)
    script = f"import sys\nprint('#version', sys.version)\nsys.path.append({str(DEVICE)!r})\n"
    (folder / "script.py").write_text(script + call_of(task) + CHECKPOINT)
    done = subprocess.run(
        [*xtensa_port.build(newer), "script.py"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert f"MicroPython v{NEWER}" in lines[0]
    check_lines(lines[1:], task)


# What README says of all this ----------------------------------------------------------------

TRAINS = "test_the_package_trains_on_each_version"
ALONE = {
    column: {"package alone": [f"test_versions.py::{TRAINS}[{v}-plain]" for v in of]}
    for column, of in {"1.24": ["1.24"], "1.27 to 1.29": ["1.27", "1.28", "1.29"]}.items()
}
NOT_BUILT: dict[str, dict[str, list[str]]] = {
    column: {"not built": []} for column in ("1.24", "1.26", "1.27 to 1.29")
}
LIMITS: dict[str, list[str]] = {  # say less, not more
    "never on an RP2350": [],
    "never by the IDF": [],
    "in more RAM than a C3's": [],
}


def modules(where: str, here: tuple[str, str], newer: tuple[str, str]) -> dict[str, dict]:
    """where: what they ran in. Tests of KWS and of ResNet-8 with the version that all else is
    tested on, and with the newer one."""
    told = {"1.25": here, "1.26": tuple(f"test_versions.py::{name}" for name in newer)}
    cells = {
        column: {where: [kws], "KWS": [kws], "ResNet-8": [resnet]}
        for column, (kws, resnet) in told.items()
    }
    return {**ALONE, **cells}


def in_qemu(where: str, arch: str) -> dict[str, dict]:
    here = (f"test_training_{model}_equals_the_twin[{arch}]" for model in ("kws", "resnet"))
    newer = (f"test_modules_in_a_newer_version[{arch}-{model}]" for model in ("KWS", "ResNet-8"))
    first, second = (f"test_qemu_modules.py::{name}" for name in here)
    return modules(where, (first, second), tuple(newer))  # type: ignore[arg-type]


PICO = "test_training.py::test_kws_200_steps_on_the_emulated_pico"
S3_COMPILED = "test_esp32s3_board.py::test_kernels_compile_for_the_chip_with_the_ports_headers[]"
# By row and column: each piece of a cell, and the tests that it stands on.
STANDS_ON = {
    "Pico, Pico W: our firmware": {
        **NOT_BUILT,
        "1.25": {"emulated": [PICO], "all that this page tells": [PICO]},
    },
    "Pico, Pico W: stock, `armv6m`": modules(
        "emulated (stock as we build it)",
        ("test_stock.py::test_kws_trains_from_stock[2]",
         "test_stock.py::test_resnet_trains_from_stock"),
        ("test_a_stock_pico_of_a_newer_version",) * 2,
    ),
    "Pico 2 (and M4F, M7, M33): stock, `armv7emsp`": in_qemu("Cortex-M4F in QEMU", "armv7emsp"),
    "ESP32, S3 (no S2): stock, `xtensawin`": modules(
        "a port of ours in QEMU",
        ("test_xtensa_module.py::test_training_kws_equals_the_twin",
         "test_xtensa_module.py::test_training_resnet_equals_the_twin"),
        ("test_an_xtensa_module_in_a_newer_version[KWS]",
         "test_an_xtensa_module_in_a_newer_version[ResNet-8]"),
    ),
    "ESP32-C3, C6: stock, `rv32imc`": in_qemu("RISC-V in QEMU", "rv32imc"),
    "ESP32-S3: our firmware": {
        **NOT_BUILT,
        "1.25": {"compiled in part": [S3_COMPILED]},
    },
}  # fmt: skip
C3_HEAP = "test_qemu_modules.py::test_the_digits_train_in_an_esp32_c3s_heap"
STANDS_ON["ESP32-C3, C6: stock, `rv32imc`"]["1.25"]["which holds the digits"] = [C3_HEAP]


def matrix() -> dict[str, dict[str, str]]:
    """README's: row -> column -> cell."""
    text = (runs.ROOT / "README.md").read_text()
    lines = text[text.index("| board and way |") :].partition("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_each_cell_of_the_matrix_stands_on_tests() -> None:
    """It says no more than they try, and they are there."""
    named = {path.partition("::")[0] for row in STANDS_ON.values() for cell in row.values()
             for tests in cell.values() for path in tests}  # fmt: skip
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    paths = [Path(__file__).parent / name for name in named]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=True)
    collected = {line.rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line}
    told = matrix()
    assert told.keys() == STANDS_ON.keys()
    for row, cells in told.items():
        assert cells.keys() == STANDS_ON[row].keys(), row
        for column, cell in cells.items():
            known = {**LIMITS, **STANDS_ON[row][column]}
            for piece in re.split(r"[:;,] ", cell):
                assert piece in known, f"{row}, {column}: {piece}"
                assert set(known[piece]) <= collected, f"{row}, {column}: {piece}"


def test_the_matrix_is_of_the_versions_that_are_tested() -> None:
    text = (runs.ROOT / "README.md").read_text().replace("\n", " ")
    assert f"publishes ({', '.join(PINNED.values())})" in text
    assert [version.rpartition(".")[0] for version in (sources.MICROPYTHON.version, NEWER)] == [
        "1.25",
        "1.26",
    ]
    assert f"1.25 is {sources.MICROPYTHON.version}. 1.26 is {NEWER} of Debian" in text
    assert list(PINNED) == [f"1.{minor}" for minor in range(24, 30)]
