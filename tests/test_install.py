"""An install without the checkout, as `pip install .` makes it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from runs import DIGITS

PARTS = ("boards", "device", "host", "tools/sparsetune_tools", "ulab_kernels")
MODULE = b"M\x06\x13\x1fmodule"  # version 6, native code 3 of armv6m
PICO = 6 | 3 << 8 | 4 << 10
QUICK = "-O0 -fwrapv -std=c99"  # the compiler's minute is not what is tested


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    env = {**os.environ, "SPARSETUNE_CFLAGS": QUICK}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a build folder behind."""
    folder = tmp_path_factory.mktemp("project")
    for part in PARTS:
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
        shutil.copytree(ROOT / part, folder / part, ignore=unwanted)
    for file in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / file, folder)
    compiled = folder / "build" / "modules" / "sparsetune_device"
    compiled.mkdir(parents=True)
    (compiled.parent / "armv6m-small.mpy").write_bytes(MODULE)
    source = ROOT / "device" / "sparsetune_device" / "clock.py"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    (compiled / "SOURCES").write_text(f"{digest} clock.py\n")
    (compiled / "clock.mpy").write_bytes(MODULE)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder / "dist", folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.mark.slow
def test_a_wheel_holds_the_boards(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for board in (ROOT / "boards").glob("*.toml"):
        assert f"sparsetune/boards/{board.name}" in names
    assert not [name for name in names if "SPARSETUNE_PICO" in name]


@pytest.mark.slow
def test_an_install_plans_outside_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", site, wheel)
    shutil.copy(DIGITS, tmp_path / "model.tflite")

    def run(*words: str, module: str = "sparsetune.start") -> subprocess.CompletedProcess[str]:
        code = "import sparsetune, sys; print(sparsetune.__file__)\n"
        code += f"from {module} import main; sys.exit(main())"
        command = [sys.executable, "-c", code, *words]
        env = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    code = "from sparsetune.native import native_module, device_files\n"
    code += f"print(native_module({PICO}, 'small', 'it'), *device_files({PICO}))"
    env = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True,
                           capture_output=True, text=True).stdout  # fmt: skip
    assert repr(MODULE) in found and " clock.mpy" in found and " main.py" in found
    planned = run("plan", "model.tflite", "-o", "plan.json")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith(str(site)) and (tmp_path / "plan.json").is_file()
    flashed = run("flash", "--dry-run")
    assert "cannot read build/firmware/SPARSETUNE_PICO/firmware.uf2" in flashed.stderr
    emulated = run(module="sparsetune_tools.emulate")
    assert "run this in the project's folder" in emulated.stderr
