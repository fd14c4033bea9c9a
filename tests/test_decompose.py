"""Operators without an int8 kernel of ours: the same function in others, through quantising."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from float_models import to_float
from quantized import check_twin, quantized
from small_models import Array, Net
from sparsetune import litert
from sparsetune.errors import SparsetuneError
from sparsetune.quantizer import float_model, load_library
from sparsetune.tflite import parse_as_stored, patch_tflite
from test_ends import small_net, with_ends

try:
    load_library()
except SparsetuneError as absent:  # an extra: see pyproject.toml
    pytest.skip(f"SKIP: {absent}", allow_module_level=True)


def _ended(net: Net) -> bytes:
    net.flatten()
    net.dense(5)
    return to_float(net)


def _front(size: int = 6) -> Net:
    net = Net((1, size, size + 1, 3), seed=8)
    net.conv(4, 3)
    return net


def _same_shape(net: Net, kind: str, *others: int) -> None:
    net._operator(kind, [net.at, *others], net.shapes[net.at], net.q[net.at], None)


def prelu() -> bytes:
    net = _front()
    _same_shape(net, "PRELU", net.constant((1, 1, 4)))
    return _ended(net)


def absolute() -> bytes:
    net = _front()
    _same_shape(net, "ABS")
    return _ended(net)


def extremum(kind: str, constant: bool = False) -> bytes:
    net = _front()
    first = net.constant((1, 1, 1, 4)) if constant else net.at
    net.conv(4, 3)
    net._operator(kind, [first, net.at], net.shapes[net.at], net.q[net.at], None)
    return _ended(net)


def hard_sigmoid() -> bytes:
    """As onnx2tf leaves it, in a squeeze and excitation."""
    net = _front()
    everything = net.at
    net.mean((1, 2), True)
    net.conv(4, 1)
    _same_shape(net, "RELU_0_TO_1")
    net.binary("MUL", everything, swapped=True)
    return _ended(net)


def reduce_max(axes: tuple[int, ...], keep: bool, size: int = 6) -> bytes:
    net = _front(size)
    net.mean(axes, keep, kind="REDUCE_MAX")
    return _ended(net)


def padded_pools() -> bytes:
    """As PyTorch exports them, two of them with one constant: minus infinity around a map."""
    net = _front(8)
    for _ in range(2):
        net.pad(((0, 0), (1, 1), (1, 1), (0, 0)), -128)
        net.pool(3, 2, kind="MAX")
        net.conv(4, 1)
    data = _ended(net)
    pads = [op for op in parse_as_stored(data).operators if op.kind == "PADV2"]
    infinity = np.float32(-np.inf).tobytes()
    return patch_tflite(data, {op.inputs[2]: infinity for op in pads})


CASES: dict[str, Callable[[], bytes]] = {
    "prelu": prelu,
    "abs": absolute,
    "maximum": lambda: extremum("MAXIMUM"),
    "minimum": lambda: extremum("MINIMUM"),
    "at least": lambda: extremum("MAXIMUM", True),
    "at most": lambda: extremum("MINIMUM", True),
    "hard sigmoid": hard_sigmoid,
    "rows and columns": lambda: reduce_max((1, 2), False),
    "a map of 18 x 19": lambda: reduce_max((1, 2), True, 18),
    "channels": lambda: reduce_max((-1,), False),
    "rows": lambda: reduce_max((1,), True),
    "padded pools": padded_pools,
}


def samples(model: bytes) -> Array:
    graph = parse_as_stored(model)
    shape = (60, *graph.tensor(graph.input).shape[1:])
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_same_function_in_float_and_little_lost_in_int8(name: str) -> None:
    model = CASES[name]()
    x, real = samples(model), float_model(model, name)
    wanted = litert.predict(model, x)
    got = litert.predict(real.data, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    small, result = quantized(real, x)
    print(f"{name}: output error {result.error:.2%}")
    assert result.error < 0.08
    check_twin(small, x[40:44])


ADVICE = {
    "LOG_SOFTMAX": "leave it out, the loss does it",
    "ELU": "RELU, HARD_SWISH or LEAKY_RELU",
    "SQUARED_DIFFERENCE": "batch norm",
    "FLOOR": "build the model without it",
}


@pytest.mark.parametrize("kind", ADVICE)
def test_what_to_do_about_others(kind: str) -> None:
    """Said before anything is measured, by the most telling operator."""
    net = _front()
    _same_shape(net, "NEG")
    _same_shape(net, kind, *([net.at] if kind == "SQUARED_DIFFERENCE" else []))
    model = _ended(net)
    with pytest.raises(SparsetuneError, match=ADVICE[kind]) as error:
        float_model(model, "model")
    assert (kind if kind != "FLOOR" else "NEG") in str(error.value)


def test_an_axis_that_is_the_batch_is_refused() -> None:
    net = _front()
    net.mean((0, 1), True, kind="REDUCE_MAX")
    with pytest.raises(SparsetuneError, match="REDUCE_MAX"):
        float_model(_ended(net), "model")


def test_a_model_with_float_ends_is_int8_already() -> None:
    with pytest.raises(SparsetuneError, match="quantised already"):
        float_model(with_ends(small_net(), "float32", "float32"), "model")
