"""CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: the operators with weights."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np

from ..backward import INT32_ROOM, Backward, Error
from ..geometry import Geometry, conv_geometry
from ..graph import Array, Graph, Operator, input_channels, output_channels, per_channel_scales
from ..kept import BLOCK, code_bytes, kept_step
from ..lowering import Layer, Lowering
from ..magnitude import by_magnitude
from ..numerics import channel_scale_q15, quantize_multiplier, rate
from ..patches import Filtering, filtering_of
from ..plan import WHOLE, LayerPlan, UpdatePlan
from ..program import (
    Buffer,
    Code,
    Columns,
    Const,
    Flag,
    Place,
    Slot,
    TrainedLayer,
    Velocity,
    Word,
    WordsOf,
)
from ..selection import Errors, may_drop, select_errors, select_outputs
from .kind import Kind, check_fused, check_window, refuse

Words = tuple[Word, ...]

# Of the scratch of faster ways. In int32 words: three pairs of packed channels are not too large,
# all are small, more would make no difference. In bytes: gathered windows.
LARGE_PAIRS, SMALL_PAIRS, MANY_PAIRS, WINDOWS = 2048, 384, 1536, 1024
MOST_SUMS = 128
INT32 = 2.0**31  # LiteRT's FULLY_CONNECTED saturates there, ours wraps
VALUES = 256  # of a byte: ulab_kernels/activation.h
MOST_SHIFT = 30  # of a factor to the left (st_requant_table of run_conv.c)
SIXES = 6  # ulab_kernels/fully_connected.h
MOST_POSITIONS = 32  # ulab_kernels/conv2d_lanes.c
MOST_ROWS = 16  # ulab_kernels/depthwise3x3.c
CORES = 2  # each wants windows and sums of its own (ulab_kernels/cores.h)
ROW_OF_ERROR = 4  # in st_error_out_t
FEWEST_BY_WORDS = 3  # channels below a block (kept.py) that are added by words of values
FEW_AT_ONCE = 64  # output channels of those, and of others
ROWS_AT_ONCE = 8
NORM, SCORE = 8, 4  # bytes of st_norm_t, st_score_t (ulab_kernels/scores.h)
# For fewer outputs of a channel its weights are not worth packing: of 1x1 filters, and of others,
# which lie half outside so small a map.
FEWEST_POSITIONS = (2, 4)


class Weighted(Kind):
    """What the three share: y = x * weights + bias, clamped."""

    inputs = 2
    code: Code
    columns_code = Code.CONV2D_COLUMNS
    grad_code = Code.CONV2D_GRAD_INPUT
    update_code = Code.CONV2D_UPDATE

    def holds(self, graph: Graph, op: Operator, plan: UpdatePlan) -> set[int]:
        layer = plan.layer(op.index)
        if layer is None or layer.slots or layer.patch > 1 or layer.kept_bits < WHOLE:
            return set()
        return {op.inputs[0]} if layer.channels == input_channels(graph, op) else set()

    def clamps(self, graph: Graph, op: Operator) -> bool:
        return True

    def lower(self, low: Lowering, op: Operator) -> None:
        layer = _layer(low, op)
        x = low.values[op.inputs[0]]
        _keep_input(low, op, layer, x)
        _encode_kept(low, op, layer)
        words = (layer.geometry_const, x, layer.weights, layer.bias, _requants(low.graph, op))
        y = low.new_value(op.outputs[0])
        if layer.columns:
            filters = layer.geometry.kernel_h * layer.geometry.kernel_w * layer.geometry.in_c
            row = Buffer(f"filter{op.index}", filters)
            low.emit(self.columns_code, op, *words, layer.columns.table, row, y)
        else:
            scratch = self.scratch(low.graph, op, layer) if low.plan.scratch else None
            self.emit(low, op, (*words, scratch, WordsOf(scratch), y))
        _record(low, op, layer)

    def emit(self, low: Lowering, op: Operator, words: tuple[Word, ...]) -> None:
        low.emit(self.code, op, *words)

    def scratch(self, graph: Graph, op: Operator, layer: Layer) -> Buffer | None:
        """Room for a faster way on the board, which is equal bit for bit; None if there is none."""
        return None

    def differentiate(self, back: Backward, op: Operator) -> None:
        layer, dy = back.low.layers[op.index], back.take(op)
        wanted, trained = op.inputs[0] in back.wanted, layer.plan and layer.plan.trains
        errors = Errors(op, layer, dy, wanted, self.code == Code.DEPTHWISE_CONV2D)
        if back.low.plan.tinyprop and errors.cost_something:
            if layer.plan and layer.plan.bias and may_drop(back, errors):
                self._update(back, op, _bias_alone(layer), dy)
                layer = _without_bias(layer)
                trained = layer.plan and layer.plan.trains
            select_errors(back, errors)
        back.layers_behind += 1
        if layer.passed and (wanted or trained):
            dy = sum_patches(back, op, layer.passed, dy)
        if wanted:
            self._grad_input(back, op, layer, dy)
        if layer.filtering and not layer.passed:
            dy = sum_patches(back, op, layer.filtering, dy)
        if trained:
            self._learn(back, layer, replace(errors, dy=dy))

    def _learn(self, back: Backward, layer: Layer, errors: Errors) -> None:
        """Where a plan chooses outputs by their errors, biases still learn from all of them."""
        if errors.outputs:
            if layer.plan and layer.plan.bias:
                self._update(back, errors.op, _bias_alone(layer), errors.dy)
                layer = _without_bias(layer)
            select_outputs(back, errors)
        self._update(back, errors.op, layer, errors.dy)

    def _grad_input(self, back: Backward, op: Operator, layer: Layer, dy: Error) -> None:
        addends, row = self.sums(layer)
        largest = 255 if layer.geometry.w_zero else 128
        dy.data.bound(INT32_ROOM // (addends * largest))
        if layer.passed:
            count, scratch = layer.passed.inputs.count * layer.geometry.in_c, _row(op, row)
            name = f"shares{op.inputs[0]}"
            dx, out = back.between(name, count, dy, layer.weight_exponent, scratch)
            self._emit_grad_input(back, op, layer, (dy, out, Flag.NONE))
            spread_patches(back, op, layer.passed, dx)
        else:
            out, flags = back.error_out(op.inputs[0], dy, layer.weight_exponent, row)
            self._emit_grad_input(back, op, layer, (dy, out, flags))

    def _emit_grad_input(
        self, back: Backward, op: Operator, layer: Layer, ends: tuple[Error, Words, Flag]
    ) -> None:
        """ends: what it reads, words of what it writes, flags."""
        dy, out, flags = ends
        want_two_rows(out[ROW_OF_ERROR])
        geometry = layer.gradient_const if layer.passed else layer.geometry_const
        words = (geometry, dy.data, layer.weights, layer.scale_q15)
        if layer.columns:
            code, table = Code.CONV2D_COLUMNS_GRAD_INPUT, layer.columns.table
            back.emit(code, op, *words, table, *out, flags=flags)
        else:
            back.emit(self.grad_code, op, *words, *out, flags=flags)

    def sums(self, layer: Layer) -> tuple[int, int]:
        """(addends of an element of the input's gradient, int32 elements of scratch)."""
        g = layer.geometry
        return g.kernel_h * g.kernel_w * g.out_c // g.groups, g.in_c

    def _update(self, back: Backward, op: Operator, layer: Layer, dy: Error) -> None:
        assert layer.plan is not None
        dy.data.bound(INT32_ROOM // (layer.gradient.out_positions * 256))
        chosen = layer.plan.channels
        row = sums_of(f"urow{op.index}", layer, chosen) if chosen else None
        is_scored = layer.scores and chosen  # an update of biases alone has no norms
        norms = Buffer(f"norms{op.index}", CORES * NORM * chosen) if is_scored else None
        v = layer.velocity or Velocity(None, None, None)
        velocity = (v.weights, v.channels, v.biases)
        ends = (row, op.index, layer.kept_step, WordsOf(row), *velocity, norms)
        weight_rate, bias_rate = _rates(back.graph, op, layer, back.low.plan)
        kept = _decoded(back, op, layer) if layer.codes else layer.kept
        bias = layer.bias if layer.plan.bias else None
        if layer.columns:
            back.emit(
                Code.CONV2D_COLUMNS_UPDATE,
                op,
                *(layer.gradient_const, dy.data, dy.exponent),
                *(kept, layer.channels, chosen, layer.columns.table),
                *(bias, weight_rate, bias_rate, *ends),
            )
        else:
            back.emit(
                self.update_code,
                op,
                *(layer.gradient_const, dy.data, dy.exponent),
                *(kept, layer.channels, chosen),
                *(layer.weights if chosen else None, layer.residual),
                bias,
                *(weight_rate, bias_rate, *ends),
            )
        if norms:
            channels = input_channels(back.graph, op)
            words = (norms, dy.exponent, layer.channels, chosen, channels, layer.scores)
            back.emit(Code.SCORES, op, *words)


class Conv2D(Weighted):
    code = Code.CONV2D

    def check(self, graph: Graph, op: Operator) -> None:
        channels = _check_map(graph, op)
        x, w = graph.tensor(op.inputs[0]), graph.tensor(op.inputs[1])
        inputs = w.shape[3]
        if not inputs or x.shape[3] % inputs or channels % (x.shape[3] // inputs):
            raise refuse(
                op,
                f"has {x.shape[3]} channels in, {channels} out, which its filters of "
                f"{inputs} cannot share",
            )
        if w.shape[0] != channels:
            raise refuse(op, f"has wrong shapes ({x.shape}, {w.shape})")

    def scratch(self, graph: Graph, op: Operator, layer: Layer) -> Buffer | None:
        g = layer.geometry
        few = g.out_positions < FEWEST_POSITIONS[g.kernel_h * g.kernel_w > 1]
        if few or g.groups != 1 or g.w_zero or _has_minus_128(graph, op):
            return None
        return lanes_scratch(f"lanes{op.index}", g)


class DepthwiseConv2D(Weighted):
    code = Code.DEPTHWISE_CONV2D
    grad_code = Code.DEPTHWISE_CONV2D_GRAD_INPUT
    update_code = Code.DEPTHWISE_CONV2D_UPDATE

    def check(self, graph: Graph, op: Operator) -> None:
        channels = _check_map(graph, op)
        x, w = graph.tensor(op.inputs[0]), graph.tensor(op.inputs[1])
        if w.shape[3] != channels or channels % x.shape[3]:
            raise refuse(op, f"has wrong shapes ({x.shape}, {w.shape})")

    def sums(self, layer: Layer) -> tuple[int, int]:
        g = layer.geometry
        return g.kernel_h * g.kernel_w * (g.out_c // g.in_c), 2 * g.in_c

    def scratch(self, graph: Graph, op: Operator, layer: Layer) -> Buffer | None:
        g = layer.geometry
        if not suits_3x3(g) or _has_minus_128(graph, op):
            return None
        return scratch_3x3(f"lanes{op.index}", g)


class FullyConnected(Weighted):
    code = Code.FULLY_CONNECTED
    columns_code = Code.FULLY_CONNECTED_COLUMNS

    def emit(self, low: Lowering, op: Operator, words: tuple[Word, ...]) -> None:
        """Weights that nobody else reads are packed."""
        geometry, x, weights, bias, requants, scratch, _, y = words
        others_read = op.index in low.active or not isinstance(weights, Const)
        if scratch is None or others_read or _has_minus_128(low.graph, op):
            low.emit(self.code, op, *words)
            return
        g = low.layers[op.index].geometry
        packed, pairs = Const(packed_rows(low.graph, op)), Buffer(f"lanes{op.index}", 6 * g.in_c)
        rest = (bias, requants, pairs, WordsOf(pairs), y)
        low.emit(self.code, op, geometry, x, packed, *rest, flags=Flag.PACKED)

    def scratch(self, graph: Graph, op: Operator, layer: Layer) -> Buffer | None:
        g = layer.geometry
        if g.in_c % 4 or g.w_zero:
            return None
        return Buffer(f"lanes{op.index}", 4 * g.in_c)

    def check(self, graph: Graph, op: Operator) -> None:
        _check_weights(graph, op)
        x, w, y = (graph.tensor(i) for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
        bias = graph.bias_of(op)
        fits = len(w.shape) == 2 and x.size % w.shape[1] == 0 and op.options["weightsFormat"] == 0
        if not fits or y.size != x.size // w.shape[1] * w.shape[0]:
            raise refuse(op, f"has shapes {list(x.shape)} x {list(w.shape)} that do not fit")
        if len(w.scales) not in (1, w.shape[0]) or (bias is not None and bias.size != w.shape[0]):
            raise refuse(op, "has scales or a bias that do not match its outputs")


KINDS: dict[str, Kind] = {
    "CONV_2D": Conv2D(),
    "DEPTHWISE_CONV_2D": DepthwiseConv2D(),
    "FULLY_CONNECTED": FullyConnected(),
}

# Checks ---------------------------------------------------------------------------------------


def _check_weights(graph: Graph, op: Operator) -> None:
    w, bias = graph.tensor(op.inputs[1]), graph.bias_of(op)
    if w.data is None or w.dtype != "int8" or not -128 <= w.zero_point <= 127:
        raise refuse(op, "needs constant int8 weights")
    if w.zero_point and len(w.scales) > 1:
        raise refuse(op, "has scales by channel and a zero point: symmetric weights only")
    if not (np.isfinite(w.scales) & (w.scales > 0)).all():
        raise refuse(op, "has weight scales that are no positive numbers: convert it again")
    if bias is not None and (bias.data is None or bias.dtype != "int32"):
        raise refuse(op, "needs a constant int32 bias")
    check_fused(op)


def _check_map(graph: Graph, op: Operator) -> int:
    """Of a convolution over a map; returns its output channels."""
    _check_weights(graph, op)
    x, w, y = (graph.tensor(i) for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    if len(x.shape) != 4 or len(w.shape) != 4 or len(y.shape) != 4:
        raise refuse(op, "needs tensors of four dimensions")
    channels, bias = y.shape[3], graph.bias_of(op)
    if len(w.scales) not in (1, channels) or (bias is not None and bias.size != channels):
        raise refuse(op, "has scales or a bias that do not match its output channels")
    check_window(graph, op, (w.shape[1], w.shape[2]))
    return channels


# Filtered gradients ---------------------------------------------------------------------------


def sum_patches(back: Backward, op: Operator, filtering: Filtering, dy: Error) -> Error:
    """The sums of dy over each patch of the outputs."""
    patches = filtering.outputs
    name, count = f"sums{op.outputs[0]}", patches.count * patches.c
    sums, out = back.between(name, count, dy, 0, _row(op, patches.c))
    back.emit(Code.PATCH_ERRORS, op, patches.const(), dy.data, *out)
    return sums


def spread_patches(back: Backward, op: Operator, filtering: Filtering, shares: Error) -> None:
    """Each input gets its part of what its patch gets."""
    patches = filtering.inputs
    count_log2 = patches.smallest.bit_length() - 1
    out, flags = back.error_out(op.inputs[0], shares, -(count_log2 + 15), patches.c)
    words = (patches.const(), shares.data, count_log2)
    back.emit(Code.SPREAD_ERRORS, op, *words, *out, flags=flags)


def _row(op: Operator, elements: int) -> Buffer:
    return Buffer(f"row{op.outputs[0]}", 4 * elements)


# Scratch --------------------------------------------------------------------------------------


def _has_minus_128(graph: Graph, op: Operator) -> bool:
    """What the packed sums cannot take; TFLite's converter and our steps never make it."""
    weights = graph.tensor(op.inputs[1]).data
    assert weights is not None
    return bool((weights == -128).any())


def lanes_scratch(name: str, g: Geometry) -> Buffer:
    """For ulab_kernels/conv2d_lanes.c: packed pairs of channels, and gathered windows, unless they
    are in place as they are. Least: three pairs if not very large, all if they are small."""
    k = -(-g.kernel_h * g.kernel_w * g.in_c // 4) * 4
    all_pairs = -(-g.out_c // 2)
    pairs, small, wanted = (
        max(1, min(all_pairs, words // (k + 2) // 3 * 3 or words // (k + 2)))
        for words in (LARGE_PAIRS, SMALL_PAIRS, MANY_PAIRS)
    )
    least = small if small == all_pairs else min(3, pairs)
    windows = 1 if _is_pointwise(g) else max(1, min(MOST_POSITIONS, WINDOWS // k))
    bytes_of_windows = windows * k
    return Buffer(
        name,
        4 * least * (k + 2) + bytes_of_windows,
        wanted=4 * max(least, wanted) * (k + 2) + CORES * bytes_of_windows,
    )


def want_two_rows(row: Word) -> None:
    """A scratch row for each core, if there is room (ulab_kernels/run_gradient.c)."""
    if isinstance(row, Buffer):
        row.wanted = CORES * row.size


def sums_of(name: str, layer: Layer, chosen: int) -> Buffer:
    """Scratch for the sums of an output channel's tap, of more output channels and for each core if
    there is room; of few channels for as many as are worth it (ulab_kernels/conv2d_few.h), and for
    the sum of their errors, too, which comes with some of them (ulab_kernels/conv2d_words.h)."""
    g, words = layer.gradient, layer.kept_step + layer.kept_step % 2
    with_total = words + (chosen >= FEWEST_BY_WORDS)
    if g.out_positions == 1:
        return Buffer(name, 4 * words, wanted=4 * CORES * words)
    if chosen >= BLOCK or g.groups > 1:
        rows = min(ROWS_AT_ONCE, g.out_c)
        return Buffer(name, 4 * words, wanted=4 * CORES * rows * with_total)
    least, wanted = (4 * min(rows, g.out_c) * with_total for rows in (BLOCK, FEW_AT_ONCE))
    return Buffer(name, least, wanted=CORES * wanted)


def packed_rows(graph: Graph, op: Operator) -> bytes:
    """Weights of a fully connected layer as ulab_kernels/fully_connected.h wants them packed."""
    weights = graph.tensor(op.inputs[1]).data
    assert weights is not None
    rows = np.pad(weights.astype(np.int32), ((0, -len(weights) % SIXES), (0, 0)))
    starts = -graph.tensor(op.inputs[0]).zero_point * rows.sum(axis=1)
    by_two = (rows + 128).reshape(-1, SIXES, rows.shape[1] // 2, 2).transpose(0, 2, 1, 3)
    groups = zip(starts.reshape(-1, SIXES), by_two, strict=True)
    return b"".join(s.astype("<i4").tobytes() + w.astype("u1").tobytes() for s, w in groups)


def _is_pointwise(g: Geometry) -> bool:
    sizes = (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_w)
    return sizes == (1, 1, 1, 1, 0) and g.out_w == g.in_w and g.in_c % 4 == 0


def suits_3x3(g: Geometry) -> bool:
    """Whether ulab_kernels/depthwise3x3.c can run it."""
    kind = (g.kernel_h, g.kernel_w, g.dilation_h, g.dilation_w, g.w_zero) == (3, 3, 1, 1, 0)
    one = g.stride_w == 1 and g.pad_w == 1 and g.out_w == g.in_w >= 2
    reach = 2 * g.out_w - g.pad_w
    two = g.stride_w == 2 and g.pad_w in (0, 1) and g.in_w in (reach, reach + 1)
    return kind and g.out_c == g.in_c and (one or two)


def scratch_3x3(name: str, g: Geometry) -> Buffer:
    """For ulab_kernels/depthwise3x3.c: a row of zero points, and what some rows take."""
    zeros = -(-g.in_w * g.in_c // 4)
    least, wanted = _pair_words(g) if g.stride_h == g.stride_w == 1 else _sum_words(g)
    return Buffer(name, 4 * (zeros + least), wanted=4 * (zeros + CORES * wanted))


def _sum_words(g: Geometry) -> tuple[int, int]:
    """(least, wanted) for sums of rows of outputs."""
    words = g.out_w * max(1, min(MOST_ROWS, g.out_h, MOST_SUMS // g.out_w))
    return words, words


def _pair_words(g: Geometry) -> tuple[int, int]:
    """(least, wanted) for inputs and sums that share words (ulab_kernels/depthwise_pairs.h); where
    that is much, the least is for rows of sums."""
    most = min(MOST_ROWS, -(-g.out_h // 2))
    rows = min(most, (2 * MOST_SUMS // g.out_w - 2) // 3)
    least = (3 * rows + 2) * g.out_w if rows > 0 else _sum_words(g)[0]
    return least, (3 * most + 2) * g.out_w


def _bias_alone(layer: Layer) -> Layer:
    """For the update of a bias from all errors, as in TinyProp, before some of them are dropped."""
    assert layer.plan
    plan = LayerPlan(layer.plan.operator, 0)
    velocity = layer.velocity and Velocity(None, None, layer.velocity.biases)
    frozen = replace(layer, plan=plan, columns=None, residual=None, velocity=velocity)
    return replace(frozen, kept=None, codes=None, channels=None, kept_step=0)


def _without_bias(layer: Layer) -> Layer:
    assert layer.plan
    velocity = layer.velocity and replace(layer.velocity, biases=None)
    return replace(layer, plan=replace(layer.plan, bias=False), velocity=velocity)


# Constants and state --------------------------------------------------------------------------


def _layer(low: Lowering, op: Operator) -> Layer:
    geometry = conv_geometry(low.graph, op)
    q15, exponent = channel_scale_q15(per_channel_scales(low.graph, op))
    planned = low.plan.layer(op.index)
    weights = _bytes_of(low.graph, op.inputs[1], np.dtype("i1"))
    bias = _bias_bytes(low.graph, op)
    const = geometry.const()
    filtering = _filtering(geometry, planned)
    layer = Layer(
        geometry,
        const,
        _home(weights, planned is not None and planned.channels > 0 and not planned.slots),
        _home(bias, planned is not None and planned.bias),
        filtering.geometry if filtering else geometry,
        filtering.geometry.const() if filtering else const,
        Const(q15.astype("<u2").tobytes()),
        exponent,
        planned,
        filtering=filtering,
    )
    if planned and planned.channels and low.plan.residual and not (planned.slots or planned.coarse):
        layer.residual = Slot(len(weights), 4)
    if planned and planned.slots:
        layer.columns = _columns(low.graph, op, layer, planned)
    if planned and low.plan.velocity:
        layer.velocity = _velocity(low.graph, op, planned)
    low.layers[op.index] = layer
    return layer


def _filtering(geometry: Geometry, plan: LayerPlan | None) -> Filtering | None:
    if plan is None or plan.patch == 1:
        return None
    return filtering_of(geometry, plan.patch, plan.wide)


def _columns(graph: Graph, op: Operator, layer: Layer, plan: LayerPlan) -> Columns:
    """Room for the channels that are trained while the layer stays in flash."""
    assert isinstance(layer.weights, Const)
    channels, g = input_channels(graph, op), layer.geometry
    nowhere = np.full(channels, 7 << 29, "<u4").tobytes()
    size = g.kernel_h * g.kernel_w * g.out_c
    pool, count = Slot(plan.slots * size, 4), max(plan.reach, plan.slots)
    table = Slot(4 * channels, 4, nowhere)
    return Columns(table, pool, plan.slots, size, layer.weights, count)


def _velocity(graph: Graph, op: Operator, plan: LayerPlan) -> Velocity:
    """Of a depthwise layer for all weights, as they lie."""
    size, channels = graph.tensor(op.inputs[1]).size, input_channels(graph, op)
    if op.kind != "DEPTHWISE_CONV_2D":
        size = size // channels * plan.channels
    takes_turns = 0 < plan.channels and (plan.channels < channels or plan.slots > 0)
    return Velocity(
        Slot(2 * size, 4) if plan.channels else None,
        Slot(2 * plan.channels, 2) if takes_turns else None,
        Slot(4 * output_channels(graph, op), 4) if plan.bias else None,
    )


def _home(data: bytes, trained: bool) -> Place:
    """What trains lives in RAM, what is frozen stays in flash."""
    return Slot(len(data), 4, data) if trained else Const(data)


def _values(graph: Graph, tensor: int) -> Array:
    data = graph.tensor(tensor).data
    assert data is not None  # tflite.py refuses models whose weights are not constant
    return data.astype(np.float64)


def _bytes_of(graph: Graph, tensor: int, dtype: np.dtype[np.generic]) -> bytes:
    data = graph.tensor(tensor).data
    assert data is not None
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
    layer.kept_step = chosen
    if chosen == channels and not layer.columns:
        layer.channels = Const(np.arange(channels, dtype="<u2").tobytes())
        if not layer.filtering:
            layer.kept = x
            return
    positions = layer.gradient.in_positions * layer.geometry.groups
    if layer.plan.kept_bits == WHOLE:  # codes are of the chosen channels alone
        layer.kept_step = kept_step(op.kind, chosen)
    if not layer.channels:
        _list_channels(low, op, layer)
    rest = (chosen, channels, layer.kept_step)
    if layer.filtering:
        patches = layer.filtering.inputs.const()
        layer.kept = Buffer(f"means{op.index}", positions * layer.kept_step)
        words: Words = (patches, x, layer.channels, layer.kept, *rest)
        low.emit(Code.PATCH_VALUES, op, *words, flags=Flag.TRAINING_ONLY)
        return
    layer.kept = Buffer(f"kept{op.index}", positions * layer.kept_step)
    words = (x, layer.channels, layer.kept, positions, *rest)
    low.emit(Code.KEEP_CHANNELS, op, *words, flags=Flag.TRAINING_ONLY)


def _encode_kept(low: Lowering, op: Operator, layer: Layer) -> None:
    """Of what is kept whole until here, the codes alone are kept on."""
    if layer.plan is None or not layer.kept or layer.plan.kept_bits == WHOLE:
        return
    count = layer.kept.size
    layer.codes = Buffer(f"codes{op.index}", code_bytes(count))
    counts = Buffer(f"counts{op.index}", 4 * VALUES)
    words: Words = (layer.kept, layer.codes, counts, count)
    low.emit(Code.ENCODE_KEPT, op, *words, flags=Flag.TRAINING_ONLY)


def _decoded(back: Backward, op: Operator, layer: Layer) -> Buffer:
    assert layer.codes and layer.kept
    kept = Buffer(f"decoded{op.index}", layer.kept.size)
    back.emit(Code.DECODE_KEPT, op, kept, layer.codes, None, kept.size)
    return kept


def _list_channels(low: Lowering, op: Operator, layer: Layer) -> None:
    """What the policy writes and knows: of a new state the channels that `magnitude` stays with."""
    assert layer.plan is not None
    channels, chosen = input_channels(low.graph, op), layer.plan.channels
    first = by_magnitude(low.graph, op)[:chosen]
    layer.channels = Slot(2 * chosen, 2, first.astype("<u2").tobytes())
    layer.visited = Slot(-(-channels // 8), 1)
    layer.scores = Slot(SCORE * channels, 4) if low.plan.scores else None


def _largest_sums(graph: Graph, op: Operator) -> Array:
    """Of each output of a FULLY_CONNECTED: what its sum cannot exceed, whatever the input."""
    x, w, bias = graph.tensor(op.inputs[0]), graph.tensor(op.inputs[1]), graph.bias_of(op)
    weights = np.abs(_values(graph, w.index) - w.zero_point).sum(1)
    largest: Array = weights * max(128 + x.zero_point, 127 - x.zero_point)
    if bias is not None:
        largest += np.abs(_values(graph, bias.index))
    return largest


def _requants(graph: Graph, op: Operator) -> Const:
    x, w, y = (graph.tensor(i) for i in (op.inputs[0], op.inputs[1], op.outputs[0]))
    scales = per_channel_scales(graph, op)
    if op.kind == "FULLY_CONNECTED" and len(w.scales) == 1:
        # TFLite multiplies these two in float32 (GetQuantizedConvolutionMultipler).
        products = np.full(len(scales), float(np.float32(x.scale) * np.float32(w.scale)))
    else:
        products = x.scale * scales
    pairs = [quantize_multiplier(float(p) / y.scale) for p in products]
    if max(shift for _, shift in pairs) > MOST_SHIFT:
        raise refuse(op, "has an output scale far below its inputs': convert the model again")
    factors = np.maximum(products / y.scale, 1)
    if op.kind == "FULLY_CONNECTED" and (_largest_sums(graph, op) * factors >= INT32).any():
        raise refuse(op, "may have sums beyond 32 bits: convert the model again")
    return Const(np.array(pairs, dtype="<i4").tobytes())


def _rates(graph: Graph, op: Operator, layer: Layer, plan: UpdatePlan) -> tuple[Const, Const]:
    """Steps for a learning rate of 1, in units of the stored integers. A gradient with respect to
    one of these is the real one times its scale; QAS divides by the scale's square."""
    x_scale = graph.tensor(op.inputs[0]).scale
    scales = per_channel_scales(graph, op)
    unit = 256.0 if layer.residual or layer.velocity else 1.0
    power = -1 if plan.qas else 1
    return _rate_table(unit * x_scale * scales**power), _rate_table((x_scale * scales) ** power)


def _rate_table(reals: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Const:
    return Const(b"".join(struct.pack("<Hh", *rate(float(real))) for real in reals))


def _record(low: Lowering, op: Operator, layer: Layer) -> None:
    if layer.plan is None or not layer.plan.trains:
        return
    low.program.layers.append(
        TrainedLayer(
            op.index,
            input_channels(low.graph, op),
            output_channels(low.graph, op),
            layer.plan.channels,
            _slot(layer.channels),
            _slot(layer.weights),
            layer.residual,
            _slot(layer.bias),
            layer.columns,
            layer.velocity,
            layer.visited,
            layer.scores,
        )
    )


def _slot(place: object) -> Slot | None:
    return place if isinstance(place, Slot) else None
