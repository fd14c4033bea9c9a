"""What a frozen front makes of all samples, kept as sample files: methods that train the same part
of a model share them, and every run reads them from there. A folder for each model, data, cut."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .data import Dataset, sample_file
from .errors import SparsetuneError
from .files import write_whole
from .front import outputs
from .graph import Graph
from .task import Task

PARTS = ("train", "select", "test")
LIMIT = 4 << 30  # bytes that older ones may take beside a new one

Parts = dict[str, Dataset]


@dataclass(frozen=True)
class FrontCache:
    """folder: of all entries. origin: digest of model and data. limit: bytes that all entries
    together should stay below; those that were asked for here stay."""

    folder: Path
    origin: str
    limit: int = LIMIT
    used: set[Path] = field(default_factory=set)

    def entry(self, front: Graph | None, task: Task, parts: Callable[[], Parts]) -> Path:
        """The folder with train.dat, select.dat and test.dat (those that there are) behind a front;
        parts: the samples, asked for where the folder has to be made. Raises SparsetuneError."""
        path = self.folder / self._name(front)
        self.used.add(path)
        if not path.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix="part-", dir=self.folder))
            try:
                _write(work, front, task, parts())
                self._make_room(_size(work))
                work.rename(path)
            except OSError as error:
                if not path.is_dir():  # another run may have made it meanwhile
                    raise SparsetuneError(
                        f"{path}: {error.strerror}: name another --folder"
                    ) from None
            finally:
                shutil.rmtree(work, ignore_errors=True)
        os.utime(path)
        return path

    def _name(self, front: Graph | None) -> str:
        numbers = [op.index for op in front.operators] if front else []
        text = f"{self.origin} {numbers} {front.output if front else ''}"
        return "front-" + hashlib.sha256(text.encode()).hexdigest()[:20]

    def _make_room(self, size: int) -> None:
        """Those that nobody has used for longest go first."""
        kept = sorted(self.folder.glob("front-*"), key=lambda path: path.stat().st_mtime)
        sizes = {path: _size(path) for path in kept}
        for path in kept:
            if path in self.used or sum(sizes.values()) + size <= self.limit:
                continue
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]


def _write(folder: Path, front: Graph | None, task: Task, parts: Parts) -> None:
    for name, data in parts.items():
        if len(data):
            behind = data if front is None else Dataset(outputs(front, data.x), data.y)
            write_whole(folder / f"{name}.dat", sample_file(behind, task))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
