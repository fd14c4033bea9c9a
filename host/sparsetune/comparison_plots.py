"""A comparison drawn: accuracy against memory, against effort, and over training."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from .comparison_table import Row, Table, counted_share
from .files import write_whole

SIZE = (8, 4.5)  # inches, as the loss curve's
MARKS = "osD^vP*X"


def draw_table(table: Table, folder: Path, kind: str = "png") -> list[Path]:
    """Writes the plots; their paths, none where matplotlib is missing. kind: png or svg."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    drawn = []
    for name, draw in (("memory", _memory), ("effort", _effort), ("steps", _steps)):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes, table)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:  # over training nothing is known without --select
            figure.legend(loc="outside right upper", fontsize=8)
        image = BytesIO()
        figure.savefig(image, format=kind, dpi=120)
        drawn.append(folder / f"accuracy_{name}.{kind}")
        write_whole(drawn[-1], image.getvalue())
    return drawn


def _scale(table: Table) -> int:
    return 100 if table.percent else 1


def _label(table: Table, part: str) -> str:
    what = "accuracy, %" if table.percent else "mean loss, less than zero"
    return f"{what} ({'test' if part == 'test' else 'held-out'} samples)"


def _points(axes: Any, table: Table, place: Callable[[Row], float]) -> None:
    """A point for each method, with its spread over the seeds."""
    for i, row in enumerate(table.rows):
        found, scale = row.accuracy, _scale(table)
        axes.errorbar(place(row), scale * found.mean, scale * found.spread, label=row.name,
                      marker=MARKS[i % len(MARKS)], linestyle="none", capsize=3, color=_colour(i),
                      fillstyle="none" if row.is_float else "full")  # fmt: skip
    axes.set_ylabel(_label(table, table.part))


def _memory(axes: Any, table: Table) -> None:
    _points(axes, table, lambda row: float(row.costs["analytic_bytes"]) / 1024)
    axes.set(xlabel="training memory as MCUNetV3 counts it, KB", xscale="log")


def _effort(axes: Any, table: Table) -> None:
    _points(axes, table, _backward)
    axes.set(xlabel="multiply-accumulates of a step's backward pass, millions", xscale="log")


def _backward(row: Row) -> float:
    return counted_share(row) * float(row.costs["backward_macs"]) / 1e6


def _steps(axes: Any, table: Table) -> None:
    for i, row in enumerate(table.rows):
        if row.curve:
            steps, accuracies = zip(*row.curve, strict=True)
            axes.plot(steps, [_scale(table) * a for a in accuracies], label=row.name,
                      marker=MARKS[i % len(MARKS)], markersize=4, color=_colour(i),
                      linestyle="--" if row.is_float else "-")  # fmt: skip
    axes.set(xlabel="steps (samples)", ylabel=_label(table, "select"))
    axes.set_xlim(left=0)


def _colour(i: int) -> str:
    return f"C{i % 10}"
