"""The kernels as a native module for ESP32-S3, without the instruction that QEMU's core has not
(MULSH), in MicroPython on that core (tools/xtensa/port): what its methods answer, and whole
training runs of the device package."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import runs
from shared_tasks import shared_folder
from sparsetune_tools import natmod, xtensa_port
from test_native_module import DEVICE, METHODS, call_of, files_of, twin_answer

SHARED = shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no shared models and data")
DIVISIONS = """
import struct
data = open("pairs", "rb").read()
with open("quotients", "wb") as file:
    for at in range(0, len(data), 8):
        a, b = struct.unpack_from("<2f", data, at)
        file.write(struct.pack("<f", a / b))
"""
DEEP = """
import gc, os
def deeper(n):
    if n:
        return [n, deeper(n - 1)]
    gc.collect()
    raise ValueError([str(i) for i in range(100)][42])
for i in range(50):
    try:
        deeper(i)
    except ValueError as error:
        assert str(error) == "42"
def endless():
    return endless()
try:
    endless()
except RuntimeError as error:
    print(error)
os.mkdir("folder")
open("folder/a", "w").write("text")
os.rename("folder/a", "folder/b")
print(os.listdir("folder"), os.stat("folder/b")[6], open("folder/b").read())
os.remove("folder/b")
os.rmdir("folder")
"""


@pytest.fixture(scope="module")
def micropython(xtensa: object) -> list[str]:
    return xtensa_port.build()


def run_script(micropython: list[str], text: str, folder: Path) -> str:
    """What it prints."""
    (folder / "script.py").write_text(text)
    done = subprocess.run([*micropython, "script.py"], cwd=folder, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_module(folder: Path) -> None:
    shutil.copy(natmod.build("xtensawin", "qemu"), folder)


def test_the_port_keeps_to_python(micropython: list[str], tmp_path: Path) -> None:
    """Exceptions across windows of registers, collections below them, files."""
    told = run_script(micropython, DEEP, tmp_path)
    assert told == "maximum recursion depth exceeded\n['b'] 4 text\n"


def test_the_port_divides_as_others_do(micropython: list[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, (3000, 2), np.uint32)
    bits[:500] = bits[:500] & 0x807FFFFF | rng.integers(0, 3, (500, 2), np.uint32) << 23
    bits[500:600] &= 0xFF800003
    pairs = bits.view(np.float32)
    pairs = pairs[pairs[:, 1] != 0]
    (tmp_path / "pairs").write_bytes(pairs.astype("<f4").tobytes())
    run_script(micropython, DIVISIONS, tmp_path)
    got = np.frombuffer((tmp_path / "quotients").read_bytes(), "<f4")
    with np.errstate(all="ignore"):
        expected = pairs[:, 0] / pairs[:, 1]
    assert np.array_equal(got, expected, equal_nan=True)
    assert np.count_nonzero(abs(expected) < 2.0**-126) > 100


def test_the_number_of_its_module_is_an_s3s(micropython: list[str], tmp_path: Path) -> None:
    """sys.implementation._mpy: version 6.3, architecture 10 (xtensawin)."""
    told = run_script(micropython, "import sys\nprint(sys.implementation._mpy)", tmp_path)
    assert int(told) == 10 << 10 | 3 << 8 | 6
    header = struct.unpack("4B", natmod.build("xtensawin").read_bytes()[:4])
    assert header[:2] == (ord("M"), 6) and header[2] == 10 << 2 | 3


def test_its_methods_answer_as_the_twins(micropython: list[str], tmp_path: Path) -> None:
    copy_module(tmp_path)
    assert run_script(micropython, METHODS, tmp_path) == twin_answer()


def check_training(micropython: list[str], task: runs.Task, folder: Path) -> None:
    files_of(task, folder)
    copy_module(folder)
    paths = f"import sys\nsys.path.append({str(DEVICE)!r})\n"
    lines = run_script(micropython, paths + call_of(task), folder).splitlines()
    twin_lines, twin_checkpoint = runs.twin_train(task)
    assert len(runs.losses(lines)) == task.options["steps"]
    assert runs.telemetry(lines) == runs.telemetry(twin_lines)
    assert (folder / "trained.ckpt").read_bytes() == twin_checkpoint


def test_training_equals_the_twin(micropython: list[str], tmp_path: Path) -> None:
    check_training(micropython, runs.digits_task(steps=20), tmp_path / "board")


@needs_shared
def test_training_kws_equals_the_twin(micropython: list[str], tmp_path: Path) -> None:
    check_training(micropython, runs.kws_task(SHARED, steps=100), tmp_path / "board")


@needs_shared
def test_training_resnet_equals_the_twin(micropython: list[str], tmp_path: Path) -> None:
    check_training(micropython, runs.cifar_task(SHARED, steps=10), tmp_path / "board")
