"""Which samples are worth a whole step, where a run may go behind the loss of a given share of its
steps alone (`effort`): those with large errors are drawn more often, and what is drawn less often
learns at a higher rate (importance sampling, 1803.00942; that share is held by a controller).

A sample whose loss has a gradient of L1 norm n is drawn with the probability p = n / bound, 1 at
the most, and its step takes 1 / p times the rate: so the mean of what is learnt is that of all
steps. Behind each step the bound grows where the sample was drawn, and falls where it was not, so
that the counts come to the share: what has grown is what has fallen, but for where the bound began
and ended. The first norm may be far from those that follow, and so the bound moves faster at first:
by START / (AGE + steps) of a unit, until that is PACE (the step sizes of Robbins and Monro, 1951,
which are held where they are small enough). Its logarithm and, above AGE_AT, the count of steps are
a word of the state, so that a resumed run goes on as if it had not been broken off.

A step moves the weights as far as that of a sample at the bound would, which lies at mean / share
or above: with a small share further than any sample by itself. So the rate that was asked for is
multiplied by 1.5 * share, where that is below 1, and a step is that of 1.5 times the mean norm.
"""

import sparsetune_kernels as kernels

from .schedule import scaled

ONE = 1 << 15  # of a probability, and of a binary logarithm
PACE = 32  # of the bound: 0.1 of a factor of two, up and down together
START = 8192  # of the pace of the first steps, 16 times as fast, which falls to PACE
AGE = 16  # steps
SETTLED = START // PACE - AGE  # steps behind which the pace stays
AGE_AT = 20  # bit of the word; its bound is below, the whole no more than 30 bits
MOST = (30 << 15) - 1  # logarithm of what a norm cannot exceed
LEAST = ONE >> 7  # probability: what is learnt is looked at now and then
LONGEST = 150  # percent of the mean norm: whose step is the longest
DRAW = 0x57B0  # counter of these random bits


def logarithm(n):
    """Of a whole number from 1 to 2^30 - 1, to the base of two; linear between its powers."""
    whole = 0
    while n >> whole + 1:
        whole += 1
    part = n << 15 - whole if whole < 15 else n >> whole - 15
    return (whole << 15) + part - ONE


def probability(norm, bound):
    """norm / 2^bound as ONEths of 1, at the most 1. bound: a logarithm as above."""
    whole, part = bound >> 15, ONE + (bound & ONE - 1)
    if norm >= (part << whole - 15 if whole > 15 else part >> 15 - whole):
        return ONE
    return min(ONE, (norm << 29 - whole) // (part >> 1))


class Worth:
    """percent: of the steps that are to go on behind their loss, 1 to 99."""

    SIGN = -1  # of its word (effort.py)

    def __init__(self, percent):
        if not isinstance(percent, int) or not 1 <= percent <= 99:
            raise ValueError("effort %s: give a whole number of percent from 1 to 99" % percent)
        self.percent = percent
        self.slower = min(ONE, ONE * LONGEST * percent // 10000)
        self.chance = ONE

    def begin(self, norm):
        """The bound in front of a run's first step, whose norm is this."""
        share = logarithm((100 << 8) // self.percent) - (8 << 15)
        return logarithm(norm) + share

    def look(self, norm, word, seed):
        """Whether a step of this norm goes on. word: as after() left it, 0 in the first step."""
        norm = max(1, norm)
        self.age = word >> AGE_AT
        self.bound = min(MOST, word & (1 << AGE_AT) - 1 or self.begin(norm))
        self.chance = max(LEAST, probability(norm, self.bound))
        return kernels.random(seed, DRAW) & ONE - 1 < self.chance

    def after(self, goes_on):
        """The word behind a step: its bound, and how many steps it has seen."""
        pace = max(PACE, START // (AGE + self.age))
        age = min(SETTLED, self.age + 1) << AGE_AT
        if goes_on:
            return age + min(MOST, self.bound + pace * (100 - self.percent))
        return age + max(1, self.bound - pace * self.percent)

    def force(self):
        """The step of the last look goes on in any case."""
        self.chance = ONE

    def rate(self, rate):
        """Of a step that goes on."""
        rate = scaled(rate, self.slower)
        chance, shift = self.chance, 1
        while chance < ONE >> 1:
            chance, shift = chance << 1, shift + 1
        mantissa, exponent = scaled(rate, (1 << 29) // chance)
        return mantissa, exponent + shift
