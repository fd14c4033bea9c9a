"""Momentum and gradient accumulation: when velocities move the weights, and what of them stays
(ulab_kernels/velocity.h). Steps of a group of `accumulate` add up; behind the last one
w += v; v *= momentum. Standardised (Deutel, 2407.10734), the weights of each filter move by
(v - mean) / deviation instead, times what is asked for: `standardise` quantisation steps, root mean
square, at the run's full learning rate.
"""

import struct

from .channels import EPOCH
from .engine import UPDATE
from .schedule import parse_rate

GAIN = 48  # byte offset in the control block (st_control_t)
WAITS, STANDARD = 1, 2
MOST = 4096  # samples of a group
GROUPS_HELD = 16  # with momentum: channels that change take their velocity with them


def parse_momentum(text):
    """A decimal number below 1 in units of 1/32768."""
    mantissa, exponent = parse_rate(text, "momentum")
    value = mantissa << exponent + 15 if exponent >= -15 else mantissa >> -exponent - 15
    if value >= 1 << 15:
        raise ValueError("momentum %s is not below 1: try 0.9" % text)
    return value


def divided(rate, by):
    """rate / by, of two rates; by: not 0. In two parts, as in schedule.py: it runs in each step."""
    first = (rate[0] << 14) // by[0]
    rest = (rate[0] << 14) - first * by[0]
    mantissa, exponent = (first << 2) + (rest << 2) // by[0], rate[1] - by[1] - 16
    if mantissa >= 1 << 16:
        mantissa, exponent = mantissa >> 1, exponent + 1
    return mantissa, exponent


class Groups:
    """accumulate: samples of a group. momentum, standardise: decimal text."""

    def __init__(self, engine, accumulate, momentum, standardise="0"):
        if not 1 <= accumulate <= MOST:
            raise ValueError("accumulate %d: choose 1 to %d" % (accumulate, MOST))
        if not engine.image.has_velocity:
            raise ValueError("momentum and accumulate need a plan with a velocity: plan again "
                             "with --velocity")
        self.standard = parse_rate(standardise)
        self.state = engine.state
        self.size = accumulate
        self.divisor = parse_rate(accumulate)
        self.momentum = parse_momentum(momentum)

    def rate(self, rate):
        """Of one sample: a group makes a step of the whole."""
        rate = divided(rate, self.divisor)
        if self.standard[0] and rate[0]:
            struct.pack_into("<Hh", self.state, GAIN, *divided(self.standard, rate))
        return rate

    def hold(self, asked, least):
        """Steps for which channels stay: whole groups. asked: by the run, as `hold`. least: what
        suits it without groups."""
        groups = (least + self.size - 1) // self.size
        if asked == EPOCH:
            return groups * self.size
        if asked % self.size:
            raise ValueError("hold %d is no multiple of accumulate %d" % (asked, self.size))
        return asked or max(GROUPS_HELD if self.momentum else 1, groups) * self.size

    def begin(self, step):
        """Says what the step with this number does."""
        flags = STANDARD if self.standard[0] else 0
        if (step + 1) % self.size:
            flags |= WAITS
        struct.pack_into("<2I", self.state, UPDATE, flags, self.momentum)
