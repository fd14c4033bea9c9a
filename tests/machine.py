"""Runs compiled programs on the kernels operator by operator, and looks between them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sparsetune_kernels as kernels
from sparsetune.compile import build_program, source_of
from sparsetune.graph import Graph
from sparsetune.image import Layout, lay_out, parse_image
from sparsetune.litert import _runtime
from sparsetune.plan import UpdatePlan
from sparsetune.program import Buffer, Code, Op, Program, Slot
from sparsetune.tflite import parse_tflite

Array = npt.NDArray[Any]
NO_PLAN = UpdatePlan(())
LABEL, LOSS, RATE, SEED = 0, 4, 12, 20  # byte offsets in the state buffer (st_control_t)


class Machine:
    """A model compiled with a plan, with an arena and a state of its own."""

    def __init__(self, model: bytes | Graph, plan: UpdatePlan = NO_PLAN) -> None:
        self.graph = model if isinstance(model, Graph) else parse_tflite(model)
        self.program = self.build(plan)
        self.layout = self.lay_out()
        self.image = parse_image(self.layout.image)
        self.arena = bytearray(self.image.arena_bytes)
        self.cold = bytearray(self.image.cold_bytes)
        self.state = bytearray(self.image.initial_state())
        self.store = b""

    def build(self, plan: UpdatePlan) -> Program:
        return build_program(self.graph, plan)

    def lay_out(self) -> Layout:
        return lay_out(self.program, source_of(self.graph))

    @property
    def ops(self) -> list[Op]:
        return self.program.ops

    def set_target(self, target: Array) -> None:
        """target: stored values, int8."""
        buffer = self.program.target
        if buffer is not None:
            data = np.asarray(target, np.int8).tobytes()
            self.arena[buffer.offset : buffer.offset + buffer.size] = data

    def stored_target(self, target: Array) -> Array:
        """Targets in real numbers as the sample file holds them."""
        if self.graph.loss_name != "mse":
            return target
        y = self.graph.tensor(self.graph.logits)
        return np.clip(np.rint(target / y.scale) + y.zero_point, -128, 127)

    def control(self, label: int, rate: tuple[int, int] = (0, 0), seed: int = 1) -> None:
        struct.pack_into("<i", self.state, LABEL, label)
        struct.pack_into("<IiI", self.state, RATE, *rate, seed)

    @property
    def loss(self) -> float:
        return float(struct.unpack_from("<i", self.state, LOSS)[0] / 65536)

    def load(self, x: Array) -> None:
        at, size = self.image.input_at, self.image.input_bytes
        self.arena[at : at + size] = np.ascontiguousarray(x, np.int8).tobytes()

    def run(self, begin: int, end: int, training: bool = True, cores: int = 0) -> None:
        """cores: as in ulab_kernels/cores.h."""
        buffers = (self.image.data, self.state, self.arena, self.cold, self.store)
        kernels.run(*buffers, begin, end, training + 2 * cores)

    def infer(self, x: Array) -> Array:
        """int8 output, flat."""
        self.load(x)
        self.run(0, self.image.forward_ops, training=False)
        at, size = self.image.output_at, self.image.output_bytes
        return np.frombuffer(bytes(self.arena[at : at + size]), np.int8)

    def step(self, x: Array, label: int, rate: tuple[int, int], seed: int = 1) -> float:
        """One training step; the loss before it."""
        self.load(x)
        self.control(label, rate, seed)
        self.run(0, len(self.ops))
        return self.loss

    def walk(self, x: Array, label: int | Array) -> Iterator[tuple[int, Op]]:
        """Yields each operator of a training step just before it runs; it has run when the next
        one is asked for. The learning rate is 0 unless the caller sets one."""
        self.load(x)
        if isinstance(label, int):
            self.control(label)
        else:
            self.set_target(self.stored_target(label))
        for i, op in enumerate(self.ops):
            yield i, op
            self.run(i, i + 1)

    def read(self, buffer: Buffer, dtype: Any) -> Array:
        """A copy of what stands in an arena buffer."""
        return np.frombuffer(bytes(self.arena[buffer.offset : buffer.offset + buffer.size]), dtype)

    def slot(self, slot: Slot, dtype: Any) -> Array:
        """What stands in a slot of the state, as an array that writes through."""
        return np.frombuffer(memoryview(self.state)[slot.offset : slot.offset + slot.size], dtype)


@dataclass(frozen=True)
class Gradient:
    """An error tensor as a backward operator read it, in real units."""

    tensor: int
    masked: bool
    values: Array


# Where dy and dy's exponent stand among an operator's words.
DY_AT = {
    Code.ERROR_ADD: (0, 5),
    Code.CONV2D_GRAD_INPUT: (1, 7),
    Code.DEPTHWISE_CONV2D_GRAD_INPUT: (1, 7),
    Code.AVG_POOL_GRAD_INPUT: (1, 6),
    Code.SOFTMAX_GRAD_INPUT: (2, 6),
    Code.COPY_GRAD_INPUT: (1, 5),
    Code.REDUCE_GRAD_INPUT: (1, 6),
    Code.LOOKUP_GRAD_INPUT: (3, 7),
    Code.MAX_POOL_GRAD_INPUT: (2, 6),
    Code.RESIZE_GRAD_INPUT: (3, 7),
    Code.CONV2D_UPDATE: (1, 2),
    Code.DEPTHWISE_CONV2D_UPDATE: (1, 2),
    Code.PATCH_ERRORS: (1, 5),
}
UPDATES = (Code.CONV2D_UPDATE, Code.DEPTHWISE_CONV2D_UPDATE)


def gradient_read_by(machine: Machine, op: Op) -> Gradient | None:
    """The gradient of the loss with respect to the output of op's source, as op will read it."""
    if op.code not in DY_AT or len(machine.graph.operator(op.source).outputs) > 1:
        return None  # of several outputs it is not known which one is read
    if op.code != Code.PATCH_ERRORS and _reads_sums(machine, op):
        return None
    dy, exponent = (op.words[i] for i in DY_AT[op.code])
    assert isinstance(dy, Buffer) and isinstance(exponent, Slot)
    scale = 2.0 ** int(machine.slot(exponent, np.int16)[0])
    tensor = machine.graph.operator(op.source).outputs[0]
    masked = any(o.code == Code.APPLY_MASK and o.source == op.source for o in machine.ops)
    return Gradient(tensor, masked, machine.read(dy, np.int16) * scale)


def _reads_sums(machine: Machine, op: Op) -> bool:
    """Of patches: updates do, and all else unless the gradient that is passed on is exact."""
    codes = {other.code for other in machine.ops if other.source == op.source}
    return Code.PATCH_ERRORS in codes and (op.code in UPDATES or Code.SPREAD_ERRORS in codes)


def litert_tensors(model: bytes, x: Array) -> dict[int, Array]:
    """Every activation of one inference of LiteRT's reference kernels: an independent forward."""
    runtime = _runtime()
    interpreter = runtime.Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    if source["dtype"] == np.uint8:
        x = (x.astype(np.int16) + 128).astype(np.uint8)
    interpreter.set_tensor(source["index"], x.reshape(source["shape"]))
    interpreter.invoke()
    details = [d["index"] for d in interpreter.get_tensor_details()]
    return {i: _as_int8(interpreter.get_tensor(i).copy()) for i in details}


def _as_int8(values: Array) -> Array:
    """What was uint8 as sparsetune holds it."""
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values
