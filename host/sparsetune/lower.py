"""Graph to forward program: constants, geometry and one operator of the machine for each one of
the model; where the plan trains, also what backward will need (clamp masks, kept channels)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from .errors import SparsetuneError
from .graph import (
    Graph,
    Operator,
    input_channels,
    output_channels,
    per_channel_scales,
)
from .numerics import (
    activation_range,
    channel_scale_q15,
    quantize_multiplier,
    softmax_scaling,
)
from .plan import LayerPlan, UpdatePlan
from .program import Buffer, Code, Const, Flag, Op, Place, Program, Slot

AVG_POOL_MAX_WINDOW = 4080  # ulab_kernels/avg_pool.h
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

    @property
    def in_positions(self) -> int:
        return self.in_h * self.in_w

    @property
    def out_positions(self) -> int:
        return self.out_h * self.out_w

    @property
    def is_small_enough(self) -> bool:
        """Whether the kernels take it: of a larger one they would only say that it is wrong."""
        values: tuple[int, ...] = tuple(self.__dict__.values())
        return max(values[:6]) <= MAX_LENGTH and max(values[6:12]) <= MAX_KERNEL

    def const(self) -> Const:
        return Const(struct.pack("<18i", *self.__dict__.values()))


@dataclass(eq=False)
class Layer:
    """What forward and backward of one convolution-like operator share."""

    geometry: Geometry
    geometry_const: Const
    weights: Place
    bias: Place
    scale_q15: Const
    weight_exponent: int
    plan: LayerPlan | None
    residual: Slot | None = None
    channels: Place = None
    kept: Buffer | None = None


@dataclass
class Lowering:
    """State of one compilation: where each tensor lives, what each operator left for backward.

    active: operators that a gradient must reach. held: tensors that backward reads whole.
    """

    graph: Graph
    plan: UpdatePlan
    active: set[int]
    held: set[int]
    program: Program = field(default_factory=Program)
    values: dict[int, Buffer] = field(default_factory=dict)
    layers: dict[int, Layer] = field(default_factory=dict)
    masks: dict[int, Buffer] = field(default_factory=dict)
    pools: dict[int, tuple[Geometry, Const]] = field(default_factory=dict)
    softmaxes: dict[int, Const] = field(default_factory=dict)

    def emit(self, code: Code, op: Operator, *words: object, flags: Flag = Flag.NONE) -> None:
        self.program.ops.append(Op(code, words, flags, op.index))  # type: ignore[arg-type]

    def new_value(self, tensor: int) -> Buffer:
        buffer = Buffer(f"t{tensor}", self.graph.tensor(tensor).size)
        self.values[tensor] = buffer
        return buffer


def lower_forward(low: Lowering) -> None:
    """Appends the forward program."""
    low.program.input = low.new_value(low.graph.input)
    for op in low.graph.operators:
        _LOWER[op.kind](low, op)
        if op.index in low.active:
            _keep_mask(low, op)
    low.program.forward = len(low.program.ops)
    low.program.output = low.values[low.graph.output]


def _keep_mask(low: Lowering, op: Operator) -> None:
    """One bit for each output element: does the clamp pass the gradient?"""
    if not _clamps(op):
        return
    tensor = low.graph.tensor(op.outputs[0])
    if tensor.index in low.graph.logits_aliases and _limits(low.graph, op) == (-128, 127):
        return  # the loss looks at the ends of the range itself
    bits = Buffer(f"mask{op.index}", (tensor.size + 7) // 8)
    low.masks[op.index] = bits
    lo, hi = _limits(low.graph, op)
    y = low.values[tensor.index]
    low.emit(Code.CLAMP_MASK, op, y, bits, tensor.size, lo, hi, flags=Flag.TRAINING_ONLY)


def _clamps(op: Operator) -> bool:
    """Whether the output can lie beyond the ends of its range, or of its fused activation. A mean
    cannot leave the range of what it is taken from."""
    if op.kind == "AVERAGE_POOL_2D":
        return bool(op.options.get("fusedActivationFunction", 0))
    return op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD")


def _limits(graph: Graph, op: Operator) -> tuple[int, int]:
    y = graph.tensor(op.outputs[0])
    return activation_range(op.options.get("fusedActivationFunction", 0), y.scale, y.zero_point)


_CONV_CODE = {
    "CONV_2D": Code.CONV2D,
    "DEPTHWISE_CONV_2D": Code.DEPTHWISE_CONV2D,
    "FULLY_CONNECTED": Code.FULLY_CONNECTED,
}

# Convolutions ---------------------------------------------------------------------------------


def _lower_conv(low: Lowering, op: Operator) -> None:
    layer = _layer(low, op)
    x = low.values[op.inputs[0]]
    _keep_input(low, op, layer, x)
    low.emit(
        _CONV_CODE[op.kind],
        op,
        layer.geometry_const,
        x,
        layer.weights,
        layer.bias,
        _requants(low.graph, op),
        low.new_value(op.outputs[0]),
    )


def _layer(low: Lowering, op: Operator) -> Layer:
    geometry = conv_geometry(low.graph, op)
    q15, exponent = channel_scale_q15(per_channel_scales(low.graph, op))
    planned = low.plan.layer(op.index)
    weights = _bytes_of(low.graph, op.inputs[1], np.dtype("i1"))
    bias = _bias_bytes(low.graph, op)
    layer = Layer(
        geometry,
        geometry.const(),
        _home(weights, planned is not None and planned.channels > 0),
        _home(bias, planned is not None and planned.bias),
        Const(q15.astype("<u2").tobytes()),
        exponent,
        planned,
    )
    if planned and planned.channels and low.plan.residual:
        layer.residual = Slot(len(weights), 4)
    low.layers[op.index] = layer
    return layer


def _home(data: bytes, trained: bool) -> Place:
    """What trains lives in RAM, what is frozen stays in flash."""
    return Slot(len(data), 4, data) if trained else Const(data)


def _bytes_of(graph: Graph, tensor: int, dtype: np.dtype[np.generic]) -> bytes:
    data = graph.tensor(tensor).data
    assert data is not None  # tflite.py refuses models whose weights are not constant
    return data.astype(dtype.newbyteorder("<")).tobytes()


def _bias_bytes(graph: Graph, op: Operator) -> bytes:
    bias = graph.bias_of(op)
    if bias is None:
        return bytes(4 * output_channels(graph, op))
    return _bytes_of(graph, bias.index, np.dtype("i4"))


def _keep_input(low: Lowering, op: Operator, layer: Layer, x: Buffer) -> None:
    """Decides what of x the weight gradient will read: all of it where all channels train (x just
    lives longer), else a copy of the chosen channels."""
    if layer.plan is None or not layer.plan.channels:
        return
    channels, chosen = input_channels(low.graph, op), layer.plan.channels
    if chosen == channels:
        layer.kept = x
        layer.channels = Const(np.arange(channels, dtype="<u2").tobytes())
        return
    positions = layer.geometry.in_positions
    layer.kept = Buffer(f"kept{op.index}", positions * chosen)
    layer.channels = Slot(2 * chosen, 2, np.arange(chosen, dtype="<u2").tobytes())
    words = (x, layer.channels, layer.kept, positions, chosen, channels)
    low.emit(Code.KEEP_CHANNELS, op, *words, flags=Flag.TRAINING_ONLY)


def _requants(graph: Graph, op: Operator) -> Const:
    x, w, y = (graph.tensor(i) for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    scales = per_channel_scales(graph, op)
    if op.kind == "FULLY_CONNECTED" and len(w.scales) == 1:
        # TFLite multiplies these two in float32 (GetQuantizedConvolutionMultipler).
        products = np.full(len(scales), float(np.float32(x.scale) * np.float32(w.scale)))
    else:
        products = x.scale * scales
    pairs = [quantize_multiplier(float(p) / y.scale) for p in products]
    return Const(np.array(pairs, dtype="<i4").tobytes())


def conv_geometry(graph: Graph, op: Operator) -> Geometry:
    """Geometry of a convolution, pooling or fully connected operator (1x1 on a row of samples)."""
    geometry = _geometry(graph, op)
    if not geometry.is_small_enough:
        raise SparsetuneError(
            f"{op.kind} (operator {op.index}) is too large: axes up to {MAX_LENGTH}, "
            f"kernels, strides and dilations up to {MAX_KERNEL} are supported"
        )
    return geometry


def _geometry(graph: Graph, op: Operator) -> Geometry:
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    ends = (x.zero_point, y.zero_point, *_limits(graph, op))
    if op.kind == "FULLY_CONNECTED":
        out_c, in_c = graph.tensor(op.inputs[1]).shape
        rows = x.size // in_c
        return Geometry(1, rows, in_c, 1, rows, out_c, 1, 1, 1, 1, 1, 1, 0, 0, *ends)
    kernel = _kernel(graph, op)
    stride = op.options["strideH"], op.options["strideW"]
    dilation = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    same = op.options["padding"] == 0
    pads = tuple(
        _pad(x.shape[1 + i], y.shape[1 + i], stride[i], (kernel[i] - 1) * dilation[i] + 1)
        if same
        else 0
        for i in (0, 1)
    )
    words = (*x.shape[1:], *y.shape[1:], *kernel, *stride, *dilation, *pads, *ends)
    return Geometry(*words)


def _kernel(graph: Graph, op: Operator) -> tuple[int, int]:
    if op.kind == "AVERAGE_POOL_2D":
        return op.options["filterHeight"], op.options["filterWidth"]
    shape = graph.tensor(op.inputs[1]).shape
    return shape[1], shape[2]


def _pad(size_in: int, size_out: int, stride: int, span: int) -> int:
    """Rows (columns) of SAME padding in front; TFLite puts the odd one behind."""
    return max(0, (size_out - 1) * stride + span - size_in) // 2


# The others -----------------------------------------------------------------------------------


def _lower_avg_pool(low: Lowering, op: Operator) -> None:
    geometry = conv_geometry(low.graph, op)
    if geometry.kernel_h * geometry.kernel_w > AVG_POOL_MAX_WINDOW:
        raise SparsetuneError(
            f"AVERAGE_POOL_2D (operator {op.index}) has a window of {geometry.kernel_h}x"
            f"{geometry.kernel_w}: at most {AVG_POOL_MAX_WINDOW} elements are supported"
        )
    const = geometry.const()
    low.pools[op.index] = geometry, const
    low.emit(Code.AVG_POOL, op, const, low.values[op.inputs[0]], low.new_value(op.outputs[0]))


def _lower_add(low: Lowering, op: Operator) -> None:
    a, b, y = (low.graph.tensor(i) for i in (*op.inputs[:2], op.outputs[0]))
    twice_max = 2 * max(a.scale, b.scale)
    factors = (a.scale / twice_max, b.scale / twice_max, twice_max / ((1 << 20) * y.scale))
    pairs = [word for real in factors for word in quantize_multiplier(real)]
    zeros = (a.zero_point, b.zero_point, y.zero_point)
    params = Const(struct.pack("<11i", *zeros, *pairs, *_limits(low.graph, op)))
    places = low.values[a.index], low.values[b.index]
    out = next(
        (low.values[t.index] for t in (a, b) if _dies_at(low, t.index, op)), None
    )
    low.values[y.index] = out or Buffer(f"t{y.index}", y.size)
    low.emit(Code.ADD, op, params, *places, low.values[y.index], y.size)


def _dies_at(low: Lowering, tensor: int, op: Operator) -> bool:
    """Whether nothing reads the tensor's memory after op, so that op may write over it."""
    home = low.values[tensor]
    for other in (t for t, buffer in low.values.items() if buffer is home):
        readers = [o.index for o in low.graph.operators if other in o.inputs]
        if other in low.held or other == low.graph.output or max(readers, default=-1) > op.index:
            return False
    return True


