"""Policies that channels.py brings in where they are asked for."""

import struct
from array import array

import sparsetune_kernels as kernels

from .channels import EPOCH, Random
from .image import ABSENT

CHOICE = 44  # byte of the control block: number of the choice in the state, plus 1 (FORMAT.md)


class RandomEpoch(Random):
    """A random subset for each epoch, drawn among all channels each time (TraDy, 2510.19675)."""

    HOLD = EPOCH  # where a run names none

    def choose(self, number, state):
        for walk in self.walks:
            if number != walk.round:
                walk.round = number
                walk.shuffle(kernels.random(self.seed + walk.layer.operator, number))
            walk.write(0, state)


class Magnitude:
    """The channels with the largest weights (MCUNetV3, 2206.15472, 3.3), in every step. The image
    has them where a new state's lists begin."""

    STAYS = True  # the choice: see decay.py

    def __init__(self, layers, seed):
        self.layers = [layer for layer in layers if layer.is_sparse]

    def choose(self, number, state):
        for layer in self.layers:
            layer.write_first(state)
        self.layers = ()  # there they stay


class Importance:
    """Channels drawn anew with each choice, without replacement, each in proportion to its score:
    a decayed mean of the L1 norm of its weights' gradient, over the steps that trained it
    (ulab_kernels/scores.h, choice.h; after MeDyate, 2510.20979)."""

    def __init__(self, layers, seed):
        self.layers = [layer for layer in layers if layer.is_sparse]
        self.seed = seed
        for layer in self.layers:
            if layer.scores_at == ABSENT:
                raise ValueError("the image keeps no scores of channels, which the policy "
                                 "importance needs: build it with --scores")
        self.tree = array("I", [0] * max([layer.count for layer in self.layers], default=0))

    def choose(self, number, state):
        if struct.unpack_from("<I", state, CHOICE)[0] == number + 1:
            return  # also behind a checkpoint in the middle of a hold: scores have changed since
        for layer in self.layers:
            seed = kernels.random(self.seed + layer.operator, number)
            kernels.draw(state, layer.scores_at, layer.count, layer.channels_at, layer.chosen,
                         self.tree, seed)
        struct.pack_into("<I", state, CHOICE, number + 1)  # last: Ctrl-C may come between layers
