"""A model cut where training begins: what lies in front gives a sample the same numbers in every
step, so that many short runs on the same samples make them once (trial.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image

from .compile import active_operators, build_program, source_of
from .cores import in_parts
from .cut import Uses
from .data import Dataset
from .graph import Array, Graph
from .image import lay_out
from .plan import UpdatePlan


def without_front(graph: Graph, plan: UpdatePlan, data: Dataset) -> tuple[Graph, Dataset]:
    """The rest of a model behind the last place that all of its frozen front goes through, and the
    samples as they are there. It learns what the whole model does, bit for bit."""
    front, rest = split_front(graph, plan)
    return rest, data if front is None else Dataset(outputs(front, data.x), data.y)


def split_front(graph: Graph, plan: UpdatePlan) -> tuple[Graph | None, Graph]:
    """(the frozen front, the rest of a model), see without_front; None where it is not cut."""
    at = _place(graph, plan) if graph.loss_name != "autoencoder" else 0
    if not at:
        return None, graph
    front, rest = graph.operators[:at], graph.operators[at:]
    (place,) = _uses(graph).crossing(at)
    before = replace(graph, operators=front, output=place, exit=-1)
    return before, replace(graph, operators=rest, input=place, entry=-1, loss=graph.loss_name)


def _place(graph: Graph, plan: UpdatePlan) -> int:
    """How many operators lie in front; 0 where there is no such place."""
    active = active_operators(graph, plan)
    frozen = next(i for i, op in enumerate(graph.operators) if op.index in active)
    return _uses(graph).last_single(frozen)


def _uses(graph: Graph) -> Uses[int]:
    makes = [frozenset(op.outputs) for op in graph.operators]
    reads = [frozenset(op.inputs) for op in graph.operators]
    return Uses(makes, reads, graph.input, frozenset({graph.output}))


def outputs(graph: Graph, x: Array) -> Array:
    """int8 outputs [N, values] of inferences. x: int8 samples."""
    layout = lay_out(build_program(graph, UpdatePlan(())), source_of(graph))

    def run(part: range) -> list[bytes]:
        engine, found = Engine(Image(layout.image)), []
        for i in part:
            engine.sample[:] = x[i].tobytes()
            engine.infer()
            found.append(bytes(engine.output))
        return found

    found = b"".join(y for part in in_parts(len(x), run) for y in part)
    return np.frombuffer(found, np.int8).reshape(len(x), -1)
