"""What bench/search.py keeps, and when it is stale."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import DIGITS
from sparsetune.data import Dataset
from sparsetune.plan import default_plan
from sparsetune.search.runs import Samples
from sparsetune_device.channels import Cyclic

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
pytest.importorskip("scipy", reason="SKIP: no scipy")
search = pytest.importorskip("search")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(search, "RESULTS", tmp_path / "search.json")
    return search.Kept()


def case(model: bytes, shift: int = 0, **kind: Any) -> Any:
    rng = np.random.default_rng(0)
    x = rng.integers(-20, 20, (60, 16, 16, 1)).astype(np.int8)
    y = ((np.arange(60) + shift) % 10).astype(np.uint8)
    data = Dataset(x, y)
    samples = Samples(data.part(slice(40)), data.part(slice(40, None)))
    return search.Case.of("digits", replace(search.KINDS["cifar"], **kind), model, samples)


def test_what_is_kept_is_found_once_and_says_when_it_is_stale(kept: Any, capsys: Capture) -> None:
    assert kept.get("digits: a", [1, "x"], lambda: 5) == 5
    assert search.Kept().get("digits: a", [1, "x"], lambda: 6) == 5
    assert capsys.readouterr().out == ""
    assert search.Kept().get("digits: a", [2, "x"], lambda: 7) == 7
    assert "digits: a: what is kept is stale" in capsys.readouterr().out
    assert search.Kept().get("digits: a", [2, "x"], lambda: 8) == 7


def test_what_was_just_found_is_what_will_be_read(kept: Any) -> None:
    """What hangs on it is not stale in the next run."""
    found = kept.get("digits: a", [1], lambda: {1: np.float64(0.5)})
    assert repr(found) == repr(search.Kept().get("digits: a", [1], int)) == "{'1': 0.5}"


def test_what_was_kept_under_its_title_alone_is_stale(kept: Any, capsys: Capture) -> None:
    search.RESULTS.write_text(json.dumps({"digits: a": {"loss": [1]}, "digits: head": "0.020"}))
    for name in ("digits: a", "digits: head"):
        assert search.Kept().get(name, [1], lambda: 5) == 5
        assert f"{name}: what is kept is stale" in capsys.readouterr().out


def test_what_nobody_asks_for_goes(kept: Any) -> None:
    for name in ("digits: a", "digits: b", "digits (quick): a"):
        kept.get(name, [1], lambda: 5)
    later = search.Kept()
    later.get("digits: b", [1], lambda: 6)
    later.drop_others("digits")
    assert set(json.loads(search.RESULTS.read_text())) == {"digits: b", "digits (quick): a"}


def test_figures_hang_on_model_samples_options_and_plan() -> None:
    model = DIGITS.read_bytes()
    ours = case(model)
    plan = default_plan(ours.graph, 2)
    settings = [
        of.settings(of_plan)
        for of, of_plan in (
            (ours, plan),
            (case(model, shift=1), plan),
            (case(model, rate="0.1"), plan),
            (case(model, epochs=9), plan),
            (ours, default_plan(ours.graph, 3)),
            (ours, replace(plan, residual=True)),
        )
    ]
    assert case(model).settings(plan) == settings[0]
    assert len({search.key_of(each) for each in settings}) == len(settings)


def test_another_device_makes_figures_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = case(DIGITS.read_bytes())
    plan = default_plan(ours.graph, 4)
    before = ours.settings(plan)
    of_cyclic = Cyclic.choose
    monkeypatch.setattr(Cyclic, "choose", lambda self, n, state: of_cyclic(self, n // 2, state))
    assert ours.settings(plan) != before


def test_what_the_search_says_hangs_on_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not on what is said about it."""
    ours, path = case(DIGITS.read_bytes()), tmp_path / "a.py"
    monkeypatch.setattr(search, "CODE", (path,))
    found = []
    for text in (
        "def f(x):\n    return x + 1\n",
        '"""A file."""\n\n\ndef f(x):\n    """More."""\n    return x + 1  # by one\n',
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return 'x' + 1\n",
    ):
        path.write_text(text)
        found.append(search.key_of(ours.of_search()))
    assert found[0] == found[1] and len(set(found)) == 3


def test_its_code_is_there() -> None:
    names = {path.name for path in search.CODE}
    assert {"learnt.py", "gains.py", "runs.py", "trial.py"} <= names
    assert all(path.exists() for path in search.CODE)