def _lower_reshape(low: Lowering, op: Operator) -> None:
    low.values[op.outputs[0]] = low.values[op.inputs[0]]


def _lower_softmax(low: Lowering, op: Operator) -> None:
    x = low.graph.tensor(op.inputs[0])
    depth = x.shape[-1]
    scaling = softmax_scaling(op.options["beta"], x.scale)
    params = Const(struct.pack("<5i", x.size // depth, depth, *scaling))
    low.softmaxes[op.index] = params
    readers = [o for o in low.graph.operators if op.outputs[0] in o.inputs]
    is_loss = op is low.graph.last and all(reader.kind == "RESHAPE" for reader in readers)
    flags = Flag.INFERENCE_ONLY if is_loss and low.plan.layers else Flag.NONE
    y = low.new_value(op.outputs[0])
    low.emit(Code.SOFTMAX, op, params, low.values[x.index], y, flags=flags)


_LOWER = {
    "CONV_2D": _lower_conv,
    "DEPTHWISE_CONV_2D": _lower_conv,
    "FULLY_CONNECTED": _lower_conv,
    "AVERAGE_POOL_2D": _lower_avg_pool,
    "ADD": _lower_add,
    "RESHAPE": _lower_reshape,
    "SOFTMAX": _lower_softmax,
}
