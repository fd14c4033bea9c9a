"""At which rates a plan runs, where one rate was found for another plan.

A plan whose layers are driven harder (rate.py) needs a smaller rate: at that of the others, the one
that also trains the first layer of KWS is ruined, and its depth looks worst where it is best
(docs/DESIGN.md). What the rule says of one plan can be wrong by a factor of 25; its ratio between
two plans of a model is a better guess. Only layers whose weights train count: a bias has no input
to be driven by. Where the guess is another rate, the plan runs at that as well, and at the next
smaller one, as the guess is coarse; the best of its runs stands.
"""

from __future__ import annotations

from math import log

from ..plan import UpdatePlan
from ..rate import rate_bounds, two_digits
from ..trial import FACTOR
from .gains import Task


class Rates:
    """plan, rate (decimal text): at which that plan learns most. Without a model in the task: by a
    guess of activations."""

    def __init__(self, task: Task, plan: UpdatePlan, rate: str) -> None:
        x = task.samples.train.x if task.model else None
        self.bounds = rate_bounds(task.graph, task.graph.trainable, plan, task.model, x)
        self.is_known = task.graph.loss_name == "softmax"  # no rule holds for others
        self.rate, self.bound = rate, self._bound(plan)

    def of(self, plan: UpdatePlan) -> tuple[str, ...]:
        """One rate, that of the other plan, or two or three of which it is one."""
        bound = self._bound(plan)
        guess = round(log(bound / self.bound, float(FACTOR))) if bound and self.bound else 0
        powers = (0, guess, guess - 1) if guess and self.is_known else (0,)
        return tuple(two_digits(float(self.rate) * float(FACTOR) ** n) for n in sorted({*powers}))

    def _bound(self, plan: UpdatePlan) -> float:
        """0 where only biases train."""
        trained = [layer.operator for layer in plan.layers if layer.channels]
        return min((self.bounds[n] for n in trained if n in self.bounds), default=0.0)
