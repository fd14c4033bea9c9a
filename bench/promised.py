"""RAM that the planner promises a run, and what is free at the run's peak, on the emulated Pico.

    python bench/promised.py

The runs are those of tests that hold the one against the other (check_memory in
tests/test_training.py): they are run here, and what they print is read. bench/speed.py keeps it.
"""

from __future__ import annotations

import re
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulated import ROOT

FILES = ("test_training.py", "test_effort.py", "test_augment.py", "test_residual.py")
CHECKED = "(emulated_pico or test_memory) and not other_choices and not in_patches"
LINE = re.compile(
    r"(?P<model>.+), emulated Pico: (?P<peak>[\d,]+) of (?P<ram>[\d,]+) bytes of RAM at the peak; "
    r"heap free (?P<free>[\d,]+), predicted (?P<promised>[\d,]+)"
)
OFTEN = "left_in_flash_on"  # collects garbage in each step, so that far more is left


@dataclass(frozen=True)
class Promise:
    """Bytes. test: whose run it is. peak: of the chip's RAM, MicroPython's part with it. free: of
    the heap at the peak."""

    test: str
    model: str
    peak: int
    ram: int
    free: int
    promised: int

    @property
    def left(self) -> int:
        return self.free - self.promised


def measure() -> list[Promise]:
    """Raises RuntimeError where a run fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", f"--junitxml={report}", "-o", "junit_logging=system-out", "-k", CHECKED]
        with redirect_stdout(sys.stderr):
            failed = pytest.main([*options, *(str(ROOT / "tests" / name) for name in FILES)])
        if failed:
            raise RuntimeError("not all runs keep their promise")
        return list(read(report.read_text()))


def read(report: str) -> Iterator[Promise]:
    """report: pytest's in XML, with what the tests printed."""
    for case in ElementTree.fromstring(report).iter("testcase"):
        for found in LINE.finditer(case.findtext("system-out", "")):
            model, *figures = found.groups()
            yield Promise(case.attrib["name"], model, *(int(x.replace(",", "")) for x in figures))


def ends(promises: list[Promise]) -> tuple[int, int]:
    """The least and the most that was left, of runs that collect garbage every few steps."""
    left = [promise.left for promise in promises if OFTEN not in promise.test]
    return min(left), max(left)


def table(promises: list[Promise]) -> Iterator[str]:
    yield f"{'bytes':<72}{'peak':>9}{'free':>9}{'promised':>10}{'left':>7}"
    for p in promises:
        name = f"{p.test.removeprefix('test_')}, {p.model}"
        yield f"{name:<72}{p.peak:>9,}{p.free:>9,}{p.promised:>10,}{p.left:>7,}"
    least, most = ends(promises)
    yield f"{len(promises)} runs; left, where steps do not collect garbage: {least} to {most} bytes"


if __name__ == "__main__":
    print(*table(measure()), sep="\n")
