"""Mean squared error and binary cross-entropy: against their definitions in float64, and whole runs
on models that are no classifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradient_cases import compare, distances, train_all
from machine import Machine
from shared_tasks import shared_folder
from small_models import RELU, Array, Net
from sparsetune.board import BoardInfo
from sparsetune.cli import evaluate_on_board
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, doubts, fit_dataset, leaks, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.export import export_tflite, parse_checkpoint
from sparsetune.graph import Graph
from sparsetune.image import parse_image
from sparsetune.inputs import Input, input_of
from sparsetune.judge import judge
from sparsetune.litert import predict
from sparsetune.plan import default_plan
from sparsetune.program import Buffer, Code, Slot
from sparsetune.task import Task, task_of
from sparsetune.tflite import parse_tflite
from sparsetune.trial import choose_rate
from sparsetune.twin import Twin
from sparsetune_device.telemetry import parse


def small_net(outputs: int, end: str = "", seed: int = 0) -> Net:
    net = Net((1, 5, 6, 3), zero=7, seed=seed)
    net.conv(8, 3, activation=RELU, zero=-128)
    net.flatten()
    net.dense(outputs, scale=0.05, zero=-9)
    if end:
        net.unary(end)
    return net


def assert_gradients(net: Net, target: Array | int, loss: str, smoothing: float = 0.0) -> None:
    model = net.to_bytes()
    graph = replace(parse_tflite(model), loss=loss)
    machine = Machine(graph, replace(train_all(graph), smoothing=smoothing))
    ours, wanted = compare(model, machine, net.sample(), target, smoothing)
    for d in distances(graph, ours, wanted):
        assert d.cosine >= 0.999 and abs(d.length_ratio - 1) < 0.01, d
    assert abs(ours.loss - wanted.loss) < max(1e-3, 1e-3 * wanted.loss)


@pytest.mark.parametrize("outputs", [1, 3, 17, 100])
def test_mean_squared_error(outputs: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        net = small_net(outputs, seed=seed)
        stored = rng.integers(-128, 128, outputs)
        assert_gradients(net, 0.05 * (stored + 9.0), "mse")


@pytest.mark.parametrize("outputs", [1, 3, 17])
@pytest.mark.parametrize("end", ["", "LOGISTIC"])
def test_binary_cross_entropy(outputs: int, end: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        net = small_net(outputs, end, seed)
        assert_gradients(net, rng.integers(0, 2, outputs).astype(float), "bce")


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("outputs", [2, 3, 17, 300])
def test_smoothed_labels(outputs: int, smoothing: float) -> None:
    """The gradient is that of smoothed targets, the loss that of the labels."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        net = small_net(outputs, seed=seed)
        assert_gradients(net, int(rng.integers(outputs)), "softmax", smoothing)
        assert_gradients(net, rng.integers(0, 2, outputs).astype(float), "bce", smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 1e-6, 0.1, 0.9])
def test_logits_come_to_rest_where_the_smoothed_target_is(smoothing: float) -> None:
    """There nothing is left but what an int8 logit cannot say; without smoothing nothing rests."""
    net = Net((1, 4), scale=0.05)
    net.dense(4, weights=np.eye(4), scales=[1.0], bias=False, scale=0.05)
    graph = replace(parse_tflite(net.to_bytes()), loss="softmax")
    machine = Machine(graph, replace(train_all(graph), smoothing=smoothing))
    (loss,) = (op for op in machine.ops if op.code == Code.LOSS)
    share = smoothing / 4
    target = np.array([1 - 3 * share, share, share, share])
    x = np.clip(np.rint(np.log(np.maximum(target, 1e-9)) / 0.05) + 60, -128, 127).astype(np.int8)
    p = np.exp(0.05 * x.astype(float))
    wanted = p / p.sum() - target
    wanted[(x == -128) & (wanted > 0)] = 0
    for _, op in machine.walk(x, 0):
        if op.code == Code.CONV2D_UPDATE:
            break  # the loss has run
    data, exponent = loss.words[3], loss.words[4]
    assert isinstance(data, Buffer) and isinstance(exponent, Slot)
    got = machine.read(data, np.int16) * 2.0 ** int(machine.slot(exponent, np.int16)[0])
    assert np.abs(got - wanted).max() < 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_impossible_smoothing_is_refused(smoothing: float) -> None:
    graph = parse_tflite(small_net(4).to_bytes())
    with pytest.raises(SparsetuneError, match="not in \\[0, 1\\): try 0.1"):
        compile_image(graph, replace(default_plan(graph, 1), smoothing=smoothing))


