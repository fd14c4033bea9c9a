"""Where `sparsetune tune` trains: a board, or the host twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .board import Board
from .board_files import BOARD_DATA, BOARD_REPLAY, BOARD_TRAINED
from .image import parse_image
from .install import Coming, make_ready
from .transfer import (
    image_path,
    mark_pulled,
    pull_checkpoint,
    push_data,
    push_image,
    push_policy,
)
from .twin import Twin

Line = Callable[[str], None]


class Target(Protocol):
    """Where training runs: a board, or the host twin."""

    def push(self, image: bytes, samples: bytes, earlier: bytes) -> None:
        """earlier: a buffer of earlier samples, or nothing."""

    def train(self, options: dict[str, Any], out: Line) -> bytes:
        """Returns the checkpoint."""

    def fetched(self) -> None:
        """What was learnt is safe here."""

    def interrupted(self) -> bytes | None:
        """The checkpoint after a broken-off run, where it would be lost otherwise."""

    def outputs(self, count: int, out: Line) -> None:
        """Runs the trained model on the first training samples, telling each output."""


class OnBoard:
    """A board on a serial port."""

    def __init__(self, board: Board, policy: str | None) -> None:
        self.board = board
        self.policy = policy

    def push(self, image: bytes, samples: bytes, earlier: bytes) -> None:
        files = {BOARD_DATA: samples, **({BOARD_REPLAY: earlier} if earlier else {})}
        sizes = {path: len(data) for path, data in files.items()}
        make_ready(self.board, Coming(parse_image(image), sizes))
        push_image(self.board, image, files=sizes)
        for path, data in files.items():
            push_data(self.board, path, data)

    def train(self, options: dict[str, Any], out: Line) -> bytes:
        push_policy(self.board, self.policy)
        options = {"discard": True, **options}  # of what push_image has fetched
        path = image_path(self.board)
        keywords = "".join(f", {name}={value!r}" for name, value in options.items())
        self.board.stream(
            "from sparsetune_device.main import train\n"
            f"train({path!r}, {BOARD_DATA!r}, save_to={BOARD_TRAINED!r}{keywords})",
            out,
        )
        return pull_checkpoint(self.board)

    def fetched(self) -> None:
        mark_pulled(self.board)

    def interrupted(self) -> bytes | None:
        return None  # it is on the board

    def outputs(self, count: int, out: Line) -> None:
        path = image_path(self.board)
        # On samples that are there already: beside them there may be no room for others.
        self.board.stream(
            "from sparsetune_device.main import measure_samples, open_trained\n"
            f"measure_samples(*open_trained({path!r}, {BOARD_DATA!r}, {BOARD_TRAINED!r}), "
            f"range({count}), True, print)",
            out,
        )


class OnTwin:
    """The device package on this computer."""

    def __init__(self, store_bytes: int) -> None:
        self.twin: Twin | None = None
        self.store_bytes = store_bytes

    def push(self, image: bytes, samples: bytes, earlier: bytes) -> None:
        self.twin = Twin(image, samples, self.store_bytes)
        if earlier:
            self.twin.put_replay(earlier)

    def train(self, options: dict[str, Any], out: Line) -> bytes:
        def tell(line: str) -> None:
            if not line.startswith("#saved|"):  # its files go with it
                out(line)

        assert self.twin
        return self.twin.train(tell, **options)

    def fetched(self) -> None:
        pass

    def interrupted(self) -> bytes | None:
        assert self.twin
        return self.twin.pull() if self.twin.has_checkpoint else None

    def outputs(self, count: int, out: Line) -> None:
        assert self.twin
        self.twin.outputs(count, out)
