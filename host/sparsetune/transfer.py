"""What goes to the board for a training run: where it lies there, checked, with progress shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sparsetune.board import Board, Damage, PortLost, Silence
from sparsetune.board_files import BOARD_TRAINED, CHECKPOINTS, make_room
from sparsetune.data import MAGIC, doubts, fit_dataset, load_npz, sample_file
from sparsetune.errors import SparsetuneError, warn
from sparsetune.files import read_file, write_whole
from sparsetune.image import HEADER_WORDS, parse_ends, parse_image
from sparsetune.options import policy_file
from sparsetune.pulled import Line, complete, split
from sparsetune.push import push_file, push_rom

ROM_IMAGE = "model.img"
BOARD_IMAGE = f"/rom/{ROM_IMAGE}"
FILE_IMAGE = f"/sparsetune/{ROM_IMAGE}"  # where there is no ROMFS: a run reads it into RAM
MODULE = "from sparsetune_device.checkpoint import"
IS_PULLED = f"""
try:
    {MODULE} is_pulled
    print(int(is_pulled({BOARD_TRAINED!r}, {{path!r}})))
except ImportError:
    print(0)
"""
READ_HEAD = f"""
try:
    with open({{path!r}}, "rb") as file:
        print("".join("%02x" % byte for byte in file.read({4 * HEADER_WORDS})))
except OSError:
    pass
"""
MARK_PULLED = f"""
try:
    {MODULE} mark_pulled
    mark_pulled({BOARD_TRAINED!r}, {{path!r}})
except (ImportError, OSError):
    pass  # a full file system: then it is fetched once more
"""


def push_image(
    board: Board, image: bytes, replace: bool = False, files: Mapping[str, int] | None = None
) -> None:
    """Make `image` the board's model, and say how it went. What was learnt before is fetched first:
    some of it can only be while its own image is there. files: sizes, by path, of the files that
    are to be pushed then: without room for them the old image stays."""
    remote = image_path(board)
    rescue(board)
    if remote == FILE_IMAGE:
        make_room(board, {**(files or {}), remote: len(image)}, parse_image(image))
        push_data(board, remote, image)
        return
    if files:
        make_room(board, files, parse_image(image))
    with Bar(BOARD_IMAGE, len(image)) as bar:
        bar.end(push_rom(board, {ROM_IMAGE: image}, bar.update, replace))


def image_path(board: Board) -> str:
    """Where the board's model is: in ROMFS where it has that."""
    return BOARD_IMAGE if board.identify().romfs_bytes else FILE_IMAGE


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


def push_policy(board: Board, policy: str | None) -> None:
    """Copies the file of a policy given as FILE.py:CLASS to where the board imports it from."""
    path = policy_file(policy)
    if path is not None:
        push_file(board, f"/{path.name}", read_file(path))


def pull_checkpoint(board: Board, path: str = BOARD_TRAINED) -> bytes:
    """What the board learnt, complete (pulled.py)."""

    def tell(out: Line) -> None:
        board.stream(
            "from sparsetune_device.main import tell_columns\n"
            f"tell_columns({image_path(board)!r}, {path!r})",
            out,
        )

    return complete(board.read_file(path), tell)


def mark_pulled(board: Board, path: str = BOARD_TRAINED) -> None:
    """Tell the board that what it learnt is safe here."""
    board.exec(MARK_PULLED.format(path=path))


def rescue(board: Board, paths: Iterable[str] = CHECKPOINTS) -> None:
    """Fetches to out/ what the board learnt and nobody has pulled, which the next run or another
    image may cost. Raises SparsetuneError where the way to the board fails."""
    for path in paths:
        if not board.has_file(path) or board.exec(IS_PULLED.format(path=path)).strip() == "1":
            continue
        try:
            data = pull_checkpoint(board, path)
        except (PortLost, Silence, Damage):
            raise
        except SparsetuneError as error:
            print(f"{path} cannot be fetched whole any more ({error})")
            continue
        local = save_aside(data)
        mark_pulled(board, path)
        print(f"the board had learnt what nobody has pulled: saved as {local}, for `export`")


def save_aside(data: bytes, folder: Path = Path("out"), whose: str = "board") -> Path:
    """Writes a checkpoint to a file of its own, named after image and steps."""
    head = split(data).head
    name = f"{whose}-{head[2]:08x}-{head[3]}-steps"
    names = chain([name], (f"{name}-{n}" for n in count(2)))
    for path in (folder / f"{name}.ckpt" for name in names):
        if not path.exists() or path.read_bytes() == data:
            write_whole(path, data)
            return path
    raise AssertionError("there are names without end")


def is_checked(path: Path) -> bool:
    """Whether the samples in this file are looked at with the image that they are for."""
    return path.suffix == ".npz"


def image_head(board: Board) -> bytes:
    """The beginning of the board's image. Raises SparsetuneError where it has none."""
    head = bytes.fromhex(board.exec(READ_HEAD.format(path=image_path(board))).strip())
    if not head:
        raise SparsetuneError(
            "the board has no image to check the samples against: push model.img with them"
        )
    return head


def sample_bytes(path: Path, image: bytes = b"") -> bytes:
    """The sample file to push: made from an .npz (its training part), which takes the image that
    it is for, or the beginning of it, or taken as it is. Raises SparsetuneError."""
    if not is_checked(path):
        data = read_file(path)
        if data[:4] != MAGIC:
            raise SparsetuneError(f"{path} holds no samples: give an .npz (x_train, y_train)")
        return data
    source, task = parse_ends(image, BOARD_IMAGE)
    train = fit_dataset(load_npz(path)[0], source, task)
    warn(doubts(train, task))
    return sample_file(train, task)
