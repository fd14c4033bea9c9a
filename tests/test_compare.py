"""`sparsetune compare`: what is run, what is not run again, and that it is as `tune --twin`."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sparsetune_kernels as kernels
from runs import DIGITS
from small_models import Net
from sparsetune import cli, comparing, comparison, comparison_plots, probe, run_lines, subject
from sparsetune.arguments import method_parser
from sparsetune.boardspec import load_spec
from sparsetune.comparison_table import Figure, Table, markdown
from sparsetune.compile import compile_image
from sparsetune.cores import core_count
from sparsetune.data import Dataset
from sparsetune.effort import effort_of
from sparsetune.errors import SparsetuneError
from sparsetune.float_methods import environment, torch_python
from sparsetune.front import split_front
from sparsetune.front_cache import FrontCache
from sparsetune.image import parse_image
from sparsetune.memory import predict
from sparsetune.methods import (
    NAMED,
    NOT_LAYER,
    NOT_PLAN,
    REFUSED,
    SEARCHED,
    Reader,
    parse_keys,
)
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, save_plan
from sparsetune.run_log import RunLog, key_of
from sparsetune.search.asked import asks_for_search
from sparsetune.target import OnTwin
from sparsetune.task import task_of
from sparsetune.tflite import parse_tflite, read_tflite
from sparsetune_device import momentum
from sparsetune_device.channels import POLICIES, Cyclic
from sparsetune_device.choices import RandomEpoch
from sparsetune_device.engine import Engine
from sparsetune_device.main import DEFAULTS, train
from sparsetune_device.schedule import Schedule

TRAIN, TEST = 60, 30
CHECKS = Path(__file__).with_name("float_checks.py")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Patches of ten brightnesses, which a few steps can learn."""
    rng = np.random.default_rng(0)
    y = np.arange(TRAIN + TEST) % 10
    x = (rng.integers(-20, 20, (len(y), 16, 16, 1)) + 24 * y[:, None, None, None] - 108).astype(
        np.int8
    )
    path = tmp_path / "s.npz"
    np.savez(path, x_train=x[:TRAIN], y_train=y[:TRAIN], x_test=x[TRAIN:], y_test=y[TRAIN:])
    return path


def words(samples: Path, folder: Path, *more: object) -> list[str]:
    usual = ("compare", "--model", DIGITS, "--data", samples, "--folder", folder, "--epochs", 2)
    return [str(word) for word in (*usual, *more)]


def compare(samples: Path, folder: Path, *more: object) -> dict[str, Any]:
    assert cli.main(words(samples, folder, *more)) == 0
    return dict(json.loads((folder / "table.json").read_text()))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def refuse(*_: object) -> None:
    raise AssertionError("nothing is left to run")


