"""What the forward pass is lowered into, and what backward will need of it.

compile.py walks the operators; operators/*.py lower one kind each."""

from __future__ import annotations

from dataclasses import dataclass, field

from .geometry import Geometry
from .graph import Graph, Operator
from .patches import Filtering
from .plan import LayerPlan, UpdatePlan
from .program import Buffer, Code, Columns, Const, Flag, Op, Place, Program, Slot, Velocity, Word


@dataclass(eq=False)
class Layer:
    """What forward and backward of one convolution-like operator share. gradient: the geometry of
    its weights' gradient, which is its own unless that is filtered."""

    geometry: Geometry
    geometry_const: Const
    weights: Place
    bias: Place
    gradient: Geometry
    gradient_const: Const
    scale_q15: Const
    weight_exponent: int
    plan: LayerPlan | None
    residual: Slot | None = None
    columns: Columns | None = None
    velocity: Velocity | None = None
    channels: Place = None
    kept: Buffer | None = None
    kept_step: int = 0  # from position to position of kept, bytes
    codes: Buffer | None = None  # of what is kept
    filtering: Filtering | None = None
    visited: Slot | None = None  # what the policy knows of the channels
    scores: Slot | None = None

    @property
    def passed(self) -> Filtering | None:
        """How the gradient that is passed on is filtered."""
        return None if self.plan and self.plan.weights_only else self.filtering


@dataclass
class Lowering:
    """State of one compilation: where each tensor lives, what each operator left for backward.

    active: operators that a gradient must reach. held: tensors that backward reads whole.
    layers: of the operators with weights. masks: clamp masks. winners: of
    maxima. target: what the loss compares with. notes: geometry of the others.
    """

    graph: Graph
    plan: UpdatePlan
    active: set[int]
    held: set[int]
    program: Program = field(default_factory=Program)
    values: dict[int, Buffer] = field(default_factory=dict)
    layers: dict[int, Layer] = field(default_factory=dict)
    masks: dict[int, Buffer] = field(default_factory=dict)
    target: Buffer | None = None
    winners: dict[int, Buffer] = field(default_factory=dict)
    notes: dict[int, tuple[Geometry, Const]] = field(default_factory=dict)

    def emit(self, code: Code, op: Operator, *words: Word, flags: Flag = Flag.NONE) -> None:
        self.program.ops.append(Op(code, words, flags, op.index))

    def new_value(self, tensor: int) -> Buffer:
        buffer = Buffer(f"t{tensor}", self.graph.tensor(tensor).size)
        self.values[tensor] = buffer
        return buffer

    def is_part_of_loss(self, op: Operator) -> bool:
        """Whether the loss does what op does, so that training can pass over it."""
        graph = self.graph
        readers = [o for o in graph.operators if op.outputs[0] in o.inputs]
        at_end = op is graph.last and all(reader.kind == "RESHAPE" for reader in readers)
        return at_end and graph.logits == op.inputs[0] and bool(self.plan.layers)

    def dies_at(self, tensor: int, op: Operator) -> bool:
        """Whether nothing reads the tensor's memory after op, so that op may write over it."""
        home = self.values[tensor]
        for other in (t for t, buffer in self.values.items() if buffer is home):
            read_later = any(o.index > op.index for o in self.graph.operators if other in o.inputs)
            if read_later or other in self.held or other == self.graph.output:
                return False
        return True