@pytest.mark.parametrize("loss", ["mse", "autoencoder"])
def test_only_labels_are_smoothed(loss: str) -> None:
    graph = replace(parse_tflite(small_net(90).to_bytes()), loss=loss)
    with pytest.raises(SparsetuneError, match="label smoothing is for losses on classes"):
        compile_image(graph, replace(default_plan(graph, 1), smoothing=0.1))


def test_an_output_at_the_end_of_its_range_is_not_pushed_out_but_can_come_back() -> None:
    net = Net((1, 2), scale=1.0)
    net.dense(2, weights=np.eye(2), scales=[1.0], bias=False, scale=0.1)
    graph = replace(parse_tflite(net.to_bytes()), loss="bce")
    machine = Machine(graph, train_all(graph))
    for target, moves in ((np.ones(2), [False, True]), (np.zeros(2), [True, False])):
        x = np.array([127, -128], np.int8)  # logits at both ends
        machine.load(x)
        machine.set_target(target)
        machine.control(0, (40000, -10))
        before = bytes(machine.state)
        machine.run(0, len(machine.ops))
        layer = machine.program.layers[0]
        changed = np.array(machine.slot(layer.weights, np.int8).reshape(2, 2) != 127 * np.eye(2))
        machine.state[:] = before
        assert (changed.any(axis=1) >= moves).all()


def test_the_model_suggests_its_loss() -> None:
    def loss_of(net: Net) -> str:
        return parse_tflite(net.to_bytes()).loss_name

    assert loss_of(small_net(4)) == "softmax"
    assert loss_of(small_net(4, "LOGISTIC")) == "bce"
    assert loss_of(small_net(1)) == "mse"
    assert loss_of(small_net(90)) == "autoencoder"
    net = small_net(4)
    net.softmax()
    assert loss_of(net) == "softmax"


