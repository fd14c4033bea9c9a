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
    at = _place(graph, plan) if graph.loss_name != "autoencoder" else 0
    if not at:
        return graph, data
    front, rest = graph.operators[:at], graph.operators[at:]
    (cut,) = _uses(graph).crossing(at)
    before = replace(graph, operators=front, output=cut, exit=-1)
    behind = replace(graph, operators=rest, input=cut, entry=-1, loss=graph.loss_name)
    return behind, Dataset(_outputs(before, data.x), data.y)


def _place(graph: Graph, plan: UpdatePlan) -> int:
    """How many operators lie in front; 0 where there is no such place."""
    active = active_operators(graph, plan)
    frozen = next(i for i, op in enumerate(graph.operators) if op.index in active)
    return _uses(graph).last_single(frozen)


def _uses(graph: Graph) -> Uses[int]:
    makes = [frozenset(op.outputs) for op in graph.operators]
    reads = [frozenset(op.inputs) for op in graph.operators]
    return Uses(makes, reads, graph.input, frozenset({graph.output}))


def _outputs(graph: Graph, x: Array) -> Array:
    """int8 outputs [N, values] of inferences. x: int8 samples."""
    layout = lay_out(build_program(graph, UpdatePlan(())), source_of(graph))

    def run(part: range) -> list[bytes]:
        engine, found = Engine(Image(layout.image)), []
        for i in part:
            engine.sample[:] = x[i].tobytes()
            engine.infer()
            found.append(bytes(engine.output))
        return found

    outputs = b"".join(y for part in in_parts(len(x), run) for y in part)
    return np.frombuffer(outputs, np.int8).reshape(len(x), -1)
