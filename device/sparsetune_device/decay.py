"""Decoupled weight decay (1711.05101): every so many steps w -= rate * decay * steps * w, of all
weights of the trained layers, with stochastic rounding (ulab_kernels/decay.h).
"""

import struct

import sparsetune_kernels as kernels

from .channels import Static
from .image import LAYER_BYTES
from .schedule import _times, parse_rate

EVERY = 16  # steps: a pass over the weights takes a while
EVERY_LOG2 = 4
WEIGHTS_AT = 20  # in a layer record: weights, their bytes, residuals
ABSENT = 0xFFFFFFFF
ONE = 16  # the smallest shift of a share, which is below 1


class Decay:
    """text: decimal, as of a learning rate. policy: of the channels. Raises ValueError where it
    would shrink what does not learn, or could not reach all that does."""

    def __init__(self, engine, text, seed, policy):
        layers = engine.image.layers
        if any(layer.has_columns for layer in layers):
            raise ValueError("decay does not reach layers that stay in flash: leave it out, or "
                             "plan them into RAM")
        stays = isinstance(policy, Static) and type(policy).choose is Static.choose
        stays = stays or getattr(policy, "STAYS", False)
        if stays and any(layer.is_sparse for layer in layers):
            raise ValueError("decay would shrink channels that never train, because the policy's "
                             "choice stays: choose another policy")
        self.engine = engine
        self.steps = self.passed = 0  # the last steps it was called behind, and parts done by then
        self.decay = parse_rate(text)
        self.seed = seed
        data = engine.image.data
        at, count = struct.unpack_from("<2I", data, 64)
        parts = [struct.unpack_from("<3I", data, at + LAYER_BYTES * i + WEIGHTS_AT)
                 for i in range(count)]
        self.parts = [part for part in parts if part[0] != ABSENT]

    def after(self, steps, rate):
        """steps: done by now. rate: of the last one. Where Ctrl-C breaks it off, another call does
        what is left; until it has, the engine is broken."""
        self.engine.is_broken = True
        if steps % EVERY == 0:
            self._shrink(steps, rate)
        self.engine.is_broken = False

    def shift(self, rate):
        """Of the share that a pass takes off, as kernels.decay has it. Raises ValueError."""
        shift = -(rate[1] + self.decay[1] + 16 + EVERY_LOG2)
        if shift < ONE:
            raise ValueError("decay times the learning rate is too large: try 0.0001")
        return shift

    def _shrink(self, steps, rate):
        if steps != self.steps:
            self.steps, self.passed = steps, 0
        mantissa = _times(rate[0], self.decay[0]) >> 8
        if not mantissa:
            return
        shift = self.shift(rate)
        seed, state = kernels.random(self.seed ^ 0x3C6EF372, steps), self.engine.state
        while self.passed < len(self.parts):
            at, size, residual = self.parts[self.passed]
            kernels.decay(state, at, residual, size, mantissa, shift, seed)
            self.passed += 1
