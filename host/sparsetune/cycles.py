"""How long a step takes: the work of each operator, counted from the program, times cycles that
were measured on the board and stand in its description (bench/cycles.py measures them)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from .geometry import Geometry
from .graph import Graph, Operator
from .patches import Patches
from .program import Buffer, Code, Const, Flag, Op, Program
from .tinyprop import ONE

# Share of the gradients behind a ReLU that are not zero: KWS 0.37 to 0.45, ResNet-8 0.28 to 0.33,
# MobileNetV2 0.29 to 0.58, VWW (sure of its sample) 0.03 to 0.14; of the four networks the mean. Of
# the small digits it is 0.39 to 0.63.
BEHIND_RELU = 0.31
# Those that do less where a gradient is zero; it is their second operand.
COLUMNS = (
    *(Code.CONV2D_COLUMNS, Code.FULLY_CONNECTED_COLUMNS),
    *(Code.CONV2D_COLUMNS_GRAD_INPUT, Code.CONV2D_COLUMNS_UPDATE),
)
SKIP_ZEROS = (
    *(Code.CONV2D_GRAD_INPUT, Code.CONV2D_COLUMNS_GRAD_INPUT),
    *(Code.CONV2D_UPDATE, Code.CONV2D_COLUMNS_UPDATE, Code.DEPTHWISE_CONV2D_UPDATE),
)
DENSE = (
    *(Code.CONV2D, Code.FULLY_CONNECTED, Code.CONV2D_GRAD_INPUT, Code.CONV2D_UPDATE, *COLUMNS),
)
WINDOWS = (
    *(Code.CONV2D, Code.FULLY_CONNECTED, Code.DEPTHWISE_CONV2D, Code.AVG_POOL, Code.MAX_POOL),
    *(Code.CONV2D_GRAD_INPUT, Code.DEPTHWISE_CONV2D_GRAD_INPUT, *COLUMNS[:3]),
    *(Code.AVG_POOL_GRAD_INPUT, Code.MAX_POOL_GRAD_INPUT),
)
UPDATES = (Code.CONV2D_UPDATE, Code.DEPTHWISE_CONV2D_UPDATE, Code.CONV2D_COLUMNS_UPDATE)
FINE_UPDATES = (Code.CONV2D_UPDATE, Code.DEPTHWISE_CONV2D_UPDATE)
PATCHES = (Code.PATCH_VALUES, Code.PATCH_ERRORS, Code.SPREAD_ERRORS)
CODES = (Code.ENCODE_KEPT, Code.DECODE_KEPT)
RESIZES = (Code.RESIZE, Code.RESIZE_GRAD_INPUT)
POINTWISE = "conv2d_pointwise"  # CONV2D with a window of one: nothing is gathered for it
MORE = "_residual"  # behind the name of an update: what its weights' residuals take beside it
KTH_SUM = 7  # to find the K-th largest of the channels' sums, for each; in errors read
OTHER = "other"  # of operators that nobody has measured


@dataclass(frozen=True)
class Work:
    """Of one operator. macs: multiply-accumulates (of a pool: inputs read). loops: how often the
    innermost loop over them starts. elements: outputs, or inputs whose gradient is made, or weights
    moved; of operators that only read and write, bytes of the largest operand."""

    macs: float
    loops: float
    elements: float


@dataclass(frozen=True)
class Cost:
    """Cycles of each of these, and of the operator itself, however small."""

    mac: float
    loop: float
    element: float
    start: float = 0.0

    def of(self, work: Work) -> float:
        each = self.mac * work.macs + self.loop * work.loops + self.element * work.elements
        return each + self.start


@dataclass(frozen=True)
class Clock:
    """A board's speed. source: where the figures are from. hertz: cycles a second. step: cycles of
    a step beside the kernels. costs: by the code's name in lower case, and OTHER. both: what the
    kernels take on both cores of a chip, as a share of these; projected. None where it has one."""

    source: str
    hertz: int
    step: int
    costs: Mapping[str, Cost]
    both: float | None = None

    def cycles(self, op: Op, work: Work) -> float:
        name = op.code.name.lower()
        names = (cost_name(op), name, OTHER)
        found = next(self.costs[name] for name in names if name in self.costs).of(work)
        more = self.costs.get(name + MORE) if has_residual(op) else None
        return found + more.of(work) if more else found


def step_cycles(program: Program, graph: Graph, clock: Clock) -> list[float]:
    """Estimated cycles of each operator of the program in a training step; 0 for those that only
    inference runs."""
    return [
        0.0 if op.flags & Flag.INFERENCE_ONLY else clock.cycles(op, work)
        for op, work in zip(program.ops, works(program, graph), strict=True)
    ]


def cost_name(op: Op) -> str:
    """Under which a board's description has the cost of an operator."""
    if op.code == Code.CONV2D and _window(op).kernel_h == _window(op).kernel_w == 1:
        return POINTWISE
    return op.code.name.lower()


