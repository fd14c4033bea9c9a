"""Effort of a run: steps that were skipped because their sample is learnt already (TinyPropV2,
2409.07109), and the multiply-accumulates that the others took, as the kernels counted them.

A step runs up to its loss. A rule looks at the L1 norm of the loss' gradient, 2 (1 - p) for a
softmax that gives the label p, and says whether the rest is left out: `skip` where it is below that
share of the largest of late, `effort` see worth.py. What a rule remembers is a word of the state,
so that a resumed run goes on as if it had not been broken off; its SIGN tells the rule, so that
none takes what the other remembered for its own. The last step of a group that accumulates is never
left out, because it moves the weights; the others' gradients count as zeros.
"""

import struct

from .engine import RATE, UPDATE
from .schedule import parse_rate
from .telemetry import event_line

# Byte offsets in the control block.
NORM, EFFORT, RULE = 24, 36, 40
WAITS = 1  # a group of steps goes on (momentum.py)
FORGET = 10  # 2^-10 of the largest norm is forgotten in each step; TinyProp's never decays
CARRY = 20  # bits: counts of more than 30 would be objects


def threshold(text):
    """A share such as "0.1" in 1/32768; 0 for an empty text. Raises ValueError."""
    mantissa, exponent = parse_rate(text or "0", "skip")
    if exponent > -16 and mantissa:
        raise ValueError("skip %s is not a share below 1 such as 0.1" % text)
    return mantissa >> min(31, -exponent - 15) if mantissa else 0


class Threshold:
    """skip: share of the largest norm of late, as text. What it remembers is that norm."""

    SIGN = 1

    def __init__(self, skip):
        self.share = threshold(skip)

    def look(self, norm, most, seed):
        """Whether a step of this norm goes on. most: as after() left it."""
        self.most = most = max(norm, most - (most >> FORGET))
        # In two parts: products beyond 30 bits are objects.
        return norm >= (most >> 15) * self.share + ((most & 32767) * self.share >> 15)

    def force(self):
        pass

    def after(self, goes_on):
        return self.most

    def rate(self, rate):
        return rate


class Effort:
    """Steps of an engine. rule: None where none is skipped. group: steps that make one together."""

    def __init__(self, engine, rule, group=1):
        self.engine = engine
        self.rule = rule
        self.group = group
        self.steps = self.done = 0
        self.high = self.low = 0  # multiply-accumulates of gradients: high * 2^CARRY + low

    def step(self, label, rate, seed):
        """As Engine.step. Behind what the kernels learn nothing branches, and so no Ctrl-C is heard
        (Run.one_step), until all that belongs to the step is written down."""
        self.steps += 1
        if self.rule:
            return self._step_by_rule(label, rate, seed)
        told = self.engine.step(label, rate, seed)
        self._count(True)
        return told

    def _step_by_rule(self, label, rate, seed):
        """Behind the loss it finishes the step, or leaves out the rest of it."""
        state, rule = self.engine.state, self.rule
        told = self.engine.begin_step(label, rate, seed)
        norm = struct.unpack_from("<i", state, NORM)[0]
        word = rule.SIGN * struct.unpack_from("<i", state, RULE)[0]
        goes_on = rule.look(norm, max(0, word), seed)
        if self.group > 1 and not struct.unpack_from("<I", state, UPDATE)[0] & WAITS:
            goes_on = True
            rule.force()
        word = rule.SIGN * rule.after(goes_on)
        if goes_on:
            struct.pack_into("<Ii", state, RATE, *rule.rate(rate))
            self.engine.finish_step()
        struct.pack_into("<i", state, RULE, word)
        self._count(goes_on)
        return told

    def _count(self, is_done):
        self.done += is_done
        low = self.low + is_done * struct.unpack_from("<I", self.engine.state, EFFORT)[0]
        self.high += low >> CARRY
        self.low = low & (1 << CARRY) - 1

    def tell(self, out):
        """Shares in 1/10000 of all of this run's steps until now: of those that were not skipped;
        where the image has them counted, of the multiply-accumulates of full gradients, and of
        whole steps with full gradients."""
        n = self.steps
        if not n:
            return
        shares = {"n": n, "steps": (10000 * self.done + n // 2) // n}
        forward, full = self.engine.image.macs
        if full:
            spent = (self.high << CARRY) + self.low
            shares["backward"] = _share(spent, n * full)
            shares["all"] = _share(spent + n * forward, n * (forward + full))
        out(event_line("effort", **shares))


def make_rule(skip, percent):
    """Which steps are skipped, None where none is. Raises ValueError. skip, percent: see train().
    """
    if skip and percent:
        raise ValueError("skip and effort are two rules: leave out one")
    if percent:
        from .worth import Worth

        return Worth(percent)
    return Threshold(skip) if skip else None


def _share(part, whole):
    return (10000 * part + whole // 2) // whole
