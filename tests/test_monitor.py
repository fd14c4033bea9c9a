"""The monitor: what it shows, what it logs, and that nothing on the line upsets it."""

from __future__ import annotations

import io
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sparsetune.errors import SparsetuneError
from sparsetune.monitor import (
    Monitor,
    Options,
    Run,
    braille_curve,
    default_log,
    duration,
    plot_loss,
    read_steps,
    render,
    running_means,
)
from sparsetune_device.telemetry import event_line, step_line


class Clock:
    """Time that moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def text_of(panel: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(panel)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def watch(lines: list[str], log: Path, every: int = 10, width: int = 100) -> tuple[Monitor, str]:
    """Feed `lines`, half a second apart, to a plain monitor; returns it and its output."""
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    with Monitor(Options(log=log, every=every, clock=clock, port="COM1"), console) as monitor:
        for line in lines:
            monitor.feed(line)
            clock.now += 0.5
    return monitor, out.getvalue()


def steps(count: int) -> list[str]:
    return [step_line(65536 * 2 // (i + 1), 65536 * i // count, 41000) for i in range(count)]


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path: Path) -> None:
    """Of the line that had no room nothing is left."""
    log, whole = tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    watch(steps(9), whole)
    room = sum(map(len, whole.read_bytes().splitlines(keepends=True)[:4])) + 10
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        monitor, told = watch(steps(9), log, every=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.read_bytes() == whole.read_bytes()[: room - 10]
    assert monitor.run.step == 9 and "step 9" in told
    assert told.count("takes no more, the run goes on without its log") == 1


def test_run_is_followed(tmp_path: Path) -> None:
    lines = [event_line("start", steps=20), *steps(10)]
    run = watch(lines, tmp_path / "log.jsonl")[0].run
    assert (run.steps, run.total_steps, run.done, run.error) == (10, 20, False, None)
    assert run.losses[:2] == [2.0, 1.0]
    assert run.rate() == pytest.approx(2.0)
    assert run.seconds_left() == pytest.approx(5.0)


def test_time_left_does_not_count_what_comes_before_the_first_steps() -> None:
    """Nor a first step that takes longer; of one step alone nothing can be said."""
    run = Run(total_steps=20)
    for i, now in enumerate((30.0, 40.0, 40.5, 41.0)):
        run.add_step({"loss": 1.0, "ms": 500.0}, now)
        assert (run.rate() is None) == (i == 0)
    assert run.seconds_left() == pytest.approx(16 / 2)


def test_time_left_follows_the_last_steps(tmp_path: Path) -> None:
    """Of a run that slows down from 10 to 1 step a second, with lines lost on the way."""
    run = Run(total_steps=400)
    for i in range(300):
        run.add_step({"loss": 1.0, "ms": 1.0}, i / 10 if i < 100 else i - 90.0)
        if i == 250:
            run.add_event("lost", {"steps": 50})
    assert run.seconds_left() == pytest.approx(50 / 1.5)


@pytest.mark.parametrize(
    ("ms", "apart", "text"),
    [(1048.2, 1.1, "1.05 s"), (24.1, 0.03, "24.1 ms"), (0.1, 0.000093, "93 µs")],
)
def test_seconds_a_step_have_digits(ms: float, apart: float, text: str) -> None:
    """The board's clock counts, but for a twin whose steps it is too coarse for."""
    run = Run()
    for i in range(9):
        run.add_step({"loss": 1.0, "ms": ms}, i * apart)
    assert duration(run.seconds_a_step()) == text