def has_residual(op: Op) -> bool:
    """Whether it moves weights that have one."""
    return op.code in FINE_UPDATES and op.words[7] is not None


def works(program: Program, graph: Graph) -> Iterator[Work]:
    """The work of each operator of the program."""
    shares, stay = _shares_not_zero(program, graph), 1.0
    for i, op in enumerate(program.ops):
        if op.code == Code.STRIP:
            yield _strip_work(program.ops, i)
        elif op.code in UPDATES:  # of what SELECT_ERRORS has left, where it stands in front
            yield _update_work(op, _share_of(op, shares), stay)
            stay = 1.0
        else:
            yield work_of(op, _share_of(op, shares))
            stay = stay if op.code != Code.SELECT_ERRORS else _least_that_stay(op)


def _share_of(op: Op, shares: dict[Buffer, float]) -> float:
    dy = op.words[1] if op.code in SKIP_ZEROS else None
    return shares.get(dy, 1.0) if isinstance(dy, Buffer) else 1.0


def _least_that_stay(op: Op) -> float:
    """Of the output channels of SELECT_ERRORS, where their number is fixed; else 1."""
    least, span = op.words[8:]
    assert isinstance(least, int)
    return 1.0 if span else least / ONE


def _shares_not_zero(program: Program, graph: Graph) -> dict[Buffer, float]:
    """Of error tensors that have zeros: behind a max pool, which gives one input of a window all,
    and where a ReLU lets nothing pass."""
    shares: dict[Buffer, float] = {}
    for op in program.ops:
        if op.code == Code.MAX_POOL_GRAD_INPUT:
            dx, g = op.words[3], _window(op)
            assert isinstance(dx, Buffer)
            shares[dx] = min(1.0, g.out_h * g.out_w / (g.in_h * g.in_w))
        if op.code == Code.APPLY_MASK and _is_relu(graph, graph.operator(op.source)):
            dy = op.words[0]
            assert isinstance(dy, Buffer)
            shares[dy] = min(shares.get(dy, 1.0), BEHIND_RELU)
        if op.code == Code.PATCH_ERRORS:
            dy, sums, p = op.words[1], op.words[2], patches_of(op)
            assert isinstance(dy, Buffer) and isinstance(sums, Buffer)
            shares[sums] = 1 - (1 - shares.get(dy, 1.0)) ** (p.patch_h * p.patch_w)
    return shares


def _is_relu(graph: Graph, op: Operator) -> bool:
    """Some converters leave the ReLU to the output's range, which begins at zero then."""
    begins_at_zero = graph.tensor(op.outputs[0]).zero_point == -128
    return begins_at_zero or op.options.get("fusedActivationFunction", 0) in (1, 3)


def work_of(op: Op, share: float = 1.0) -> Work:
    """The work of any operator but STRIP. share: of its output's gradients that are not zero."""
    if op.code in UPDATES:
        return _update_work(op, share)
    if op.code in WINDOWS:
        return _backward_work(op, share) if op.flags & Flag.TRAINING_ONLY else _forward_work(op)
    if op.code == Code.KEEP_CHANNELS:
        return Work(0, 0, _size(op.words[2]))
    if op.code in CODES:
        return Work(0, 0, _size(op.words[0]))
    if op.code in PATCHES:
        return _patch_work(op)
    if op.code == Code.COPY:
        return _copy_work(op)
    if op.code in RESIZES:
        return _resize_work(op)
    if op.code == Code.SELECT_ERRORS:
        return _select_work(op)
    return Work(0, 0, max(_size(word) for word in op.words))


def _size(word: object) -> int:
    return word.size if isinstance(word, Buffer) else 0


def _window(op: Op) -> Geometry:
    geometry = op.words[0]
    assert isinstance(geometry, Const)
    return Geometry(*struct.unpack("<20i", geometry.data))


def _forward_work(op: Op) -> Work:
    """The innermost loop runs along a row of the window."""
    g = _window(op)
    if op.has_scratch:
        return _packed_work(op, g)
    macs = g.places_read * g.out_c * (g.in_c if op.code in DENSE else 1)
    return Work(macs, g.rows_read * g.out_w * g.out_c, g.out_h * g.out_w * g.out_c)


