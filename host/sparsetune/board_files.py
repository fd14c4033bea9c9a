"""The files that sparsetune keeps on a board, and room among them: looked for before anything is
replaced, and made where what lies in the way is safe on this computer."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sparsetune_device.checkpoint import OLD
from sparsetune_device.data import cache_of
from sparsetune_device.replay import path_of as replay_of

from .board import Board
from .errors import SparsetuneError
from .image import Image
from .littlefs import BLOCK, MARGIN, blocks_of
from .room import checkpoints_blocks

BOARD_DATA = "/sparsetune/train.dat"
BOARD_TEST = "/sparsetune/test.dat"
BOARD_CACHE = cache_of(BOARD_DATA)
BOARD_REPLAY = replay_of(BOARD_DATA)
BOARD_TRAINED = "/sparsetune/trained.ckpt"
CHECKPOINTS = (BOARD_TRAINED, BOARD_TRAINED + OLD)
# Nobody needs them once the command that made them has ended; a cache is made again.
WRITTEN = (BOARD_TEST, BOARD_DATA, BOARD_REPLAY, BOARD_TRAINED)
LEFT_BEHIND = (BOARD_TEST, BOARD_CACHE, *(path + ".part" for path in WRITTEN))
INSTALLED = "/lib/sparsetune_"  # how files of kernels and device package begin (install.py)
NAMED = 5  # files in a message

_LOOK = """
def _st_look():
    import os, struct
    def attempt(f, path, otherwise):
        try:
            return f(path)
        except (OSError, ImportError, ValueError):
            return otherwise
    def size(path):
        return os.stat(path)[6]
    def image(path):
        with open(path, "rb") as file:
            return struct.unpack("<8xI", file.read(12))[0]
    def pulled(path):
        from sparsetune_device.checkpoint import is_pulled
        return is_pulled({trained!r}, path)
    info = os.statvfs("/")
    print(info[3], {{path: attempt(size, path, -1) for path in {paths!r}}},
        {{path: (attempt(image, path, 0), attempt(pulled, path, False)) for path in {kept!r}}},
        sep=";")
_st_look()
del _st_look
"""

_LIST = """
def _st_list(folder):
    import os
    for name in os.listdir(folder or "/"):
        path = folder + "/" + name
        info = os.stat(path)
        if info[0] & 0x4000:
            if path != "/rom":
                _st_list(path)
        else:
            print(info[6], path)
_st_list("")
del _st_list
"""


@dataclass(frozen=True)
class Kept:
    """A checkpoint on the board. image: checksum of the image that it is of."""

    image: int
    is_pulled: bool


@dataclass(frozen=True)
class Files:
    """free: blocks of the file system. sizes: bytes by path, of files that are there."""

    free: int
    sizes: dict[str, int]
    kept: dict[str, Kept]

    def blocks(self, paths: Iterable[str]) -> int:
        return sum(blocks_of(self.sizes.get(path, 0)) for path in paths)


def look(board: Board, paths: Iterable[str]) -> Files:
    """What of `paths` and of our own files is on the board, and how much room is left."""
    paths = sorted({*paths, *CHECKPOINTS, *LEFT_BEHIND})
    kept = list(CHECKPOINTS)
    answer = board.exec(_LOOK.format(trained=BOARD_TRAINED, paths=paths, kept=kept))
    free, sizes, heads = (ast.literal_eval(part) for part in answer.strip().split(";"))
    there = {path: size for path, size in sizes.items() if size >= 0}
    found = {path: Kept(*head) for path, head in heads.items() if path in there}
    return Files(free, there, found)


def check_trained(board: Board, image: Image) -> None:
    """Raises SparsetuneError where the board has learnt nothing for `image`."""
    kept = look(board, ()).kept.get(BOARD_TRAINED)
    if kept is None:
        raise SparsetuneError(
            "the board has learnt nothing yet: train first, or say --untrained for the model as it "
            "came"
        )
    if kept.image != image.crc:
        raise SparsetuneError(
            "what the board has learnt belongs to another image: name that one, train with this "
            "one first, or say --untrained for the model as it came"
        )


def make_room(board: Board, files: Mapping[str, int], image: Image | None = None) -> None:
    """Raises SparsetuneError where the board has no room for `files` (sizes by path), which take
    the place of their namesakes, and for checkpoints of `image`, which comes with them. Where that
    helps, pulled checkpoints of other images go."""
    found = look(board, files)
    for path in _going(board, found, files, image):
        board.remove_file(path)
        what = "another model's checkpoint, pulled before" if path in CHECKPOINTS else "left over"
        print(f"removed from the board: {path}, {what}")


def check_room(
    board: Board, files: Mapping[str, int], image: Image | None = None, taken: int = 0
) -> None:
    """As make_room, for a board of which other files take `taken` blocks first; removes nothing.
    What nobody has pulled counts as pulled: it will be, before room is made."""
    found = look(board, files)
    kept = {path: replace(one, is_pulled=True) for path, one in found.kept.items()}
    _going(board, replace(found, free=found.free - taken, kept=kept), files, image)


def _going(board: Board, found: Files, files: Mapping[str, int], image: Image | None) -> list[str]:
    """What has to go to make room; see make_room."""
    lacking = _lacking(found, files, image)
    if lacking <= 0:
        return []
    unneeded = list(_unneeded(found, image))
    if lacking > found.blocks(unneeded):
        raise _no_room(board, files, {*files, *unneeded}, lacking)
    return unneeded


def _lacking(found: Files, files: Mapping[str, int], image: Image | None) -> int:
    """Blocks that are missing; those of the image's own checkpoints are used again."""
    needed = sum(map(blocks_of, files.values())) + MARGIN - found.blocks(files)
    if image is not None:
        own = [path for path, kept in found.kept.items() if kept.image == image.crc]
        needed += max(0, checkpoints_blocks(image.state_bytes) - found.blocks(own))
    return needed - found.free


def _unneeded(found: Files, image: Image | None) -> Iterable[str]:
    """Files that may go."""
    yield from (path for path in LEFT_BEHIND if path in found.sizes)
    for path, kept in found.kept.items():
        if image is not None and kept.is_pulled and kept.image != image.crc:
            yield path


def _no_room(
    board: Board, files: Mapping[str, int], going: Iterable[str], lacking: int
) -> SparsetuneError:
    """going: files that are replaced or would be removed anyway."""
    in_the_way = removals(board, going)
    what = ", ".join(f"{path} ({size:,} bytes)" for path, size in files.items())
    message = f"the board's file system has no room for {what}"
    message += f" and what a run saves: {lacking * BLOCK:,} bytes are missing; "
    if not in_the_way:
        return SparsetuneError(message + "give fewer samples, or smaller ones")
    return SparsetuneError(
        message + "give fewer samples, or remove what is in the way:", *in_the_way
    )


def removals(board: Board, going: Iterable[str]) -> list[str]:
    """A line for each of the largest files on the board but `going`, and what would be sent anew:
    its size, and the command that removes it."""
    going = set(going)
    lines = (line.strip().split(" ", 1) for line in board.exec(_LIST).splitlines())
    others = [
        (int(size), path)
        for size, path in lines
        if path not in going and not path.startswith(INSTALLED)
    ]
    in_the_way = sorted((file for file in others if file[0] >= 512), reverse=True)[:NAMED]
    return [f"{size:>9,} bytes: {board.removal(path)}" for size, path in in_the_way]
