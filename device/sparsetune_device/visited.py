"""The share of the trained layers' weights that a run has visited: DGSU's subsets move so that most
are (2503.17959)."""

import sparsetune_kernels as kernels

from .telemetry import event_line


class Visited:
    """Counts the weights of trained layers that a step has updated at least once; the bits of the
    channels are in the state, so that a resumed run counts on. Of layers all of whose channels
    train these are all weights."""

    def __init__(self, layers, state):
        self.layers = [layer for layer in layers if layer.is_sparse]
        self.of = sum(layer.in_channels * layer.channel_bytes for layer in layers)
        self.weights = self.of
        self.told = -1
        for layer in self.layers:
            channels = layer.in_channels
            for i in range((channels + 7) // 8):
                byte = state[layer.visited_at + i]
                channels -= sum(byte >> bit & 1 for bit in range(8))
            self.weights -= channels * layer.channel_bytes

    def mark(self, state):
        """The channels that stand in the lists now are trained."""
        for layer in self.layers:
            fresh = kernels.mark(state, layer.visited_at, layer.in_channels, layer.channels_at,
                                 layer.chosen)
            self.weights += fresh * layer.channel_bytes

    def tell(self, step, out):
        """Where it has grown since it was told last."""
        if self.weights != self.told:
            self.told = self.weights
            out(event_line("visited", of=self.of, step=step, weights=self.weights))
