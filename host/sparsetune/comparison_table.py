"""What a comparison came to: a row for each method, as Markdown and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .analytic import analytic_memory
from .boardspec import BoardSpec
from .budget import all_weights, kept_use, trained_weights
from .commands import SAMPLES_ASSUMED
from .comparison import Outcome
from .effort import effort_of
from .errors import SparsetuneError
from .graph import Graph
from .image import parse_image
from .memory import predict
from .plan import UpdatePlan
from .room import Room
from .run_log import Record

Fields = dict[str, Any]
PARTS = {"test": "test samples", "select": "held-out training samples"}


@dataclass(frozen=True)
class Figure:
    """Mean over the seeds, and the standard deviation between them."""

    mean: float
    spread: float

    @staticmethod
    def of(values: Sequence[float]) -> Figure:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return Figure(statistics.fmean(values), spread)


@dataclass(frozen=True)
class HeldOut:
    """against: as of a Row."""

    accuracy: Figure
    against: Figure | None

    @staticmethod
    def read(told: Fields) -> HeldOut:
        """Of asdict()."""
        against = told["against"]
        return HeldOut(Figure(**told["accuracy"]), Figure(**against) if against else None)


ROW = ("name", "is_float", "rate", "accuracies", "curve", "steps", "seconds")
MEANS = ("mean", "spread", "difference", "difference_spread", "held_out")


@dataclass(frozen=True)
class Row:
    """accuracies: by seed, shares, or mean losses less than zero. curve: (steps, mean accuracy on
    held-out samples). seconds: of the processor, None where a run did not count them. costs: in
    bytes, multiply-accumulates and shares; None where there is none. against: (mean, spread) of the
    differences to the baseline, seed by seed. held_out: beside accuracies on test samples, what the
    same runs made of those that they were chosen on."""

    name: str
    is_float: bool
    rate: str
    accuracies: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]
    steps: int
    seconds: float | None
    costs: Fields
    against: Figure | None = None
    held_out: HeldOut | None = None

    @property
    def accuracy(self) -> Figure:
        return Figure.of(self.accuracies)

    def told(self) -> Fields:
        """Of JSON's types."""
        told = {name: getattr(self, name) for name in ROW}
        mean: Fields = {"mean": self.accuracy.mean, "spread": self.accuracy.spread}
        if self.against:
            mean |= {"difference": self.against.mean, "difference_spread": self.against.spread}
        if self.held_out:
            mean |= {"held_out": asdict(self.held_out)}
        return told | mean | self.costs

    @staticmethod
    def read(told: Fields) -> Row:
        """As told() had it. Costs that nobody counted yet are missing."""
        given = {name: told[name] for name in ROW} | {"accuracies": tuple(told["accuracies"])}
        against = None
        if "difference" in told:
            against = Figure(told["difference"], told["difference_spread"])
        costs = {name: value for name, value in told.items() if name not in (*ROW, *MEANS)}
        held_out = HeldOut.read(told["held_out"]) if "held_out" in told else None
        return Row(**given, costs=costs, against=against, held_out=held_out)


@dataclass(frozen=True)
class Table:
    """part: which samples the accuracies are of: test, or select. percent: whether they are
    accuracies. count: of these samples, 0 where that is not told."""

    rows: tuple[Row, ...]
    part: str
    baseline: str
    percent: bool
    count: int = 0

    @property
    def has_held_out(self) -> bool:
        """Whether all rows tell of two parts."""
        return all(row.held_out for row in self.rows)

    def told(self) -> Fields:
        rows = [row.told() for row in self.rows]
        told: Fields = {"part": self.part, "baseline": self.baseline, "rows": rows}
        return told | ({"samples": self.count} if self.count else {})

    @staticmethod
    def read(told: Fields) -> Table:
        """As told() had it."""
        table = _table(tuple(map(Row.read, told["rows"])), told["part"], told["baseline"])
        return replace(table, count=told.get("samples", 0))


def _table(rows: tuple[Row, ...], part: str, baseline: str) -> Table:
    return Table(rows, part, baseline, all(min(row.accuracies) >= 0 for row in rows))


