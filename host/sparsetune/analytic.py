"""Training memory as MCUNetV3 counts it (2206.15472, its released code), to compare plans with its
schemes. It leaves out what a board needs beside: error tensors, scratch, the forward pass, the
head's weights. memory.py has what training really takes."""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import conv_geometry
from .graph import Graph, Operator, input_channels
from .kept import code_bytes
from .patches import kept_positions
from .plan import WHOLE, LayerPlan, UpdatePlan


@dataclass(frozen=True)
class Analytic:
    """Bytes. weights: of the channels that train. biases: 4 each. inputs: int8 that their layers
    keep. masks: a bit for each output of the layers from the first trained one on. head: its
    input."""

    weights: int = 0
    biases: int = 0
    inputs: int = 0
    masks: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.biases + self.inputs + self.masks + self.head


def analytic_memory(graph: Graph, plan: UpdatePlan) -> Analytic:
    """Of a plan: sum over the layers behind the first one that trains (1 bit * outputs) + sum over
    the biases that train (4 bytes * C_out) + sum over trained weights (H_in * W_in * channels +
    channels * C_out * k^2; depthwise channels * k^2) + the head's input."""
    *others, head = graph.trainable
    trained = [op.index for op in others if (p := plan.layer(op.index)) and p.trains]
    reached = [op for op in others if trained and op.index >= trained[0]]
    weights = inputs = biases = 0
    for op in reached:
        layer = plan.layer(op.index)
        if layer:
            weights += weight_bytes(graph, op, layer.channels)
            inputs += kept_input_bytes(graph, op, layer)
            biases += bias_bytes(graph, op) if layer.bias else 0
    masks = sum(mask_bytes(graph, op) for op in reached)
    of_head = plan.layer(head.index)
    fed = input_bytes(graph, head, input_channels(graph, head)) if of_head else 0
    return Analytic(weights, biases, inputs, masks, fed)


def weight_bytes(graph: Graph, op: Operator, channels: int) -> int:
    """int8 weights of some of a layer's input channels."""
    return graph.tensor(op.inputs[1]).size * channels // input_channels(graph, op)


def input_bytes(graph: Graph, op: Operator, channels: int) -> int:
    """int8 activations that are kept for their gradient."""
    x = graph.tensor(op.inputs[0])
    return x.size // x.shape[-1] * channels


def kept_input_bytes(graph: Graph, op: Operator, layer: LayerPlan) -> int:
    """The same of a layer as it is planned: over patches fewer."""
    if layer.patch == 1:
        count = input_bytes(graph, op, layer.channels)
    else:
        geometry = conv_geometry(graph, op)
        count = kept_positions(geometry, layer.patch, layer.wide) * layer.channels
    return count if layer.kept_bits == WHOLE else code_bytes(count)


def bias_bytes(graph: Graph, op: Operator) -> int:
    bias = graph.bias_of(op)
    return 4 * bias.size if bias else 0


def mask_bytes(graph: Graph, op: Operator) -> int:
    return (graph.tensor(op.outputs[0]).size + 7) // 8
