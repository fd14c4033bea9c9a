"""What a comparison is made on: a model, and samples in three parts. Runs learn on one, choices are
made on the second, which is held out of the training samples, and the third has the last word."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .data import Dataset, doubts, fit_dataset, lacks, leaks, load_npz
from .errors import SparsetuneError, warn
from .files import read_file
from .front_cache import Parts
from .graph import Graph
from .head import HeadRequest, with_new_head
from .inputs import input_of
from .task import Task, task_of
from .tflite import parse_tflite

SELECT_MOST = 1000  # samples to choose on: more tell little more
TEST_SHARE = 0.2  # of the samples where the file has no test set
PIECE = 1 << 24  # bytes that are hashed at a time


@dataclass(frozen=True)
class Subject:
    """select: share of the training samples to choose on. loss: as for `plan`, or empty. classes:
    of a new head, 0: the model's own."""

    path: Path
    data: Path
    select: float
    loss: str = ""
    classes: int = 0

    @cached_property
    def model(self) -> bytes:
        model = read_file(self.path)
        if not self.classes:
            return model
        return with_new_head(model, HeadRequest(self.classes, x=self._files[0].x))

    @cached_property
    def graph(self) -> Graph:
        return replace(parse_tflite(self.model, str(self.path)), loss=self.loss)

    @property
    def task(self) -> Task:
        return task_of(self.graph)

    @cached_property
    def origin(self) -> str:
        """Digest of model, samples and how they are parted."""
        text = f"{hashlib.sha256(self.model).hexdigest()} {_digest(self.data)} {self.select}"
        return hashlib.sha256(f"{text} {self.loss}".encode()).hexdigest()[:24]

    @cached_property
    def _files(self) -> tuple[Dataset, Dataset | None]:
        return load_npz(self.data)

    @cached_property
    def parts(self) -> Parts:
        """train, select (none where no share is held out) and test, in the model's numbers. What is
        doubtful in them is said. Raises SparsetuneError."""
        source, task = input_of(self.graph), self.task
        train, test = (d and fit_dataset(d, source, task) for d in self._files)
        assert train is not None
        order = np.random.default_rng(0).permutation(len(train))
        if test is None:
            cut = max(1, round(TEST_SHARE * len(order)))
            test, order = train.part(np.sort(order[:cut])), order[cut:]
        cut = _held_out(self.select, len(order))
        chosen, rest = np.sort(order[:cut]), np.sort(order[cut:])
        self.__dict__.pop("_files")  # the same again in the file's numbers
        kept = train if len(rest) == len(train) else train.part(rest)
        warn([*doubts(kept, task), *leaks(kept, test), *lacks(kept, test, task)])
        return {"train": kept, "select": train.part(chosen), "test": test}

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each part."""
        return {name: len(data) for name, data in self.parts.items()}

    def forget(self) -> None:
        """Gives back the samples' memory; they are read again where they are asked for."""
        self.__dict__.pop("parts", None)


def _held_out(share: float, count: int) -> int:
    """Samples to choose on, of so many: none where the share is 0, else one or more. Raises
    SparsetuneError where none would be, or no other one left."""
    found = min(SELECT_MOST, round(share * count))
    if found == count or (share and count < 2):
        raise SparsetuneError(f"too few samples to hold some out: give more than {count}")
    if share and not found:
        raise SparsetuneError(
            f"--select {share:g} of {count:,} samples holds none out: give --select "
            f"{1 / count:.2g} or more, or more samples"
        )
    return found


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                found.update(piece)
    except OSError as error:
        raise SparsetuneError(f"cannot read {path} ({error.strerror}): name another") from None
    return found.hexdigest()