@pytest.mark.parametrize(
    "y, task, message",
    [
        (None, Task("softmax", 4, 1.0, 0), "no labels"),
        (np.zeros(3, int), Task("softmax", 4, 1.0, 0), "3 labels"),
        (np.zeros(5), Task("softmax", 4, 1.0, 0), "one integer a sample"),
        (np.zeros((5, 2)), Task("softmax", 4, 1.0, 0), r"float64 \[5, 2\].*--loss mse learns"),
        (np.eye(5), Task("softmax", 5, 1.0, 0), r"one-hot.*y.argmax\(axis=1\)"),
        (np.full(5, "cat"), Task("softmax", 4, 1.0, 0), r"np.unique\(y, return_inverse=True\)"),
        (np.full(5, 4), Task("softmax", 4, 1.0, 0), "label 4"),
        (np.zeros((5, 3)), Task("mse", 4, 1.0, 0), "4 numbers a sample"),
        (np.full((5, 4), np.nan), Task("mse", 4, 1.0, 0), "finite"),
        (np.full((5, 4), 2), Task("bce", 4, 1.0, 0), "0 or 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y: Array | None, task: Task, message: str) -> None:
    with pytest.raises(SparsetuneError, match=message):
        fit_dataset(Dataset(np.zeros((5, 2), np.int8), y), Input((1, 2), 1.0, 0), task)


class TwinAsBoard:
    """What `evaluate` asks of a board, by the twin."""

    def __init__(self, image: bytes, samples: bytes) -> None:
        self.image, self.samples = image, samples

    def identify(self) -> BoardInfo:
        return BoardInfo("twin", "1.25.0", "rp2", "", 0, True, None, 1, 1, 1)

    def stream(self, code: str, out: Callable[[str], None]) -> None:
        with Twin(self.image, self.samples) as twin:
            twin.evaluate(out, self.samples, trained=False, outputs=code.endswith("True)"))


@pytest.mark.parametrize("loss", ["mse", "autoencoder"])
def test_evaluate_tells_the_error_that_tune_tells(loss: str) -> None:
    """Targets far out of what the output can hold: the board clips them, what is told does not."""
    net = Net((1, 6), seed=1)
    net.dense(6, scale=0.005)
    graph = replace(parse_tflite(net.to_bytes()), loss=loss)
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (30, 6)).astype(np.int8)
    data = Dataset(x, rng.normal(0, 3, (30, 6)) if loss == "mse" else None)
    image = parse_image(compile_image(graph, default_plan(graph, 1)).image)
    board: Any = TwinAsBoard(image.data, sample_file(data, image.task))
    told = evaluate_on_board(board, None, image, data).loss
    assert told == pytest.approx(judge(net.to_bytes(), data, graph).value, rel=1e-5)
    clipped = Dataset(x, data.y.clip(-0.64, 0.635)) if data.y is not None else None
    assert clipped is None or judge(net.to_bytes(), clipped, graph).value < 0.5 * told


def test_a_loss_that_does_not_fit_the_model_is_refused() -> None:
    for loss, message in (("hinge", "no loss hinge"), ("autoencoder", "use --loss mse")):
        with pytest.raises(SparsetuneError, match=message):
            task_of(replace(parse_tflite(small_net(4).to_bytes()), loss=loss))
    with pytest.raises(SparsetuneError, match="--loss mse or bce"):
        task_of(replace(parse_tflite(small_net(1).to_bytes()), loss="softmax"))


# Whole runs ---------------------------------------------------------------------------------------


def train_on_twin(
    model: bytes, graph: Graph, data: Dataset, layers: int, steps: int
) -> tuple[bytes, list[float]]:
    """(trained model, losses) of a run with the settings that are suggested."""
    fit_dataset(data, input_of(graph), task_of(graph))
    plan = default_plan(graph, layers)
    layout = compile_image(graph, plan, choose_rate(graph, plan, model, data))
    image = parse_image(layout.image)
    losses = []

    def on_line(line: str) -> None:
        event = parse(line)
        if event and event[0] == "step":
            assert ("acc" in event[1]) == image.task.counts_right
            losses.append(event[1]["loss"])

    with Twin(image.data, sample_file(data, image.task)) as twin:
        checkpoint = twin.train(on_line, steps=steps)
    return export_tflite(model, image, parse_checkpoint(checkpoint, image)), losses


def shared(path: str) -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("SKIP: there is no ../shared")
    return folder / path


def test_autoencoder_learns_another_machine() -> None:
    """ad01 on a spectrogram whose bands were turned down as by another microphone; the second half
    is held out."""
    model = shared("models/mlcommons/ad01_int8.tflite").read_bytes()
    graph = parse_tflite(model)
    assert graph.loss_name == "autoencoder"
    raw = np.fromfile(shared("data/ad01_normal_id_01_00000000_hist_librosa.bin"), "<f4")
    frames = raw.reshape(200, 128) - np.linspace(0, 12, 128)
    vectors = np.stack([frames[i : i + 5].ravel() for i in range(196)])
    t = graph.tensor(graph.input)
    x = np.clip(np.round(vectors / t.scale) + t.zero_point, -128, 127).astype(np.int8)
    train, test = Dataset(x[:96], None), Dataset(x[100:], None)
    before = judge(model, test, graph)
    trained, losses = train_on_twin(model, graph, train, 3, 384)
    after = judge(trained, test, graph)
    print(f"ad01: {before.name} {before} before, {after} after, held out")
    print(f"loss {np.mean(losses[:20]):.3f} (first 20) to {np.mean(losses[-20:]):.3f} (last 20)")
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    assert after.value < 0.85 * before.value


def test_regression_learns_another_curve() -> None:
    """hello_world was made for sin(x): let it learn 0.5 sin(x)."""
    model = shared("models/tflm/hello_world_int8.tflite").read_bytes()
    graph = parse_tflite(model)
    assert graph.loss_name == "mse"
    t = graph.tensor(graph.input)
    x = np.arange(-128, 128, dtype=np.int8)[:, None]
    y = 0.5 * np.sin((x.astype(float) - t.zero_point) * t.scale)
    order = np.random.default_rng(1).permutation(256)
    data = Dataset(x[order], y[order])
    train, test = data.part(slice(0, 200)), data.part(slice(200, 256))
    before = judge(model, test, graph)
    trained, losses = train_on_twin(model, graph, train, 3, 2000)
    after = judge(trained, test, graph)
    print(f"hello_world: {before.name} {before} before, {after} after, held out")
    assert after.value < 0.25 * before.value


def test_yes_or_no_questions_are_learnt() -> None:
    """Two questions about random patterns; the untrained model guesses."""
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 128, (900, 5, 6, 3)).astype(np.int8)
    y = np.stack([x[:, :2].mean(axis=(1, 2, 3)) > 0, x[:, :, :2].mean(axis=(1, 2, 3)) > 0], 1)
    data = Dataset(x, y.astype(np.int64))
    model = small_net(2, "LOGISTIC", seed=4).to_bytes()
    graph = parse_tflite(model)
    train, test = data.part(slice(0, 240)), data.part(slice(240, 900))
    before = judge(model, test, graph)
    trained, _ = train_on_twin(model, graph, train, 2, 1500)
    after = judge(trained, test, graph)
    print(f"two questions: {before.name} {before} before, {after} after, held out")
    assert after.value > before.value + 0.3
    assert predict(trained, test.x).shape == (660, 2)


def test_a_thousand_classes() -> None:
    """Labels beyond a byte arrive whole."""
    net = Net((1, 8), seed=1)
    net.dense(1000, scale=0.05)
    graph = parse_tflite(net.to_bytes())
    y = np.array([0, 255, 256, 999])
    data = Dataset(np.stack([net.sample()[0] for _ in y]), y)
    image = parse_image(compile_image(graph, default_plan(graph, 1), "0.01").image)
    expected = Machine(graph, default_plan(graph, 1))
    losses: list[str] = []
    with Twin(image.data, sample_file(data, image.task)) as twin:
        twin.train(losses.append, steps=4, rate="0")
    told = sorted(parse(line)[1]["loss"] for line in losses if line.startswith("loss"))
    wanted = sorted(expected.step(s, int(c), (0, 0)) for s, c in zip(data.x, y, strict=True))
    np.testing.assert_allclose(told, wanted, atol=1e-4)


NUMBERS = Task("mse", 1, 0.5, 0)  # the output holds -64 to 63.5
TEN, BITS = Task("softmax", 10, 1.0, 0), Task("bce", 3, 1.0, 0)


@pytest.mark.parametrize(
    ("task", "y", "doubt"),
    [
        (TEN, np.arange(20) % 10, ""),
        (TEN, np.full(20, 7), "all labels are 7: the model will learn to answer that"),
        (TEN, np.full(1, 7), "9 of 10 classes have no training sample (0, 1, 2, 3, 4, ...)"),
        (TEN, np.arange(20) % 9, "1 of 10 classes have no training sample (9)"),
        (BITS, np.ones((20, 3)), "all targets are 1: the model"),
        (BITS, np.eye(3), ""),
        (NUMBERS, np.linspace(-64, 63, 20), ""),
        (NUMBERS, np.linspace(-64, 80, 20), "the output from -64 to 63.5: 15.0% of them are"),
        (NUMBERS, np.linspace(0, 1, 20), "they differ by 2 of its steps"),
        (NUMBERS, np.full(20, 3.0), "they differ by 0 of its steps"),
        (Task("autoencoder", 4, 1.0, 0), None, ""),
    ],
)
def test_targets_that_will_hardly_be_meant(task: Task, y: Any, doubt: str) -> None:
    data = Dataset(np.zeros((20 if y is None else len(y), 2, 2, 1), np.int8), y)
    lines = doubts(data, task)
    assert (len(lines), doubt in " ".join(lines)) == (bool(doubt), True), lines


@pytest.mark.parametrize("shared", [0, 1, 7, 20])
def test_held_out_samples_that_are_trained_on(shared: int) -> None:
    """As the model sees them: pixels of uint8 and the int8 they become are the same sample."""
    x = np.random.default_rng(1).integers(0, 256, (40, 4, 4, 1), np.uint8)
    takes = Input((1, 4, 4, 1), 1.0, -128)
    train = fit_dataset(Dataset(x[:20], np.arange(20) % 10), takes, TEN)
    held_out = (x[20 - shared : 40 - shared] ^ 0x80).view(np.int8)
    lines = leaks(train, Dataset(held_out, np.arange(20) % 10))
    assert lines == [] if not shared else f"{shared} of 20 held-out samples are" in lines[0]


def test_samples_of_few_bytes_are_alike_by_chance() -> None:
    one = Dataset(np.zeros((9, 7), np.int8), np.arange(9))
    assert leaks(one, one) == []
    one = Dataset(np.zeros((9, 8), np.int8), np.arange(9))
    assert len(leaks(one, one)) == 1


def test_targets_that_cannot_be_learnt() -> None:
    data = Dataset(np.zeros((20, 2), np.int8), np.linspace(0, 1000, 20))
    with pytest.raises(SparsetuneError, match="targets go from 0 to 1000, the output from -64 to"):
        doubts(data, NUMBERS)
