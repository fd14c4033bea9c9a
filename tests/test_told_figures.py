"""What README, DESIGN and TRIED tell of learning, against the tables that the benches wrote: each
`mean ± spread` stands in one of bench/results, but for those that are told to be of scripts that
are not kept. Those of runs that are not kept are written `mean +- spread`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIGURE = re.compile(r"(\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?)")
THROWN_AWAY = "script"  # "throw-away script", "scripts that are not kept"


def figures(text: str) -> list[tuple[str, str]]:
    return FIGURE.findall(text)


def measured() -> set[tuple[str, str]]:
    results = (ROOT / "bench" / "results").glob("*.md")
    return {pair for path in results for pair in figures(path.read_text())}


def is_rounded(told: str, exact: str) -> bool:
    """Whether `told` is `exact`, which has two places, with the places it has."""
    places = len(told.partition(".")[2])
    return abs(float(told) - float(exact)) <= 0.5 * 10**-places + (0.005001 if places < 2 else 1e-9)


def test_the_check_finds_what_it_is_for() -> None:
    assert is_rounded("2.6", "2.59") and is_rounded("2.59", "2.59") and is_rounded("3", "2.59")
    assert not is_rounded("2.5", "2.59") and not is_rounded("2.58", "2.59")
    assert figures("-0.37 ± 0.86 (+0.00 ± 1)") == [("0.37", "0.86"), ("0.00", "1")]
    assert len(measured()) > 100


@pytest.mark.parametrize("name", ["README.md", "docs/DESIGN.md", "docs/TRIED.md"])
def test_told_figures_were_measured(name: str) -> None:
    known, wrong = measured(), []
    for line in (ROOT / name).read_text().splitlines():
        if THROWN_AWAY in line:
            continue
        wrong += [
            f"{mean} ± {spread}"
            for mean, spread in figures(line)
            if not any(is_rounded(mean, m) and is_rounded(spread, s) for m, s in known)
        ]
    assert not wrong
