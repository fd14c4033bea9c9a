"""What is believed of layers' worth after runs of whole plans: Bayesian linear regression.

Minus the logarithm of a plan's loss is taken for a sum over what it trains: of each layer's weights
a share of the channels to some power times the layer's worth, of each bias its worth, and what the
head alone makes. Before any run, the worth of weights is one unknown multiple of what gradients
say, give or take; biases are all alike, give or take. How much is given, how noisy runs are, and
the power are those under which the runs are most likely (evidence; MacKay 1992, Neural Computation
4(3), 415-447).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Graph
from ..plan import UpdatePlan
from .gains import Worth

POWERS = (0.25, 0.5, 1.0)
SPREADS = (0.01, 0.02, 0.04, 0.08)  # of a layer's worth, where that of an average one is 0.1
NOISES = (0.02, 0.04, 0.08)  # of a run
SLOPE, LEVEL = 0.3, 3.0  # of the common multiple; of what the head alone makes
BIAS = 0.3  # of the spread of weights: that of biases
SMALLEST = 1e-6  # loss


@dataclass(frozen=True)
class Belief:
    """Of the values in Features' order: a normal distribution."""

    features: Features
    power: float
    noise: float
    mean: Array
    covariance: Array

    def expected(self) -> Worth:
        return self.features.worth(self.mean, self.power)


@dataclass(frozen=True)
class Features:
    """Of plans: the level of all, weights and bias of each trainable layer. prior: what gradients
    say."""

    graph: Graph
    prior: Worth

    def of(self, plan: UpdatePlan, power: float) -> Array:
        unit = Worth(dict.fromkeys(self._numbers, 1.0), {}, power)
        layers = [plan.layer(number) for number in self._numbers]
        weights = [unit.of_layer(self.graph, p) if p else 0.0 for p in layers]
        biases = [float(p is not None and p.bias) for p in layers]
        return np.array([1.0, *weights, *biases])

    def worth(self, values: Array, power: float) -> Worth:
        numbers = self._numbers
        weights, biases = values[1 : 1 + len(numbers)], values[1 + len(numbers) :]
        return Worth(
            dict(zip(numbers, weights.tolist(), strict=True)),
            dict(zip(numbers, biases.tolist(), strict=True)),
            power,
        )

    @property
    def _numbers(self) -> list[int]:
        """Without the head, which every plan trains: that is the level."""
        return [op.index for op in self.graph.trainable[:-1]]

    def before(self, spread: float) -> tuple[Array, Array]:
        """(mean, covariance) before any run."""
        said = np.array([max(0.0, self.prior.weights.get(n, 0.0)) for n in self._numbers])
        said = 0.1 * said / (said.mean() or 1.0)
        alike = np.full(len(said), 0.1)
        mean = np.concatenate([[0.0], said, np.zeros(len(said))])
        covariance = np.zeros((len(mean), len(mean)))
        covariance[0, 0] = LEVEL**2
        own = slice(1, 1 + len(said)), slice(1 + len(said), None)
        for at, common, each in zip(own, (said, alike), (spread, BIAS * spread), strict=True):
            covariance[at, at] = np.outer(common, common) * SLOPE**2 + np.eye(len(said)) * each**2
        return mean, covariance


def believed(features: Features, plans: list[UpdatePlan], losses: list[float]) -> Belief:
    """After these runs."""
    values, best = -np.log(np.maximum(losses, SMALLEST)), -np.inf
    for power in POWERS:
        x = np.array([features.of(plan, power) for plan in plans])
        for spread, noise in itertools.product(SPREADS, NOISES):
            likely, mean, covariance = _after(x, values, features.before(spread), noise)
            if likely > best:
                best, found = likely, Belief(features, power, noise, mean, covariance)
    return found


def _after(
    x: Array, values: Array, before: tuple[Array, Array], noise: float
) -> tuple[float, Array, Array]:
    """(logarithm of how likely the values are, mean, covariance)."""
    mean, covariance = before
    off = values - x @ mean
    among = x @ covariance @ x.T + noise**2 * np.eye(len(x))
    lower = np.linalg.cholesky(among)
    gain = np.linalg.solve(among, x @ covariance).T
    white = np.linalg.solve(lower, off)
    likely = -0.5 * float(white @ white) - float(np.log(np.diag(lower)).sum())
    return likely, mean + gain @ off, covariance - gain @ x @ covariance
