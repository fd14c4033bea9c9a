"""The search by short runs: how deep to train, and how widely, is found by runs of whole plans; in
the end the best of those that ran is taken.

What gradients say of layers beside each other is right enough, of layers far apart it is not: what
lies deep looks worth too much (docs/DESIGN.md). So the integer program finds the best plan of each
depth, and runs tell which depth it should be, by halving the steps between those that were tried;
so they do of what a share of the channels gains. Published schemes that fit run as well, and plans
that are best by what is believed of layers after all runs (belief.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import SparsetuneError
from ..plan import UpdatePlan, default_plan, with_biases
from ..rate import two_digits
from ..schemes import load_scheme, scheme_names, scheme_plan
from ..trial import FACTOR
from ..trial import search as search_power
from .belief import Belief, Features, believed
from .chosen import INFINITE, Finish, Gains, Search, Value, same
from .costs import Menu
from .gains import Task, Tell, Worth, thinned
from .rates import Rates
from .runs import Run, Samples
from .trials import Trials

STEPS = 2000  # of a run, and samples
MOST_HELD = 600
DEPTHS = (0.12, 0.25, 0.35, 0.5, 0.7, 1.0)  # shares of the layers, to begin with
POWER, POWERS = 0.5, (0.25, 1.0)  # of a share of the channels: what it gains
BIASES = (0.25, 0.5)  # shares of the layers, of plans of nothing else
FEW = (1, 2, 4)  # layers that train weights, where a step updates a share: none is visited rarely
ROUNDS = 3
QUICK = "by gradients"  # what the search without runs finds
LAST, SEEDS = 4, (2, 3, 4)  # plans that run again, and their seeds

Names = dict[UpdatePlan, str]
# How many layers at most, the power of a share, how many train their weights beside the head.
Way = tuple[int, float, float]


@dataclass(frozen=True)
class Learnt:
    """plan: the best, by its name. worth: what layers are worth, by all runs. tried: by name, the
    losses of plans that ran in the end. count: of plans that ran."""

    plan: UpdatePlan
    name: str
    worth: Worth
    tried: dict[str, float]
    count: int


def learn(
    search: Search, task: Task, first: Worth, tell: Tell, whole: Finish = same
) -> Learnt:
    """first: what gradients say. whole: see Trials. Raises SparsetuneError where no plan fits."""
    tried = _Tried(search, task, first, whole)
    run = tried.trials.run
    tell(f"short runs of {len(tried.names)} plans, {run.steps} steps each at {run.rate}")
    for number in range(ROUNDS):
        tell(f"short runs, {number + 1} of {ROUNDS} times, around the best")
        tried.around_the_best()
    last = tried.last()
    tell(f"the best {len(last)} plans again, with {len(SEEDS)} seeds each")
    return tried.best(last)


class _Tried:
    """Plans that ran."""

    def __init__(self, search: Search, task: Task, first: Worth, whole: Finish) -> None:
        self.search, self.first = search, first
        samples = _some(task.samples)
        self.ways: dict[Way, UpdatePlan] = {}
        self.names = published(search)
        count = len(search.graph.trainable)
        for share in DEPTHS:
            self.add((max(1, round(share * count)), POWER, INFINITE))
        for few in FEW if search.limits.share < INFINITE else ():
            self.add((max(1, round(DEPTHS[3] * count)), POWER, few))
        self.quick = search.best(thinned(search.graph, first).of).plan
        self.names.setdefault(self.quick, QUICK)
        middle = list(self.ways.values())[len(self.ways) // 2]
        run = _run(task, samples, whole(middle))
        rates = Rates(task, middle, run.rate)
        self.trials = Trials(task.graph, samples, run, whole, rates.of)
        self.features = Features(task.graph, first)
        self.beside = _beside(search)

    def add(self, way: Way) -> None:
        if way not in self.ways:
            depth, power, layers = way
            worth = replace(self.first, power=power)
            plan = self.ways[way] = self._best(partial(_up_to, worth, depth), layers)
            few = f", weights of {layers:g}" if layers < INFINITE else ""
            self.names.setdefault(plan, f"{depth} layers at most, power {power:g}{few}")

    def _best(self, value: Value, layers: float) -> UpdatePlan:
        search = self.search if layers == INFINITE else self.search.within(layers)
        return search.best(value).plan

    def around_the_best(self) -> None:
        """Depths halfway to those beside the best, other powers at that, and what is believed."""
        losses = self.losses(list(self.ways.values()))
        depth, power, layers = min(zip(losses, self.ways, strict=True))[1]
        depths = sorted({depth for depth, _, _ in self.ways})
        at = depths.index(depth)
        beside = {(depth + other) // 2 for other in depths[max(0, at - 1) : at + 2]}
        ways: list[Way] = [(other, power, layers) for other in sorted(beside)]
        ways += [(depth, other, layers) for other in POWERS]
        believed = self.belief().expected()
        for way in ways:
            self.add(way)
        for most in (depth, len(self.search.graph.trainable)):
            plan = self._best(partial(_up_to, believed, most), layers)
            self.names.setdefault(plan, f"after {len(self.trials.known)} runs, {most} layers")

    def losses(self, plans: list[UpdatePlan], seed: int = 1) -> list[float]:
        return self.trials.losses(plans, seed)

    def belief(self) -> Belief:
        plans = [*self.beside, *self.names]
        return believed(self.features, plans, self.losses(plans))

    def last(self) -> list[UpdatePlan]:
        """Those whose first runs are best, the best of what is published, and the quick one."""
        plans, schemes = list(self.names), set(scheme_names())
        order = [i for _, i in sorted(zip(self.losses(plans), range(len(plans)), strict=True))]
        ours = [plans[i] for i in order if self.names[plans[i]] not in schemes]
        theirs = [plans[i] for i in order if self.names[plans[i]] in schemes]
        return list(dict.fromkeys([*ours[:LAST], *theirs[:1], self.quick]))

    def best(self, last: list[UpdatePlan]) -> Learnt:
        """Of these that whose further runs are best."""
        means = np.mean([self.losses(last, seed) for seed in SEEDS], axis=0)
        tried = {self.names[plan]: float(mean) for plan, mean in zip(last, means, strict=True)}
        best = last[int(np.argmin(means))]
        return Learnt(best, self.names[best], self.belief().expected(), tried, len(self.names))


def _some(samples: Samples) -> Samples:
    return Samples(samples.train.part(slice(STEPS)), samples.held.part(slice(MOST_HELD)))


def _run(task: Task, samples: Samples, plan: UpdatePlan) -> Run:
    """At the rate at which this plan learns most in as many steps."""
    steps = max(STEPS // 2, len(samples.train))
    first = float(task.rate)

    def rate(power: int) -> str:
        return two_digits(first * float(FACTOR) ** power)

    def loss(power: int) -> float:
        return Trials(task.graph, samples, Run(steps, rate(power))).losses([plan], 1)[0]

    return Run(steps, rate(search_power(loss, INFINITE)))


def published(search: Search) -> Names:
    """Schemes that fit."""
    found = {_scheme(search, name): name for name in scheme_names()}
    return {plan: name for plan, name in found.items() if plan}


def _up_to(worth: Worth, depth: int, menu: Menu) -> Gains:
    """The same, but that no more than so many layers are worth anything."""
    gains = worth.of(menu)
    depths = gains.depths.copy()
    depths[depth:] = depths.min() - np.abs(depths).max() - np.abs(gains.parts).sum() - 1
    return replace(gains, depths=depths)


def _scheme(search: Search, name: str) -> UpdatePlan | None:
    """None where it is for another network, or does not fit."""
    try:
        found = scheme_plan(search.graph, load_scheme(name))
    except SparsetuneError:
        return None
    plan = replace(search.base, layers=found.layers)
    return plan if search.fits(plan) else None


def _beside(search: Search) -> list[UpdatePlan]:
    """What any plan is better than, for comparison: the head alone, and biases."""
    count = len(search.graph.trainable)
    head = replace(search.base, layers=default_plan(search.graph, 1).layers)
    return [head, *(with_biases(search.graph, head, max(1, round(s * count))) for s in BIASES)]
