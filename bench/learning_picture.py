"""README's picture: what training on the chip reaches, against the RAM that it takes.

    python bench/learning_picture.py

draws rows of bench/results/learning.json, CIFAR-10 alone, to bench/results/learning.svg.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from emulated import ROOT  # and the path to tests
from sparsetune.boardspec import load_spec
from sparsetune.files import write_whole

RESULTS = ROOT / "bench" / "results"
SIZE = (8, 4.2)  # inches
BEGIN, END = 80, 345  # of the picture, KB
# Experiment, row, what it is called, where that stands beside its point (points of 1/72 inch).
POINTS = (
    ("last", "head residual", "last layer", (8, -4)),
    ("precision", "int8", "MCUNetV3's scheme, int8 weights", (-8, -4)),
    ("precision", "residual", "the same, 8 more bits a weight", (-8, -26)),
    ("searched", "searched", "our search", (8, -4)),
    ("sparse-long", "sparse", "2 % of the weights a step", (-8, -6)),
)
FLOATS = (
    ("last", "fp32 last", "float, last layer"),
    ("precision", "fp32 same:of=int8,batch=16,rate=0.01", "float, the scheme's layers"),
    ("sparse-long", "fp32 all:batch=16,rate=0.004", "float, everything"),
)


def row_of(known: dict[str, Any], experiment: str, name: str) -> dict[str, Any]:
    """Raises KeyError where it was not measured."""
    for row in known[experiment]["rows"]:
        if row["name"] == name:
            return dict(row)
    raise KeyError(f"{experiment} has no {name}")


def told(known: dict[str, Any]) -> str:
    """The figures that the picture shows, in words: it carries them, so that a test can tell
    whether it is today's."""
    points = [
        f"{text}: {100 * row['mean']:.2f} ({100 * row['spread']:.2f}) % at {row['ram_bytes']} bytes"
        for experiment, name, text, _ in POINTS
        for row in [row_of(known, experiment, name)]
    ]
    floats = [
        f"{text}: {100 * row_of(known, experiment, name)['mean']:.2f} %"
        for experiment, name, text in FLOATS
    ]
    return "; ".join([*points, *floats])


def draw(known: dict[str, Any]) -> bytes:
    """The picture as SVG. known: what learning.json has."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "sparsetune"  # the same figures, the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    for experiment, name, text, beside in POINTS:
        row = row_of(known, experiment, name)
        at = (row["ram_bytes"] / 1024, 100 * row["mean"])
        axes.errorbar(*at, 100 * row["spread"], marker="o", capsize=3)
        side = "right" if beside[0] < 0 else "left"
        axes.annotate(text, at, beside, textcoords="offset points", ha=side)
    for experiment, name, text in FLOATS:
        height = 100 * row_of(known, experiment, name)["mean"]
        axes.axhline(height, linestyle="--", color="grey", linewidth=0.8)
        axes.annotate(text, (BEGIN, height), (4, 3), textcoords="offset points", color="grey")
    room = load_spec("pico").heap_bytes / 1024
    axes.axvline(room, color="black", linewidth=0.8)
    axes.annotate("what MicroPython leaves on a Pico", (room, 62.3), (4, 0),
                  textcoords="offset points", rotation=90)  # fmt: skip
    axes.set(xlim=(BEGIN, END), ylim=(62, 83), xlabel="RAM that training takes, all of it, KB")
    axes.set_ylabel("CIFAR-10, % of test photos")
    image = BytesIO()
    said = {"Date": None, "Creator": None, "Description": told(known)}
    figure.savefig(image, format="svg", metadata=said)
    return image.getvalue()


def main() -> None:
    known = json.loads((RESULTS / "learning.json").read_text())
    write_whole(RESULTS / "learning.svg", draw(known))


if __name__ == "__main__":
    main()
