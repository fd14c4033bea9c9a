"""A new head: a .tflite that LiteRT runs like any other, and that learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from machine import Machine
from real_models import NAMES, real_model
from runs import digits_task
from small_models import Net
from sparsetune.cli import main
from sparsetune.data import Dataset
from sparsetune.errors import SparsetuneError
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.judge import judge
from sparsetune.litert import predict
from sparsetune.plan import load_plan
from sparsetune.tflite import parse_tflite
from test_losses import train_on_twin


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_litert_runs_it_and_so_do_we(name: str, append: bool) -> None:
    task = real_model(name, 4)
    model = with_new_head(task.model, HeadRequest(5, append, x=task.x))
    wanted = predict(model, task.x.reshape(len(task.x), *_shape(model)[1:]))
    assert wanted.shape == (4, 5)
    machine = Machine(model)
    for x, y in zip(task.x, wanted, strict=True):
        np.testing.assert_array_equal(machine.infer(x), y.ravel())
    real = (wanted.astype(float) + 128) / 256
    assert np.abs(real - 1 / 5).max() < 0.1, "it should know nothing yet"


def _shape(model: bytes) -> tuple[int, ...]:
    graph = parse_tflite(model)
    return graph.tensor(graph.input).shape


def test_a_head_that_is_a_convolution_with_a_reshape_behind_it() -> None:
    net = Net((1, 4, 4, 3))
    net.conv(8, 4, same=False)
    net.conv(6, 1)
    net.reshape((1, 6))
    model, x = net.to_bytes(), net.sample()
    new = with_new_head(model, HeadRequest(9, seed=3))
    assert predict(new, x).shape == (1, 9)
    np.testing.assert_array_equal(Machine(new).infer(x), predict(new, x)[0].ravel())


def test_the_seed_decides() -> None:
    model = real_model("digits", 1).model
    heads = [with_new_head(model, HeadRequest(4, seed=seed)) for seed in (1, 1, 2)]
    assert heads[0] == heads[1] != heads[2]


def test_a_head_that_trains_with_a_residual_has_larger_weights(tmp_path: Path) -> None:
    """Twice the range, about the same first weights; and `plan` keeps the residual."""
    model = real_model("digits", 1).model
    heads = []
    for options in (["--no-residual"], []):
        source, path = tmp_path / "m.tflite", tmp_path / f"head{len(heads)}.tflite"
        source.write_bytes(model)
        assert main(["head", str(source), "--classes", "4", *options, "-o", str(path)]) == 0
        graph = parse_tflite(path.read_bytes())
        weights = graph.tensor(graph.trainable[-1].inputs[1])
        assert weights.data is not None
        heads.append((weights.scales[0], weights.scales[0] * weights.data.astype(float)))
        plan = tmp_path / "plan.json"
        assert main(["plan", str(path), "--last", "1", *options, "-o", str(plan)]) == 0
        assert load_plan(plan).residual == (not options)
    assert heads[1][0] == pytest.approx(2 * heads[0][0])
    assert np.abs(heads[1][1] - heads[0][1]).max() <= 0.76 * heads[1][0]


def test_a_new_head_learns_classes_of_its_own() -> None:
    """Even and odd digits, and those above six: classes that the old head has not got."""
    task = digits_task(steps=1)
    train, test = (
        Dataset(d.x, np.where(np.asarray(d.y) > 6, 2, np.asarray(d.y) % 2))
        for d in (task.train, task.test)
    )
    model = with_new_head(task.model.read_bytes(), HeadRequest(3, x=train.x))
    graph = parse_tflite(model)
    before = judge(model, test, graph)
    trained, _ = train_on_twin(model, graph, train, 4, 1200)
    after = judge(trained, test, graph)
    print(f"three classes of digits: {before} before, {after} after, held out")
    assert before.value < 0.6 and after.value > 0.8


def test_models_without_such_a_head_are_refused() -> None:
    net = Net((1, 4, 4, 3))
    net.conv(6, 1)
    with pytest.raises(SparsetuneError, match="append a head"):
        with_new_head(net.to_bytes(), HeadRequest(4))
    assert len(parse_tflite(with_new_head(net.to_bytes(), HeadRequest(4, True))).operators) == 3
    with pytest.raises(SparsetuneError, match="2 to 4095"):
        with_new_head(net.to_bytes(), HeadRequest(1))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(real_model("digits", 1).model)
    assert main(["head", str(model), "--classes", "4"]) == 0
    assert "4 classes" in capsys.readouterr().out
    written = (tmp_path / "m_head.tflite").read_bytes()
    assert parse_tflite(written).tensor(parse_tflite(written).output).shape == (1, 4)
    assert main(["head", str(model), "--classes", "4", "-o", str(model)]) == 1
    assert "written over" in capsys.readouterr().err
