"""The tables of what bench/search.py keeps: what each plan was said to gain before it trained, what
it reached, and how well the one ranks the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sparsetune.analytic import analytic_memory
from sparsetune.graph import Graph
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.search.gains import Worth, thinned

HEAD, SAID = "head", ("gradients", "runs")  # what is kept beside plans that trained
PLAIN = ("head alone", "last 6, half", "biases of 25")  # nobody needs a search to rank these

Found = Mapping[str, Any]  # of one task, what is kept by name


@dataclass(frozen=True)
class Row:
    """said: the gain, by gradients and by runs. right: shares, by seed. same_as: an earlier row
    with the same plan, or ""."""

    name: str
    kilobytes: float
    said: tuple[float, ...]
    right: tuple[float, ...]
    loss: float
    same_as: str


def read_worth(found: Any) -> Worth:
    """In the operators' order, whatever that of the file: what is kept hangs on its text."""
    values = (dict(sorted((int(n), v) for n, v in found[key].items()))
              for key in ("weights", "biases"))  # fmt: skip
    return Worth(*values, power=found["power"])


def read_plan(told: Any) -> UpdatePlan:
    return UpdatePlan(**{**told, "layers": tuple(LayerPlan(**layer) for layer in told["layers"])})


def plans_kept(found: Found) -> dict[str, UpdatePlan]:
    """Those that trained, the best first."""
    of = {name: each for name, each in found.items() if name not in (HEAD, *SAID)}
    names = sorted(of, key=lambda name: (-np.mean(of[name]["right"]), name))
    return {name: read_plan(of[name]["plan"]) for name in names}


def rows_of(graph: Graph, found: Found) -> list[Row]:
    gradients, runs = (read_worth(found[how]) for how in SAID)
    by, firsts, rows = (thinned(graph, gradients), runs), dict[UpdatePlan, str](), []
    for name, plan in plans_kept(found).items():
        learns = replace(plan, scratch=True)  # which changes no figure
        same_as = firsts.setdefault(learns, name)
        rows.append(Row(
            name, analytic_memory(graph, plan).total / 1024,
            tuple(worth.of_plan(graph, plan) for worth in by), tuple(found[name]["right"]),
            float(np.mean(found[name]["loss"])), "" if same_as == name else same_as,
        ))  # fmt: skip
    return rows


def ranks(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Spearman's coefficients of what gradients and runs say: (with accuracy, with minus loss).
    Plans that are the same count once."""
    rows = [row for row in rows if not row.same_as]
    reached = [np.mean(row.right) for row in rows], [-row.loss for row in rows]
    found = [[float(spearmanr([row.said[i] for row in rows], of)[0]) for of in reached]
             for i in range(len(SAID))]  # fmt: skip
    return [(accuracy, loss) for accuracy, loss in found]


def markdown(rows: Sequence[Row]) -> str:
    head = "| plan | KB | gradients say | runs say | right, % | by seed | loss |"
    lines = [head, "|---|" + "---:|" * 6]
    for row in rows:
        name = f"{row.name} (is {row.same_as})" if row.same_as else row.name
        right, seeds = f"{100 * np.mean(row.right):.2f}", [f"{100 * r:.2f}" for r in row.right]
        said = " | ".join(f"{value:.2f}" for value in row.said)
        cells = (name, f"{row.kilobytes:.1f}", said, right, ", ".join(seeds), f"{row.loss:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_ranks_told(rows)]) + "\n"


def _ranks_told(rows: Sequence[Row]) -> list[str]:
    head = "| Spearman of | plans | gradients, accuracy | loss | runs, accuracy | loss |"
    lines = [head, "|---|" + "---:|" * 5]
    without = [row for row in rows if row.name not in PLAIN]
    for which, some in (("all plans", rows), ("without the plain ones", without)):
        values = " | ".join(f"{value:.2f}" for pair in ranks(some) for value in pair)
        lines.append(f"| {which} | {sum(not row.same_as for row in some)} | {values} |")
    return lines
