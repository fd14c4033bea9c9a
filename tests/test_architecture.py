"""Who may import whom, and who alone may know what (docs/DESIGN.md, The house)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"sparsetune", "sparsetune_device", "sparsetune_kernels", "sparsetune_tools"}
MAY_IMPORT = {
    "device/sparsetune_device": {"sparsetune_device", "sparsetune_kernels"},
    "host/sparsetune": {"sparsetune", "sparsetune_device", "sparsetune_kernels"},
    "tools/sparsetune_tools": OURS,
}
# What the device package may import: modules that MicroPython has.
MICROPYTHON = {
    *("array", "binascii", "gc", "hashlib", "machine", "micropython", "os", "rp2", "struct"),
    *("select", "sys", "time", "vfs", "io", "uctypes"),
    "sparsetune_board",  # of our firmware (boards/SPARSETUNE_PICO/modules)
    "sparsetune_link",  # of our firmware too, where it has a fast line (link.c)
}
# module -> the one file of host that may know it.
SOLE_OWNERS = {
    "mpremote": "board.py",
    "ai_edge_litert.schema_py_generated": "tflite.py",
    "flatbuffers": "tflite.py",
    "esptool": "esptool_run.py",
}
# word -> the one file of host that may hold it.
SOLE_WORDS = {"OpResolverType": "litert.py", "INFO_UF2": "flash.py", "SerialTransport": "board.py"}


def sources(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    return files


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, relative ones resolved to their package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(path.parent.name if node.level else node.module or "")
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names.update(a.value for a in node.args if isinstance(a, ast.Constant))
    return names


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_follow_the_chain(folder: str) -> None:
    for path in sources(folder):
        used = {name.split(".")[0] for name in imports(path)} & OURS
        assert used <= MAY_IMPORT[folder], path


def test_device_imports_only_what_micropython_has() -> None:
    for path in sources("device/sparsetune_device"):
        others = {name.split(".")[0] for name in imports(path)} - OURS
        assert others <= MICROPYTHON, path


@pytest.mark.parametrize("module", SOLE_OWNERS)
def test_one_file_knows(module: str) -> None:
    knowing = [
        path.name
        for path in sources("host/sparsetune")
        if any(name == module or name.startswith(module + ".") for name in imports(path))
        or f'"{module}' in path.read_text()
    ]
    assert set(knowing) <= {SOLE_OWNERS[module]}


@pytest.mark.parametrize("word", SOLE_WORDS)
def test_one_file_uses(word: str) -> None:
    using = [p.name for p in sources("host/sparsetune") if word in p.read_text()]
    assert using == [SOLE_WORDS[word]]


@pytest.mark.parametrize("folder", ["host/sparsetune", "device/sparsetune_device", "ulab_kernels"])
def test_nothing_knows_that_a_board_is_emulated(folder: str) -> None:
    for path in sorted((ROOT / folder).glob("*.*")):
        if path.suffix in (".py", ".c", ".h"):
            assert not re.search(r"rp2040js|emulated_pico|EmulatedPico|bootrom", path.read_text())


def test_kernels_have_no_allocation_and_no_float() -> None:
    for path in sorted((ROOT / "ulab_kernels").glob("*.c")):
        code = re.sub(r"//.*", "", path.read_text())
        words = set(re.findall(r"\w+", code))
        if not path.name.startswith("bind_"):
            assert not words & {"malloc", "calloc", "free", "float", "double"}, path


def test_the_method_table_stands_once() -> None:
    table = (ROOT / "ulab_kernels" / "methods.def.h").read_text()
    names = re.findall(r"^ST_METHOD\((\w+),", table, re.M)
    assert names
    for binding in ("bind_micropython.c", "bind_cpython.c"):
        text = (ROOT / "ulab_kernels" / binding).read_text()
        assert text.count('#include "methods.def.h"') >= 2
        assert not [name for name in names if f'"{name}"' in text or f"mod_{name}" in text]
