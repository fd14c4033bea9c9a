"""The search as a user asks for it: within which limits, by what, and what is told meanwhile."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data import Dataset
from ..errors import SparsetuneError
from ..files import read_file
from ..graph import Graph
from ..plan import UpdatePlan, default_plan, leave_in_flash
from ..room import Room
from ..trial import choose_rate
from .choice import best
from .chosen import Gains, Limits, problem_of, search_plan
from .costs import menu_of
from .gains import SAMPLES, Task, Worth, by_gradients, by_runs, guessed, split

FEWEST = 8  # samples that gradients are measured on
USUAL_LAYERS = 6
MOST_REACHED = 32  # layers that are measured by runs
OPTIONS = {"budget_analytic": "analytic", "time": "seconds", "flash_writes": "writes"}


def asks_for_search(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "search", None) or _limits_given(args))


def _limits_given(args: argparse.Namespace) -> dict[str, float]:
    """By name of the option."""
    given = {name: getattr(args, name, None) for name in OPTIONS}
    return {name: float(value) for name, value in given.items() if value is not None}


def refuse_beside(args: argparse.Namespace, others: list[str]) -> None:
    """Raises SparsetuneError where options that spell a plan out stand beside those of a search."""
    if others and asks_for_search(args):
        ours = "search" if args.search else next(iter(_limits_given(args)))
        raise SparsetuneError(
            f"--{ours.replace('_', '-')} looks for a plan, --{others[0]} says what trains: leave "
            "out one of them"
        )


def searched_plan(
    graph: Graph, args: argparse.Namespace, room: Room, base: UpdatePlan, data: Dataset | None
) -> UpdatePlan:
    """The plan that is expected to gain most. base: without layers. Raises SparsetuneError where
    none fits."""
    values = {OPTIONS[name]: value for name, value in _limits_given(args).items()}
    limits = Limits(room, **values)
    worth = _worth(graph, args, limits, base, data)
    found = search_plan(graph, base, limits, worth.of)
    trained = sum(layer.channels > 0 for layer in found.plan.layers)
    biases = sum(layer.bias for layer in found.plan.layers)
    print(f"found: weights of {trained} layers and biases of {biases}, the best choice by "
          f"{_by(args, data)}")  # fmt: skip
    return found.plan


def _by(args: argparse.Namespace, data: Dataset | None) -> str:
    if data is None or len(data) < FEWEST:
        return "a guess for want of samples (--data)"
    return "short runs" if args.search == "runs" else "gradients"


def _worth(
    graph: Graph, args: argparse.Namespace, limits: Limits, base: UpdatePlan, data: Dataset | None
) -> Worth:
    if data is None or len(data) < FEWEST:
        if args.search == "runs":
            raise SparsetuneError(f"--search runs needs samples: give --data, {FEWEST} or more")
        return guessed(graph)
    head = replace(default_plan(graph, 1), loss=graph.loss)
    print(f"searching: gradients of up to {SAMPLES} samples ...", flush=True)
    rate = choose_rate(graph, head, read_file(args.model), data)
    task = Task(graph, rate, split(data))
    worth = by_gradients(task)
    if args.search != "runs":
        return worth
    reached = _reached(graph, base, limits)
    return by_runs(task, reached, worth, lambda line: print(f"searching: {line} ...", flush=True))


def _reached(graph: Graph, base: UpdatePlan, limits: Limits) -> int:
    """How many layers, counted from the output, can train at most."""
    menu = menu_of(graph, replace(base, scratch=False), limits.room.spec.clock)
    far = Gains(np.arange(1.0, 1 + len(menu.depths)), np.zeros(len(menu.parts)))
    choice = best(problem_of(menu, far, limits, float(limits.room.ram)))
    return min(MOST_REACHED, choice.depth) if choice else 1


def plan_within(
    graph: Graph,
    room: Room,
    base: UpdatePlan | None = None,
    whole: Callable[[UpdatePlan], UpdatePlan] = lambda plan: plan,
) -> UpdatePlan:
    """Where nothing is known of the samples: the last layers with half of their channels if that
    fits, else what a guess finds. Where nothing fits, a small plan, for the caller to say by how
    much it does not. base: without layers. whole: adds what else was asked for to a plan."""
    base = base or UpdatePlan(())
    usual = replace(base, layers=default_plan(graph, USUAL_LAYERS).layers)
    if room.takes(graph, whole(usual)):
        return usual
    try:
        return search_plan(graph, base, Limits(room), guessed(graph).of).plan
    except SparsetuneError:
        least = default_plan(graph, 1, 0.125).layers
        return leave_in_flash(graph, replace(base, layers=least), room.store_bytes)
