"""The shape of a convolution or pooling window as the kernels take it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from .errors import SparsetuneError
from .graph import TRAINABLE, Graph, Operator
from .numerics import activation_range
from .program import Const
from .simplify import EXPLICIT_PADDING

MAX_LENGTH, MAX_KERNEL = 65535, 256  # ulab_kernels/conv_geometry.h


@dataclass(frozen=True)
class Geometry:
    """st_conv_geometry_t: see ulab_kernels/conv_geometry.h."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_h: int
    pad_w: int
    x_zero: int
    y_zero: int
    act_min: int
    act_max: int
    w_zero: int = 0
    groups: int = 1

    @property
    def in_positions(self) -> int:
        return self.in_h * self.in_w

    @property
    def out_positions(self) -> int:
        return self.out_h * self.out_w

    @property
    def rows_read(self) -> int:
        """Pairs of an output row and an input row that it reads: none outside of the input."""
        h = (self.in_h, self.out_h, self.stride_h, self.kernel_h, self.dilation_h, self.pad_h)
        return _reads(*h)

    @property
    def places_read(self) -> int:
        """Pairs of an output position and an input position that it reads."""
        w = (self.in_w, self.out_w, self.stride_w, self.kernel_w, self.dilation_w, self.pad_w)
        return self.rows_read * _reads(*w)

    @property
    def is_small_enough(self) -> bool:
        """Whether the kernels take it: of a larger one they would only say that it is wrong."""
        values: tuple[int, ...] = tuple(self.__dict__.values())
        return max(values[:6]) <= MAX_LENGTH and max(values[6:12]) <= MAX_KERNEL

    def const(self) -> Const:
        return Const(struct.pack("<20i", *self.__dict__.values()))


def _reads(size: int, out: int, stride: int, kernel: int, dilation: int, pad: int) -> int:
    """Along one axis."""
    at = (o * stride - pad + k * dilation for o in range(out) for k in range(kernel))
    return sum(0 <= i < size for i in at)


def output_limits(graph: Graph, op: Operator) -> tuple[int, int]:
    """The int8 ends of an operator's output: of its fused activation, or of the range."""
    y = graph.tensor(op.outputs[0])
    return activation_range(op.options.get("fusedActivationFunction", 0), y.scale, y.zero_point)


def conv_geometry(graph: Graph, op: Operator) -> Geometry:
    """Geometry of a convolution, pooling or fully connected operator (1x1 on a row of samples)."""
    geometry = _geometry(graph, op)
    if not geometry.is_small_enough:
        raise SparsetuneError(
            f"{op.kind} (operator {op.index}) is too large: axes up to {MAX_LENGTH}, "
            f"kernels, strides and dilations up to {MAX_KERNEL} are supported"
        )
    return geometry


def macs(graph: Graph) -> list[int]:
    """Multiply-accumulates of each operator, in their order; 0 for those without weights."""
    return [
        graph.tensor(op.inputs[1]).size * conv_geometry(graph, op).out_positions
        if op.kind in TRAINABLE
        else 0
        for op in graph.operators
    ]


def _geometry(graph: Graph, op: Operator) -> Geometry:
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    ends = (x.zero_point, y.zero_point, *output_limits(graph, op))
    if op.kind == "FULLY_CONNECTED":
        out_c, in_c = graph.tensor(op.inputs[1]).shape
        rows = x.size // in_c
        zero = graph.tensor(op.inputs[1]).zero_point
        return Geometry(1, rows, in_c, 1, rows, out_c, 1, 1, 1, 1, 1, 1, 0, 0, *ends, zero)
    kernel = _kernel(graph, op)
    stride = op.options["strideH"], op.options["strideW"]
    dilation = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    same = op.options["padding"] == 0
    explicit = op.options.get(EXPLICIT_PADDING, ((0, 0), (0, 0)))
    pads = tuple(
        _pad(x.shape[1 + i], y.shape[1 + i], stride[i], (kernel[i] - 1) * dilation[i] + 1)
        if same
        else explicit[i][0]
        for i in (0, 1)
    )
    words = (*x.shape[1:], *y.shape[1:], *kernel, *stride, *dilation, *pads, *ends)
    zero, groups = _weights_of(graph, op)
    return replace(Geometry(*words), w_zero=zero, groups=groups)


def _weights_of(graph: Graph, op: Operator) -> tuple[int, int]:
    """(zero point of the weights, groups). An average of what was uint8 rounds as uint8 does."""
    if op.kind not in TRAINABLE:
        was_uint8 = op.kind == "AVERAGE_POOL_2D" and op.outputs[0] in graph.shifted
        return 128 if was_uint8 else 0, 1
    x, w = graph.tensor(op.inputs[0]), graph.tensor(op.inputs[1])
    return w.zero_point, x.shape[3] // w.shape[3] if op.kind == "CONV_2D" else 1


def _kernel(graph: Graph, op: Operator) -> tuple[int, int]:
    if op.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        return op.options["filterHeight"], op.options["filterWidth"]
    shape = graph.tensor(op.inputs[1]).shape
    return shape[1], shape[2]


def _pad(size_in: int, size_out: int, stride: int, span: int) -> int:
    """Rows (columns) of SAME padding in front; TFLite puts the odd one behind."""
    return max(0, (size_out - 1) * stride + span - size_in) // 2
