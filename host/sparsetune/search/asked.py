"""The search as a user asks for it: within which limits, by what, and what is told meanwhile."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from ..data import Dataset
from ..errors import SparsetuneError, warn
from ..files import read_file
from ..graph import Graph
from ..plan import CODED, WHOLE, UpdatePlan, default_plan, leave_in_flash
from ..room import Room, with_residual
from ..rules import with_rules
from ..share import checked_share
from ..trial import choose_rate
from .chosen import Finish, Limits, Search, same, search_plan
from .costs import Offer
from .gains import SAMPLES, Task, by_gradients, guessed, split, thinned
from .learnt import learn

FEWEST = 8  # samples that gradients are measured on
USUAL_LAYERS = 6
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
    if getattr(args, "share", None) is not None:
        values["share"] = checked_share(args.share)
    finish = partial(with_rules, graph, args=args, is_found=True)
    bits = WHOLE if getattr(args, "kept", None) is None else CODED
    offer = Offer(kept_bits=bits, outputs=getattr(args, "outputs", None) or 1.0)
    search = Search(graph, base, Limits(room, **values), finish, offer)
    if args.search == "runs":
        plan, how = _by_runs(search, args, data)
    elif data is None or len(data) < FEWEST:
        plan = search.best(guessed(graph).of).plan
        how = "the best choice by a guess"
        warn([f"what layers can gain is a guess for want of samples ({_wants(data)})"])
    else:
        worth = by_gradients(_task(graph, args, data))
        plan = search.best(thinned(graph, worth).of).plan
        how = "the best choice by gradients"
    trained = sum(layer.channels > 0 for layer in plan.layers)
    biases = sum(layer.bias for layer in plan.layers)
    print(f"found: weights of {trained} layers and biases of {biases}, {how}")
    return plan


def _task(graph: Graph, args: argparse.Namespace, data: Dataset) -> Task:
    head = replace(default_plan(graph, 1), loss=graph.loss)
    print(f"searching: gradients of up to {SAMPLES} samples ...", flush=True)
    model = read_file(args.model)
    return Task(graph, choose_rate(graph, head, model, data), split(data), model)


def _wants(data: Dataset | None) -> str:
    if data is None:
        return f"give --data, {FEWEST} or more"
    return f"{len(data)} are too few: give {FEWEST} or more"


def _by_runs(
    search: Search, args: argparse.Namespace, data: Dataset | None
) -> tuple[UpdatePlan, str]:
    """A plan, and how it was found."""
    if data is None or len(data) < FEWEST:
        raise SparsetuneError(f"--search runs needs samples: {_wants(data)}")
    task = _task(search.graph, args, data)
    tell = lambda line: print(f"searching: {line} ...", flush=True)  # noqa: E731
    decided = any(getattr(args, name, None) is not None for name in ("residual", "time"))

    def whole(plan: UpdatePlan) -> UpdatePlan:
        return plan if decided else with_residual(search.graph, plan, search.limits.room)

    found = learn(search, task, by_gradients(task), tell, whole)
    print("loss on held-out samples after short runs:")
    for name, loss in sorted(found.tried.items(), key=lambda item: item[1]):
        print(f"  {loss:.3f} {name}")
    return found.plan, f"the best of {found.count} plans in short runs ({found.name})"


def plan_within(
    graph: Graph,
    room: Room,
    base: UpdatePlan | None = None,
    whole: Finish = same,
    finish: Finish = same,
) -> UpdatePlan:
    """Where nothing is known of the samples: the last layers with half of their channels if that
    fits, else what a guess finds. Where nothing fits, a small plan, for the caller to say by how
    much it does not. base: without layers. whole: adds what else was asked for to a plan. finish:
    the same for one that is found, to which patches are added as far as they go."""
    base = base or UpdatePlan(())
    usual = replace(base, layers=default_plan(graph, USUAL_LAYERS).layers)
    if room.takes(graph, whole(usual)):
        return usual
    try:
        return search_plan(graph, base, Limits(room), guessed(graph).of, finish).plan
    except SparsetuneError:
        least = default_plan(graph, 1, 0.125).layers
        return leave_in_flash(graph, replace(base, layers=least), room.store_bytes)
