"""The command `sparsetune` from its first moment on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Presses Ctrl-C when that module is looked for.
PRESS = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{name}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["sparsetune", "boards"]
from {module} import main
sys.exit(main())
"""


def entry() -> str:
    """The module of the command."""
    text = (ROOT / "pyproject.toml").read_text()
    return re.findall(r'^sparsetune = "(.+):main"$', text, re.MULTILINE)[0]


@pytest.mark.parametrize("name", ["sparsetune.cli", "sparsetune.board", "numpy"])
def test_ctrl_c_while_it_is_imported_is_one_line(name: str) -> None:
    script = PRESS.format(name=name, module=entry())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "sparsetune: interrupted\n")


@pytest.mark.parametrize("status", [0, 2])
@pytest.mark.parametrize("how", ["script", "module"])
def test_it_is_the_command_line(how: str, status: int) -> None:
    words = ["-c", f"import sys; from {entry()} import main; sys.exit(main())"]
    words = words if how == "script" else ["-m", "sparsetune"]
    words += ["--help"] if status == 0 else ["boards"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    said = done.stderr if status else done.stdout
    assert done.returncode == status
    assert said.startswith("sparsetune: error: " if status else "usage: sparsetune ")
