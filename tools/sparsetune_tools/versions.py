"""MicroPython of several versions, each as its project publishes it for web browsers (npm): the
virtual machine of a board's firmware, without native code. Kernels are called through a pipe.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from .emulated_pico import node_command
from .firmware import KERNELS
from .shell import BUILD, ROOT, Missing, locked, run

FOLDER = ROOT / "tools" / "versions"
METHOD = re.compile(r'^ST_METHOD\((\w+), \w+, "(\w*)"\)', re.MULTILINE)
# The module `sparsetune_kernels` there. Letters: methods.def.h.
STAND_IN = """
import bridge as _bridge, json as _json
def _make(name, letters):
    def method(*given):
        if len(given) != len(letters):
            raise TypeError(name)
        told = []
        with open("/buffers", "wb") as file:
            for letter, value in zip(letters, given):
                told.append(value if letter == "i" else file.write(value))
        answer = _json.loads(_bridge.call(name, _json.dumps(told)))
        if "error" in answer:
            raise ValueError(answer["error"])
        with open("/buffers", "rb") as file:
            for letter, value in zip(letters, given):
                if letter == "w":
                    file.readinto(value)
        return answer["value"]
    return method
"""


def methods() -> dict[str, str]:
    """The kernels' method table: name -> a letter an argument."""
    return dict(METHOD.findall((KERNELS / "methods.def.h").read_text()))


def pinned() -> dict[str, str]:
    """The versions that there are, as their project counts them: 1.24 -> 1.24.1."""
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    name = "node_modules/micropython-"
    return {path.removeprefix(name): package["version"] for path, package in packages.items()
            if path.startswith(name)}


def install() -> None:
    """The packages of package-lock.json, which names their hashes. Raises Missing without npm."""
    npm, lock = shutil.which("npm"), FOLDER / "package-lock.json"
    if not npm:
        raise Missing("npm is missing; run: apt-get install npm")
    stamp = FOLDER / "node_modules" / ".package-lock.json"
    with locked(BUILD / "versions"):
        if not stamp.is_file() or stamp.stat().st_mtime < lock.stat().st_mtime:
            run("npm ci", [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                BUILD / "logs" / "versions.log", cwd=FOLDER)
            stamp.touch()


class Kernels:
    """Answers calls on behalf of the kernels. module: those of CPython."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.letters = methods()

    def answer(self, name: str, given: list[int], data: bytes) -> tuple[dict[str, Any], bytes]:
        """given: numbers, and of buffers their sizes; they lie one behind the other in data."""
        arguments: list[Any] = []
        for letter, value in zip(self.letters[name], given, strict=True):
            if letter == "i":
                arguments.append(value)
            else:
                arguments.append(bytearray(data[:value]))
                data = data[value:]
        try:
            told = {"value": getattr(self.module, name)(*arguments)}
        except ValueError as error:
            told = {"error": str(error)}
        written = (each for letter, each in zip(self.letters[name], arguments, strict=True)
                   if letter == "w")
        return told, b"".join(written)


def write_files(folder: Path, script: str, files: Mapping[str, bytes]) -> None:
    """What run.mjs takes; files: path -> content."""
    stand_in = STAND_IN + "".join(f"{name} = _make({name!r}, {letters!r})\n"
                                  for name, letters in methods().items())
    ours = {"main.py": script.encode(), "sparsetune_kernels.py": stand_in.encode()}
    for name, content in {**ours, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def converse(process: subprocess.Popen[bytes], answer: Callable[..., tuple[dict[str, Any], bytes]]
             ) -> list[str]:
    """Answers until the process ends; returns the lines that it printed."""
    to, source, lines = _pipe(process.stdin), _pipe(process.stdout), []
    while head := source.readline():
        message = json.loads(head)
        data = source.read(message["bytes"])
        if "line" in message:
            lines.append(message["line"])
            continue
        told, written = answer(message["call"], message["given"], data)
        to.write(json.dumps({**told, "bytes": len(written)}).encode() + b"\n" + written)
        to.flush()
    return lines


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def run_script(version: str, script: str, files: Mapping[str, bytes], module: Any) -> list[str]:
    """The lines that a script prints. version: of pinned(). module: the kernels of CPython. Raises
    RuntimeError with what it printed where it ends with an exception."""
    install()
    with tempfile.TemporaryDirectory() as scratch:
        write_files(Path(scratch), script, files)
        command = [node_command(), str(FOLDER / "run.mjs"), version, scratch]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            lines = converse(process, Kernels(module).answer)
            error = _pipe(process.stderr).read().decode()
    if process.returncode:
        raise RuntimeError("\n".join([f"MicroPython {version} stopped:", *lines, error]))
    return lines
