"""The command `sparsetune compare`: from its arguments to table and plots."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from sparsetune_device.schedule import parse_rate

from .boardspec import load_spec
from .comparison import Study, compare, sizes_of
from .comparison_plots import draw_table
from .comparison_table import PARTS, Table, make_table, markdown
from .errors import SparsetuneError, warn
from .files import write_whole
from .float_methods import FloatMethod, parse_floats, torch_python
from .methods import Method, Reader, check_names, load_methods, parse_keys, parse_methods
from .subject import Subject

FEW = 100  # samples, whose accuracy has a standard deviation of up to 5 points

def compare_methods(args: argparse.Namespace) -> None:
    """`sparsetune compare`."""
    study = study_of(args)
    part = "test" if args.test_data else "select"
    count = sizes_of(study)[part]
    if study.subject.task.counts_right:
        warn(_few(count, part))
    table = replace(table_of(study, part, args.baseline), count=count)
    for path in write_table(table, args.folder, args.plots):
        print(path)
    print(markdown(table), end="")


def _few(count: int, part: str) -> Iterator[str]:
    """A line where accuracies on so many samples tell methods apart badly."""
    if count < FEW:
        points = 100 * math.sqrt(0.25 / count)  # standard deviation, where half of them are right
        more = "in x_test" if part == "test" else "or hold out more with --select"
        yield (
            f"accuracies are of {count} {PARTS[part]}, and uncertain by up to {points:.0f} points: "
            f"smaller differences say nothing; give more samples{',' * (part != 'test')} {more}"
        )


def table_of(study: Study, part: str, baseline: str = "") -> Table:
    """Runs what is not done yet. Raises SparsetuneError."""
    names = [*(m.name for m in study.methods), *(m.name for m in study.floats)]
    if baseline and baseline not in names:
        raise SparsetuneError(f"--baseline {baseline}: choose among {', '.join(names)}")
    with _broken_off_in_order(study):
        return make_table(compare(study), study.subject.graph, study.spec, part, baseline)


@contextlib.contextmanager
def _broken_off_in_order(study: Study) -> Iterator[None]:
    """SIGTERM is heard as Ctrl-C is: no run and no file of one stays behind. Both say how to go
    on."""
    is_ours = threading.current_thread() is threading.main_thread()
    before = is_ours and signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"finished runs are kept in {study.log}: the same command again does the others, each "
            "from its first step"
        )
        raise
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def write_table(table: Table, folder: Path, kind: str) -> list[Path]:
    """table.md, table.json and the plots; their paths."""
    write_whole(folder / "table.md", markdown(table).encode())
    write_whole(folder / "table.json", (json.dumps(table.told(), indent=1) + "\n").encode())
    drawn = draw_table(table, folder, kind)
    if not drawn:
        print("plots: not drawn, matplotlib is not installed (pip install 'sparsetune[plot]')")
    return [folder / "table.md", folder / "table.json", *drawn]


def study_of(args: argparse.Namespace) -> Study:
    """What the arguments ask for. Raises SparsetuneError."""
    floats = parse_floats(args.float)
    python = torch_python(args.torch) if floats else ""
    if floats and not python:
        raise SparsetuneError(
            "--float needs a Python with torch: pip install 'sparsetune[torch]', or --torch PYTHON"
        )
    subject = Subject(args.model, args.data, args.select, args.loss or "", args.classes or 0)
    _check(args, subject, floats)
    layers = len(subject.graph.trainable)
    reader = Reader(args.method_parser, parse_keys(args.common) if args.common else {})
    rates, float_rates = (_rates(text, auto) for text, auto in
                          ((args.rates, True), (args.float_rates, False)))  # fmt: skip
    if not args.select and max(len(rates), len(float_rates) if floats else 0) > 1:
        raise SparsetuneError("--select 0 leaves no samples to choose a rate on: give one rate")
    return Study(
        subject, load_spec(args.board),
        tuple(reader.read(method, layers) for method in _methods(args)), tuple(floats),
        seeds=args.seeds, epochs=args.epochs, rates=rates, float_rates=float_rates,
        search_epochs=args.search_epochs, torch=python, folder=args.folder,
        log=args.runs or args.folder / "runs.jsonl",
        cache_bytes=args.cache, workers=args.jobs,
    )  # fmt: skip


def _methods(args: argparse.Namespace) -> list[Method]:
    found = parse_methods(args.methods)
    if args.methods_file:
        found += load_methods(args.methods_file)
    if not found:
        raise SparsetuneError("nothing to compare: name --methods, or a --methods-file")
    check_names([method.name for method in found])
    return found


def _check(args: argparse.Namespace, subject: Subject, floats: list[FloatMethod]) -> None:
    if not 0 <= args.select < 1:
        raise SparsetuneError(f"--select {args.select}: give a share from 0 to below 1")
    if not args.select and not args.test_data:
        raise SparsetuneError("--select 0 leaves nothing to judge on: say --test-data, or hold out")
    if floats and not subject.task.has_classes:
        raise SparsetuneError("--float learns classes alone: leave it out for other losses")


def _rates(text: str, may_be_tried: bool) -> tuple[str, ...]:
    """Decimal texts; auto and xFACTOR where rates are tried out."""
    found = []
    for part in text.split(","):
        is_factor = may_be_tried and part.startswith("x")
        if not (may_be_tried and part == "auto"):
            part = ("x" if is_factor else "") + _decimal(part[is_factor:], text)
        found.append(part)
    return tuple(found)


def _decimal(part: str, text: str) -> str:
    try:
        value = Decimal(part)
        if value.is_finite() and value > 0:
            parse_rate(f"{value:f}")
            return f"{value:f}"
    except (InvalidOperation, ValueError):
        pass
    raise SparsetuneError(f"rates {text}: {part!r} is no rate; give auto, x3, 0.01, ... by commas")
