"""Models whose ends are real numbers or uint8 (as converters leave them by default), and samples in
other types than int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from machine import Machine
from small_models import RELU, Array, Net
from sparsetune.cli import main
from sparsetune.errors import SparsetuneError
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.inputs import Input, as_file_takes, as_graph_gives, input_of
from sparsetune.litert import predict
from sparsetune.tflite import parse_tflite

KIND = {"float32": schema.TensorType.FLOAT32, "uint8": schema.TensorType.UINT8}
ENDS = [("float32", "float32"), ("uint8", "uint8"), ("float32", "uint8"), ("uint8", "float32")]


def small_net() -> Net:
    net = Net((1, 6, 5, 3), zero=-20, seed=4, scale=0.03)
    net.conv(8, 3, activation=RELU, zero=-128)
    net.pool((6, 5))
    net.flatten()
    net.dense(4)
    return net


def with_ends(net: Net, source: str, sink: str) -> bytes:
    """The model behind a QUANTIZE and in front of a DEQUANTIZE (or QUANTIZE, for uint8)."""
    model = schema.ModelT.InitFromPackedBuf(net.to_bytes(), 0)
    graph = model.subgraphs[0]
    first, last = int(graph.inputs[0]), int(graph.outputs[0])
    x, y = _end(model, first, source), _end(model, last, sink)
    graph.operators.insert(0, _operator(model, "QUANTIZE", 2, x, first))
    kind = "DEQUANTIZE" if sink == "float32" else "QUANTIZE"
    graph.operators.append(_operator(model, kind, 2, last, y))
    graph.inputs, graph.outputs = [x], [y]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _end(model: Any, of: int, kind: str) -> int:
    tensors = model.subgraphs[0].tensors
    tensor = schema.TensorT()
    tensor.name, tensor.shape = f"{kind} end {of}", list(tensors[of].shape)
    tensor.type, tensor.buffer = KIND[kind], 0
    if kind == "uint8":
        q = tensors[of].quantization
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [float(q.scale[0])]
        tensor.quantization.zeroPoint = [int(q.zeroPoint[0]) + 128]
    tensors.append(tensor)
    return len(tensors) - 1


def _operator(model: Any, kind: str, version: int, x: int, y: int) -> Any:
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    number = getattr(schema.BuiltinOperator, kind)
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = version
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [x], [y]
    options = getattr(schema, f"{kind.capitalize()}OptionsT", None)
    operator.builtinOptions = options() if options else None
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind.capitalize()}Options")
    return operator


@pytest.mark.parametrize("source, sink", ENDS)
def test_ends_cost_nothing_and_change_nothing(source: str, sink: str) -> None:
    net = small_net()
    model = with_ends(net, source, sink)
    graph = parse_tflite(model)
    machine, plain = Machine(model), Machine(net.to_bytes())
    assert len(machine.image.data) <= len(plain.image.data) + 64
    samples = np.concatenate([net.sample() for _ in range(20)])
    wanted = as_graph_gives(graph, predict(model, as_file_takes(graph, samples)))
    for x, y in zip(samples, wanted, strict=True):
        ours = machine.infer(x).astype(np.int16) + graph.shift(graph.output)
        np.testing.assert_array_equal(ours, y.ravel())


def test_as_file_takes_gives_back_the_same_integers() -> None:
    """LiteRT's QUANTIZE of the real numbers that we feed finds our integers again."""
    for scale, zero in ((0.003921569, -128), (0.0078431, -1), (1.7, 127), (1e-4, 3)):
        net = Net((1, 256), zero=zero, scale=scale)
        net.unary("QUANTIZE", zero, scale)
        model = with_ends(net, "float32", "float32")
        graph = parse_tflite(model)
        every = np.arange(-128, 128, dtype=np.int8)[None]
        outputs = as_graph_gives(graph, predict(model, as_file_takes(graph, every)))
        np.testing.assert_array_equal(outputs, every)


@pytest.mark.parametrize("source, sink", ENDS)
@pytest.mark.parametrize("kind", ["int8", "uint8", "float32"])
def test_tune_with_samples_of_any_type(
    source: str, sink: str, kind: str, tmp_path: Path, capsys: Any
) -> None:
    net = small_net()
    path = tmp_path / "model.tflite"
    path.write_bytes(with_ends(net, source, sink))
    x = np.concatenate([net.sample() for _ in range(24)])
    taken = input_of(parse_tflite(path.read_bytes()))
    samples = {
        "int8": x,
        "uint8": (x.astype(np.int16) + 128).astype(np.uint8),
        "float32": ((x.astype(np.float64) - taken.zero_point) * taken.scale).astype(np.float32),
    }
    np.testing.assert_array_equal(taken.stored(samples[kind]), x)
    np.savez(tmp_path / "data.npz", x=samples[kind], y=np.arange(24) % 4)
    command = ["tune", str(path), str(tmp_path / "data.npz"), "--twin", "--steps", "10"]
    rest = ["--plain", "-o", str(tmp_path / "out.tflite"), "--log", str(tmp_path / "log.jsonl")]
    status = main([*command, *rest])
    told = capsys.readouterr()
    assert not status and "0 differing bytes" in told.out, told.err
    trained = parse_tflite((tmp_path / "out.tflite").read_bytes())
    assert (trained.entry >= 0, trained.exit >= 0) == (source == "float32", sink == "float32")


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("source, sink", ENDS)
def test_a_new_head(source: str, sink: str, append: bool) -> None:
    net = small_net()
    x = np.concatenate([net.sample() for _ in range(4)])
    request = HeadRequest(7, append, x=(x.astype(np.int16) + 128).astype(np.uint8))
    model = with_new_head(with_ends(net, source, sink), request)
    graph = parse_tflite(model)
    outputs = as_graph_gives(graph, predict(model, as_file_takes(graph, x)))
    ours = Machine(model).infer(x[0]).astype(np.int16) + graph.shift(graph.output)
    assert outputs.shape == (4, 7)
    np.testing.assert_array_equal(ours, outputs[0].ravel())


@pytest.mark.parametrize(
    "x, message",
    [
        (np.full((2, 3), 255.0), "samples go from"),
        (np.linspace(0, 0.02, 6).reshape(2, 3), "samples go from"),
        (np.full((2, 3), np.nan), "not finite"),
        (np.zeros((2, 3), np.int64), "samples are int64"),
        (np.zeros((2, 3), "U3"), "samples are <U3"),
    ],
)
def test_samples_in_other_units_are_refused(x: Array, message: str) -> None:
    with pytest.raises(SparsetuneError, match=message):
        Input((1, 3), 1 / 127.5, 0).stored(x)