def make_table(
    outcomes: Sequence[Outcome], graph: Graph, spec: BoardSpec, part: str, baseline: str
) -> Table:
    """part: `test` or `select`. baseline: a method's name, empty for the first. Raises
    SparsetuneError."""
    names = [outcome.entry.name for outcome in outcomes]
    baseline = baseline or names[0]
    if baseline not in names:
        raise SparsetuneError(f"--baseline {baseline}: choose among {', '.join(names)}")
    base = outcomes[names.index(baseline)]
    rows = []
    for outcome in outcomes:
        records, found = outcome.records, _accuracies(outcome.records, part)
        steps, seconds = records[0]["steps"], _seconds(records)
        costs, against = costs_of(outcome, graph, spec), _against(outcome, base, part)
        held_out = _held_out(outcome, base) if part == "test" else None
        rows.append(Row(outcome.entry.name, outcome.entry.is_float, outcome.rate, found,
                        _curve(records), steps, seconds, costs, against, held_out))  # fmt: skip
    return _table(tuple(rows), part, baseline)


def _against(outcome: Outcome, base: Outcome, part: str) -> Figure | None:
    """Differences, seed by seed; None of the baseline itself."""
    if outcome is base:
        return None
    pairs = zip(_accuracies(outcome.records, part), _accuracies(base.records, part), strict=True)
    return Figure.of([a - b for a, b in pairs])


def _held_out(outcome: Outcome, base: Outcome) -> HeldOut | None:
    """None where no samples were."""
    if not all(record["curve"] for record in (*outcome.records, *base.records)):
        return None
    found = Figure.of(_accuracies(outcome.records, "select"))
    return HeldOut(found, _against(outcome, base, "select"))


def _seconds(records: Sequence[Record]) -> float | None:
    """Those of the clock, which earlier runs told, hang on what else the computer did."""
    told = [record["cpu_seconds"] for record in records if "cpu_seconds" in record]
    return statistics.fmean(told) if len(told) == len(records) else None


def _accuracies(records: Sequence[Record], part: str) -> tuple[float, ...]:
    if part == "test":
        return tuple(float(record["test"]) for record in records)
    return tuple(float(record["curve"][-1][1]) for record in records)


def _curve(records: Sequence[Record]) -> tuple[tuple[int, float], ...]:
    """The mean over the seeds, as far as all of them got."""
    curves = [record["curve"] for record in records]
    return tuple(
        (points[0][0], statistics.fmean(p[1] for p in points))
        for points in zip(*curves, strict=False)
    )


def costs_of(outcome: Outcome, graph: Graph, spec: BoardSpec) -> Fields:
    """Bytes and work of a method. Of the float baseline only what does not hang on a board."""
    plan = outcome.entry.plan
    effort = effort_of(graph, plan)
    costs: Fields = {
        "analytic_bytes": analytic_memory(graph, plan).total,
        "share": trained_weights(graph, plan) / all_weights(graph),
        "forward_macs": effort.forward,
        "backward_macs": effort.backward,
        "ram_bytes": None,
        "fits": None,
        "flash_bytes": None,
        "effort": _counted(outcome.records),
    }
    return costs if outcome.entry.is_float else costs | _board_costs(outcome, graph, plan, spec)


def _board_costs(outcome: Outcome, graph: Graph, plan: UpdatePlan, spec: BoardSpec) -> Fields:
    room = Room(spec, spec.heap_bytes, SAMPLES_ASSUMED, spec.store_bytes)
    try:
        layout = room.compile(graph, plan)
    except SparsetuneError:
        return {}
    use = predict(parse_image(layout.image), room.samples, spec)
    kept, exact = kept_use(layout.program)
    return {
        "ram_bytes": use.used,
        "fits": room.holds(layout),
        "flash_bytes": len(layout.image),
        "kept_bytes": kept,
        "kept_bytes_exact": exact,
    }


def _counted(records: Sequence[Record]) -> Fields | None:
    """What the runs themselves said of their effort, the mean of every field."""
    told = [record["events"].get("effort") for record in records]
    if not all(told):
        return None
    return {k: statistics.fmean(event[k] for event in told) for k in told[0]
            if isinstance(told[0][k], int)}  # fmt: skip


def counted_share(row: Row) -> float:
    """Of the plan's backward pass what the runs really did, where they counted (device/effort.py):
    multiply-accumulates, else steps that were not skipped."""
    told = row.costs["effort"] or {}
    return float(told.get("backward", told.get("steps", 10000))) / 10000


