"""What goes to the board for a training run: where it lies there, checked, with progress shown."""

from __future__ import annotations

import inspect
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from sparsetune_device.channels import make_policy
from sparsetune_device.main import DEFAULTS, merge, train
from sparsetune_device.schedule import Schedule, parse_rate

from sparsetune.board import Board
from sparsetune.data import check_dataset, load_npz, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.files import read_file
from sparsetune.image import parse_image
from sparsetune.push import push_file, push_rom

ROM_IMAGE = "model.img"
BOARD_IMAGE = f"/rom/{ROM_IMAGE}"
BOARD_DATA = "/sparsetune/train.dat"
BOARD_TRAINED = "/sparsetune/trained.ckpt"



def push_image(board: Board, image: bytes, replace: bool = False) -> None:
    """Make `image` the board's model, and say how it went."""
    with Bar(BOARD_IMAGE, len(image)) as bar:
        bar.end(push_rom(board, {ROM_IMAGE: image}, bar.update, replace))


def push_data(board: Board, remote: str, data: bytes) -> None:
    """Write `data` to a file on the board, and say how it went."""
    with Bar(remote, len(data)) as bar:
        bar.end(push_file(board, remote, data, bar.update))


class Bar:
    """A progress bar on a terminal; one line at the end everywhere."""

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total
        self._started = time.monotonic()
        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, transient=True, disable=not sys.stdout.isatty())
        self._task = self._progress.add_task(name, total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes are stored."""
        self._progress.update(self._task, completed=done, total=total)

    def end(self, sent: bool) -> None:
        """Say what happened. sent: False when the board had it already."""
        self._progress.stop()
        seconds = time.monotonic() - self._started
        how = f"{self._total / 1000 / seconds:.0f} KB/s" if sent else "already on the board"
        print(f"{self._name}: {self._total:,} bytes, {how}")


def sample_bytes(path: Path, image: bytes | None) -> bytes:
    """The sample file to push: made from an .npz (its training part), which takes the image that
    it is for, or taken as it is. Raises SparsetuneError."""
    if path.suffix != ".npz":
        return read_file(path)
    if image is None:
        raise SparsetuneError(f"to check {path} name the image too: push model.img --data {path}")
    model = parse_image(image)
    train, _ = load_npz(path)
    check_dataset(train, model.input_shape, model.classes)
    return sample_file(train, model.classes)


def check_settings(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`--set` arguments as keywords of the device's train(). Raises SparsetuneError for others."""
    known = set(inspect.signature(train).parameters) - {"image", "data", "out"}
    for name, _ in pairs:
        if name not in known:
            choices = ", ".join(sorted(known))
            raise SparsetuneError(f"train() takes no {name}: choose among {choices}")
    return dict(pairs)


def check_options(options: dict[str, Any]) -> None:
    """Raises SparsetuneError for what train() would refuse, before anything is pushed."""
    settings = merge({name: options.get(name) for name in DEFAULTS}, "")
    try:
        rate = parse_rate(settings["rate"] or "0")
        Schedule(settings["schedule"], rate, settings["steps"], settings["warmup"])
        make_policy(settings["policy"], [], settings["seed"])
    except ValueError as error:
        raise SparsetuneError(str(error)) from error
