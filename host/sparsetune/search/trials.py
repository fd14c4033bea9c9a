"""Short runs of whole plans: each once for a seed, all judged on the same held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..cores import core_count
from ..front import split_front
from ..graph import Graph
from ..plan import UpdatePlan
from .chosen import Finish, same
from .runs import Judged, Run, Samples, behind_front, train_and_judge

Trial = tuple[UpdatePlan, int]  # a plan, and the seed of a run


class Trials:
    """run: how long, and at which rate. whole: what else a plan gets when it is trained."""

    def __init__(self, graph: Graph, samples: Samples, run: Run, whole: Finish = same) -> None:
        self.graph, self.samples, self.run, self.whole = graph, samples, run, whole
        self.known: dict[Trial, Judged] = {}
        self._behind = {0: (graph, samples)}  # by place

    def judge(self, trials: Sequence[Trial]) -> list[Judged]:
        """In their order. Which cores there are changes nothing but the time."""
        missing = [trial for trial in dict.fromkeys(trials) if trial not in self.known]
        fronts = self._fronts([plan for plan, _ in missing])
        with ThreadPoolExecutor(core_count()) as threads:
            found = list(threads.map(self._judged, missing, fronts))
        self.known.update(zip(missing, found, strict=True))
        return [self.known[trial] for trial in trials]

    def losses(self, plans: Sequence[UpdatePlan], seed: int) -> list[float]:
        return [judged.loss for judged in self.judge([(plan, seed) for plan in plans])]

    def _judged(self, trial: Trial, front: tuple[Graph, Samples]) -> Judged:
        plan, seed = trial
        return train_and_judge(front[0], self.whole(plan), front[1], replace(self.run, seed=seed))

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
