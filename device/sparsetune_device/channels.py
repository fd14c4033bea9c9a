"""Which input channels a step trains: the dynamic part of the sparse update (DGSU, 2503.17959).

A policy is a class with choose(number, state); it writes the chosen channels of every sparse layer
into the state buffer as little-endian uint16. number: of the choice, counted from 0; a choice stays
for `hold` steps (main.py), and is asked for in each of them. What a policy knows beside number and
seed must be in the state, so that a resumed run goes on as an unbroken one would. Write your own
and pass it to train(), the class or "MODULE:CLASS".
"""

import struct

import sparsetune_kernels as kernels

EPOCH = "epoch"  # a hold of as many steps as there are samples


class _Walk:
    """Windows over an order of one layer's channels; the last window ends flush, so that every
    channel has been visited when the walk starts anew."""

    def __init__(self, layer):
        self.layer = layer
        self.count = layer.count  # of a layer that stays in flash not all may learn
        self.windows = (self.count + layer.chosen - 1) // layer.chosen
        self.order = bytearray(2 * self.count)
        self.view = memoryview(self.order)  # whose slices are no copies
        self.round = -1  # that the order was shuffled for
        self.natural()

    def natural(self):
        for i in range(self.count):
            struct.pack_into("<H", self.order, 2 * i, i)

    def shuffle(self, seed):
        """A permutation that depends on nothing but the seed."""
        kernels.shuffle(self.order, self.count, seed)

    def write(self, window, state):
        layer = self.layer
        begin = 2 * min(window * layer.chosen, self.count - layer.chosen)
        size = 2 * layer.chosen
        state[layer.channels_at : layer.channels_at + size] = self.view[begin : begin + size]


class Static:
    """The same channels in every step: the first ones."""

    def __init__(self, layers, seed):
        self.walks = [_Walk(layer) for layer in layers if layer.is_sparse]

    def choose(self, number, state):
        for walk in self.walks:
            walk.write(0, state)


class Cyclic(Static):
    """A window of neighbours that moves on with every choice: all are visited in turn."""

    def choose(self, number, state):
        for walk in self.walks:
            walk.write(number % walk.windows, state)


class Random(Static):
    """Random subsets without replacement: the order is drawn anew once all were visited."""

    def __init__(self, layers, seed):
        super().__init__(layers, seed)
        self.seed = seed

    def choose(self, number, state):
        for walk in self.walks:
            turn = number // walk.windows  # divmod would leave an object to collect
            if turn != walk.round:
                walk.round = turn
                walk.shuffle(kernels.random(self.seed + walk.layer.operator, turn))
            walk.write(number % walk.windows, state)


# A text is the name of a class in choices.py, whose code takes RAM only where it is asked for.
POLICIES = {"static": Static, "cyclic": Cyclic, "random": Random, "random-epoch": "RandomEpoch",
            "magnitude": "Magnitude", "importance": "Importance"}


def make_policy(policy, layers, seed):
    """policy: a name from POLICIES, or a class of your own (itself, or as "MODULE:CLASS")."""
    if not isinstance(policy, str):
        return policy(layers, seed)
    if ":" in policy:
        module, name = policy.split(":")
        try:
            return getattr(__import__(module), name)(layers, seed)
        except (ImportError, AttributeError):
            raise ValueError("there is no policy %s in a module %s" % (name, module))
        except TypeError:
            raise ValueError("the policy %s needs __init__(self, layers, seed)" % name)
    if policy == "class":  # as main.py notes one that has no name to find it by
        raise ValueError("the run's policy was a class of your own: give it again (policy=)")
    if policy not in POLICIES:
        raise ValueError("no policy %s: choose %s" % (policy, ", ".join(sorted(POLICIES))))
    kind = POLICIES[policy]
    if isinstance(kind, str):
        from . import choices

        kind = getattr(choices, kind)
    return kind(layers, seed)


def steps_of(hold, policy, samples):
    """Steps for which a choice stays. hold: a number of them, 0 for what suits the policy, or
    EPOCH. samples: steps of an epoch."""
    hold = hold or getattr(policy, "HOLD", 0)
    if hold == EPOCH:
        return samples
    if not isinstance(hold, int) or hold < 0:
        raise ValueError("hold %s: give a number of steps, or %s" % (hold, EPOCH))
    return hold
