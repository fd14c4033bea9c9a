"""What every build tool here does: run programs with a log, and stop with one clear line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
LOG_TAIL_LINES = 15
TICK_SECONDS = 10
# From a `make` above us, or from the user's shell: they would change what is built.
NOT_INHERITED = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "CFLAGS", "CPPFLAGS",
                 "CXXFLAGS", "ASMFLAGS", "LDFLAGS", "CFLAGS_EXTRA"}


class ToolError(Exception):
    """One line for the user: what is wrong and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def show(path: Path) -> str:
    """A path as the user would type it: relative to the project when it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


class Missing(ToolError):
    """The machine has not what this needs, nor a way to it: no failure of ours, and no error where
    one can do without."""


class Ticker:
    """Says every few seconds that a long program is still at work, and how far it is."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.start = self.said = time.monotonic()

    def line(self, text: str) -> None:
        now = time.monotonic()
        if now - self.said < TICK_SECONDS:
            return
        self.said = now
        percent = re.match(r"\[ *(\d+)%\]", text)
        done = f", {percent[1]} %" if percent else ""
        say(f"{self.what}: {now - self.start:.0f} s{done}")


def run(what: str, command: Sequence[str | Path], log: Path,
        env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program, its output appended to `log`, and return what it printed.

    Raises ToolError, after the last lines of the output, when it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    output, ticker = [], Ticker(what)
    with log.open("a") as file, subprocess.Popen(
            words, cwd=cwd, text=True, errors="replace", env={**inherited, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT) as process:
        file.write("$ " + " ".join(words) + "\n")
        for line in process.stdout or ():
            file.write(line)
            output.append(line)
            ticker.line(line)
    if process.returncode:
        print("".join(output[-LOG_TAIL_LINES:]), end="", file=sys.stderr)
        raise ToolError(f"{what} failed (all of its output: {show(log)})")
    return "".join(output)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, so that two runs at once build one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_if_changed(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; keep its time when nothing changed."""
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def run_main(main: Callable[[], None]) -> None:
    """Run a tool's main function: errors become one line and exit status 1."""
    try:
        main()
    except ToolError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run it again to go on")
