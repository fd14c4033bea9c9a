"""Samples that the board's file system has no room for are told before anything takes long."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from runs import DIGITS
from sparsetune import cli, tune
from sparsetune.errors import SparsetuneError
from sparsetune.options import run_options
from sparsetune.target import OnTwin

MANY = 4096  # samples of 256 bytes, in a file system of half as many
NEARLY = 1800  # which leave room for little else
FULL = rf"{MANY:,} samples take [\d,]+ bytes, the board's file system has room for 1,\d+ of them: "


def never_measured(*_: object) -> str:
    raise AssertionError("a rate was measured first")


def samples(path: Path, count: int) -> Path:
    """So many to train on, and some held out."""
    x, y = np.zeros((count, 16, 16, 1), np.int8), np.arange(count) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:3] + 1, y_test=y[:3])
    return path


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), FULL + "give fewer, or smaller ones"),
        (("--keep", "2000"), "room for 0 of them: give fewer"),
        (("--cache",), "no room for a cache beside the samples"),
        (("--replay", "few.npz"), "a rate was measured"),  # of 200 earlier ones ten are there
    ],
)
def test_more_samples_than_the_board_holds(
    more: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before a learning rate is measured."""
    monkeypatch.setattr("sparsetune.commands.choose_rate", never_measured)
    monkeypatch.chdir(tmp_path)
    samples(Path("few.npz"), 10)
    name = str(samples(Path("s.npz"), NEARLY if more else MANY))
    args = cli.build_parser().parse_args(["tune", str(DIGITS), name, *more])
    with pytest.raises((SparsetuneError, AssertionError), match=message):
        tune.run(args, run_options(args), OnTwin(1 << 17), "port")


def test_samples_without_room_are_told_with_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsetune.commands.choose_rate", lambda *_: "0.01")
    for command, *more in (("plan",), ("build", "-o", tmp_path / "m.img")):
        words = [command, DIGITS, "--data", samples(tmp_path / "s.npz", MANY), *more]
        assert cli.main([str(word) for word in words]) == 0
        told = capsys.readouterr().out
        assert re.search(rf"^warning: {FULL}`push` and `tune` refuse more, but for", told, re.M)