# What is run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["int8", "head", "full:policy=random", "residual:last=3"])
def test_a_run_is_what_tune_does_on_the_twin(
    method: str, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss lines, bit for bit, though the frozen front ran once for all runs."""
    folder, rate = tmp_path / "c", "0.01"
    more = ("--select", 0, "--test-data", "--seeds", 1, "--rates", rate)
    found = compare(samples, folder, "--methods", f"mine={method}", *more)
    (record,) = records(folder)

    lines: list[str] = []
    of_twin = OnTwin.train

    def listen(self: OnTwin, options: dict[str, Any], out: Any) -> bytes:
        return of_twin(self, options, lambda line: (lines.append(line), out(line)))

    monkeypatch.setattr(OnTwin, "train", listen)
    plan = tmp_path / "p.json"
    graph = read_tflite(DIGITS)
    bundle = cli.build_parser().parse_args(words(samples, folder, "--methods", f"m={method}"))
    study = comparing.study_of(bundle)
    plan.write_bytes(save_plan(study.methods[0].plan(graph)))
    policy = study.methods[0].options().get("policy", "cyclic")
    rest = ("--plan", plan, "--steps", 2 * TRAIN, "--policy", policy, "--rate", rate, "--plain")
    rest = (*rest, "-o", tmp_path / "o.tflite", "--log", tmp_path / "l.jsonl", "--twin")
    assert cli.main([str(word) for word in ("tune", DIGITS, samples, *rest)]) == 0
    losses = [line.split(",ms:")[0] + "\n" for line in lines if line.startswith("loss:")]
    assert len(losses) == record["steps"] == 2 * TRAIN
    assert record["lines"] == hashlib.sha256("".join(losses).encode()).hexdigest()[:24]
    assert found["rows"][0]["accuracies"] == [record["test"]]


def test_the_same_twice_and_without_the_cut(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--methods", "head", "int8", "--seeds", 2, "--rates", "0.01")

    def told(folder: Path) -> list[dict[str, Any]]:
        found = compare(samples, folder, *more)["rows"]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in found]

    first = told(tmp_path / "a")
    assert told(tmp_path / "b") == first
    monkeypatch.setattr(comparison, "split_front", lambda graph, plan: (None, graph))
    assert told(tmp_path / "c") == first
    lines = [sorted(r["lines"] for r in records(tmp_path / name)) for name in "abc"]
    assert lines[0] == lines[1] == lines[2] and len(set(lines[0])) == 4


def test_rates_are_chosen_on_samples_held_out(samples: Path, tmp_path: Path) -> None:
    """Of the rates the one that is best there; its runs of seed 0 see no test samples' result."""
    rates = "0.000001,0.02,5"
    found = compare(samples, tmp_path / "c", "--methods", "int8", "--seeds", 1, "--rates", rates,
                    "--select", 0.3, "--search-epochs", 2)  # fmt: skip
    searched = {r["rate"]: r["curve"][-1][1] for r in records(tmp_path / "c") if r["seed"] == 0}
    assert set(searched) == {"0.000001", "0.02", "5"}
    best = max(searched, key=lambda rate: searched[rate])
    assert found["rows"][0]["rate"] == best == "0.02" and found["part"] == "select"
    final = [r for r in records(tmp_path / "c") if r["seed"] == 1]
    assert [r["rate"] for r in final] == [best] and len(final[0]["curve"]) == 2
    assert final[0]["steps"] == 2 * (TRAIN - 18)


@pytest.mark.parametrize(
    ("found", "beyond", "best"),
    [
        # No tie.
        ({"0.01": 0.5, "0.03": 0.6, "0.1": 0.4}, [], "0.03"),
        ({"0.03": 0.5, "0.01": 0.6, "0.1": 0.4}, ["0.0033"], "0.01"),
        ({"0.01": 0.5, "0.03": 0.6, "0.1": 0.7}, ["0.30"], "0.1"),
        ({f"{3.0**-i:.9f}": i for i in range(9)}, [], f"{3.0**-8:.9f}"),
        # All tied: nothing was learnt, or all is right. In any order.
        ({"0.003": 0.8, "0.01": 0.8, "0.03": 0.8}, [], "0.01"),
        ({"0.03": 0.8, "0.003": 0.8, "0.1": 0.8, "0.01": 0.8}, [], "0.03"),
        ({"0.01": 0.5, "0.03": 0.5}, [], "0.03"),
        # Tied at an edge.
        ({"0.003": 0.8, "0.01": 0.8, "0.03": 0.8, "0.1": 0.7}, [], "0.01"),
        ({"0.003": 0.6, "0.01": 0.8, "0.03": 0.7, "0.1": 0.8}, [], "0.1"),
        # The best two, neighbours, with rates on both sides.
        ({"0.003": 0.6, "0.01": 0.8, "0.03": 0.8, "0.1": 0.7}, [], "0.03"),
    ],
)
def test_of_several_rates(found: dict[str, float], beyond: list[str], best: str) -> None:
    assert comparison.rates_beyond(found) == beyond
    assert comparison.best_rate(found) == best


def test_where_all_rates_tie_the_middle_one_is_taken(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole comparison, whose runs are made up: none beyond the rates is tried."""
    tried: list[str] = []

    def made_up(jobs: list[Any], workers: int, found: Any) -> None:
        for job in jobs:
            tried.append(job.label)
            found(job, {"curve": [[54, 0.8, 1.0]], "seconds": 1.0, "steps": 54, "select": 0.8})

    monkeypatch.setattr(comparison, "run_jobs", made_up)
    bundle = cli.build_parser().parse_args(
        words(samples, tmp_path, "--methods", "head", "--seeds", 1, "--rates", "0.1,0.01,0.001")
    )
    (outcome,) = comparison.compare(comparing.study_of(bundle))
    assert outcome.rate == "0.01" and len(tried) == 3 + 1


@pytest.mark.parametrize(
    ("count", "select", "advice"),
    [
        (200, "0.002", "of 160 samples holds none out: give --select 0.0063 or more"),
        (4, "0.1", "of 3 samples holds none out: give --select 0.33 or more"),
        (2, "0.4", "too few samples to hold some out: give more than 1"),
    ],
)
def test_a_share_that_holds_nothing_out_is_refused_before_any_run(
    count: int, select: str, advice: str, samples: Path, tmp_path: Path, capsys
) -> None:
    """And the share that the message names is one that does."""
    with np.load(samples) as file:
        x, y = (np.resize(a, (count, *a.shape[1:])) for a in (file["x_train"], file["y_train"]))
    np.savez(tmp_path / "few.npz", x=x, y=y)
    more = ("--methods", "head", "--rates", "0.01", "--data", tmp_path / "few.npz")
    assert cli.main(words(samples, tmp_path / "c", *more, "--select", select)) == 1
    said = capsys.readouterr().err
    assert advice in said and said.startswith("sparsetune: error: ") and said.count("\n") == 1
    assert not (tmp_path / "c" / "runs.jsonl").exists()
    if "--select" in advice:
        enough = advice.split("--select ")[1].split()[0]
        compare(samples, tmp_path / "c", *more, "--seeds", 1, "--select", enough)


def test_a_front_is_not_left_out_where_the_sample_is_looked_at(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As augmentation does: then the first steps are other ones."""
    of_first = comparison.first_steps
    graph = read_tflite(DIGITS)

    def other(given: Any, *rest: Any) -> str:
        is_whole = len(given.operators) == len(graph.operators)
        return of_first(given, *rest) + ("" if is_whole else " changed")

    more = ("--methods", "head", "--seeds", 1, "--rates", "0.01")
    compare(samples, tmp_path / "cut", *more)
    monkeypatch.setattr(comparison, "first_steps", other)
    compare(samples, tmp_path / "whole", *more)
    sizes = [sum(f.stat().st_size for f in (tmp_path / n / "cache").glob("front-*/train.dat"))
             for n in ("cut", "whole")]  # fmt: skip
    assert sizes[0] < 54 * 256 < sizes[1]
    lines = [records(tmp_path / name)[0]["lines"] for name in ("cut", "whole")]
    assert lines[0] == lines[1]


# What is not run again ------------------------------------------------------------------------


def test_a_killed_comparison_goes_on(samples: Path, tmp_path: Path) -> None:
    """SIGKILL, in the middle: what was finished stays as it was, to the byte, and is all that is
    not done again; the end is that of a comparison that nobody killed."""
    folder, log = tmp_path / "c", tmp_path / "c" / "runs.jsonl"
    more = ("--methods", "head", "int8", "--seeds", 3, "--rates", "0.01", "--jobs", 1)
    command = [sys.executable, "-m", "sparsetune", *words(samples, folder, *more)]
    env = {**os.environ, **dict(environment())}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    end = time.monotonic() + 240
    while time.monotonic() < end and (not log.exists() or log.read_bytes().count(b"\n") < 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = log.read_bytes()
    done = kept.count(b"\n")
    assert 2 <= done < 6, "killed in the middle"
    log.write_bytes(kept + b'{"key": "half a li')  # and while it wrote
    found = compare(samples, folder, *more)
    assert log.read_bytes().startswith(kept)
    whole = compare(samples, tmp_path / "whole", *more)
    assert len(RunLog(log).records) == 6
    for row, other in zip(found["rows"], whole["rows"], strict=True):
        assert row["accuracies"] == other["accuracies"] and row["curve"] == other["curve"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind(sent: int, samples: Path, tmp_path: Path) -> None:
    """No process and no file, while both runs are under way; it says how to go on."""
    temporary, folder = tmp_path / "tmp", tmp_path / "c"
    temporary.mkdir()
    more = ("--methods", "int8:steps=2000000", "--seeds", 2, "--rates", "0.01")
    command = [sys.executable, "-m", "sparsetune", *words(samples, folder, *more)]
    env = {**os.environ, **dict(environment()), "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, env=env, **{"stdout": -1, "stderr": -1, "text": True})
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list(temporary.rglob("sparsetune-*/train.dat"))) < 2:
        time.sleep(0.1)
    started = children(process.pid)
    assert len(started) == 2
    process.send_signal(sent)
    said, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "sparsetune: interrupted\n")
    assert f"finished runs are kept in {folder / 'runs.jsonl'}: the same command again" in said
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert list(temporary.iterdir()) == []


def test_a_run_whose_comparison_has_gone_ends_quietly() -> None:
    """As where that is killed: nobody reads what it tells."""
    code = "import sys\nfrom sparsetune.run_lines import tell\nsys.stdin.read()\ntell(steps=1)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1)
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b"" and process.wait(60) == 1


def children(pid: int) -> list[str]:
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return " ".join(path.read_text() for path in paths).split()


def test_nothing_is_run_twice_and_another_setting_is_another_run(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "c"
    more = ("--methods", "int8", "--seeds", 1, "--rates", "0.01")
    first = compare(samples, folder, *more)
    with monkeypatch.context() as patch:
        patch.setattr("sparsetune.jobs._Pool.run", refuse)
        assert compare(samples, folder, *more) == first
    for n, other in enumerate(("0.02", "int8:residual=1", "int8:warmup=9", "int8:ratio=0.25"), 2):
        changed = [other if word in ("0.01", "int8") and (word == "0.01") == (other == "0.02")
                   else word for word in more]  # fmt: skip
        compare(samples, folder, *changed)
        assert len(records(folder)) == n
    assert len({r["lines"] for r in records(folder)}) == len(records(folder))


def no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """`random-epoch` draws for the first epoch alone."""
    of_epoch = RandomEpoch.choose
    monkeypatch.setattr(RandomEpoch, "choose", lambda self, _, state: of_epoch(self, 0, state))


def no_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(momentum, "parse_momentum", lambda text: 0)


def no_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    of_schedule = Schedule.__init__
    monkeypatch.setattr(
        Schedule, "__init__",
        lambda self, kind, base, steps, warmup=0: of_schedule(self, kind, base, steps),
    )  # fmt: skip


def no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels that should stay for long stay for good."""
    of_cyclic = Cyclic.choose
    monkeypatch.setattr(Cyclic, "choose", lambda self, _, state: of_cyclic(self, 0, state))


def no_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run, which no loss tells any more."""
    of_engine = Engine.step

    def step(self: Engine, label: int, rate: tuple[int, int], seed: int) -> Any:
        is_last = seed == kernels.random(1, probe.STEPS - 1)
        return of_engine(self, label, (0, 0) if is_last else rate, seed)

    monkeypatch.setattr(Engine, "step", step)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("int8:policy=random-epoch", no_draw),
        ("int8:velocity=1,momentum=0.9,accumulate=128", no_momentum),
        ("int8:velocity=1,momentum=0.9", no_momentum),
        ("int8:warmup=1000", no_warmup),
        ("int8:hold=1000", no_hold),
        ("head:schedule=constant", no_last_step),
    ],
)
def test_another_device_is_another_run(
    method: str, change: Any, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first steps tell and learn is part of a run's name: a change in the device package
    that long runs alone would feel does not go unseen."""
    folder = tmp_path / "c"
    asked = study(samples, "--methods", f"mine={method}", "--folder", folder)

    def key() -> str:
        (folder / "work").mkdir(exist_ok=True, parents=True)
        entry = comparison._Bench(asked, folder / "work", RunLog(asked.log)).twin(asked.methods[0])
        return comparison._key(entry, "0.01", 2, 1)

    before = key()
    assert key() == before
    change(monkeypatch)
    assert key() != before


def test_without_workers_kept_runs_alone_make_the_table(samples: Path, tmp_path: Path) -> None:
    asked = study(samples, "--folder", tmp_path, "--methods", "head", "int8", "--seeds", 1,
                  "--rates", "0.01")  # fmt: skip
    alone = dataclasses.replace(asked, workers=0)
    with pytest.raises(SparsetuneError, match="runs.jsonl has no run of head, rate 0.01, seed 1"):
        comparing.table_of(alone, "select")
    for path in (tmp_path / "cache").glob("front-*"):
        raise AssertionError(f"{path} was made for nothing")
    found = comparing.table_of(asked, "select")
    log = asked.log.read_bytes()
    assert comparing.table_of(alone, "select") == found and asked.log.read_bytes() == log
    measured = dataclasses.replace(alone, rates=("auto",))
    with pytest.raises(SparsetuneError, match="no run of a measured learning rate"):
        comparing.table_of(measured, "select")


def test_kept_runs_need_no_samples_read_again(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    more = ("--methods", "head", "--seeds", 1, "--rates", "0.01", "--epochs", 1)
    found = compare(samples, tmp_path / "c", *more)

    def read(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(subject, "load_npz", read)
    assert compare(samples, tmp_path / "c", *more) == found
    (kept,) = (tmp_path / "c").rglob("probe-*.json")
    kept.write_text('{"train": 54, "labels": [0]}')  # what an older version kept
    assert cli.main(words(samples, tmp_path / "c", *more)) == 1
    assert "is read again" in capsys.readouterr().err


def test_it_is_told_how_few_samples_accuracies_are_of(
    samples: Path, tmp_path: Path, capsys
) -> None:
    """Of 100 and more no warning; --select 0.1 of 60 is 6."""
    more = ("--methods", "head", "--seeds", 1, "--rates", "0.01", "--epochs", 1)
    found = compare(samples, tmp_path / "c", *more)
    out = capsys.readouterr().out
    assert found["samples"] == 6 and "accuracy in % on 6 held-out training samples, of" in out
    told = "warning: accuracies are of 6 held-out training samples, and uncertain by up to 20 p"
    assert told in out and "with --select" in out

    with np.load(samples) as file:
        arrays = dict(file)
    for count in (99, 100):
        some = {f"{name}_test": np.resize(arrays[f"{name}_test"], (count, *shape))
                for name, shape in (("x", (16, 16, 1)), ("y", ()))}  # fmt: skip
        np.savez(samples, **{**arrays, **some})
        compare(samples, tmp_path / "c", *more, "--test-data")
        out = capsys.readouterr().out
        assert f"accuracy in % on {count} test samples, of" in out
        assert ("and uncertain by up to 5 points" in out) == (count < 100)


def test_a_table_outlives_its_file(samples: Path, tmp_path: Path) -> None:
    """What JSON kept reads as it was told; figures that nobody counted then are a dash."""
    more = ("--methods", "head", "int8", "--seeds", 2, "--rates", "0.01")
    told = compare(samples, tmp_path / "c", *more)
    table = Table.read(told)
    assert table.told() == {**told, "rows": [
        {**row, "accuracies": tuple(row["accuracies"])} for row in told["rows"]
    ]}  # fmt: skip
    assert markdown(table) == (tmp_path / "c" / "table.md").read_text()
    older = [{k: v for k, v in row.items() if k != "kept_bytes"} for row in told["rows"]]
    lines = markdown(Table.read({**told, "rows": older})).splitlines()
    assert lines[2].split(" | ")[5] == "-" != markdown(table).splitlines()[2].split(" | ")[5]


def test_seconds_are_the_processor_s(samples: Path, tmp_path: Path) -> None:
    """Those of earlier runs, by the clock, are not told."""
    more = ("--methods", "int8", "--seeds", 2, "--rates", "0.01")
    began = time.monotonic()
    found = compare(samples, tmp_path / "c", *more)["rows"][0]
    log = tmp_path / "c" / "runs.jsonl"
    kept = records(tmp_path / "c")
    assert found["seconds"] == pytest.approx(np.mean([r["cpu_seconds"] for r in kept]))
    assert 0 < found["seconds"] < core_count() * (time.monotonic() - began)
    older = [{**{k: v for k, v in r.items() if k != "cpu_seconds"}, "seconds": 9.0} for r in kept]
    for earlier in (1, 2):
        lines = [*older[:earlier], *kept[earlier:]]
        log.write_text("".join(json.dumps(r) + "\n" for r in lines))
        assert compare(samples, tmp_path / "c", *more)["rows"][0]["seconds"] is None
    text = (tmp_path / "c" / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| int8 |")][0].endswith("| - |")


def test_a_run_that_sleeps_takes_no_seconds(samples: Path, tmp_path: Path) -> None:
    """The processor's, though a machine that does other things keeps it waiting: here by a policy
    that does nothing for long."""
    policy = tmp_path / "lazy.py"
    policy.write_text(
        "import time\n\n\nclass Lazy:\n    def __init__(self, layers, seed):\n        pass\n\n"
        "    def choose(self, step, state):\n        time.sleep(0.02)\n"
    )
    more = ("--methods", f"lazy=head:policy={policy}:Lazy", "--seeds", 1, "--rates", "0.01")
    found = compare(samples, tmp_path / "c", *more)["rows"][0]
    assert found["steps"] > 100 and found["seconds"] < 0.02 * found["steps"] / 2


def test_fields_that_come_later_change_no_name() -> None:
    plan = UpdatePlan((LayerPlan(3, 4),))
    told = comparison.compact(plan)
    assert told == {"layers": [{"operator": 3, "channels": 4}]}
    changed = dataclasses.replace(plan, residual=True, layers=(LayerPlan(3, 4, slots=2),))
    assert comparison.compact(changed) == {
        "residual": True,
        "layers": [{"operator": 3, "channels": 4, "slots": 2}],
    }
    assert key_of(told) != key_of(comparison.compact(changed))


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    graph = read_tflite(DIGITS)
    data = Dataset(np.zeros((20, 16, 16, 1), np.int8), np.zeros(20, np.int64))
    parts = {"train": data, "select": data.part(slice(0)), "test": data}
    caches = [FrontCache(tmp_path, f"{i}", limit=25_000) for i in range(4)]
    made = []
    for i, cache in enumerate(caches):
        made.append(cache.entry(None, task_of(graph), lambda: parts))
        os.utime(made[-1], (i, i))
        assert sorted(path.name for path in made[-1].iterdir()) == ["test.dat", "train.dat"]
    size = sum(path.stat().st_size for path in tmp_path.glob("front-*/*"))
    assert size <= 25_000 and [path.exists() for path in made] == [False, False, True, True]
    caches[3].entry(None, task_of(graph), refuse)


# Methods --------------------------------------------------------------------------------------


def study(samples: Path, *more: object) -> comparison.Study:
    return comparing.study_of(cli.build_parser().parse_args(words(samples, Path("out"), *more)))


def test_all_that_plan_and_train_take_is_a_key(samples: Path) -> None:
    """Also what is added there tomorrow."""
    parser = method_parser()
    known = set(Reader(parser, {}).known)
    of_plan = {f.name for f in dataclasses.fields(UpdatePlan)} - set(NOT_PLAN)
    of_layer = {f.name for f in dataclasses.fields(LayerPlan)} - set(NOT_LAYER)
    ours = {"image", "data", "out", "flash", "save_to", "resume", "discard"}
    arguments = {*inspect.signature(train).parameters, *DEFAULTS} - {"settings"}
    of_train = arguments - ours - set(REFUSED)
    assert of_plan | of_layer | of_train | {"last", "ratio", "biases", "plan", "scheme"} <= known


# A value for every key that is not the usual one.
CHANGES = {
    "accumulate": "4", "augment": "flip", "bias": "0", "biases": "3", "coarse": "1", "decay": "0.1",
    "effort": "25", "error_bits": "8", "hold": "4", "kept": "30", "kept_bits": "2", "last": "2",
    "momentum": "0.5", "outputs": "0.25", "patch": "2", "plan": "other.json", "policy": "random",
    "qas": "0", "rate": "0.5", "ratio": "0.25", "reach": "4", "residual": "1", "schedule": "linear",
    "scheme": "mbv2-99", "scores": "1", "scratch": "0", "share": "2", "skip": "0.5", "slots": "2",
    "smoothing": "0.1", "standardise": "0.2", "steps": "7", "strips": "0", "tinyprop": "0.5:1:1",
    "velocity": "1", "warmup": "5", "weights_only": "1", "wide": "1",
}  # fmt: skip


def test_no_key_is_ignored(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is another plan, other options or another rate, or is refused on this model."""
    monkeypatch.chdir(tmp_path)
    graph = read_tflite(DIGITS)
    Path("other.json").write_bytes(save_plan(default_plan(graph, 3)))
    assert set(Reader(method_parser(), {}).known) == set(CHANGES)

    def comes_to(method: str) -> Any:
        (bundle,) = study(samples, "--methods", f"m={method}").methods
        try:
            return bundle.plan(graph), bundle.options(), bundle.rate
        except SparsetuneError:
            return None

    usual = comes_to("int8")
    same = [key for key, value in CHANGES.items() if comes_to(f"int8:{key}={value}") == usual]
    assert usual and not same
    assert not set(CHANGES) & {*REFUSED, *SEARCHED}


def test_a_plan_s_own_loss_is_not_ignored(samples: Path, tmp_path: Path, capsys) -> None:
    plan = tmp_path / "p.json"
    other = dataclasses.replace(default_plan(read_tflite(DIGITS), 1), loss="mse")
    plan.write_bytes(save_plan(other))
    assert cli.main(words(samples, tmp_path / "c", "--methods", f"int8:plan={plan}")) == 1
    assert "another loss than the model's own: say --loss mse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        ("search=gradients", "--search gradients"),
        ("search", "--search"),
        ("search=runs,budget_analytic=10K", "--search runs --budget-analytic 10K"),
        ("residual=1,time=0.06,flash-writes=1K", "--search --time 0.06 --flash-writes 1K"),
        ("share=2,search,ram=60K", "--search --share 2 --ram 60K"),
    ],
)
def test_a_search_is_made_before(
    keys: str, options: str, samples: Path, tmp_path: Path, capsys
) -> None:
    """Its plan is compared: the command that makes it is one that works."""
    folder = tmp_path / "c"
    for more in (("--methods", f"m=int8:{keys}"), ("--methods", "m=int8", f"--common={keys}")):
        assert cli.main(words(samples, folder, *more)) == 1
        said = capsys.readouterr().err
        command = f"sparsetune plan model.tflite --data samples.npz {options} -o FILE"
        assert said.count("\n") == 1 and f"`{command}`" in said and "plan=FILE" in said
        assert not folder.exists()
    given = command.replace("model.tflite", DIGITS.as_posix()).replace("FILE", f"{tmp_path}/p.json")
    asked = cli.build_parser().parse_args(given.replace("samples.npz", str(samples)).split()[1:])
    assert asked.output == tmp_path / "p.json" and asks_for_search(asked)


def test_help_names_all_methods(capsys) -> None:
    assert cli.main(["compare", "--help"]) == 0
    said = capsys.readouterr().out
    assert "or a policy" in said
    assert all(name in said for name in NAMED.keys() - POLICIES.keys())


def test_what_methods_come_to(samples: Path, tmp_path: Path) -> None:
    graph = read_tflite(DIGITS)
    layers = len(graph.trainable)
    file = tmp_path / "m.toml"
    file.write_text('[mine]\nmethod = "head"\nresidual = true\n[slow]\nrate = 0.001\nwarmup = 5\n')
    found = study(
        samples, "--common", "last=4,policy=random", "--methods", "head", "full", "bias", "int8",
        "a=int8:policy=static,bias=0", "--methods-file", file,
    ).methods  # fmt: skip
    plans = {bundle.name: bundle.plan(graph) for bundle in found}
    assert [*plans] == ["head", "full", "bias", "int8", "a", "mine", "slow"]
    assert plans["head"] == default_plan(graph, 1, 1)
    assert plans["full"] == default_plan(graph, layers, 1)
    assert [p.channels > 0 for p in plans["bias"].layers] == [False] * (layers - 1) + [True]
    assert plans["int8"] == default_plan(graph, 4)
    assert not any(layer.bias for layer in plans["a"].layers)
    assert plans["mine"] == dataclasses.replace(plans["head"], residual=True)
    options = {bundle.name: bundle.options() for bundle in found}
    assert options["head"] == {"policy": "random"} and options["a"] == {"policy": "static"}
    assert options["slow"] == {"policy": "random", "warmup": 5}
    assert {bundle.name: bundle.rate for bundle in found}["slow"] == "0.001"


def test_a_value_with_commas_of_its_own() -> None:
    told = parse_keys("augment=(flip,shift=4),last=2,residual")
    assert told == {"augment": "flip,shift=4", "last": "2", "residual": "1"}


def test_augmented_samples_are_not_those_of_the_front(samples: Path, tmp_path: Path) -> None:
    """They learn from the whole model, as `tune` has them; without, the front is left out."""
    more = ("--methods", "head", "moved=head:augment=(flip,shift=2)", "--seeds", 1)
    compare(samples, tmp_path / "c", *more, "--rates", "0.01")
    lines = {r["method"]: r["lines"] for r in records(tmp_path / "c")}
    assert lines["head"] != lines["moved"]
    assert len(list((tmp_path / "c" / "cache").glob("front-*"))) == 2


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--methods", "magic"), "there is no method magic: choose head, bias"),
        (("--methods", "int8:magic=1"), "the method int8:magic=1 has magic: choose among "),
        (("--methods", "int8:replay=s.npz,replay_share=0.5"), "has replay: runs have no earlier "),
        (("--methods", "int8:replay-share=0.3"), "has replay_share: runs have no earlier samples"),
        (("--methods", "int8:replay_samples=9"), "has replay_samples: runs have no earlier "),
        (("--methods", "int8:keep=9"), "has keep: no later run learns from samples of this one"),
        (("--methods", "int8:cache"), "has cache: the frozen front runs once for all methods"),
        (("--methods", "int8:seed=2"), "has seed: --seeds says how many: leave it out"),
        (("--methods", "int8:ram=60K"), "has ram: the table tells what each takes: leave it out"),
        (("--methods", "int8:set=warmup=5"), "has set: arguments of train() are keys themselves"),
        (("--methods", "int8:last=x"), "argument --last: 'x' is no whole number"),
        (("--methods", "int8:last=99"), "--last 99: the model has"),
        (("--methods", "int8:residual=2"), "has residual=2: give bool"),
        (("--methods", "int8:policy=magic"), "no policy magic: choose"),
        (("--methods", "int8:=1"), "spell it NAME:KEY=VALUE"),
        (("--methods", "int8", "int8"), "two methods are called int8"),
        (("--methods", "int8", "--select", "1"), "--select 1.0: give a share"),
        (("--methods", "int8", "--select", "0"), "--select 0 leaves nothing to judge on"),
        (("--methods", "int8", "--rates", "0"), "rates 0: '0' is no rate"),
        (("--methods", "int8", "--rates", "auto,"), "'' is no rate"),
        (("--methods", "int8", "--baseline", "b"), "--baseline b: choose among int8"),
        (("--methods", "int8:scheme=magic"), "there is no scheme magic"),
        (("--methods", "int8:patch=8"), "--patch 8: no layer whose weights train has a map"),
        ((), "nothing to compare: name --methods"),
        (("--methods-file", "nowhere.toml"), "cannot read nowhere.toml"),
        (("--methods", "int8", "--float", "magic"), "--float magic: choose last, all, same"),
        (("--methods", "int8", "--float", "last:magic=1"), "has magic: choose among of, batch"),
        (("--methods", "int8", "--float", "last:augment=gain=3"), "by flip and shift alone"),
        (("--methods", "int8", "--float", "last:augment=turn"), "no augmentation turn"),
        (("--methods", "int8", "--float", "last:batch=0"), "give a batch from 1 on"),
        (("--methods", "int8", "--float", "last:smoothing=1"), "a smoothing from 0 to below "),
        (("--methods", "int8", "--data", "nowhere.npz"), "nowhere.npz (No such file"),
    ],
)
def test_bad_input_is_one_line(
    more: tuple[str, ...], text: str, samples: Path, tmp_path: Path, capsys
) -> None:
    assert cli.main(words(samples, tmp_path / "c", *more)) == 1
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1 and said.startswith("sparsetune: error: ")
    assert not (tmp_path / "c" / "table.md").exists()


