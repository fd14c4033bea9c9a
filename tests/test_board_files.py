"""Room on the board's file system: what plan promises fits, and what lies in the way is told or
goes before anything is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from sparsetune.board import Board
from sparsetune.board_files import BOARD_DATA, BOARD_TRAINED, look, make_room
from sparsetune.boardspec import load_spec
from sparsetune.compile import compile_image
from sparsetune.data import HEADER_BYTES
from sparsetune.errors import SparsetuneError
from sparsetune.image import Image, parse_image
from sparsetune.littlefs import BLOCK, blocks_of, capacity
from sparsetune.plan import default_plan
from sparsetune.push import push_file
from sparsetune.room import CHECKPOINT_TEXT, files_room
from sparsetune.tflite import read_tflite
from sparsetune.transfer import mark_pulled
from test_cli import run

WRITE = """
file = open({path!r}, "wb")
piece = bytes(4096)
for at in range(0, {size}, 4096):
    file.write(piece[:min(4096, {size} - at)])
file.close()
"""


@pytest.mark.parametrize("size", [1, 4096, 4097, 8188, 8189, 16372, 400_000, 491_520])
def test_blocks_of_a_file(size: int) -> None:
    blocks = blocks_of(size)
    assert capacity(blocks - 1) < size <= capacity(blocks)
    # littlefs: block i holds ctz(i) + 1 pointers.
    ctz = [(i & -i).bit_length() for i in range(1, blocks)]
    assert capacity(blocks) == BLOCK * blocks - 4 * sum(ctz)


@pytest.fixture
def board(emulated_pico: Any) -> Iterator[Board]:
    """With an empty file system, before and after."""
    port = str(emulated_pico.port_link)
    with Board.connect(port) as board:
        _empty(board)
        yield board
    with Board.connect(port) as board:
        _empty(board)


EMPTY = """
import os
def st_empty(folder):
    for name, kind, *_ in os.ilistdir(folder or "/"):
        path = folder + "/" + name
        if kind != 0x4000:
            os.remove(path)
        elif path != "/rom":
            st_empty(path)
            if path != "/sparsetune":
                os.rmdir(path)
st_empty("")
"""


def _empty(board: Board) -> None:
    board.soft_reset()
    board.exec(EMPTY)


def _write(board: Board, path: str, size: int) -> None:
    board.exec(WRITE.format(path=path, size=size), timeout=120)


def test_what_plan_promises_fits(board: Board) -> None:
    """Samples and two checkpoints, and not three blocks more."""
    state = 20_000
    room = files_room(load_spec("pico"), state) + HEADER_BYTES
    assert push_file(board, BOARD_DATA, os.urandom(room))
    for path in (BOARD_TRAINED, BOARD_TRAINED + ".part"):
        _write(board, path, 32 + state + CHECKPOINT_TEXT)
    mark_pulled(board)
    assert 0 <= look(board, ()).free <= 3


def _other_image() -> Image:
    """Of the digits too, with another plan."""
    graph = read_tflite(runs.DIGITS)
    return parse_image(compile_image(graph, default_plan(graph, 6, 0.25)).image)


def _fill(board: Board, free: int) -> None:
    """Leaves so many blocks."""
    _write(board, "/mine.bin", capacity(look(board, ()).free - free))


def test_pulled_checkpoints_of_other_images_go(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    task, other = runs.digits_task(steps=5), _other_image()
    runs.board_train(board, task)
    files = {BOARD_DATA: len(task.samples)}
    _fill(board, 6)
    with pytest.raises(SparsetuneError, match="bytes are missing") as refusal:
        make_room(board, files, other)
    assert refusal.value.more[0].endswith(f" bytes: mpremote connect {board.port} rm :/mine.bin")
    assert any(f"rm :{BOARD_TRAINED}" in line for line in refusal.value.more)  # nobody has it
    assert board.has_file(BOARD_TRAINED) and not capsys.readouterr().out
    mark_pulled(board)
    make_room(board, files, task.image)  # of this model: it may be resumed
    assert board.has_file(BOARD_TRAINED)
    make_room(board, files, other)
    assert not board.has_file(BOARD_TRAINED)
    assert "another model's checkpoint, pulled before" in capsys.readouterr().out


def test_nothing_is_replaced_without_room(board: Board, tmp_path: Path) -> None:
    """Neither image nor samples: with equal shapes they would go with each other."""
    task = runs.digits_task(steps=5)
    runs.push(board, task)
    _fill(board, 3)
    board.close()
    image, data = tmp_path / "other.img", tmp_path / "more.npz"
    image.write_bytes(_other_image().data)
    np.savez(data, x_train=np.tile(task.train.x, (4, 1, 1, 1)), y_train=np.tile(task.train.y, 4))
    pushed = run("push", image, "--data", data, "--port", board.port)
    assert pushed.returncode == 1 and ":/mine.bin" in pushed.stderr
    with Board.connect(board.port) as again:
        assert again.read_file(BOARD_DATA) == task.samples
        assert again.read_file("/rom/model.img") == task.image.data


def test_evaluate_asks_for_training_before_it_sends(board: Board, tmp_path: Path) -> None:
    task, other = runs.digits_task(steps=5), tmp_path / "other.img"
    runs.push(board, task)
    board.close()
    other.write_bytes(_other_image().data)
    data = tmp_path / "s.npz"
    np.savez(data, x_train=task.train.x, y_train=task.train.y)
    command = ("evaluate", other, data, "--port", board.port)
    early = run(*command)
    assert "nothing yet: train first, or say --untrained" in early.stderr and not early.stdout
    with Board.connect(board.port) as again:
        runs.board_train(again, task)
    wrong = run(*command)
    assert "another image" in wrong.stderr and "--untrained" in wrong.stderr and not wrong.stdout
    assert run(*command, "--untrained").returncode == 0