def step_share(row: Row) -> float:
    """Of whole steps, forward and backward. A front that ran once for all runs counts as if it had
    run in every step."""
    forward, backward = row.costs["forward_macs"], row.costs["backward_macs"]
    return float((forward + counted_share(row) * backward) / (forward + backward))


# As text --------------------------------------------------------------------------------------

HEAD = ("method", "accuracy", "against", "held out", "memory, analytic", "board RAM", "kept",
        "flash", "forward", "backward", "step", "trains", "rate", "steps", "seconds")  # fmt: skip


def markdown(table: Table) -> str:
    """A table; figures are mean ± standard deviation over the seeds, where there are several."""
    what = f"{table.count:,} " * bool(table.count) + PARTS[table.part]
    more = HEAD[3:] if table.has_held_out else HEAD[4:]
    head = [*HEAD[:2], f"against {table.baseline}", *more]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(_cells(row, table)) + " |" for row in table.rows]
    seeds = len(table.rows[0].accuracies)
    unit = "accuracy in %" if table.percent else "mean loss, less than zero"
    of = (
        f"mean ± standard deviation of {seeds} seeds; the difference is taken seed by seed"
        if seeds > 1
        else "of one seed"
    )
    lines += [
        "",
        f"{unit} on {what}, {of}{_of_held_out(table)}. "
        "Memory in KB of 1,024 bytes: analytic as MCUNetV3 counts it; the "
        f"board's, all that training takes with {SAMPLES_ASSUMED:,} samples on the board (* does "
        "not fit); kept: activations for the weights' gradients (where patches make them fewer, "
        "their share of the others). Multiply-accumulates of a "
        "sample in millions, of a step forward and backward; in brackets the share of full "
        "gradients, and of whole steps with them, that was really done, where runs counted it: "
        "without brackets, zeros behind a ReLU are counted as work. Trains: share of the weights "
        "and biases that a step moves. Seconds of the processor, of a run.",
    ]
    return "\n".join(lines) + "\n"


def _of_held_out(table: Table) -> str:
    if not table.has_held_out:
        return ""
    return "; held out: of the same runs, on training samples that rates were chosen on"


def _cells(row: Row, table: Table) -> list[str]:
    scale = 100 if table.percent else 1
    costs = row.costs
    has_spread = len(row.accuracies) > 1
    ram = "" if costs.get("fits") is None else "" if costs["fits"] else "*"
    forward, backward = costs["forward_macs"], costs["backward_macs"]
    return [
        row.name,
        _figure(row.accuracy, scale, "", has_spread),
        _figure(row.against, scale, "+", has_spread),
        *([_held_out_cell(row, scale)] if table.has_held_out else []),
        _kilobytes(costs["analytic_bytes"]),
        _kilobytes(costs["ram_bytes"]) + ram,
        _kept(costs),
        _kilobytes(costs["flash_bytes"]),
        f"{forward / 1e6:.2f}",
        _done(backward, counted_share(row), row),
        _done(forward + backward, step_share(row), row),
        f"{costs['share']:.1%}",
        row.rate,
        f"{row.steps:,}",
        "-" if row.seconds is None else f"{row.seconds:.0f}",
    ]


def _held_out_cell(row: Row, scale: int) -> str:
    """With the difference in brackets."""
    if row.held_out is None:
        return ""
    has_spread = len(row.accuracies) > 1
    difference = _figure(row.held_out.against, scale, "+", has_spread)
    of_all = _figure(row.held_out.accuracy, scale, "", has_spread)
    return of_all + (f" ({difference})" if difference else "")


def _figure(figure: Figure | None, scale: int, sign: str, has_spread: bool) -> str:
    """sign: + to write that of both kinds. Of one seed nobody knows the spread."""
    if figure is None:
        return ""
    spread = f" ± {scale * figure.spread:.2f}" if has_spread else ""
    return f"{scale * figure.mean:{sign}.2f}" + spread


def _done(macs: int, share: float, row: Row) -> str:
    """In millions; with the share, where it was counted."""
    return f"{share * macs / 1e6:.2f}" + f" ({share:.1%})" * bool(row.costs["effort"])


def _kept(costs: Fields) -> str:
    """Activations for the weights' gradients, and which share that is where some are filtered."""
    kept, exact = costs.get("kept_bytes"), costs.get("kept_bytes_exact")
    share = f" ({kept / exact:.1%})" if kept and exact and kept < exact else ""
    return _kilobytes(kept) + share


def _kilobytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1024:.1f}"
