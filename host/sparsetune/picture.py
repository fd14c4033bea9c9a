"""A picture of the arena over time: one rectangle for each buffer."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from .arena import Lifetime, lifetimes
from .errors import SparsetuneError
from .files import write_output
from .graph import Graph
from .image import Layout
from .peak import Peak, find_peak, identify, strip_length
from .program import Code, Program

COLOURS = {
    "activation": "#7fb3d5",
    "rows of a map": "#aed6f1",
    "kept channels": "#f5b041",
    "clamp mask": "#c39bd3",
    "places of maxima": "#d7bde2",
    "error tensor": "#ec7063",
    "scratch row": "#7dcea0",
    "one filter": "#a9dfbf",
    "packed weights and windows": "#d5f5e3",
    "target of the sample": "#f9e79f",
    "work space": "#ccd1d1",
}
ROOM = 0.025  # share of the picture that a rectangle needs each way to have its name in it


def draw(layout: Layout, graph: Graph, path: Path) -> None:
    """Writes the picture, a PNG. Raises SparsetuneError where matplotlib is missing or the file
    cannot be written."""
    try:
        figure = figure_of(layout, graph)
    except ImportError:
        raise SparsetuneError(
            "--picture needs matplotlib, which is not installed: pip install 'sparsetune[plot]'"
        ) from None
    image = BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_output(path, image.getvalue())


def figure_of(layout: Layout, graph: Graph) -> Any:
    """A matplotlib Figure. Time runs over the operators of the program, forward pass first; a
    second panel is the slower memory of boards that have two."""
    from matplotlib.figure import Figure

    lives = lifetimes(layout.program)
    cold = [life for life in lives if life.buffer.is_cold]
    figure = Figure(figsize=(12, 12 if cold else 6), layout="constrained")
    axes = figure.add_subplot(2 if cold else 1, 1, 1)
    _panel(axes, [life for life in lives if not life.buffer.is_cold], layout, graph)
    _mark(axes, find_peak(layout.program, graph), layout)
    axes.set_ylabel("offset in the arena, bytes")
    if cold:
        axes = figure.add_subplot(2, 1, 2)
        _panel(axes, cold, layout, graph)
        axes.set_ylabel("offset in slower memory, bytes")
    return figure


def _panel(axes: Any, lives: list[Lifetime], layout: Layout, graph: Graph) -> None:
    from matplotlib.patches import Rectangle

    height = max(life.buffer.offset + life.buffer.size for life in lives)
    _passes(axes, layout.program, height)
    shown: dict[str, Any] = {}
    for life in lives:
        buffer, what = life.buffer, identify(life.buffer, graph)[0].what
        size = life.last - life.first + 1, buffer.size
        box = Rectangle((life.first, buffer.offset), *size, label=what, facecolor=COLOURS[what],
                        edgecolor="white", linewidth=0.4)
        axes.add_patch(box)
        shown.setdefault(what, box)
        if size[0] >= ROOM * len(layout.program.ops) and size[1] >= ROOM * height:
            middle = life.first + size[0] / 2, buffer.offset + size[1] / 2
            axes.text(*middle, buffer.name, ha="center", va="center", fontsize=7)
    axes.legend(handles=list(shown.values()), loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)


def _passes(axes: Any, program: Program, height: int) -> None:
    """The line between forward and backward pass; strips in grey."""
    axes.set(xlim=(0, len(program.ops)), ylim=(0, height * 1.08), xlabel="operator of the program")
    for at, op in enumerate(program.ops):
        if op.code == Code.STRIP:
            axes.axvspan(at, at + 1 + strip_length(program, at), color="0.93", zorder=0)
    if program.forward < len(program.ops):
        axes.axvline(program.forward, color="black", linewidth=1, linestyle="--")
        for text, side in (("forward ", "right"), (" backward and updates", "left")):
            axes.text(program.forward, height * 1.03, text, ha=side, va="bottom", fontsize=9)


def _mark(axes: Any, peak: Peak, layout: Layout) -> None:
    end = peak.at + 1 + strip_length(layout.program, peak.at)
    axes.axvspan(peak.at, end, facecolor="none", edgecolor="black", linewidth=1.5)
    axes.axhline(layout.arena_bytes, color="black", linewidth=0.6)
    axes.set_title(
        f"arena {layout.arena_bytes:,} bytes; peak {peak.bytes:,} bytes at {peak.where} (framed)",
        fontsize=10,
    )
