"""Layers and training steps take the emulated cycles that they took: bench/kept.py says what is
measured. Emulated cycles repeat exactly, so 3 % more or less is a change of ours."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import kept
import pytest
from conftest import FIRMWARE
from networks import network

pytestmark = pytest.mark.skipif(not FIRMWARE.exists(), reason="no firmware: run make firmware")


@pytest.mark.parametrize("name", kept.NAMES)
def test_all_figures_are_as_they_were_kept(name: str) -> None:
    known, here = kept.read_kept()["compiler"], kept.compiler()
    if known != here:
        pytest.skip(f"SKIP: the kept cycles are of {known}, this is {here}")
    found = network(name)
    if found is None:
        pytest.skip("SKIP: there is no ../shared")
    lines = kept.complaints(kept.read_kept()["cycles"][name], kept.measure_network(found))
    assert not lines, "\n".join([*lines, kept.ACCEPT])


def test_a_figure_that_changed_is_told() -> None:
    before = {"a": [1000, 700], "b": [1000, 700], "gone": [5, 5]}
    before["c"] = [1000, 700]
    after = {"a": [1030, 700], "b": [1031, 700], "c": [960, 700], "new": [5, 5]}
    assert kept.complaints(before, after) == [
        "new: is not kept yet",
        "gone: is kept, but was not measured",
        "b: 1,031 cycles, kept are 1,000: 3.1% worse",
        "c: 960 cycles, kept are 1,000: 4.0% better",
    ]
