"""The host twin: the device package itself, run by CPython over the same kernels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sparsetune_device.main as device
from sparsetune_device.data import Samples
from sparsetune_device.engine import Engine
from sparsetune_device.image import open_image
from sparsetune_device.replay import NAME

from .cores import in_parts
from .errors import SparsetuneError
from .nor_flash import NorFlash
from .pulled import complete

Line = Callable[[str], None]


STORE_BYTES = 128 * 1024


class Twin:
    """A board made of files in a folder. image: content of the pushed file; samples: of the other,
    or the path of a sample file, which is left where it is. store_bytes: flash for trained
    channels."""

    def __init__(self, image: bytes, samples: bytes | Path, store_bytes: int = STORE_BYTES) -> None:
        self.flash = NorFlash(store_bytes)
        self._folder = tempfile.TemporaryDirectory(prefix="sparsetune-")
        self.path = Path(self._folder.name)
        self._put("model.img", image)
        self._put("train.dat", samples)

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def _file(self, name: str) -> str:
        return str(self.path / name)

    def _put(self, name: str, content: bytes | Path) -> None:
        path = self.path / name
        path.unlink(missing_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content.resolve())
        else:
            path.write_bytes(content)

    def put_replay(self, data: bytes) -> None:
        """Earlier samples (beside.replay_file)."""
        self._put(NAME, data)

    def train(self, out: Line, **options: Any) -> bytes:
        """Runs device.main.train with the given options; returns the checkpoint."""
        self._run(device.train, "train.dat", out=out, save_to=self._file("trained.ckpt"), **options)
        return self.pull()

    def check(self, options: dict[str, Any]) -> None:
        """Sets a run up, and leaves it at that. options: as of train(). Raises SparsetuneError for
        what the set-up complains of."""
        settings = {name: value for name, value in options.items() if name in device.DEFAULTS}
        self._run(_set_up, "train.dat", settings=device.merge(settings, ""))

    @property
    def has_checkpoint(self) -> bool:
        return (self.path / "trained.ckpt").exists()

    def pull(self) -> bytes:
        """The checkpoint, complete."""
        path = self._file("trained.ckpt")

        def tell(out: Line) -> None:
            device.tell_columns(self._file("model.img"), path, flash=self.flash, out=out)

        return complete(Path(path).read_bytes(), tell)

    def outputs(self, count: int, out: Line) -> None:
        """Tells the trained model's outputs on the first samples that it was trained on."""
        trained = self._file("trained.ckpt")
        engine, data = self._run(device.open_trained, "train.dat", checkpoint=trained)
        device.measure_samples(engine, data, range(count), True, out)
        data.close()

    def evaluate(
        self, out: Line, samples: bytes | Path, trained: bool, outputs: bool = False
    ) -> None:
        """What device.main.evaluate tells of samples of its own, with or without what was learnt.
        All cores work on it; the lines are those of one, in their order."""
        self._put("test.dat", samples)
        count = self._open(trained)[1].count
        parts = in_parts(count, lambda part: self._measure(part, trained, outputs))
        correct = loss = 0
        for lines, part_correct, part_loss in parts:
            correct, loss = correct + part_correct, loss + part_loss
            for line in lines:
                out(line)
        out(device.eval_line(correct, loss, count))

    def _measure(self, part: range, trained: bool, outputs: bool) -> tuple[list[str], int, int]:
        """(lines, right answers, sum of losses) of a part of the samples."""
        engine, data = self._open(trained)
        lines: list[str] = []
        correct, loss = device.measure_samples(engine, data, part, outputs, lines.append)
        data.close()
        return lines, correct, loss

    def _open(self, trained: bool) -> Any:
        checkpoint = self._file("trained.ckpt") if trained else None
        return self._run(device.open_trained, "test.dat", checkpoint=checkpoint)

    def _run(self, function: Callable[..., Any], data: str, **options: Any) -> Any:
        """Raises SparsetuneError for what the device package complains of."""
        try:
            return function(self._file("model.img"), self._file(data), flash=self.flash, **options)
        except ValueError as error:
            raise SparsetuneError(str(error)) from error


def _set_up(image: str, data: str, flash: NorFlash, settings: dict[str, Any]) -> None:
    engine = Engine(open_image(image))
    device.Run(engine, Samples(data, engine.image), settings, flash).close()