def test_a_name_is_one_method_s_wherever_it_is_told(samples: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[int8]\nwarmup = 5\n")
    more = ("--methods", "int8", "--methods-file", file)
    assert cli.main(words(samples, tmp_path / "c", *more)) == 1
    assert "two methods are called int8: leave out one" in capsys.readouterr().err


def test_both_kinds_of_runs_tell_by_one_file(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps not too often, and the last loss over as many samples."""
    now = iter([10.0, 10.2, 10.4, 10.6, 10.8])
    monkeypatch.setattr(run_lines.time, "monotonic", lambda: next(now))
    progress = run_lines.Progress()
    for steps in range(5):
        progress.at(steps)
    run_lines.tell(result={"loss": 1.5})
    lines = capsys.readouterr().out.splitlines()
    assert lines == ['{"steps": 0}', '{"steps": 3}', '{"result": {"loss": 1.5}}']
    losses = [9.0] * 100 + [float(i) for i in range(run_lines.LAST)]
    assert run_lines.last_loss(losses) == np.mean(losses[100:])
    assert run_lines.last_loss(losses, 64) == np.mean(losses[-run_lines.LAST // 64 :])
    assert run_lines.last_loss(losses, 1000) == losses[-1]
    package = Path(run_lines.__file__).parent
    for name in ("twin_run.py", "float_run.py"):
        text = (package / name).read_text()
        assert "from .run_lines import" in text and "print(" not in text


def test_without_torch_float_says_so(samples: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(comparing, "torch_python", lambda given: "")
    assert cli.main(words(samples, tmp_path, "--methods", "int8", "--float", "last")) == 1
    assert "--float needs a Python with torch" in capsys.readouterr().err


def test_a_run_that_fails_is_one_line(samples: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """And its reason; what was finished before is kept."""
    monkeypatch.setattr(comparison, "first_steps", lambda *_: "")
    policy = tmp_path / "mine.py"
    policy.write_text(
        "class P:\n    def __init__(self, layers, seed):\n        self.seed = seed\n\n"
        "    def choose(self, step, state):\n        if self.seed == 2:\n"
        "            raise ValueError('no such luck')\n"
    )
    more = ("--methods", f"int8:policy={policy}:P", "--rates", "0.01", "--seeds", 2, "--jobs", 1)
    assert cli.main(words(samples, tmp_path / "c", *more)) == 1
    said = capsys.readouterr().err
    assert "seed 2 failed: no such luck" in said and said.count("\n") == 1
    assert [r["seed"] for r in records(tmp_path / "c")] == [1]


# What is told ---------------------------------------------------------------------------------


def test_table_and_plots(samples: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    more = ("--methods", "head", "int8", "--seeds", 3, "--rates", "0.01", "--test-data")
    found = compare(samples, tmp_path / "c", *more, "--plots", "svg")
    names = ["accuracy_effort.svg", "accuracy_memory.svg", "accuracy_steps.svg"]
    assert sorted(path.name for path in (tmp_path / "c").glob("*.svg")) == names
    for name in names:
        assert "<svg" in (tmp_path / "c" / name).read_text()
    head, int8 = found["rows"]
    pairs = zip(int8["accuracies"], head["accuracies"], strict=True)
    differences = [a - b for a, b in pairs]
    assert int8["difference"] == pytest.approx(np.mean(differences))
    assert int8["difference_spread"] == pytest.approx(np.std(differences, ddof=1))
    assert "difference" not in head and head["backward_macs"] < int8["backward_macs"]
    text = (tmp_path / "c" / "table.md").read_text()
    assert f"| int8 | {100 * int8['mean']:.2f} ± {100 * int8['spread']:.2f} |" in text
    assert text in capsys.readouterr().out
    check_held_out(found, records(tmp_path / "c"), text)
    monkeypatch.setattr(comparing, "draw_table", lambda *_: [])
    compare(samples, tmp_path / "c", *more)
    assert "plots: not drawn" in capsys.readouterr().out


def check_held_out(found: dict[str, Any], runs: list[dict[str, Any]], text: str) -> None:
    """Beside test samples, what the same runs made of others; a table of one part has no such."""
    runs = sorted(runs, key=lambda run: run["seed"])  # they end in any order
    last = {
        method: np.array([run["curve"][-1][1] for run in runs if run["method"] == method])
        for method in ("head", "int8")
    }
    differences = last["int8"] - last["head"]
    head, int8 = (row["held_out"] for row in found["rows"])
    assert head["against"] is None
    assert head["accuracy"]["mean"] == pytest.approx(last["head"].mean())
    assert int8["against"]["mean"] == pytest.approx(differences.mean())
    assert int8["against"]["spread"] == pytest.approx(differences.std(ddof=1))
    at = text.splitlines()[0].split(" | ").index("held out")
    cell = text.splitlines()[3].split(" | ")[at]
    mean = 100 * differences.mean()
    assert cell.startswith(f"{100 * last['int8'].mean():.2f} ± ") and f"({mean:+.2f} ± " in cell
    assert markdown(Table.read(found)) == text
    one = {**found, "rows": [{k: v for k, v in row.items() if k != "held_out"}
                             for row in found["rows"]]}  # fmt: skip
    assert "held out" not in markdown(Table.read(one))


def test_numbers_without_a_right_answer(tmp_path: Path) -> None:
    """Of other losses the loss is told, less than zero."""
    net = Net((1, 6), seed=1)
    net.dense(2, scale=0.01)
    (tmp_path / "m.tflite").write_bytes(net.to_bytes())
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (60, 6)).astype(np.int8), rng.normal(0, 0.3, (60, 2))
    np.savez(tmp_path / "s.npz", x=x, y=y)
    more = ("--model", tmp_path / "m.tflite", "--loss", "mse", "--methods", "full", "--seeds", 1)
    found = compare(tmp_path / "s.npz", tmp_path / "c", *more, "--rates", "0.001")
    assert found["rows"][0]["mean"] < 0
    assert "mean loss, less than zero" in (tmp_path / "c" / "table.md").read_text()


def test_spread_of_one_seed_is_none() -> None:
    assert Figure.of([0.5]) == Figure(0.5, 0.0)


def test_effort_is_counted_on_the_model() -> None:
    """conv 4 > 8 on 6x6, 1x1 conv 8 > 8, dense: against a count by hand."""
    net = Net((1, 6, 6, 4), seed=1)
    net.conv(8, 3)
    net.conv(8, 1)
    net.flatten()
    net.dense(5)
    graph = parse_tflite(net.to_bytes())
    y = [graph.tensor(op.outputs[0]).shape for op in graph.trainable]
    conv, point = (y[0][1] * y[0][2] * 9 * 4 * 8, y[1][1] * y[1][2] * 8 * 8)
    dense = y[1][1] * y[1][2] * 8 * 5
    last, middle, first = (op.index for op in reversed(graph.trainable))
    effort = effort_of(graph, UpdatePlan((LayerPlan(last, 1),)))
    inputs = dense // 5
    assert effort.forward == conv + point + dense
    assert (effort.gradient, effort.update) == (0, dense // inputs)
    effort = effort_of(graph, UpdatePlan((LayerPlan(middle, 2), LayerPlan(last, inputs))))
    assert (effort.gradient, effort.update) == (dense, point * 2 // 8 + dense)
    effort = effort_of(graph, UpdatePlan((LayerPlan(first, 0),)))
    assert (effort.gradient, effort.update) == (point + dense, 0)


def test_effort_over_patches() -> None:
    """Nine patches of 2 on a map of 6x6, of both gradients."""
    net = Net((1, 6, 6, 4), seed=1)
    net.conv(8, 1)
    net.conv(8, 1)
    net.flatten()
    net.dense(5)
    graph = parse_tflite(net.to_bytes())
    first, middle, _ = (op.index for op in graph.trainable)
    dense, patches = 6 * 6 * 8 * 5, 9 * 8 * 8
    effort = effort_of(graph, UpdatePlan((LayerPlan(first, 4), LayerPlan(middle, 4, patch=2))))
    assert effort.gradient == dense + patches
    assert effort.update == 36 * 4 * 8 + patches // 2
    alone = LayerPlan(middle, 4, patch=2, weights_only=True)  # what is passed on is exact
    effort = effort_of(graph, UpdatePlan((LayerPlan(first, 4), alone)))
    assert effort.gradient == dense + 36 * 8 * 8
    assert effort.update == 36 * 4 * 8 + patches // 2


def test_the_board_s_ram_is_told_with_so_many_samples(samples: Path, tmp_path: Path) -> None:
    """1,000, however many the comparison has, as the legend says: a board may not hold those."""
    more = ("--methods", "head", "--seeds", 1, "--rates", "0.01")
    (row,) = compare(samples, tmp_path / "c", *more)["rows"]
    graph, spec = read_tflite(DIGITS), load_spec("pico")
    plan = default_plan(graph, 1, 1)
    image = parse_image(compile_image(graph, plan).image)
    use = [predict(image, count, spec).used for count in (1000, 999)]
    assert row["ram_bytes"] == use[0] != use[1]
    assert "all that training takes with 1,000 samples on the board (* does not fit)" in " ".join(
        (tmp_path / "c" / "table.md").read_text().split()
    )


def test_one_seed_has_no_spread(samples: Path, tmp_path: Path) -> None:
    more = ("--methods", "head", "int8", "--rates", "0.01", "--seeds")
    for seeds, told in (
        (1, "samples, of one seed. Memory"),
        (2, "mean ± standard deviation of 2 seeds;"),
    ):
        rows = compare(samples, tmp_path / "c", *more, seeds)["rows"]
        text = (tmp_path / "c" / "table.md").read_text()
        assert told in text and ("±" in text) == (seeds > 1)
        cells = text.splitlines()[3].split(" | ")
        assert cells[1].startswith(f"{100 * rows[1]['mean']:.2f}")
        assert cells[2].startswith(f"{100 * rows[1]['difference']:+.2f}")


def test_a_rate_is_measured_for_a_method_by_name(samples: Path, tmp_path: Path, capsys) -> None:
    compare(samples, tmp_path / "c", "--methods", "mine=head", "--seeds", 1)
    assert "mine: measuring a learning rate: short runs on this" in capsys.readouterr().out


def test_the_share_that_patches_keep_is_told(samples: Path, tmp_path: Path) -> None:
    folder, more = tmp_path / "c", ("--seeds", 1, "--rates", "0.01")
    found = compare(samples, folder, *more, "--methods", "int8", "fewer=int8:patch=2")["rows"]
    exact, fewer = (row["kept_bytes"] for row in found)
    assert fewer < exact == found[0]["kept_bytes_exact"] == found[1]["kept_bytes_exact"]
    text = (folder / "table.md").read_text()
    assert f"| {exact / 1024:.1f} |" in text
    assert f"| {fewer / 1024:.1f} ({fewer / exact:.1%}) |" in text


def test_effort_that_runs_counted_is_told(samples: Path, tmp_path: Path) -> None:
    """A line of a finished run with an effort event, as TinyProp tells it: a quarter was done."""
    folder, more = tmp_path / "c", ("--methods", "int8", "--seeds", 2, "--rates", "0.01")
    compare(samples, folder, *more)
    shares = iter((2000, 3000))
    told = [{**r, "events": {"effort": {"n": 9, "steps": 5000, "backward": next(shares)}}}
            for r in records(folder)]  # fmt: skip
    (folder / "runs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in told))
    found = compare(samples, folder, *more)["rows"][0]
    assert found["effort"]["backward"] == 2500
    text = (folder / "table.md").read_text()
    forward, backward = found["forward_macs"], found["backward_macs"]
    done = forward + backward / 4
    assert f"| {backward / 4e6:.2f} (25.0%) | {done / 1e6:.2f} " in text
    assert f" ({done / (forward + backward):.1%}) |" in text


def test_plots_need_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert comparison_plots.draw_table(None, tmp_path) == []  # type: ignore[arg-type]


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(SparsetuneError, match="cannot read"):
        RunLog(tmp_path / "runs.jsonl")


# Float ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def torch() -> str:
    python = torch_python()
    if not python:
        pytest.skip("SKIP: no Python with torch (pip install 'sparsetune[torch]')")
    return python


def test_the_float_network(torch: str, tmp_path: Path) -> None:
    """Front and rest are the whole; only what a plan trains moves, channels in turns."""
    net = Net((1, 8, 8, 3), seed=3)
    net.conv(8, 3, stride=2, activation=1, zero=-128)
    net.depthwise(1, 3, activation=1, zero=-128)
    net.conv(12, 1)
    net.flatten()
    net.dense(4)
    (tmp_path / "m.tflite").write_bytes(net.to_bytes())
    graph = parse_tflite(net.to_bytes())
    plan = default_plan(graph, 2, 0.5)
    (tmp_path / "g.pickle").write_bytes(pickle.dumps((graph, *split_front(graph, plan), plan)))
    env = {**os.environ, **dict(environment())}
    command = [torch, str(CHECKS), str(tmp_path / "g.pickle")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "front and rest\nchannels in turns\nmirrored and moved\n"


def test_float_runs_stand_in_the_table(torch: str, samples: Path, tmp_path: Path) -> None:
    """Seeds differ, a seed does not; each is better than chance."""
    more = ("--methods", "int8", "--float", "last:batch=4",
            "same:of=int8,batch=4,momentum=0.5,augment=(flip,shift=1)",
            "last:batch=4,smoothing=0.3",
            "--float-rates", "0.03", "--seeds", 2, "--rates", "0.01", "--epochs", 6,
            "--torch", torch)  # fmt: skip
    found = compare(samples, tmp_path / "a", *more)
    again = compare(samples, tmp_path / "b", *more)
    for row, other in zip(found["rows"], again["rows"], strict=True):
        assert row["accuracies"] == other["accuracies"] and min(row["accuracies"]) > 0.15
    last, same, smooth = found["rows"][1:]
    assert last["is_float"] and last["ram_bytes"] is None
    assert same["backward_macs"] == found["rows"][0]["backward_macs"] > last["backward_macs"]
    losses = [r["loss"] for r in records(tmp_path / "a") if r["method"] == last["name"]]
    assert len(set(losses)) == 2
    smoothed = [r["loss"] for r in records(tmp_path / "a") if r["method"] == smooth["name"]]
    assert min(smoothed) > max(losses)  # a loss that no sure answer makes small
