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
from shared_tasks import shared_folder
from sparsetune.data import Dataset
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.plan import UpdatePlan, default_plan, save_plan
from sparsetune.search.runs import Samples
from sparsetune.tflite import parse_tflite
from sparsetune_device.channels import Cyclic

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
pytest.importorskip("scipy", reason="SKIP: no scipy")
search = pytest.importorskip("search")
search_table = pytest.importorskip("search_table")

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
        assert search.Kept().get(name, [name], lambda: 5) == 5
        assert f"{name}: what is kept is stale" in capsys.readouterr().out


def test_the_same_under_another_name_is_not_made_again(kept: Any, capsys: Capture) -> None:
    """Nor what lay under a name that was given to something else since."""
    kept.get("digits: a", ["one"], lambda: 1)
    kept.get("digits: b", ["two"], lambda: 2)
    later = search.Kept()
    assert later.get("digits: a", ["two"], lambda: 8) == 2
    assert later.get("digits: c", ["one"], lambda: 9) == 1
    assert search.Kept().of_title("digits") == {"a": 2, "b": 2, "c": 1}
    assert capsys.readouterr().out == ""


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


# Tables ---------------------------------------------------------------------------------------


def worth(graph: Any, power: float = 1.0) -> dict[str, Any]:
    """As it is kept: of each layer as much as its place."""
    weights = {str(op.index): float(i) for i, op in enumerate(graph.trainable, 1)}
    return {"weights": weights, "biases": {}, "power": power}


def trained(plan: UpdatePlan, *right: float) -> dict[str, Any]:
    return {"plan": json.loads(save_plan(plan)), "right": list(right), "loss": [1 - right[0]] * 2}


def found_for(of: Any) -> dict[str, Any]:
    """Three plans, of which more is said the more layers they train; the second is there twice."""
    plans = [default_plan(of.graph, last, 1.0) for last in (1, 2, 4)]
    rest = {name: trained(plan, right, right + 0.125)
            for name, plan, right in zip("abc", plans, (0.25, 0.5, 0.75), strict=True)}  # fmt: skip
    rest["again"] = trained(replace(plans[1], scratch=False), 0.5, 0.625)
    return {"head": "0.01", "gradients": worth(of.graph), "runs": worth(of.graph)} | rest


def test_plans_that_are_the_same_count_once() -> None:
    ours = case(DIGITS.read_bytes())
    rows = search_table.rows_of(ours.graph, found_for(ours))
    assert [(row.name, row.same_as) for row in rows] == [
        ("c", ""), ("again", ""), ("b", "again"), ("a", "")
    ]  # fmt: skip
    text = search_table.markdown(rows)
    assert "| b (is again) |" in text and "| all plans | 3 | 1.00 | 1.00 | 1.00 | 1.00 |" in text


def test_ranks_are_spearmans() -> None:
    """Of five plans by hand: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    said, right = (1, 2, 3, 4, 5), (0.2, 0.1, 0.3, 0.5, 0.4)
    rows = [search_table.Row(f"{i}", 1.0, (s, -s), (r, r), r, "") for i, (s, r) in
            enumerate(zip(said, right, strict=True))]  # fmt: skip
    (gradients, runs) = search_table.ranks([*rows, replace(rows[0], said=(9, 9), same_as="0")])
    assert gradients == pytest.approx((1 - 6 * 4 / 120, 6 * 4 / 120 - 1))
    assert runs == pytest.approx((6 * 4 / 120 - 1, 1 - 6 * 4 / 120))


def test_tables_tell_what_is_stale_and_train_nothing(
    kept: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = case(DIGITS.read_bytes())
    found = found_for(ours)
    first = search.read_worth(found["gradients"])
    of = {"head": ours.of_search(), "gradients": ours.of_gradients("0.01"),
          "runs": ours.of_runs("0.01", first)}  # fmt: skip
    of |= {name: ours.settings(plan) for name, plan in search_table.plans_kept(found).items()}
    of["b"] = "other samples"
    for name, settings in of.items():
        kept.get(f"cifar: {name}", settings, lambda name=name: found[name])
    before = search.RESULTS.read_text()
    monkeypatch.setattr(search.Case, "read", lambda *_: (replace(ours, title="cifar"), b""))
    for what in ("train", "learn", "by_gradients", "choose_rate"):
        monkeypatch.setattr(search, what, None)
    search.tell_kept(["cifar"], Path(), search.Kept())
    said = capsys.readouterr().out
    assert "| c |" in said and "Stale: b.\n" in said and "cifar (quick): nothing is kept" in said
    monkeypatch.setattr(search, "CODE", ())
    search.tell_kept(["cifar"], Path(), search.Kept())
    assert "Stale: head, gradients, runs, b.\n" in capsys.readouterr().out
    assert search.RESULTS.read_text() == before
    assert "| b (is again) |" in search.RESULTS.with_suffix(".md").read_text()


def test_the_file_is_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    model = with_new_head((shared / search.MBV2_MODEL).read_bytes(), HeadRequest(10))
    kept, written = search.Kept(), search.RESULTS.with_suffix(".md").read_text()
    monkeypatch.setattr(search, "RESULTS", tmp_path / "search.json")
    search.write_tables(parse_tflite(model), kept)
    assert (tmp_path / "search.md").read_text() == written


def test_its_code_is_there() -> None:
    names = {path.name for path in search.CODE}
    assert {"learnt.py", "gains.py", "runs.py", "trial.py"} <= names
    assert all(path.exists() for path in search.CODE)
