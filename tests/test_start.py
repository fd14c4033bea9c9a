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


def test_it_is_the_command_line() -> None:
    script = f"import sys; from {entry()} import main; sys.argv[1:] = ['--help']; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ")
