"""Short runs of whole plans: each once for a seed, or once at each of some rates, all judged on the
same held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..cores import core_count
from ..front import split_front
from ..graph import Graph
from ..plan import UpdatePlan
from .chosen import Finish, same
from .runs import Judged, Run, Samples, behind_front, train_and_judge

Trial = tuple[UpdatePlan, int]  # a plan, and the seed of a run
RatesOf = Callable[[UpdatePlan], Sequence[str]]


class Trials:
    """run: how long, and at which rate. whole: what else a plan gets when it is trained. rates: at
    which a plan runs first, in place of that of run; further seeds run at the best of them."""

    def __init__(
        self, graph: Graph, samples: Samples, run: Run, whole: Finish = same,
        rates: RatesOf | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.samples, self.run, self.whole = graph, samples, run, whole
        self.rates: RatesOf = rates or (lambda plan: (run.rate,))
        self.known: dict[Trial, Judged] = {}
        self.best: dict[UpdatePlan, str] = {}  # rate
        self._behind = {0: (graph, samples)}  # by place

    def judge(self, trials: Sequence[Trial]) -> list[Judged]:
        """In their order. Which cores there are changes nothing but the time."""
        missing = [trial for trial in dict.fromkeys(trials) if trial not in self.known]
        runs = [(plan, replace(self.run, seed=seed, rate=rate))
                for plan, seed in missing for rate in self._rates(plan)]  # fmt: skip
        fronts = self._fronts([plan for plan, _ in runs])
        with ThreadPoolExecutor(core_count()) as threads:
            found = list(threads.map(self._judged, runs, fronts))
        for (plan, run), judged in zip(runs, found, strict=True):
            known = self.known.get((plan, run.seed))
            if known is None or judged.loss < known.loss:
                self.known[plan, run.seed] = judged
                self.best[plan] = run.rate
        return [self.known[trial] for trial in trials]

    def _rates(self, plan: UpdatePlan) -> Sequence[str]:
        return (self.best[plan],) if plan in self.best else self.rates(plan)

    def losses(self, plans: Sequence[UpdatePlan], seed: int) -> list[float]:
        return [judged.loss for judged in self.judge([(plan, seed) for plan in plans])]

    def _judged(self, run: tuple[UpdatePlan, Run], front: tuple[Graph, Samples]) -> Judged:
        return train_and_judge(front[0], self.whole(run[0]), front[1], run[1])

    def _fronts(self, plans: list[UpdatePlan]) -> list[tuple[Graph, Samples]]:
        """Model and samples behind what each plan leaves frozen, made once for each place, and
        each from the one before it."""
        places = [self._place(plan) for plan in plans]
        for place, plan in sorted(zip(places, plans, strict=True), key=lambda pair: pair[0]):
            if place not in self._behind:
                graph, samples = self._behind[max(p for p in self._behind if p < place)]
                self._behind[place] = behind_front(graph, plan, samples)
        return [self._behind[place] for place in places]

    def _place(self, plan: UpdatePlan) -> int:
        """How many operators lie in front of it."""
        front, _ = split_front(self.graph, plan)
        return len(front.operators) if front else 0