def test_lost_lines_keep_their_numbers(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lost = event_line("lost", lines=6, steps=5)
    lines = [
        event_line("start", steps=20),
        *steps(3),
        lost,
        *steps(2),
        event_line("lost", steps="x"),
    ]
    run = watch(lines, log)[0].run
    assert (run.step, run.steps, len(run.losses)) == (10, 10, 5)
    assert [record["step"] for record in read_steps(log)] == [1, 2, 3, 9, 10]


def test_effort_is_told_in_percent(tmp_path: Path) -> None:
    lines = [event_line("start", steps=20), *steps(3), event_line("effort", n=40, steps=1500)]
    told = join(lines, tmp_path / "log.jsonl")[2]
    assert "effort: 15.0% of the steps went behind their loss" in told and "1,500" not in told


def join(lines: list[str], log: Path) -> tuple[Monitor, list[Any], str]:
    """A run that is watched from somewhere on: (monitor, step numbers in the log, output)."""
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    with Monitor(Options(log=log, every=10, joined=True), console) as monitor:
        for line in lines:
            monitor.feed(line)
    return monitor, [record["step"] for record in read_steps(log)], out.getvalue()


def test_a_run_that_is_joined_has_the_boards_numbers(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    at = event_line("at", step=305, steps=400)
    monitor, numbers, out = join([*steps(5), at, *steps(8)], log)
    assert numbers == list(range(301, 314))
    assert "step 310/400" in out and "at:" not in out
    assert monitor.run.step == 313 and monitor.run.total_steps == 400
    lost = event_line("lost", lines=3, steps=3)
    assert join([*steps(2), lost, *steps(2), at, *steps(1)], log)[1] == [299, 300, 304, 305, 306]
    assert join([*steps(4), event_line("done", steps=400)], log)[1] == [397, 398, 399, 400]


def test_a_run_that_begins_while_it_is_watched_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    start = event_line("start", first=20, steps=30)
    assert join([start, *steps(3)], log)[1] == [21, 22, 23]


def test_lines_without_numbers_are_counted(tmp_path: Path) -> None:
    """As programs of others print them."""
    log = tmp_path / "log.jsonl"
    assert join(steps(30), log)[1] == list(range(1, 31))
    assert join(steps(3), log)[1] == [1, 2, 3]
    assert join([*steps(3), "#at|steps=400", "#at|step=x"], log)[1] == [1, 2, 3]


def test_end_and_error(tmp_path: Path) -> None:
    lines = [*steps(2), event_line("error", what="arena too small: 10 KB"), event_line("done")]
    run = watch(lines, tmp_path / "log.jsonl")[0].run
    assert run.done
    assert run.error == "arena too small: 10 KB"


@pytest.mark.parametrize(
    ("asked", "work", "told"), [(2, 1, 1), (2, 2, 0), (None, 1, 0), (1, 1, 0)]
)
def test_a_core_that_is_missing_is_told(
    asked: int | None, work: int, told: int, tmp_path: Path
) -> None:
    out = io.StringIO()
    with Monitor(Options(log=tmp_path / "log", cores=asked), Console(file=out)) as monitor:
        monitor.feed(event_line("start", cores=work))
    assert out.getvalue().count("one core works, not two") == told
    assert text_of(render(monitor.run, 80)).count("one core works, not two") == told


def test_log_has_every_line(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    lines = ["MPY: soft reboot", "", event_line("mem", free=123), *steps(3), "los:junk\ufffd,"]
    watch(lines, log)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["text", "mem", "step", "step", "step", "text"]
    assert records[1] == {"kind": "mem", "free": 123, "time": 1001.0}
    assert records[2] == {
        "time": 1001.5,
        "kind": "step",
        "step": 1,
        "loss": 2.0,
        "acc": 0.0,
        "ms": 41.0,
    }
    assert [record["step"] for record in read_steps(log)] == [1, 2, 3]


def test_log_is_written_as_it_goes(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    monitor = Monitor(Options(log=log, plain=True), Console(file=io.StringIO()))
    monitor.feed(steps(1)[0])
    assert len(read_steps(log)) == 1
    monitor.close()


def test_event_fields_cannot_overwrite_the_record(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    watch(["#odd|kind=step|time=5"], log)
    assert json.loads(log.read_text()) == {"kind": "odd", "time": 1000.0}


def test_plain_output(tmp_path: Path) -> None:
    lines = [event_line("start", steps=20, seed=1), "hello [bold]", *steps(20), event_line("done")]
    _, out = watch(lines, tmp_path / "log.jsonl")
    shown = out.splitlines()
    assert shown[0] == "start: seed 1  steps 20"
    assert shown[1] == "board: hello [bold]"
    assert shown[2].startswith("step 10/20  loss 0.58")
    assert "2.00 steps/s" in shown[2]
    assert shown[3].startswith("step 20/20 ")
    assert shown[3].endswith("left 0:00")
    assert shown[4] == "done"
    assert len(shown) == 5
    assert "\x1b" not in out


def test_live_view(tmp_path: Path) -> None:
    start = event_line("start", steps=100, cores=2)
    lines = [start, event_line("mem", free=98304), *steps(40)]
    run = watch(lines, tmp_path / "log.jsonl")[0].run
    text = text_of(render(run, 80))
    for part in ("sparsetune  COM1", "40 of 100", "2.0000", "98,304", "41.0 ms on 2 cores", "0:30"):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_live_view_before_and_after_one_step(width: int) -> None:
    run = Run()
    assert "waiting" in text_of(render(run, width), width)
    run.add_step({"loss": 0.5, "acc": 0.5, "ms": 1.0}, 10.0)
    assert "0.5000" in text_of(render(run, width), width)


def test_live_view_runs_on_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=30)
    with Monitor(Options(log=tmp_path / "log.jsonl"), console) as monitor:
        for line in steps(30):
            monitor.feed(line)
    assert "\u28c0" <= max(out.getvalue()) and "\x1b" in out.getvalue()


def test_curve_is_drawn_where_it_should_be() -> None:
    assert braille_curve([1.0, 0.0], 1, 1) == ["\u28b9"]
    falling = braille_curve([float(v) for v in range(40, 0, -1)], 20, 5)
    assert len(falling) == 5
    assert {len(row) for row in falling} == {20}
    first, last = falling[0], falling[-1]
    assert first[0] != "\u2800" and first[-1] == "\u2800"
    assert last[0] == "\u2800" and last[-1] != "\u2800"


def test_running_means() -> None:
    assert running_means([4.0, 2.0, 0.0, 6.0], 2) == [4.0, 3.0, 1.0, 3.0]
    assert running_means([]) == []


def test_curve_of_a_constant_and_of_nothing() -> None:
    assert len(braille_curve([0.5] * 10, 8, 3)) == 3
    assert braille_curve([], 4, 2) == ["\u2800" * 4] * 2


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SparsetuneError, match="--log"):
        Monitor(Options(log=tmp_path / "file" / "log.jsonl"))


def test_default_logs_do_not_collide(tmp_path: Path) -> None:
    first = default_log(tmp_path)
    first.write_text("")
    assert default_log(tmp_path) != first


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log, png = tmp_path / "log.jsonl", tmp_path / "new" / "loss.png"
    watch(steps(50), log)
    assert plot_loss(log, png)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_plot_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log = tmp_path / "log.jsonl"
    watch(steps(5), log)
    with pytest.raises(SparsetuneError, match="cannot write"):
        plot_loss(log, log / "loss.png")


def test_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, png = tmp_path / "log.jsonl", tmp_path / "loss.png"
    watch(steps(5), log)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not plot_loss(log, png)
    assert not png.exists()


@pytest.mark.parametrize("content", ["", '{"kind": "text"}\n'])
def test_plot_of_no_steps(tmp_path: Path, content: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(content)
    with pytest.raises(SparsetuneError, match="no steps yet"):
        plot_loss(log, tmp_path / "loss.png")


@pytest.mark.parametrize("content", ["not json\n", "[1]\n", '{"a": 1}\n'])
def test_plot_of_something_else(tmp_path: Path, content: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(content)
    with pytest.raises(SparsetuneError, match="not a log"):
        plot_loss(log, tmp_path / "loss.png")
