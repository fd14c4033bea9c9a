"""Effort of a run: steps that were skipped because their sample is learnt already (TinyPropV2,
2409.07109), and the multiply-accumulates that the others took, as the kernels counted them.

A step runs up to its loss. Is the L1 norm of the loss' gradient, 2 (1 - p) for a softmax that gives
the label p, below `skip` times the largest of late, the rest is left out. That largest one stands
in the state, so that a resumed run goes on as if it had not been broken off.
"""

import struct

from .schedule import parse_rate
from .telemetry import event_line

# Byte offsets in the control block.
NORM, EFFORT, MOST = 24, 36, 40
FORGET = 10  # 2^-10 of the largest norm is forgotten in each step; TinyProp's never decays
CARRY = 20  # bits: counts of more than 30 would be objects


def threshold(text):
    """A share such as "0.1" in 1/32768; 0 for an empty text. Raises ValueError."""
    mantissa, exponent = parse_rate(text or "0")
    if exponent > -16 and mantissa:
        raise ValueError("skip %s is not a share below 1 such as 0.1" % text)
    return mantissa >> min(31, -exponent - 15) if mantissa else 0


class Effort:
    """Steps of an engine. skip: share of the largest norm, as text; empty: none is skipped."""

    def __init__(self, engine, skip):
        self.engine = engine
        self.skip = threshold(skip)
        self.steps = self.done = 0
        self.high = self.low = 0  # multiply-accumulates of gradients: high * 2^CARRY + low

    def step(self, label, rate, seed):
        """As Engine.step."""
        engine = self.engine
        self.steps += 1
        if self.skip:
            told = engine.begin_step(label, rate, seed)
            norm, most = self._norms()
            is_learnt = norm < self._least(most)
            if not is_learnt:
                engine.finish_step()
            # Written last, so that a step that Ctrl-C breaks off at its loss never was.
            struct.pack_into("<i", engine.state, MOST, most)
            if is_learnt:
                return told
        else:
            told = engine.step(label, rate, seed)
        self.done += 1
        low = self.low + struct.unpack_from("<I", engine.state, EFFORT)[0]
        self.high += low >> CARRY
        self.low = low & (1 << CARRY) - 1
        return told

    def _norms(self):
        """Of the loss' gradient, and the largest of late with it."""
        state = self.engine.state
        norm = struct.unpack_from("<i", state, NORM)[0]
        most = struct.unpack_from("<i", state, MOST)[0]
        return norm, max(norm, most - (most >> FORGET))

    def _least(self, most):
        """What a norm must reach. In two parts: products beyond 30 bits are objects."""
        return (most >> 15) * self.skip + ((most & 32767) * self.skip >> 15)

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


def _share(part, whole):
    return (10000 * part + whole // 2) // whole
