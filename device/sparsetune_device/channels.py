"""Which input channels a step trains: the dynamic part of the sparse update (DGSU, 2503.17959).

A policy is a class with choose(step, state); it writes the chosen channels of every sparse layer
into the state buffer as little-endian uint16. Write your own and pass it to train(), the class or
"MODULE:CLASS".
"""

import struct

import sparsetune_kernels as kernels


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
        self.natural()
        order = self.order
        for i in range(self.count - 1, 0, -1):
            a, b = 2 * i, 2 * (kernels.random(seed, i) % (i + 1))
            order[a], order[b] = order[b], order[a]
            order[a + 1], order[b + 1] = order[b + 1], order[a + 1]

    def write(self, window, state):
        layer = self.layer
        begin = 2 * min(window * layer.chosen, self.count - layer.chosen)
        size = 2 * layer.chosen
        state[layer.channels_at : layer.channels_at + size] = self.view[begin : begin + size]


class Static:
    """The same channels in every step."""

    def __init__(self, layers, seed):
        self.walks = [_Walk(layer) for layer in layers if layer.is_sparse]

    def choose(self, step, state):
        for walk in self.walks:
            walk.write(0, state)


class Cyclic(Static):
    """A window of neighbours that moves on with every step: all are visited in turn."""

    def choose(self, step, state):
        for walk in self.walks:
            walk.write(step % walk.windows, state)


class Random(Static):
    """Random subsets without replacement: the order is drawn anew once all were visited."""

    def __init__(self, layers, seed):
        super().__init__(layers, seed)
        self.seed = seed

    def choose(self, step, state):
        for walk in self.walks:
            number = step // walk.windows  # divmod would leave an object to collect
            if number != walk.round:
                walk.round = number
                walk.shuffle(kernels.random(self.seed + walk.layer.operator, number))
            walk.write(step % walk.windows, state)


POLICIES = {"static": Static, "cyclic": Cyclic, "random": Random}


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
    if policy not in POLICIES:
        raise ValueError("no policy %s: choose %s" % (policy, ", ".join(sorted(POLICIES))))
    return POLICIES[policy](layers, seed)
