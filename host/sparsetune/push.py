"""Copy a file, or a ROMFS image, to a board.

The other end is device/sparsetune_device/receive.py, which describes the protocol. The
host sends frames a window ahead of the board's answers, and sends again what the board
found damaged or did not answer.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from collections.abc import Callable, Mapping

from sparsetune import __version__
from sparsetune.board import Board, BoardInfo, Silence, Talk
from sparsetune.errors import SparsetuneError
from sparsetune.romfs import BLOCK, build_romfs

_LIST_ROM = """
import os
try:
    print("\\n".join(os.listdir("/rom")))
except OSError:
    pass
"""

Progress = Callable[[int, int], None]  # bytes stored, bytes in all

ANSWER_S = 4.0  # a frame's way, an erase and a write take less; the board waits longer
READ_BACK_S = 60.0  # hashing a whole file or partition on the board
MAX_FAULTS = 10  # damaged frames in a row
MAX_SILENCES = 2  # in a row


def push_file(board: Board, path: str, data: bytes, progress: Progress | None = None) -> bool:
    """Write `data` to the file `path` on the board. Returns False when it was there.

    The folder is made when it is missing. The file appears under its name only when it is
    whole. Raises SparsetuneError.
    """
    _check_board(board)
    digest = hashlib.sha256(data).hexdigest()
    if _ask(board, f"file_digest({path!r})") == digest:
        return False
    code = _call(f"receive_file({path!r}, {len(data)}, {digest!r})")
    _transfer(board, code, data, progress)
    return True


def push_rom(
    board: Board,
    files: Mapping[str, bytes],
    progress: Progress | None = None,
    replace: bool = False,
) -> bool:
    """Make `files` the content of the board's ROMFS, at /rom. Returns False when it was.

    Files of others in /rom would be lost, and are an error unless `replace` is set; model
    images (*.img) count as ours. Raises SparsetuneError.
    """
    info = _check_board(board)
    image = build_romfs(files)
    _check_fits(board, info, len(image))
    if _rom_holds(board, image):
        return False
    if not replace:
        _check_foreign_files(board, files)
    # The board writes the block with the ROMFS header last (see receive.py).
    digest = hashlib.sha256(image).hexdigest()
    _transfer(board, _call(f"receive_rom({len(image)}, {digest!r})"), _first_last(image), progress)
    return True


def check_rom(board: Board, files: Mapping[str, bytes], replace: bool = False) -> None:
    """Raises SparsetuneError where push_rom() would, before anything is sent."""
    _check_fits(board, board.identify(), len(build_romfs(files)))
    if not replace:
        _check_foreign_files(board, files)


def _rom_holds(board: Board, image: bytes) -> bool:
    """Whether the board's ROMFS is `image`. Of another one mostly the first block differs."""
    return all(
        _ask(board, f"rom_digest({size})") == hashlib.sha256(image[:size]).hexdigest()
        for size in (BLOCK, len(image))
    )


def _first_last(image: bytes) -> bytes:
    return image[BLOCK:] + image[:BLOCK]


# Before -----------------------------------------------------------------------------


def _check_board(board: Board) -> BoardInfo:
    """Identify the board; raise SparsetuneError when its firmware is not ours."""
    info = board.identify()
    if not info.has_kernels or info.device_version is None:
        missing = "sparsetune_device" if info.has_kernels else "sparsetune_kernels"
        raise SparsetuneError(
            f"the firmware on {board.port} ({info.machine}, MicroPython {info.micropython})"
            f" has no {missing}: flash the sparsetune firmware with `sparsetune flash`"
        )
    if info.device_version != __version__:
        raise SparsetuneError(
            f"the firmware on {board.port} is of sparsetune {info.device_version}, this is"
            f" {__version__}: flash it again with `sparsetune flash`"
        )
    return info


def _check_fits(board: Board, info: BoardInfo, size: int) -> None:
    if info.romfs_bytes is None:
        raise SparsetuneError(
            f"the firmware on {board.port} has no ROMFS partition: flash the sparsetune"
            " firmware with `sparsetune flash`"
        )
    if size > info.romfs_bytes:
        raise SparsetuneError(
            f"the model takes {size:,} bytes of flash and the board's ROMFS partition has"
            f" {info.romfs_bytes:,}: use a smaller model, or a firmware with a larger partition"
        )


