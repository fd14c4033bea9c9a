"""What makes an arena as large as it is: the busiest moment of a program, and who is alive then."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .arena import Lifetime, lifetimes, live_bytes, rounded
from .graph import Graph, Tensor
from .program import Buffer, Code, Program

NAME = 40  # characters of a tensor's name that are shown
LOSSES = (Code.LOSS, Code.MSE, Code.BCE)
DIRECTIONS = {
    Code.CLAMP_MASK: ", clamp mask",
    Code.KEEP_CHANNELS: ", channels to keep",
    Code.APPLY_MASK: ", gradient",
    Code.ERROR_ADD: ", gradient",
    Code.PATCH_VALUES: ", patches to keep",
    Code.ENCODE_KEPT: ", codes to keep",
    Code.DECODE_KEPT: ", codes read",
    Code.PATCH_ERRORS: ", gradient in patches",
    Code.SPREAD_ERRORS: ", gradient in patches",
    Code.SELECT_ERRORS: ", selection of errors",
    Code.SCORES: ", scores of channels",
}


@dataclass(frozen=True)
class Kind:
    """What buffers of one name are. dtype: of an element. of: whether the number in the name is a
    tensor's or an operator's."""

    what: str
    dtype: str
    of: str


KINDS = {
    "t": Kind("activation", "int8", "tensor"),
    "d": Kind("error tensor", "int16", "tensor"),
    "row": Kind("scratch row", "int32", "tensor"),
    "urow": Kind("scratch row", "int32", "operator"),
    "srow": Kind("scratch row", "int32", "operator"),
    "mask": Kind("clamp mask", "bit", "operator"),
    "winner": Kind("places of maxima", "uint8", "operator"),
    "norms": Kind("norms of gradients", "int32", ""),
    "kept": Kind("kept channels", "int8", "operator"),
    "means": Kind("kept patches", "int8", "operator"),
    "codes": Kind("codes of what is kept", "int8", "operator"),
    "counts": Kind("counts of values", "int32", ""),
    "decoded": Kind("kept, decoded", "int8", "operator"),
    "sums": Kind("error of patches", "int16", "tensor"),
    "shares": Kind("error of patches", "int16", "tensor"),
    "filter": Kind("one filter", "int8", ""),
    "lanes": Kind("packed weights and windows", "int32", ""),
    "target": Kind("target of the sample", "int8", ""),
}
OF_INPUTS = ("kept", "means", "codes", "decoded")  # all others are of outputs
WINDOW = Kind("rows of a map", "int8", "tensor")  # the few that a strip needs at a time
UNKNOWN = Kind("work space", "int8", "")


@dataclass(frozen=True)
class Tenant:
    """A buffer at some moment. tensor: the one it holds, or a part or the gradient of; None where
    it is scratch. shape: of what it holds, without the batch. why: it is alive."""

    buffer: Buffer
    kind: Kind
    tensor: Tensor | None
    shape: tuple[int, ...]
    why: str

    @property
    def bytes(self) -> int:
        return rounded(self.buffer.size)


@dataclass(frozen=True)
class Peak:
    """The busiest moment. at: the operator of the program. where: it, in words. tenants: all alive
    then, the largest first."""

    at: int
    where: str
    bytes: int
    tenants: tuple[Tenant, ...]


def find_peak(program: Program, graph: Graph) -> Peak:
    """Of the arena (of the fast one, where there are two)."""
    lives = [life for life in lifetimes(program) if not life.buffer.is_cold]
    sizes = live_bytes(lives)
    at = sizes.index(max(sizes))
    moment = (at, at + strip_length(program, at))
    uses = _uses(program)
    tenants = [
        _tenant(program, graph, life, moment, uses.get(life.buffer, []))
        for life in lives
        if life.first <= at <= life.last
    ]
    tenants.sort(key=lambda tenant: -tenant.bytes)
    return Peak(at, describe_op(program, graph, at), sizes[at], tuple(tenants))


def strip_length(program: Program, at: int) -> int:
    """Operators of the strip that begins there; 0 where none does."""
    op = program.ops[at]
    return int(str(op.words[0])) if op.code == Code.STRIP else 0


def describe_op(program: Program, graph: Graph, at: int) -> str:
    """An operator of the program in the words of the model."""
    op = program.ops[at]
    if op.code in LOSSES:
        return "the loss"
    if op.code == Code.STRIP:
        last = program.ops[at + strip_length(program, at)].source
        return f"operators {op.source} to {last}, row by row"
    text = f"operator {op.source} {graph.operator(op.source).kind}"
    if op.code.name.endswith("_UPDATE"):
        return f"{text}, weight update"
    if op.code.name.endswith("_GRAD_INPUT"):
        return f"{text}, input gradient"
    return text + DIRECTIONS.get(op.code, "")


def _uses(program: Program) -> dict[Buffer, list[int]]:
    uses: dict[Buffer, list[int]] = {}
    for i, op in enumerate(program.ops):
        for buffer in op.buffers:
            uses.setdefault(buffer, []).append(i)
    return uses


def _tenant(
    program: Program, graph: Graph, life: Lifetime, moment: tuple[int, int], uses: list[int]
) -> Tenant:
    kind, tensor = identify(life.buffer, graph)
    why = _why(program, graph, moment, uses)
    if life.buffer is program.input:
        why = f"the sample, {why}".replace("used here alone", "read here")
    return Tenant(life.buffer, kind, tensor, shape_of(life.buffer, kind, tensor), why)


def identify(buffer: Buffer, graph: Graph) -> tuple[Kind, Tensor | None]:
    """What it is and the tensor it belongs to, by its name: t12 and mask5 are of tensor 12 and
    operator 5."""
    match = re.fullmatch(r"([a-z]+)(\d*)", buffer.name)
    kind = KINDS.get(match[1], UNKNOWN) if match else UNKNOWN
    if kind.what == "target of the sample":
        return kind, graph.tensor(graph.logits)
    if match is None or not kind.of or kind.what == "scratch row":
        return kind, None
    if kind.of == "operator":
        op = graph.operator(int(match[2]))
        return kind, graph.tensor(op.inputs[0] if match[1] in OF_INPUTS else op.outputs[0])
    tensor = graph.tensor(int(match[2]))
    is_part = match[1] == "t" and buffer.size < tensor.size
    return WINDOW if is_part else kind, tensor


def shape_of(buffer: Buffer, kind: Kind, tensor: Tensor | None) -> tuple[int, ...]:
    """Of what the buffer holds: fewer channels than the tensor has, or fewer rows, where it is only
    a part of it."""
    if tensor is None:
        return (buffer.size // 4,) if kind.dtype == "int32" else (buffer.size,)
    shape = tensor.shape[1:]
    if kind.what.endswith("patches") or kind in (KINDS["codes"], KINDS["decoded"]):
        return (buffer.size // (2 if kind.dtype == "int16" else 1),)
    if kind.what == "kept channels":
        return (*shape[:-1], buffer.size * shape[-1] // tensor.size)
    if kind is WINDOW:
        return (buffer.size * shape[0] // tensor.size, *shape[1:])
    return shape


def short_name(tensor: Tensor) -> str:
    """Converters join the names of all that they fused: the first says enough."""
    name = tensor.name.split(";")[0]
    return name if len(name) <= NAME else "..." + name[3 - NAME :]


def _why(program: Program, graph: Graph, moment: tuple[int, int], uses: list[int]) -> str:
    here = [at for at in uses if moment[0] <= at <= moment[1]]
    if not uses or uses[-1] < moment[0]:
        return "the output"  # read by Python
    if uses[-1] <= moment[1]:
        return "used here alone" if uses[0] in here else "read here"
    kept = f"kept for {describe_op(program, graph, uses[-1])}"
    if not here:
        return kept
    return f"made here, {kept}" if uses[0] in here else f"read here, {kept}"
