"""What the board learnt and nobody has pulled is never lost, however often it trains anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import runs
from sparsetune.board import Board
from sparsetune.errors import SparsetuneError
from sparsetune.transfer import save_aside
from sparsetune_device import checkpoint
from test_cli import run


def learn(twin: runs.Twin, task: runs.Task, seed: int, **more: object) -> bytes:
    return twin.train(lambda line: None, **{**task.options, "seed": seed, **more})


def test_a_third_run_is_refused_until_one_was_pulled() -> None:
    task = runs.digits_task(steps=5)
    with runs.Twin(task.image.data, task.samples) as twin:
        path = twin.path / "trained.ckpt"
        old = path.with_name("trained.ckpt.old")
        first, second = (learn(twin, task, seed) for seed in (1, 2))
        with pytest.raises(SparsetuneError, match="not pulled: pull the first, or train with"):
            learn(twin, task, 3)
        assert old.read_bytes() == first and path.read_bytes() == second
        checkpoint.mark_pulled(str(path), str(path))
        third = learn(twin, task, 3, steps=1)
        assert old.read_bytes() == first and path.read_bytes() == third
        checkpoint.mark_pulled(str(path), str(old))
        fourth = learn(twin, task, 4)  # `first` learnt for longer, but is safe
        assert old.read_bytes() == third and path.read_bytes() == fourth
        checkpoint.mark_pulled(str(path), str(path))
        assert not checkpoint.is_pulled(str(path), str(old))
        learn(twin, task, 5, discard=True)


def test_a_full_file_system_costs_nothing_unpulled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for a third checkpoint, the oldest goes only if it was pulled."""
    task = runs.digits_task(steps=5)
    write = checkpoint._write

    def no_room(path: str, *rest: object) -> None:
        if Path(path + checkpoint.OLD).exists():
            raise OSError(28, "no room")
        write(path, *rest)

    with runs.Twin(task.image.data, task.samples) as twin:
        path = twin.path / "trained.ckpt"
        first = learn(twin, task, 1)
        monkeypatch.setattr(checkpoint, "_write", no_room)
        with pytest.raises(SparsetuneError, match="nobody has pulled .*trained.ckpt.old"):
            learn(twin, task, 2)
        old = path.with_name("trained.ckpt.old")
        assert old.read_bytes() == first
        checkpoint.mark_pulled(str(path), str(old))
        learn(twin, task, 2)
        assert not old.exists()


def test_files_of_their_own(tmp_path: Path) -> None:
    """As many steps of the same image, learnt otherwise, take another name."""
    task = runs.digits_task(steps=5)
    with runs.Twin(task.image.data, task.samples) as twin:
        learnt = [learn(twin, task, seed, discard=True) for seed in (1, 2, 1)]
    paths = [save_aside(data, tmp_path) for data in learnt]
    assert paths[0] == paths[2] != paths[1]
    assert [path.read_bytes() for path in paths] == learnt


def test_training_again_and_again_on_the_emulated_pico(
    emulated_pico, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = runs.digits_task(steps=5)
    port = str(emulated_pico.port_link)
    with Board.connect(port) as board:
        runs.push(board, task)
    monkeypatch.chdir(tmp_path)
    train = ("train", "--port", port, "--plain", "--steps", 5)
    saved: list[bytes] = []
    for seed in (1, 2, 3):
        result = run(*train, "--seed", seed)
        assert result.returncode == 0, result.stderr
        saved += [Path(p).read_bytes() for p in re.findall(r"saved as (\S+),", result.stdout)]
    assert run("pull", "-o", "third.ckpt", "--port", port).returncode == 0
    saved.append(Path("third.ckpt").read_bytes())
    assert [re.findall(rb"seed=(\d)", data) for data in saved] == [[b"1"], [b"2"], [b"3"]]
    again = run(*train, "--seed", 4)
    assert again.returncode == 0 and "saved as" not in again.stdout  # all of it is here
