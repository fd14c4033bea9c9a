"""`sparsetune quantize`: float models to int8, what it costs, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from float_models import to_float
from float_tasks import float_task
from quantized import check_twin, quantized
from shared_tasks import shared_folder
from small_models import RELU, RELU6, Array, Net
from sparsetune import litert
from sparsetune.cli import main
from sparsetune.compare import judge, layer_errors
from sparsetune.data import Dataset
from sparsetune.errors import SparsetuneError
from sparsetune.quantizer import float_model, load_library, quantize_model
from sparsetune.stored import Stored
from sparsetune.tflite import parse_as_stored, parse_tflite
from test_kernels import mixed_net

try:
    load_library()
except SparsetuneError as absent:  # an extra: see pyproject.toml
    pytest.skip(f"SKIP: {absent}", allow_module_level=True)


def with_curves() -> Net:
    net = Net((1, 8, 8, 3), seed=2)
    net.conv(8, 3)
    net.unary("HARD_SWISH")
    net.conv(8, 3, stride=2)
    net.leaky_relu(0.1)
    net.conv(8, 1)
    net.unary("LOGISTIC")
    net.mean((1, 2), False)
    net.dense(5)
    net.softmax()
    return net


def with_moves() -> Net:
    net = Net((1, 8, 8, 4), seed=3)
    first = net.conv(8, 1, activation=RELU)
    net.pad(((0, 0), (1, 1), (1, 1), (0, 0)))
    net.conv(8, 3, same=False)
    net.concat([first], 3)
    net.depthwise(1, 3, activation=RELU6)
    net.pool(2, 2, kind="MAX")
    net.resize("BILINEAR", (8, 8), half=True)
    net.transpose((0, 3, 1, 2))
    net.pool((2, 2), 2)
    net.flatten()
    net.dense(5)
    return net


def autoencoder() -> Net:
    net = Net((1, 24), seed=4)
    net.dense(6, activation=RELU)
    net.dense(24)
    return net


NETS: dict[str, Callable[[], Net]] = {
    "mixed": lambda: mixed_net(1),
    "curves": with_curves,
    "moves": with_moves,
    "autoencoder": autoencoder,
}


def samples(net: Net, count: int = 60) -> Array:
    shape = net.shapes[net.source]
    return np.random.default_rng(5).normal(size=(count, *shape[1:])).astype(np.float32)


@pytest.mark.parametrize("name", NETS)
def test_little_is_lost_and_the_twin_agrees_with_litert(name: str) -> None:
    net = NETS[name]()
    x = samples(net)
    real = float_model(to_float(net), name)
    small, result = quantized(real, x)
    print(f"{name}: output error {result.error:.2%}, agreement {result.agreement}")
    assert result.error < 0.1
    check_twin(small, x[40:44])
    errors = layer_errors(real, small, x[40:50])
    assert errors == sorted(errors, key=lambda e: e.decibels)
    assert {e.operator for e in errors} <= {op.index for op in small.graph.operators}


def test_weights_that_are_int8_already() -> None:
    """Models "of dynamic range": activations are real numbers, weights are not."""
    net = with_moves()
    x, model = samples(net), to_float(net, keep=frozenset({"w0"}))
    graph = parse_as_stored(model)
    assert graph.tensor(graph.operators[0].inputs[1]).dtype == "int8"
    real = float_model(model, "hybrid")
    small, result = quantized(real, x)
    assert result.error < 0.05
    parse_tflite(small.data)


def test_the_reported_error_is_measured() -> None:
    """Against a model that is not its counterpart the report is bad."""
    net, other = NETS["mixed"](), mixed_net(1)
    other.writer._buffers[-1].data = b"\x11" * len(other.writer._buffers[-1].data)
    x = samples(net)
    real = float_model(to_float(net), "a")
    small = Stored.of(quantize_model(float_model(to_float(other), "b"), x[:40]))
    assert judge(real, small, Dataset(x[40:], None)).error > 0.2


def command(tmp_path: Path, model: bytes, *more: str, **arrays: Any) -> list[str]:
    (tmp_path / "m.tflite").write_bytes(model)
    np.savez(tmp_path / "s.npz", **arrays)
    return ["quantize", str(tmp_path / "m.tflite"), "--samples", str(tmp_path / "s.npz"), *more]


def test_the_command_and_what_it_writes(tmp_path: Path, capsys: Any) -> None:
    net = mixed_net(1)
    x, y = samples(net), np.arange(60) % 5
    data = tmp_path / "int8.npz"
    assert not main(command(tmp_path, to_float(net), "--data-out", str(data), x=x, y=y))
    told = capsys.readouterr().out
    for said in ("calibrating with 48", "accuracy on 12", "the same largest output", " dB"):
        assert said in told
    small = tmp_path / "m_int8.tflite"
    output = ["-o", str(tmp_path / "t.tflite"), "--log", str(tmp_path / "l.jsonl")]
    tune = ["tune", str(small), str(data), "--twin", "--steps", "10", "--plain", *output]
    assert not main(tune)
    assert "0 differing bytes" in capsys.readouterr().out


def refused(capsys: Any, arguments: list[str], tmp_path: Path) -> str:
    before = {p.name for p in tmp_path.iterdir()}
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and {p.name for p in tmp_path.iterdir()} == before
    return str(error)


BAD: dict[str, Callable[[Array], dict[str, Any]]] = {
    "the model takes [": lambda x: {"x": x[:, :3]},
    "not finite numbers": lambda x: {"x": np.where(x > 2.5, np.nan, x)},
    "at least two": lambda x: {"x": x[:1]},
    "--range": lambda x: {"x": np.zeros(x.shape, np.uint8)},
    "samples are int64": lambda x: {"x": np.zeros(x.shape, np.int64)},
    "60 samples and 3 labels": lambda x: {"x": x, "y": np.zeros(3, np.int64)},
    "it needs x_train": lambda x: {"images": x},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_samples(message: str, tmp_path: Path, capsys: Any) -> None:
    net = mixed_net(1)
    arguments = command(tmp_path, to_float(net), **BAD[message](samples(net)))
    assert message in refused(capsys, arguments, tmp_path)


def test_a_range_that_is_none_or_of_no_use(tmp_path: Path, capsys: Any) -> None:
    net = mixed_net(1)
    x, model = samples(net), to_float(net)
    ints = np.zeros(x.shape, np.uint8)
    for given, low, high, message in (
        (ints, "1", "1", "two real numbers that differ"),
        (ints, "0", "inf", "two real numbers that differ"),
        (x, "0", "1", "leave out --range"),
    ):
        arguments = [*command(tmp_path, model, x=given), "--range", low, high]
        assert message in refused(capsys, arguments, tmp_path)


def test_a_range_of_which_little_is_used(tmp_path: Path, capsys: Any) -> None:
    """Samples that were scaled to 0 ... 1 before they became integers; and dark ones."""
    net = mixed_net(1)
    model, shape = to_float(net), samples(net).shape
    ints = np.random.default_rng(1).integers(0, 2, shape, np.uint8)
    arguments = [*command(tmp_path, model, x=ints), "--range", "0", "255"]
    assert "samples go from 0 to 1 of --range 0 255" in refused(capsys, arguments, tmp_path)
    for brightest, told in ((20, 1), (255, 0)):
        x = np.random.default_rng(1).integers(0, brightest + 1, shape, np.uint8)
        assert not main([*command(tmp_path, model, x=x), "--range", "-3", "3"])
        out = capsys.readouterr().out
        assert out.count("warning: samples go from -3 to -2.529 of --range -3 3") == told


def test_a_float_model_that_guesses_is_told(tmp_path: Path, capsys: Any) -> None:
    net = mixed_net(1)
    x, model = samples(net), to_float(net)
    y = litert.predict(model, x).reshape(len(x), -1).argmax(axis=1)
    for labels, told in ((y, 0), ((y + 1) % 5, 1)):
        assert not main(command(tmp_path, model, x=x, y=labels))
        assert capsys.readouterr().out.count("does it take them so? (--range)") == told


def test_a_folder_that_takes_no_files(tmp_path: Path, capsys: Any) -> None:
    """Told before the calibration."""
    model, *rest = command(tmp_path, to_float(NETS["mixed"]()), x=np.zeros(3))[1:]
    with Path(model).open() as file:
        assert main(["quantize", f"/proc/self/fd/{file.fileno()}", *rest[:2]]) == 1
    told = capsys.readouterr()
    assert "cannot write /proc/self/fd/" in told.err and not told.out


def test_bad_models(tmp_path: Path, capsys: Any) -> None:
    net = mixed_net(1)
    x, model = samples(net), to_float(net)
    for data, message in (
        (net.to_bytes(), "it is quantised already"),
        (model[: len(model) // 2], "damaged"),
        (b"not a model", "not a .tflite"),
    ):
        assert message in refused(capsys, command(tmp_path, data, x=x), tmp_path)


def test_an_operator_without_int8(tmp_path: Path, capsys: Any) -> None:
    net = Net((1, 8, 8, 3), seed=2)
    net.conv(8, 3)
    net._operator("FLOOR", [net.at], net.shapes[net.at], net.q[net.at], None)
    error = refused(capsys, command(tmp_path, to_float(net), x=samples(net)), tmp_path)
    assert "FLOOR" in error


def test_without_the_library(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "litert_quantizer", None)
    net = mixed_net(1)
    error = refused(capsys, command(tmp_path, to_float(net), x=samples(net)), tmp_path)
    assert "pip install" in error


@pytest.mark.parametrize("name", ["kws", "resnet", "vww", "mnv2"])
def test_real_models(name: str) -> None:
    """The bar of the issue, on fewer samples than bench/quantize.py takes."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    task = float_task(folder, name)
    real = float_model(task.model, name)
    some = task.x if name != "mnv2" else task.x[:60]
    small = Stored.of(quantize_model(real, some))
    held_out = task.held_out.part(np.arange(0, len(task.held_out), 1 if name != "mnv2" else 3))
    result = judge(real, small, held_out, fast=True)
    print(f"{name}: {result}")
    parse_tflite(small.data)
    if result.accuracies:
        assert result.accuracies[0] > 0.8
        assert result.accuracies[1] > result.accuracies[0] - 0.01
    else:
        assert result.agreement is not None and result.agreement >= 0.95