def _packed_work(op: Op, g: Geometry) -> Work:
    """Where a faster way has scratch: padding is multiplied as all else, and instead of the
    innermost loop's starts those things count that are done once: weights packed, channels begun.
    Of the depthwise one the elements are those that it reads."""
    outputs = g.out_h * g.out_w * g.out_c
    if op.code == Code.DEPTHWISE_CONV2D:
        return Work(g.places_read * g.out_c, g.out_c, g.in_h * g.in_w * g.in_c)
    weights = g.kernel_h * g.kernel_w * g.in_c
    return Work(outputs * weights, weights * g.out_c, outputs)


def _backward_work(op: Op, share: float) -> Work:
    """The innermost loop runs along the input's channels."""
    g = _window(op)
    loops = g.places_read * (g.out_c if op.code in DENSE else g.out_c // g.in_c)
    done = loops * share if op.code in SKIP_ZEROS else loops
    return Work(done * g.in_c, done, g.in_h * g.in_w * g.in_c)


def _update_work(op: Op, share: float, stay: float = 1.0) -> Work:
    """The innermost loop runs along the chosen channels; a weight whose sum is zero is not moved.
    The biases' sums are one addition for each output. stay: of the output channels, the share that
    has errors at all."""
    bias = op.words[7 if op.code == Code.CONV2D_COLUMNS_UPDATE else 8]
    g, chosen = _window(op), op.words[5]
    assert isinstance(chosen, int)
    filters = g.out_c if op.code in DENSE else g.out_c // g.in_c
    sums = g.out_h * g.out_w * g.out_c if bias is not None else 0
    loops = g.places_read * filters if chosen else 0
    done = loops * stay * share if op.code in DENSE else loops
    taps = g.kernel_h * g.kernel_w
    moved = 1 - (1 - share) ** (g.places_read / taps)
    return Work(done * chosen + sums, done, taps * filters * stay * chosen * moved)


def patches_of(op: Op) -> Patches:
    """Of an operator on patches."""
    words = op.words[0]
    assert isinstance(words, Const)
    return Patches(*struct.unpack("<9i", words.data))


def _patch_work(op: Op) -> Work:
    """Of means the innermost loop runs along a row of a patch; those of four elements are made
    without one. Of sums it runs along the channels, as where a patch's share is made for each row
    of the map. Elements are those that are written."""
    p = patches_of(op)
    values = p.h * p.w * p.c
    if op.code == Code.PATCH_VALUES:
        kept, are_four = _size(op.words[3]), p.patch_h == p.patch_w == 2
        return Work(kept * p.h * p.w / p.count, 0 if are_four else kept * p.patch_h, kept)
    if op.code == Code.PATCH_ERRORS:
        return Work(values, p.h * p.w, p.count * p.c)
    return Work(p.h * p.columns * p.c, p.h * p.w, values)


def _copy_work(op: Op) -> Work:
    params = op.words[0]
    assert isinstance(params, Const)
    counts = struct.unpack_from("<4i", params.data)
    return Work(0, prod(counts[:3]), prod(counts))


def _select_work(op: Op) -> Work:
    """Where it only counts, errors are read once; else again, and the K-th largest of the channels'
    sums is looked for bit by bit."""
    g, channels, least = _window(op), op.words[5], op.words[8]
    values = g.out_h * g.out_w * g.out_c
    counts = least == ONE and channels is None
    return Work(values, g.out_h * g.out_w, 0 if counts else values + KTH_SUM * g.out_c)


def _resize_work(op: Op) -> Work:
    """Forward four inputs for each output; in the gradient each output is met about as often."""
    params = op.words[0]
    assert isinstance(params, Const)
    in_h, in_w, channels, out_h, out_w = struct.unpack("<5i", params.data)
    return Work(out_h * out_w * channels, out_h * out_w, in_h * in_w * channels)


def _strip_work(ops: list[Op], at: int) -> Work:
    """Beside the work of the operators in it: bytes that its windows move."""
    count = ops[at].words[0]
    assert isinstance(count, int)
    stages = [op for op in ops[at + 1 : at + 1 + count] if op.code in WINDOWS]
    return Work(0, 0, sum(_moved(_window(stage)) for stage in stages[1:]))


def _moved(g: Geometry) -> int:
    """Bytes of the input that one row of the output and the next both read, over all rows."""
    rows = min((g.kernel_h - 1) * g.dilation_h + 1, g.in_h)
    return max(0, rows - g.stride_h) * g.in_w * g.in_c * (g.in_h // g.stride_h)
