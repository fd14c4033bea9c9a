"""Bad input: one line that says what is wrong and what to do, a status other than 0, nothing
half-written, no traceback."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from small_models import Net
from sparsetune import cli
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, fit_dataset
from sparsetune.errors import SparsetuneError
from sparsetune.files import check_outputs, write_whole
from sparsetune.image import parse_image
from sparsetune.inputs import input_of
from sparsetune.plan import default_plan, load_plan
from sparsetune.push import push_file, push_rom
from sparsetune.task import task_of
from sparsetune.tflite import parse_tflite, read_tflite
from sparsetune.twin import Twin

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")
MODEL = runs.DIGITS.read_bytes()


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs the command line, which must fail with one line; returns it."""
    assert cli.main([str(arg) for arg in args]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("sparsetune: error: ")
    assert "Traceback" not in lines[0] and "unexpected" not in lines[0]
    return lines[0]


def samples(path: Path, **changes: np.ndarray) -> Path:
    arrays = {"x": np.zeros((20, 16, 16, 1), np.int8), "y": np.zeros(20, np.uint8), **changes}
    np.savez(path, **arrays)
    return path


# Models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "plan", "build"])
def test_no_tflite(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "photo.tflite"
    path.write_bytes(b"\x89PNG" * 50)
    assert "not a .tflite" in refused(capsys, command, path)
    assert list(tmp_path.iterdir()) == [path]


def test_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give the path" in refused(capsys, "inspect", tmp_path / "none.tflite")


@pytest.mark.parametrize("keep", [9, 100, 1000, len(MODEL) // 2, len(MODEL) - 500])
def test_truncated_model(keep: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes(MODEL[:keep])
    assert "truncated or damaged" in refused(capsys, "inspect", path)


@needs_shared
def test_float_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert SHARED
    path = SHARED / "models" / "mlcommons" / "kws_ref_model_float32.tflite"
    assert "float model" in refused(capsys, "plan", path)


@needs_shared
def test_unsupported_operator(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with its place and with what is supported."""
    assert SHARED
    path = SHARED / "models" / "tflm" / "trained_lstm_int8.tflite"
    line = refused(capsys, "build", path)
    assert "operator " in line and "CONV_2D" in line


def test_unsupported_operator_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The digits model with its ADD turned into another operator."""
    model = schema.ModelT.InitFromPackedBuf(MODEL, 0)
    add = next(c for c in model.operatorCodes if c.builtinCode == schema.BuiltinOperator.ADD)
    add.builtinCode = add.deprecatedBuiltinCode = schema.BuiltinOperator.MAXIMUM
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "maximum.tflite"
    path.write_bytes(bytes(builder.Output()))
    line = refused(capsys, "build", path)
    assert "operator 7 (MAXIMUM) is not supported" in line
    told = re.search(r"\(supported are ([A-Z0-9_, ]+)\)$", line)
    assert told and set(told[1].split(", ")) == kinds_of_the_readme()


def kinds_of_the_readme() -> set[str]:
    """All that it says of an int8 model's operators."""
    text = (runs.ROOT / "README.md").read_text()
    told = re.search(r"\*\*What runs and trains\*\*: (.+?); int8", text, re.DOTALL)
    assert told
    return set(re.findall(r"[A-Z][A-Z0-9_]+", re.sub(r"\(.*?\)", "", told[1])))


def changed(tmp_path: Path, change: Callable[[Any], None]) -> Path:
    """The digits model after a change to its unpacked form."""
    model = schema.ModelT.InitFromPackedBuf(MODEL, 0)
    change(model.subgraphs[0])
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "changed.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def pool_with_tanh(graph: Any) -> None:
    graph.operators[8].builtinOptions.fusedActivationFunction = 4


def conv_without_options(graph: Any) -> None:
    graph.operators[0].builtinOptions = None
    graph.operators[0].builtinOptionsType = 0


def infinite_weight_scale(graph: Any) -> None:
    weights = graph.tensors[graph.operators[0].inputs[1]]
    weights.quantization.scale = [np.inf] * len(weights.quantization.scale)


def odd_zero_point(graph: Any) -> None:
    graph.tensors[graph.operators[0].outputs[0]].quantization.zeroPoint = [1000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pool_with_tanh, "operator 8 (AVERAGE_POOL_2D) has a fused activation"),
        (conv_without_options, "operator 0 (CONV_2D) lacks its option"),
        (infinite_weight_scale, "operator 0 (CONV_2D) has weight scales"),
        (odd_zero_point, "operator 0 (CONV_2D) has the zero point 1000"),
    ],
)
def test_odd_models(
    change: Callable[[Any], None],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(capsys, "inspect", changed(tmp_path, change))


# Samples and plans ----------------------------------------------------------------------------

BAD_SAMPLES = {
    "shape [12, 12, 1], the model takes [16, 16, 1]: resize them": {
        "x": np.zeros((20, 12, 12, 1), np.int8)
    },
    "label 10 is out of range: the model has classes 0 to 9 (`tune --classes 11` gives it more)": {
        "y": np.full(20, 10)
    },
    "label -1 is out of range: the model has classes 0 to 9 (count from 0)": {"y": np.full(20, -1)},
    "samples are int64": {"x": np.zeros((20, 16, 16, 1), np.int64)},
    "20 samples and 19 labels": {"y": np.zeros(19, np.uint8)},
    "labels are float32": {"y": np.zeros(20, np.float32)},
    "labels are <U5 [20]: y must be class numbers, 0, 1, ...: y = np.unique(y, return_inverse=": {
        "y": np.array(["seven", "eight"] * 10)
    },
    "x is no list of samples": {"x": np.int8(3), "y": np.zeros(1, np.uint8)},
    "0 samples": {"x": np.zeros((0, 16, 16, 1), np.int8), "y": np.zeros(0, np.uint8)},
}


@pytest.mark.parametrize("message", BAD_SAMPLES)
def test_bad_samples(message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples(tmp_path / "s.npz", **BAD_SAMPLES[message])
    assert message in refused(capsys, "tune", runs.DIGITS, path, "--twin")
    assert message in refused(capsys, "tune", runs.DIGITS, path, "--twin", "--classes", "10")
    image = tmp_path / "digits.img"
    assert cli.main(["build", str(runs.DIGITS), "-o", str(image)]) == 0
    assert message in refused(capsys, "push", image, "--data", path, "--port", "/dev/null")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((3, 6, 8), "channels last, x.transpose(0, 2, 3, 1)"),
        ((8, 6, 3), "resize them"),
        ((6, 8), 'photo.convert("RGB")'),
        ((6, 8, 1), 'photo.convert("RGB")'),
        ((144,), "give them so"),
    ],
)
def test_what_to_do_with_another_shape(shape: tuple[int, ...], advice: str) -> None:
    net = Net((1, 6, 8, 3))
    net.flatten()
    net.dense(2)
    graph = parse_tflite(net.to_bytes())
    data = Dataset(np.zeros((4, *shape), np.int8), np.zeros(4, np.uint8))
    with pytest.raises(SparsetuneError, match=f"takes .*: .*{re.escape(advice)}"):
        fit_dataset(data, input_of(graph), task_of(graph))


@pytest.mark.parametrize("also", [(), ("--classes", "3")])
def test_photos_in_colour_for_a_model_of_grey_ones(
    also: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = np.zeros((20, 16, 16, 3), np.uint8)
    path = samples(tmp_path / "s.npz", x=photos, y=np.zeros(20, np.uint8))
    line = refused(capsys, "tune", runs.DIGITS, path, "--twin", *also)
    assert line.endswith('takes [16, 16, 1]: make them grey, photo.convert("L")')


def test_no_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.npz"
    path.write_bytes(b"x,y\n1,2\n")
    assert "not an .npz" in refused(capsys, "tune", runs.DIGITS, path, "--twin")
    np.savez(path, images=np.zeros(3))
    assert "needs x_train" in refused(capsys, "tune", runs.DIGITS, path, "--twin")
    for others in ({"x_tst": np.zeros(3)}, {"x_train": np.zeros((20, 16, 16, 1), np.int8)}):
        assert "the names are" in refused(
            capsys, "tune", runs.DIGITS, samples(path, **others), "--twin"
        )


def test_an_npz_of_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ragged = np.array([np.zeros(3), np.zeros(4)], object)
    path = samples(tmp_path / "s.npz", x=ragged)
    line = refused(capsys, "tune", runs.DIGITS, path, "--twin")
    assert f"{path}: x is of dtype object" in line and "save numbers" in line
    samples(path, y=np.array(["seven", "eight"] * 10, object))
    line = refused(capsys, "tune", runs.DIGITS, path, "--twin")
    assert f"{path}: y is of dtype object: y must be class numbers, 0, 1, ...: y = " in line
    told = re.search(r"y = (np\..+)$", line)
    with np.load(path, allow_pickle=True) as arrays:
        made = eval(told[1] if told else "", {"np": np, "y": arrays["y"]})
    assert made.tolist() == [1, 0] * 10


def test_the_file_of_earlier_samples_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, earlier = samples(tmp_path / "s.npz"), tmp_path / "bad.npz"
    samples(earlier, x=np.zeros((20, 12, 12, 1), np.int8))
    line = refused(capsys, "tune", runs.DIGITS, path, "--twin", "--replay", earlier)
    assert f"--replay {earlier}: samples have shape" in line


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("{", "not an update plan"),
        ('{"layers": [], "residual": false}', "trains no layer"),
        ('{"layers": [{"operator": 7, "channels": 1, "bias": true}], "residual": false}', "7"),
        ('{"layers": [{"operator": 6, "channels": 49, "bias": true}], "residual": false}', "48"),
        ('{"layers": [{"operator": 6, "channels": 4}, {"operator": 6, "channels": 4}]}', "twice"),
        ('{"layers": [{"operator": 6, "channels": "4"}]}', "channels is '4'"),
        ('{"layers": [{"operator": 6, "channels": 4, "bias": 1}]}', "bias is 1"),
        ('{"layers": [{"operator": 6, "channels": 4}], "strip": false}', "strip is unknown"),
        ('{"layers": [{"operator": 6, "channels": 4}], "rate": "fast"}', "not a decimal number"),
    ],
)
def test_bad_plan(
    plan: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan)
    assert message in refused(capsys, "build", runs.DIGITS, "--plan", path)


def test_a_plan_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples(tmp_path / "s.npz")
    path.write_bytes(b"\xd6" + path.read_bytes())
    line = refused(capsys, "tune", runs.DIGITS, path, "--twin", "--plan", path)
    assert "is not an update plan, which is text" in line and "codec" not in line


@pytest.mark.parametrize("command", ["plan", "build"])
def test_model_beyond_the_ram(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, command, runs.DIGITS, "--ram", "10K")
    assert "training needs" in line and "10,240 are there" in line
    assert "the forward pass alone needs" in line and "smaller model" in line


def test_plan_beyond_the_ram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names operator and tensor at the peak; the others are ways out that really fit,
    with the RAM that they really take, those that train most first. Half of the channels of as many
    layers as train whole would take more RAM, for its bookkeeping, and is none."""
    limit = "30K"
    args = ["plan", str(runs.DIGITS), "--last", "6", "--ratio", "1", "--ram"]
    assert cli.main([*args, limit]) == 1
    line, *ways = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"30,720 are there: the arena's peak is operators? \d+", line)
    assert re.search(r"largest tensor [td]\d+ \(.* bytes, .*\); the cheapest ways out:$", line)
    assert len(ways) == 3
    shares = [float(re.search(r"trains ([\d.]+) %", way)[1]) for way in ways]
    assert shares == sorted(shares, reverse=True)
    for way in ways:
        options, ram = re.match(r"  (--.*?) +([\d,]+) bytes", way).groups()
        found = cli.main([*args[:2], *options.split(), "--ram", limit])
        assert found == 0
        assert re.search(rf"RAM +{ram} of 30,720 bytes", capsys.readouterr().out)


@pytest.mark.parametrize("option", ["--plan", "--last"])
def test_a_plan_file_beyond_the_ram(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ways out say what trains, which no plan stands beside."""
    plan = tmp_path / "p.json"
    assert cli.main(["plan", str(runs.DIGITS), "--last", "6", "-o", str(plan)]) == 0
    value = plan if option == "--plan" else 6
    capsys.readouterr()
    build = ["build", str(runs.DIGITS), "--ram", "28K", "-o", str(tmp_path / "m.img")]
    assert cli.main([*build, option, str(value)]) == 1
    line, *ways = capsys.readouterr().err.splitlines()
    told = "; leave out --plan, and take one of the cheapest ways out:"
    assert line.endswith("; the cheapest ways out:" if option == "--last" else told) and ways
    way = re.findall(r"^  (--.*?) +[\d,]+ bytes", ways[0])[0].split()
    assert cli.main([*build, *way]) == 0
    assert option == "--last" or cli.main([*build, *way, option, str(value)]) == 1


def test_leaving_the_residuals_is_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The first, where it is one: it takes what is told of it, and leaving out the option fits."""
    command = ["plan", str(runs.DIGITS), "--last", "6", "--ratio", "1"]
    need = []
    for option in ("--no-residual", "--residual"):
        assert cli.main([*command, option]) == 0
        found = re.search(r"RAM +([\d,]+) of", capsys.readouterr().out)
        assert found
        need.append(int(found[1].replace(",", "")))
    low, high = need
    between = str((low + high) // 2)
    assert cli.main([*command, "--residual", "--ram", between]) == 1
    way = capsys.readouterr().err.strip().splitlines()[1]
    assert re.match(rf"  without --residual \(--no-residual\) +{low:,} bytes, trains", way)
    assert cli.main([*command, "--no-residual", "--ram", str(low)]) == 0
    assert cli.main([*command, "--ram", between]) == 0
    capsys.readouterr()
    for option, ram in (("--residual", low - 1), ("--no-residual", low - 1)):
        assert cli.main([*command, option, "--ram", str(ram)]) == 1
        assert "without" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--rate", "fast", "not a decimal number"),
        ("--rate", "0", "learns nothing"),
        ("--cores", "2", "the twin has no cores to choose"),
        ("--set", "cores=2", "it has an option, --cores"),
        ("--set", "save_to=/elsewhere", "takes no save_to"),
        ("--port", "/dev/nowhere", "on no port"),
        ("--set", "warmup=-1", "a whole number from 0 on"),
        ("--set", "hold=2", "it has an option, --hold"),
        ("--share", "0", "is not in (0, 100]"),
        ("--share", "0.1", "train fewer layers"),
        ("--set", "warmup=200", "smaller warmup"),
        ("--last", "99", "the model has 8 layers with weights, choose at most 8"),
        ("--biases", "99", "the model has 8 layers with weights, choose at most 8"),
        ("--policy", "best", "choose cyclic, importance, magnitude, random, random-epoch, static"),
        ("--schedule", "steps", "choose constant, cosine, linear, step"),
        ("--augment", "turn", "no augmentation turn: choose erase, flip"),
        ("--augment", "flip,shift=16", "samples of 16 x 16 move by less"),
        ("--smoothing", "1", "not in [0, 1): try 0.1"),
    ],
)
def test_bad_training_options(
    option: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples(tmp_path / "s.npz")
    log = tmp_path / "log.jsonl"
    args = ("tune", runs.DIGITS, path, "--twin", option, value, "--log", log, "--steps", 200)
    assert message in refused(capsys, *args)


@pytest.mark.parametrize("name", ["decay", "skip", "momentum", "standardise"])
def test_a_number_that_is_none_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By its own name, by host and device."""
    line = refused(capsys, "train", "--port", "/dev/nowhere", f"--{name}", "-1")
    assert f"error: {name} -1 is not a decimal number" in line
    task = runs.digits_task(steps=2)
    with Twin(task.image.data, task.samples) as twin:
        with pytest.raises(SparsetuneError, match=f"^{name} fast is not a decimal number"):
            twin.train(print, **{**task.options, name: "fast"})


LATE = [
    ("--replay {}/odd.npz", "samples have shape [12, 12, 1]"),
    ("--replay-share 0.5", "name --replay NPZ"),
    ("--decay 10 --rate 0.01", "decay times the learning rate is too large"),
    ("--decay 0.1 --policy static", "decay would shrink channels that never train"),
    ("--accumulate 4 --hold 6", "hold 6 is no multiple of accumulate 4"),
    ("--augment flip,shift=16", "samples of 16 x 16 move by less"),
    ("--accumulate 40 --steps 39", "no group of so many samples ends within 39 steps"),
    ("--accumulate 300", "no group of so many samples ends within 200 steps"),
]


@pytest.mark.parametrize(("options", "message"), LATE)
def test_what_a_run_refuses_is_told_first(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a rate is measured, and before anything is written."""
    path = samples(tmp_path / "s.npz")
    samples(tmp_path / "odd.npz", x=np.zeros((20, 12, 12, 1), np.int8))
    before = sorted(tmp_path.iterdir())
    args = ["tune", runs.DIGITS, path, "--twin", "-o", tmp_path / "o.tflite"]
    assert cli.main([*map(str, args), *options.format(tmp_path).split()]) == 1
    told = capsys.readouterr()
    assert message in told.err and "measuring" not in told.out and told.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_decay_that_the_measured_rate_forbids_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples(tmp_path / "s.npz", y=np.arange(20) % 10)
    args = ("tune", runs.DIGITS, path, "--twin", "-o", tmp_path / "o.tflite", "--decay", 60000)
    assert "is too large" in refused(capsys, *args)
    assert list(tmp_path.iterdir()) == [path]


def test_groups_that_never_end_on_the_board(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the number of steps is known here, it is told before the board is looked for."""
    args = ("train", "--port", "/dev/nowhere", "--accumulate", "40")
    assert "ends within 39 steps" in refused(capsys, *args, "--steps", "39")
    for steps in (("--steps", "40"), ()):
        assert "no port /dev/nowhere" in refused(capsys, *args, *steps)
    assert "choose 1 to 4096" in refused(capsys, *args, "--accumulate", "5000")


def test_the_twin_has_no_port_be_it_the_usual_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is named is refused; one of the environment alone is nobody's wish."""
    monkeypatch.setenv("SPARSETUNE_PORT", "/dev/mine")
    args = ("tune", runs.DIGITS, samples(tmp_path / "s.npz"), "--twin")
    assert "on no port" in refused(capsys, *args, "--port", "/dev/mine")
    assert "not in [0, 1)" in refused(capsys, *args, "--smoothing", "1")


POLICIES = """
class NoArguments:
    pass
class Beyond:
    def __init__(self, layers, seed):
        self.layers = [layer for layer in layers if layer.is_sparse]
    def choose(self, step, state):
        for layer in self.layers:
            state[layer.channels_at] = layer.in_channels
class NoChoice:
    def __init__(self, layers, seed):
        pass
class ChoosesByStepAlone(NoChoice):
    def choose(self, step):
        pass
class LooksAtLayers:
    def __init__(self, layers, seed):
        self.first = layers[0].operator
    def choose(self, step, state):
        pass
"""


def test_policies_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are loaded, but not made: one may look at its layers."""
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "odd_policies.py").write_text(POLICIES)
    (tmp_path / "odd_syntax.py").write_text("class X(:")
    args = ("tune", runs.DIGITS, samples(tmp_path / "s.npz"), "--twin", "--steps", 2)
    args += ("-o", tmp_path / "o.tflite", "--log", tmp_path / "log.jsonl", "--policy")
    for name, why in (("policies.py:Nobody", "no attribute"), ("syntax.py:X", "SyntaxError"),
                      ("policies.py:NoArguments", "TypeError"),
                      ("policies.py:NoChoice", "no attribute 'choose'"),
                      ("policies.py:ChoosesByStepAlone", "too many positional")):  # fmt: skip
        assert why in refused(capsys, *args, tmp_path / f"odd_{name}")
        assert not (tmp_path / "o.img").exists()
    line = refused(capsys, *args, tmp_path / "odd_policies.py:Beyond")
    assert "odd_policies.py:Beyond chose a channel that is not there (operator " in line
    assert cli.main([*map(str, args), f"{tmp_path}/odd_policies.py:LooksAtLayers"]) == 0


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: m.tflite and s.npz alone are in it."""
    monkeypatch.chdir(tmp_path)
    Path("m.tflite").write_bytes(MODEL)
    samples(Path("s.npz"))
    return tmp_path


OUTPUTS_OVER_INPUTS = [
    "build m.tflite -o m.tflite",
    "build m.tflite -o link.tflite",
    "plan m.tflite -o m.tflite",
    "head m.tflite --classes 3 -o m.tflite",
    "tune m.tflite s.npz --twin -o m.tflite",
    "tune m.tflite s.npz --twin --log s.npz",
    "tune m.tflite s.npz --twin -o new.png --plot new.png",
    "tune m.tflite s.npz --twin -o .",
    "build model.img",
]


@pytest.mark.parametrize("command", OUTPUTS_OVER_INPUTS)
def test_outputs_take_the_place_of_no_input(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is done."""
    Path("model.img").write_bytes(MODEL)
    Path("link.tflite").symlink_to("m.tflite")
    before = {path: path.read_bytes() for path in workplace.iterdir()}
    assert "name a file" in (line := refused(capsys, *command.split())) or "another file" in line
    assert {path: path.read_bytes() for path in workplace.iterdir()} == before


@pytest.mark.parametrize(
    "command",
    [
        "plan m.tflite -o none/deep/p.json",
        "plan m.tflite --picture none/p.png",
        "tune m.tflite s.npz --twin --log none/l.jsonl",
        "tune m.tflite s.npz --twin -o none/o.tflite",
        "train --port /dev/nowhere --plot none/l.png",
        "pull --port /dev/nowhere -o none/t.ckpt",
    ],
)
def test_no_folder_is_made_for_a_slip(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not there: make it, or name another" in refused(capsys, *command.split())
    assert sorted(path.name for path in workplace.iterdir()) == ["m.tflite", "s.npz"]


def test_our_own_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", str(runs.DIGITS), "-o", "out/p.json"]) == 0
    assert Path("out/p.json").is_file()


@pytest.mark.parametrize(
    "command",
    [
        "plan m.tflite --search -o /proc/p.json",
        "plan m.tflite --picture /proc/p.png",
        "tune m.tflite s.npz --twin -o /proc/o.tflite",
        "tune m.tflite s.npz --twin --log /proc/l.jsonl",
    ],
)
def test_a_folder_that_takes_no_files(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is done, and nothing is left of the trial."""
    assert cli.main(command.split()) == 1
    told = capsys.readouterr()
    assert "cannot write /proc/" in told.err and "name another" in told.err and not told.out
    assert sorted(path.name for path in workplace.iterdir()) == ["m.tflite", "s.npz"]


def test_a_log_that_is_there_is_opened(tmp_path: Path) -> None:
    """Its folder need not take files: it is not replaced."""
    (tmp_path / "log.jsonl").write_text('{"kind": "start"}\n')
    with (tmp_path / "log.jsonl").open() as file:
        log = Path(f"/proc/self/fd/{file.fileno()}")
        check_outputs({"log": log, "model": tmp_path / "m.tflite"})
    check_outputs({"log": Path("/dev/null"), "model": tmp_path / "m.tflite"})


def test_a_log_takes_the_place_of_no_other_file(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("of the user")
    command = "tune m.tflite s.npz --twin --log notes.txt"
    assert "a file of another kind" in refused(capsys, *command.split())
    assert Path("notes.txt").read_text() == "of the user" and not Path("out").exists()


@pytest.mark.parametrize(
    "command",
    [
        "plan m.tflite -o {}",
        "plan m.tflite --picture {}.png",
        "tune m.tflite s.npz --twin -o {}",
        "head m.tflite --classes 3 -o {}",
    ],
)
def test_no_device_becomes_a_file(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe, in the place of /dev/null, which a test must not lose."""
    for name in ("pipe", "pipe.png"):
        os.mkfifo(name)
    assert "it is no file" in refused(capsys, *command.format("pipe").split())
    assert Path("pipe").is_fifo() and Path("pipe.png").is_fifo()
    with pytest.raises(SparsetuneError, match="it is no file"):
        write_whole(Path("pipe"), b"")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--budget 10K", "did you mean --budget-analytic?): see `sparsetune plan --help`"),
        ("--seach", "did you mean --search?)"),
        ("--colour", "unrecognized arguments: --colour: see `sparsetune plan --help`"),
    ],
)
def test_options_are_spelt_out(option: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What begins alike may be something else."""
    assert cli.main(["plan", str(runs.DIGITS), *option.split()]) == 2
    told = capsys.readouterr()
    assert says in told.err and told.err.count("\n") == 1 and not told.out


def test_a_plan_takes_the_place_of_any_json(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"layers": []}')
    assert cli.main(["plan", str(runs.DIGITS), "-o", str(path)]) == 0
    assert load_plan(path).layers


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As nobody can in /proc: a disk's error is no fault of ours, and told in a line."""
    args = ("--data", samples(tmp_path / "s.npz"), "--methods", "head", "--epochs", "1")
    folder = "/proc/none"
    line = refused(capsys, "compare", "--model", runs.DIGITS, *args, "--folder", folder)
    assert folder in line and "name another" in line


def test_a_setting_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("train", "--port", "/dev/nowhere", "--set", "warmup=1", "--set", "warmup=2")
    assert "same name" in refused(capsys, *args)


def test_training_options_are_looked_at_before_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples(tmp_path / "s.npz")
    board = ("--port", "/dev/nowhere", "--policy", "best")
    assert "choose cyclic" in refused(capsys, "tune", runs.DIGITS, path, *board)


def test_biases_that_train_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("plan", runs.DIGITS, "--last", "3", "--biases", "3")
    assert "the last 3 layers train theirs anyway" in refused(capsys, *args)


def test_a_plan_and_what_it_says_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    assert cli.main(["plan", str(runs.DIGITS), "--last", "2", "-o", str(plan)]) == 0
    args = ("build", runs.DIGITS, "--plan", plan, "--last", "3", "-o", tmp_path / "m.img")
    assert "leave out --last, or --plan" in refused(capsys, *args)


def test_unknown_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples(tmp_path / "s.npz")
    args = ("tune", runs.DIGITS, path, "--twin", "--set", "wings=9")
    assert "takes no wings: choose among" in refused(capsys, *args)


def test_ratio_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ratio 0.0 is not in (0, 1]" in refused(capsys, "plan", runs.DIGITS, "--ratio", "0")


# Images and checkpoints -----------------------------------------------------------------------


def image_bytes() -> bytes:
    graph = read_tflite(runs.DIGITS)
    return compile_image(graph, default_plan(graph, 2)).image


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 4, 8, 12, 16, 40, 100, 2000, -1])
def test_damaged_image_is_refused_by_host_and_device(
    at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image_bytes()
    bad = damaged(data, at % len(data))
    path = tmp_path / "bad.img"
    path.write_bytes(bad)
    refused(capsys, "push", path, "--port", "/dev/null")
    with Twin(bad, b"") as twin, pytest.raises(SparsetuneError, match="image"):
        twin.train(print, steps=1)


def test_checkpoint_of_another_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = runs.digits_task(steps=1)
    image, trained = tmp_path / "a.img", tmp_path / "a.ckpt"
    trained.write_bytes(runs.twin_train(task)[1])
    image.write_bytes(image_bytes())
    args = ("export", runs.DIGITS, trained, "--image", image, "-o", tmp_path / "out.tflite")
    line = refused(capsys, *args)
    assert f"belongs to another image than {image}" in line and "--image" in line
    image.write_bytes(task.image.data)
    trained.write_bytes(damaged(trained.read_bytes(), 1000))
    assert "damaged" in refused(capsys, *args)
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_samples_are_refused_by_the_device(damage: str) -> None:
    task = runs.digits_task(steps=1)
    data = task.samples[:5000] if damage == "cut" else damaged(task.samples, 5000)
    with Twin(task.image.data, data) as twin:
        with pytest.raises(SparsetuneError, match="damaged or cut short: push it again"):
            twin.train(print, **task.options)


# On the board ---------------------------------------------------------------------------------


def train_refused(capsys: pytest.CaptureFixture[str], port: str) -> str:
    return refused(capsys, "train", "--port", port, "--steps", "2", "--log", "/dev/null")


def test_damaged_image_on_the_board(emulated_pico, capsys: pytest.CaptureFixture[str]) -> None:
    task = runs.digits_task(steps=2)
    with Board.connect(emulated_pico.port) as board:
        push_rom(board, {"model.img": damaged(task.image.data, 3000)})
        push_file(board, "/sparsetune/train.dat", task.samples)
    line = train_refused(capsys, emulated_pico.port)
    assert "the image is damaged: push it again" in line


def test_samples_of_another_model_on_the_board(
    emulated_pico, capsys: pytest.CaptureFixture[str]
) -> None:
    task = runs.digits_task(steps=2)
    wrong = runs.sample_file(
        runs.Dataset(np.zeros((3, 9), np.int8), np.zeros(3, np.uint8)), task.image.task
    )
    with Board.connect(emulated_pico.port) as board:
        push_rom(board, {"model.img": task.image.data})
        push_file(board, "/sparsetune/train.dat", wrong)
    line = train_refused(capsys, emulated_pico.port)
    assert "samples of 9 bytes" in line and "the model takes 256" in line


def test_arena_that_the_board_has_no_room_for(
    emulated_pico, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image whose header asks for a megabyte of arena, checksum and all in order."""
    data = bytearray(runs.digits_task(steps=2).image.data)
    struct.pack_into("<I", data, 28, 1 << 20)
    struct.pack_into("<I", data, 12, zlib.crc32(data[16:]))
    assert parse_image(bytes(data)).arena_bytes == 1 << 20
    with Board.connect(emulated_pico.port) as board:
        push_rom(board, {"model.img": bytes(data)})
    line = train_refused(capsys, emulated_pico.port)
    assert "bytes of RAM" in line and "are free" in line and "--ram" in line


def test_a_cut_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples(tmp_path / "s.npz")
    path.write_bytes(path.read_bytes()[:1000])
    assert "is not an .npz file" in refused(capsys, "tune", runs.DIGITS, path, "--twin")


def test_an_npy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.npy"
    np.save(path, np.zeros((20, 16, 16, 1), np.int8))
    assert f"{path} is one array" in refused(capsys, "tune", runs.DIGITS, path, "--twin")


def test_a_plan_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net((1, 8), seed=1)
    net.dense(4)
    net.dense(4)
    model, plan = tmp_path / "m.tflite", tmp_path / "p.json"
    model.write_bytes(net.to_bytes())
    assert not cli.main(["plan", str(model), "-o", str(plan)])
    capsys.readouterr()
    assert "made for another model" in refused(capsys, "build", runs.DIGITS, "--plan", plan)