def _check_foreign_files(board: Board, files: Mapping[str, bytes]) -> None:
    names = board.exec(_LIST_ROM).split("\n")
    foreign = [n for n in names if n and n not in files and not n.endswith(".img")]
    if foreign:
        raise SparsetuneError(
            f"/rom on the board holds files of something else ({', '.join(foreign)}), which"
            " would be lost: add --replace to overwrite them"
        )


def _call(call: str) -> str:
    name = call.partition("(")[0]
    return f"from sparsetune_device.receive import {name}\n{call}"


def _ask(board: Board, call: str) -> str:
    """Return what a function of receive.py returns (hashing flash takes its time)."""
    name = call.partition("(")[0]
    return board.exec(f"from sparsetune_device.receive import {name}\nprint({call})", READ_BACK_S)


# The transfer -----------------------------------------------------------------------


def _transfer(board: Board, code: str, data: bytes, progress: Progress | None) -> None:
    """Start `code` on the board and send it `data`."""
    board.soft_reset()  # memoryviews of the old image must not outlive it
    try:
        with board.talk(code) as talk:
            chunk, window = _await_ready(talk)
            _send(talk, Frames(data, chunk), window, progress or _no_progress)
            _await_done(talk)
    except Silence:
        raise SparsetuneError(
            f"the board on {board.port} stopped answering in the middle of the transfer:"
            " unplug it, plug it in again and repeat the command"
        ) from None


def _no_progress(done: int, total: int) -> None:
    pass


class Frames:
    """The data cut into frames of the protocol."""

    def __init__(self, data: bytes, chunk: int) -> None:
        self._data = data
        self._chunk = chunk
        self.total = len(data)
        self.count = -(-len(data) // chunk)

    def frame(self, index: int) -> bytes:
        """Return frame `index` as it travels."""
        data = self._data[index * self._chunk : (index + 1) * self._chunk]
        head = struct.pack("<HH", index, len(data))
        crc = binascii.crc32(data, binascii.crc32(head))
        return b"ST" + head + struct.pack("<I", crc) + data

    def bytes_until(self, index: int) -> int:
        """Return how many bytes frames 0..index-1 hold."""
        return min(index * self._chunk, self.total)


def _await_ready(talk: Talk) -> tuple[int, int]:
    while True:
        words = _answer(talk).split()
        if len(words) == 3 and words[0] == "=ready":
            return int(words[1]), int(words[2])


def _await_done(talk: Talk) -> None:
    while _answer(talk, READ_BACK_S) != "=done":
        pass


def _send(talk: Talk, frames: Frames, window: int, progress: Progress) -> None:
    """Send all frames and wait until the board has stored them.

    A serial port without flow control may lose what comes while the board writes flash: after
    damage one frame at a time is sent.
    """
    stored = sent = faults = silences = 0
    progress(0, frames.total)
    while stored < frames.count:
        while sent < min(stored + window, frames.count):
            talk.send(frames.frame(sent))
            sent += 1
        try:
            sign, number = _verdict(_answer(talk), stored, sent)
        except Silence:
            silences += 1
            if silences > MAX_SILENCES:
                raise
            sent = stored
            continue
        faults = faults + 1 if sign == "-" else 0
        if faults > MAX_FAULTS:
            raise SparsetuneError("the connection damages the data: check cable and USB hub")
        window = 1 if faults else window
        silences = 0
        stored, sent = number, number if sign == "-" else max(sent, number)
        progress(frames.bytes_until(stored), frames.total)


def _verdict(answer: str, stored: int, sent: int) -> tuple[str, int]:
    """Read +N or -N, with N what the board has stored; anything else changes nothing."""
    sign, digits = answer[:1], answer[1:]
    if sign in ("+", "-") and digits.isdecimal() and stored <= int(digits) <= sent:
        return sign, int(digits)
    return "", stored


def _answer(talk: Talk, timeout: float = ANSWER_S) -> str:
    """Return the board's next line; raise SparsetuneError when it has given up."""
    line = talk.read_line(timeout)
    if line is None:
        reason = talk.error.strip().split("\n")[-1] or "no reason given"
        raise SparsetuneError(f"the board ended the transfer ({reason}): repeat the command")
    if line.startswith("!"):
        raise SparsetuneError(f"the board did not take the data: {line[1:]}")
    return line
