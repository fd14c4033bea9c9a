"""Momentum and gradient accumulation: when velocities move the weights, and what of them stays
(ulab_kernels/velocity.h). Steps of a group of `accumulate` add up; behind the last one
w += v; v *= momentum.
"""

import struct

from .schedule import parse_rate, scaled

UPDATE = 28  # byte offset in the control block, of two words (st_control_t)
WAITS = 1
MOST = 4096  # samples of a group
GROUPS_HELD = 16  # with momentum: channels that change take their velocity with them


def parse_momentum(text):
    """A decimal number below 1 in units of 1/32768."""
    mantissa, exponent = parse_rate(text)
    value = mantissa << exponent + 15 if exponent >= -15 else mantissa >> -exponent - 15
    if value >= 1 << 15:
        raise ValueError("momentum %s is not below 1: try 0.9" % text)
    return value


class Groups:
    """accumulate: samples of a group. momentum: decimal text."""

    def __init__(self, engine, accumulate, momentum):
        if not 1 <= accumulate <= MOST:
            raise ValueError("accumulate %d: choose 1 to %d" % (accumulate, MOST))
        if not engine.image.has_velocity:
            raise ValueError("momentum and accumulate need a plan with a velocity: plan again "
                             "with --velocity")
        self.state = engine.state
        self.size = accumulate
        self.momentum = parse_momentum(momentum)

    def rate(self, rate):
        """Of one sample: a group makes a step of the whole."""
        return scaled(rate, 32768 // self.size)

    def hold(self, asked, least):
        """Steps for which channels stay: whole groups. least: where nobody asked for any."""
        if asked % self.size:
            raise ValueError("hold %d is no multiple of accumulate %d" % (asked, self.size))
        groups = GROUPS_HELD if self.momentum else 1
        return asked or max(groups, (least + self.size - 1) // self.size) * self.size

    def begin(self, step):
        """Says what the step with this number does."""
        waits = WAITS if (step + 1) % self.size else 0
        struct.pack_into("<2I", self.state, UPDATE, waits, self.momentum)
