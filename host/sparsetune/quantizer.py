"""A float model to int8, through litert-quantizer.

The library decides about scales and rounds the weights. We prepare the model for it, give it the
ranges of the activations, and put the biases right. Only this file knows the library.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from .calibrate import correct_biases, finite_pads, ranges
from .check import check_kinds
from .compare import judge
from .data import Dataset
from .errors import SparsetuneError
from .float_samples import few, shaped
from .graph import Array, Graph
from .prepare import join_islands, prepare
from .stored import Stored
from .tflite import parse_as_stored, store_graph

RANGE_SAMPLES, BIAS_SAMPLES = 200, 50


def quantize_model(real: Stored, x: Array) -> bytes:
    """The fully int8 counterpart of a float model (from float_model).

    x: float32 samples [N, ...] as the model takes them. Raises SparsetuneError when the model
    holds what cannot become int8.
    """
    x = few(shaped(x, real.graph), RANGE_SAMPLES)
    plain = _through_library(real, x)
    _check_all_int8(plain.graph)
    some = few(x, BIAS_SAMPLES)
    biased = correct_biases(real, plain, some)
    seen = Dataset(some, None)
    return min((biased, plain), key=lambda m: judge(real, m, seen, fast=True).error).data


def float_model(data: bytes, name: str) -> Stored:
    """A float model, prepared to be quantised. Raises SparsetuneError when it is none."""
    graph = parse_as_stored(data, name)
    _check_indices(graph, name)
    x = graph.tensor(graph.input)
    if x.dtype != "float32":
        raise SparsetuneError(
            f"{name} is no float model, its input is {x.dtype}: {_advice(x.dtype)}"
        )
    if any(op.kind == "QUANTIZE" for op in graph.operators):
        raise SparsetuneError(f"{name} has floats at its ends alone: {_advice('int8')}")
    if x.shape[:1] != (1,):
        raise SparsetuneError(f"{name} takes samples {list(x.shape)}: export it with batch size 1")
    graph = prepare(graph)
    check_kinds(graph)
    return Stored.of(store_graph(data, graph))


def _check_indices(graph: Graph, name: str) -> None:
    known = range(-1, len(graph.tensors))
    for op in graph.operators:
        used = (*op.inputs, *op.outputs)
        if not op.inputs or not op.outputs or min(op.inputs[0], *op.outputs) < 0:
            raise SparsetuneError(f"operator {op.index} ({op.kind}) of {name} has missing ends")
        if not all(i in known for i in used):
            raise SparsetuneError(f"{name} is truncated or damaged: convert or copy it again")


def _advice(dtype: str) -> str:
    if dtype == "int8":
        return "it is quantised already, use it as it is"
    return "give the float32 model that it was made of"


def _through_library(real: Stored, x: Array) -> Stored:
    library, recipe = load_library()
    graph, spans = finite_pads(real.graph, ranges(real, x))
    statistics = {
        name: {"min": np.array([low]), "max": np.array([high])}
        for name, (low, high) in spans.items()
    }
    with _quiet():
        quantizer = library.Quantizer(store_graph(real.data, graph), recipe.static_wi8_ai8())
        result = quantizer.quantize(statistics, enable_progress_report=False)
    small = Stored.of(bytes(result.quantized_model))
    return Stored.of(store_graph(small.data, join_islands(small.graph)))


def load_library() -> tuple[Any, Any]:
    """litert-quantizer and its recipes. Raises SparsetuneError where it is not installed."""
    try:
        recipe = importlib.import_module("litert_quantizer.recipe")
        return importlib.import_module("litert_quantizer"), recipe
    except ImportError as error:
        raise SparsetuneError(
            f"quantize needs litert-quantizer ({error}): pip install 'sparsetune[quantize]'"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the library and the C++ below it write away from the terminal."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as waste:
        os.dup2(waste.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _check_all_int8(graph: Graph) -> None:
    for op in graph.operators:
        moving = [graph.tensor(i) for i in (*op.inputs, *op.outputs) if i >= 0]
        floats = any(t.dtype.startswith("float") for t in moving)
        if floats and op.kind not in ("QUANTIZE", "DEQUANTIZE"):
            raise SparsetuneError(
                f"operator {op.kind} cannot become int8, litert-quantizer leaves it in floats: "
                "replace it in the model"
            )
    ends = {graph.tensor(i).dtype for i in (graph.input, graph.output)}
    if ends != {"int8"}:
        raise SparsetuneError(f"the model's ends stay {', '.join(ends)}: report this model")
