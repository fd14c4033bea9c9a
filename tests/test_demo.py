"""`make demo`, behind its build: from samples to a trained model on an emulated Pico."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sparsetune_tools import demo

pytest.importorskip("sklearn", reason="SKIP: scikit-learn is not installed (extra: demo)")
FEW = ("--steps", "4", "--rate", "0.01")


def test_it_needs_no_folder_that_a_clone_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer steps than it makes, and by the command line of the package under test."""
    plain = demo.command

    def command(port: str, samples: Path, seed: int) -> list[str]:
        program = "import sys; from sparsetune.cli import main; sys.exit(main())"
        return [sys.executable, "-c", program, *plain(port, samples, seed)[1:], *FEW]

    monkeypatch.setattr(demo, "command", command)
    monkeypatch.setattr(demo, "OUT", tmp_path / "out" / "demo")
    monkeypatch.setattr(demo, "BUILD", tmp_path / "build")
    monkeypatch.setattr(sys, "argv", ["demo"])
    demo.main()
    left = {path.name for path in demo.OUT.iterdir()}
    assert {"digits_trained.tflite", "loss.png", "loss.jsonl"} <= left
