"""Where errors are selected, and effort is counted: SELECT_ERRORS before a layer's gradients, or
between that of its input and that of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from .backward import Backward, Error
from .geometry import Geometry, conv_geometry
from .graph import TRAINABLE, Graph, Operator
from .lowering import Layer
from .plan import MOST_ERRORS
from .program import Buffer, Code, Slot, Word
from .tinyprop import ONE, parse_tinyprop

FEWEST_CHANNELS = 16  # of an error tensor: of fewer all stay, they cost little


@dataclass(frozen=True)
class Errors:
    """The errors dy of a layer's outputs, and what they are multiplied for. has_input: whether the
    gradient of its input is made."""

    op: Operator
    layer: Layer
    dy: Error
    has_input: bool
    is_depthwise: bool

    @property
    def geometry(self) -> Geometry:
        return self.layer.geometry

    @property
    def chosen(self) -> int:
        """Input channels whose weights learn."""
        return self.layer.plan.channels if self.layer.plan else 0

    @property
    def outputs(self) -> int:
        """Output channels whose weights a step updates; 0 for all."""
        return self.layer.plan.outputs if self.layer.plan else 0

    @property
    def cost_something(self) -> bool:
        """Beyond the biases' sums."""
        return (self.has_input or self.chosen > 0) and self.geometry.out_positions <= MOST_ERRORS

    @property
    def inputs(self) -> int:
        """Input channels that each of them is multiplied for, by tap, in the input's gradient."""
        each = 1 if self.is_depthwise else self.geometry.in_c // self.geometry.groups
        return each if self.has_input else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both gradients, were none of them zero."""
        g, each = self.geometry, self.inputs * self.geometry.out_c
        if self.is_depthwise:
            return g.places_read * (each + self.chosen * g.out_c // g.in_c)
        return g.places_read * (each + self.chosen * g.out_c)


def shares_of(back: Backward, errors: Errors) -> tuple[int, int]:
    """(least, span) of SELECT_ERRORS."""
    policy = parse_tinyprop(back.low.plan.tinyprop)
    assert policy
    few = errors.geometry.out_c < FEWEST_CHANNELS
    return (ONE, 0) if few else policy.shares(back.layers_behind)


def may_drop(back: Backward, errors: Errors) -> bool:
    return shares_of(back, errors) != (ONE, 0)


def select_errors(back: Backward, errors: Errors) -> None:
    """Appends the selection, which also counts what the errors that stay cost."""
    macs, g = back.low.program.macs, errors.geometry
    assert macs
    macs.backward += errors.macs
    row = Buffer(f"srow{errors.op.index}", 4 * g.out_c)
    channels: Word = None
    chosen = 0 if errors.outputs else errors.chosen  # select_outputs counts those
    if errors.is_depthwise and chosen == g.in_c:
        chosen = 1
    elif errors.is_depthwise and chosen:
        channels = errors.layer.channels
    dy = errors.dy
    words = (errors.layer.geometry_const, dy.data, dy.exponent, Slot(8, 4), row, channels)
    is_dense = errors.is_depthwise and errors.has_input  # its kernel passes over no zeros
    costs = (chosen, -1 if is_dense else errors.inputs, *shares_of(back, errors))
    back.emit(Code.SELECT_ERRORS, errors.op, *words, *costs)


def select_outputs(back: Backward, errors: Errors) -> None:
    """Appends the selection of those outputs whose weights the step updates: the ones with the
    largest sums of |dy|, as many as the plan says. The others' errors have made all else that they
    are for: the input's gradient and the biases' steps."""
    g, dy = errors.geometry, errors.dy
    row = Buffer(f"orow{errors.op.index}", 4 * g.out_c)
    # No largest sum of late plays a part, but SELECT_ERRORS keeps one.
    words = (errors.layer.geometry_const, dy.data, dy.exponent, Slot(8, 4), row, None)
    share = round(ONE * errors.outputs / g.out_c)
    back.emit(Code.SELECT_ERRORS, errors.op, *words, errors.chosen, 0, share, 0)


def forward_macs(graph: Graph) -> int:
    """Of the forward pass, none outside of the maps."""
    return sum(_forward_macs(graph, op) for op in graph.operators if op.kind in TRAINABLE)


def _forward_macs(graph: Graph, op: Operator) -> int:
    g = conv_geometry(graph, op)
    each = 1 if op.kind == "DEPTHWISE_CONV_2D" else g.in_c // g.groups
    return g.places_read * g.out_c * each
