"""The whole chain on a board: what is left when its last part cannot be done."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from runs import DIGITS
from small_models import Net
from sparsetune import cli
from sparsetune.board import Board
from sparsetune.boardspec import load_spec
from sparsetune.digits import changed_sets
from sparsetune.errors import SparsetuneError
from sparsetune.target import OnBoard, OnTwin
from sparsetune.tflite import read_tflite


def tune(folder: Path, *where: object, shared: int = 0, held: int = 10) -> int:
    """Twenty samples to train on, twenty held out, of which so many are both, and which are of so
    many classes; a few steps."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (40, 16, 16, 1), np.int8), np.arange(40) % 10
    path = folder / "s.npz"
    test = slice(20 - shared, 40 - shared)
    np.savez(path, x_train=x[:20], y_train=y[:20], x_test=x[test], y_test=y[test] % held)
    rest = ("--steps", 4, "-o", folder / "o.tflite", "--log", folder / "log.jsonl", "--plain")
    return cli.main([str(arg) for arg in ("tune", DIGITS, path, *rest, *where)])


FILL = """
import os
room = os.statvfs("/sparsetune")
with open("/filler", "wb") as file:
    for _ in range(room[3] - {free}):
        file.write(bytes(room[0]))
"""


def test_a_full_file_system_keeps_nothing_from_being_told(
    emulated_pico, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """Samples and checkpoints may fill it: what comes after training needs no room."""
    train = OnBoard.train

    def fill(self: OnBoard, *args) -> bytes:
        trained = train(self, *args)
        self.board.exec(FILL.format(free=2), timeout=60)
        return trained

    monkeypatch.setattr(OnBoard, "train", fill)
    try:
        assert tune(tmp_path, "--port", emulated_pico.port) == 0
        out = capsys.readouterr().out
        assert "accuracy on 20 held-out samples" in out and "trained model: " in out
        assert "trained model against LiteRT on 10 samples: 0 differing bytes" in out
    finally:
        with Board.connect(emulated_pico.port) as board:
            board.remove_file("/filler")


def test_a_rate_that_changes_nothing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(tmp_path, "--twin", "--rate", "0.00000001") == 0
    out = capsys.readouterr().out
    last = out.splitlines()[-1]
    assert last == "warning: the model got no better: try a higher --rate, or more --steps"
    assert "got worse" not in out


def test_a_model_that_got_worse_is_told_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels that are all wrong, which it learns; the right ones are held out."""
    sets = changed_sets(1)
    x, y = sets["x_train"][:80], sets["y_train"][:80]
    np.savez(tmp_path / "s.npz", x_train=x, y_train=(y + 1) % 10, x_test=x, y_test=y)
    words = ("tune", DIGITS, tmp_path / "s.npz", "--twin", "--rate", "0.05", "--plain", "--log",
             tmp_path / "log.jsonl", "-o", tmp_path / "o.tflite")  # fmt: skip
    assert cli.main([str(word) for word in words]) == 0
    *_, model, _, _, last = capsys.readouterr().out.splitlines()
    assert model == f"trained model: {tmp_path / 'o.tflite'}"
    told = re.match(r"warning: the model got worse, from (\S+)% to (\S+)% on 80 held-out", last)
    assert told and float(told[1]) > float(told[2])


def test_held_out_samples_of_one_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of samples that were sorted: a warning. Of half of the classes and more: none."""
    for some, is_told in ((1, True), (4, True), (6, False)):
        assert tune(tmp_path, "--twin", "--rate", "0.01", held=some) == 0
        said = f"warning: held-out samples are of {some} of 10 classes: what is told of them says"
        assert (said in capsys.readouterr().out) == is_told


def test_the_same_samples_to_train_and_to_test_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning; all is done nevertheless. Other samples: none."""
    assert tune(tmp_path, "--twin", "--rate", "0.01", shared=5) == 0
    out = capsys.readouterr().out
    assert "warning: 5 of 20 held-out samples are training samples too: what is told" in out
    assert "accuracy on 20 held-out samples" in out
    assert tune(tmp_path, "--twin", "--rate", "0.01") == 0
    assert "training samples too" not in capsys.readouterr().out


def test_a_curve_that_cannot_be_written_leaves_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the model trains."""
    train = OnTwin.train

    def fill(self: OnTwin, *args) -> bytes:
        (tmp_path / "log.png.part").mkdir()
        return train(self, *args)

    monkeypatch.setattr(OnTwin, "train", fill)
    assert tune(tmp_path, "--twin", "--rate", "0.01") == 0
    out = capsys.readouterr().out
    assert "accuracy on 20 held-out samples" in out and "trained model: " in out
    assert re.search(r"^loss curve: not drawn \(cannot write \S+log.png ", out, re.MULTILINE)


@pytest.mark.parametrize("is_broken_off", [False, True])
@pytest.mark.parametrize("full", [1, 2])
def test_a_model_that_cannot_be_written_leaves_what_was_learnt(
    full: int, is_broken_off: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The disk fills up while the model trains, and with two the checkpoint has no room there
    either; `export` makes of it what would have been written."""
    assert tune(tmp_path, "--twin", "--rate", "0.01") == 0
    wanted = (tmp_path / "o.tflite").read_bytes()
    (tmp_path / "o.tflite").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    train, write = OnTwin.train, Path.write_bytes

    def fill(self: OnTwin, *args) -> bytes:
        trained = train(self, *args)
        monkeypatch.setattr(Path, "write_bytes", refuse)
        if is_broken_off:
            raise KeyboardInterrupt
        return trained

    def refuse(path: Path, data: bytes) -> int:
        if path.name == "o.tflite.part" or full == 2 and "elsewhere" not in path.parts:
            write(path, data[:9])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(OnTwin, "train", fill)
    assert tune(tmp_path, "--twin", "--rate", "0.01") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "o.tflite (No space left on device): name another; " in said
    told = re.search(r"what was learnt is in (\S+): `sparsetune export (.+) -o FILE` makes", said)
    assert told and Path(told[1]).is_relative_to(tmp_path / ("elsewhere" if full == 2 else ""))
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "o.tflite").exists()
    monkeypatch.setattr(Path, "write_bytes", write)
    assert cli.main(["export", *told[2].split(), "-o", str(tmp_path / "o.tflite")]) == 0
    assert (tmp_path / "o.tflite").read_bytes() == wanted


def test_a_disk_that_fills_up_while_the_twin_trains_leaves_what_was_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = OnTwin.train

    def fill(self: OnTwin, options, out) -> bytes:
        train(self, {**options, "steps": 2}, out)
        raise OSError(28, "No space left on device", "trained.ckpt")

    monkeypatch.setattr(OnTwin, "train", fill)
    assert tune(tmp_path, "--twin", "--rate", "0.01") == 1
    said = capsys.readouterr().err
    told = "the run could not go on (No space left on device); what was learnt until now: "
    assert f"{told}{tmp_path / 'o.tflite'}" in said and said.count("\n") == 1
    assert read_tflite(tmp_path / "o.tflite").trainable


@pytest.mark.parametrize(("classes", "error"), [(3, "label 9 is out of range"), (10, "")])
def test_a_new_head_is_written_with_what_trains_it_alone(
    classes: int, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = tune(tmp_path, "--twin", "--rate", "0.01", "--classes", classes)
    said = capsys.readouterr()
    head = tmp_path / f"digits_int8_{classes}_classes.tflite"
    assert status == int(bool(error)) and error in said.err
    assert head.exists() == (f"new head of {classes} classes: {head}\n" in said.out) == (not error)
    assert not error or [path.name for path in tmp_path.iterdir()] == ["s.npz"]


def test_a_check_that_fails_leaves_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise SparsetuneError("the board is gone")

    monkeypatch.setattr(OnTwin, "outputs", fail)
    assert tune(tmp_path, "--twin") == 1
    said = capsys.readouterr()
    assert "accuracy on 20 held-out samples" in said.out
    assert f"trained model: {tmp_path / 'o.tflite'}" in said.out
    assert "on 10 samples: not compared" in said.out
    assert "were not compared (the board is gone)" in said.err


def test_a_wrong_output_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """The comparison sees a single byte."""
    outputs = OnTwin.outputs

    def spoil(self: OnTwin, count: int, out) -> None:
        lines: list[str] = []
        outputs(self, count, lines.append)
        before, hex_of, rest = lines[0].partition("hex=x")
        for line in (before + hex_of + ("1" if rest[0] == "0" else "0") + rest[1:], *lines[1:]):
            out(line)

    monkeypatch.setattr(OnTwin, "outputs", spoil)
    assert tune(tmp_path, "--twin") == 1
    said = capsys.readouterr()
    assert "on 10 samples: 1 differing bytes" in said.out and "differ in 1 bytes" in said.err


def test_evaluate_takes_the_room_that_there_is(
    emulated_pico, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """20 KB left: 60 samples of 256 bytes go in parts; no part is refused."""
    assert tune(tmp_path, "--port", emulated_pico.port) == 0
    out = capsys.readouterr().out
    told = re.search(r"board: ([\d,]+) .* MicroPython's own ([\d,]+) \(not", out)
    peak, own = (int(text.replace(",", "")) for text in told.groups()) if told else (0, 0)
    spec = load_spec("pico")
    assert 0 < own == spec.ram_bytes - spec.heap_bytes < peak
    x = np.zeros((60, 16, 16, 1), np.int8)
    np.savez(tmp_path / "s.npz", x_test=x, y_test=np.zeros(60, np.uint8), x_train=x)
    with Board.connect(emulated_pico.port) as board:
        board.exec(FILL.format(free=5), timeout=60)
    try:
        args = ("evaluate", tmp_path / "o.img", tmp_path / "s.npz")
        assert cli.main([*map(str, args), "--port", emulated_pico.port]) == 0
        out = capsys.readouterr().out
        assert "over 60 samples" in out and out.count("test.dat") > 1
        assert "60 of 60 held-out samples are training samples too" in out
    finally:
        with Board.connect(emulated_pico.port) as board:
            board.remove_file("/filler")


def test_evaluate_and_tune_tell_one_squared_error(
    emulated_pico, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of targets that the output cannot reach, one in four."""
    net = Net((1, 6), seed=1)
    net.dense(2, scale=0.01)
    model, samples, port = tmp_path / "m.tflite", tmp_path / "s.npz", emulated_pico.port
    model.write_bytes(net.to_bytes())
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (60, 6)).astype(np.int8), rng.normal(0, 1.1, (60, 2))
    np.savez(samples, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    rest = ("--loss", "mse", "--plain", "--steps", 40, "--log", tmp_path / "l.jsonl")
    args = ("tune", model, samples, "--port", port, "-o", tmp_path / "o.tflite", *rest)
    assert cli.main([str(arg) for arg in args]) == 0
    tuned = re.search(r"mean squared error on 20 .* before, (\S+) after", capsys.readouterr().out)
    args = ("evaluate", tmp_path / "o.img", samples, "--port", port)
    assert cli.main([str(arg) for arg in args]) == 0
    told = re.search(r"mean loss (\S+) \(mse\) over 20 samples", capsys.readouterr().out)
    assert tuned and told and float(told[1]) == pytest.approx(float(tuned[1]), abs=6e-4)


def test_the_limit_of_the_ram_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --ram leaves of the board's, as `plan` tells it."""
    assert tune(tmp_path, "--twin", "--rate", "0.01", "--ram", "60K") == 0
    assert re.search(r"^RAM [\d,]+ of 61,440 bytes: ", capsys.readouterr().out, re.M)


def test_an_image_beside_each_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`build` and `tune` have one rule, and no file of something else is replaced."""
    model, other = tmp_path / "mine.tflite", tmp_path / "other.tflite"
    model.write_bytes(DIGITS.read_bytes())
    assert cli.main(["build", str(model), "--last", "1"]) == 0
    built = (tmp_path / "mine.img").read_bytes()
    assert ", in the place" not in capsys.readouterr().out
    assert tune(tmp_path, "--twin", "--last", "2") == 0
    out = capsys.readouterr().out
    assert f"image: {tmp_path / 'o.img'}\n" in out and "saved" not in out
    assert (tmp_path / "mine.img").read_bytes() == built != (tmp_path / "o.img").read_bytes()

    assert cli.main(["build", str(model), "--last", "2"]) == 0
    assert ", in the place of another plan's\n" in capsys.readouterr().out
    assert cli.main(["head", str(DIGITS), "--classes", "4", "-o", str(other)]) == 0
    assert cli.main(["build", str(other), "-o", str(tmp_path / "mine.img")]) == 0
    assert ", in the place of an image of another model\n" in capsys.readouterr().out

    (tmp_path / "o.img").write_text("a disk of mine")
    capsys.readouterr()
    for refuses in (
        lambda: tune(tmp_path, "--twin"),
        lambda: cli.main(["build", str(model), "--search", "-o", str(tmp_path / "o.img")]),
    ):
        assert refuses() == 1
        told = capsys.readouterr()
        assert "is there and no image of sparsetune's" in told.err and not told.out
        assert (tmp_path / "o.img").read_text() == "a disk of mine"


FOREIGN = [
    ("tune", "--twin", "-o"),
    ("tune", "--twin", "--plot"),
    ("head", "--classes", "3", "-o"),
    ("plan", "-o"),
    ("plan", "--picture"),
]


@pytest.mark.parametrize("words", FOREIGN, ids=" ".join)
def test_files_of_another_kind_are_left_alone(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said before anything is trained, searched or told."""
    path = tmp_path / ("mine.png" if words[-1] in ("--plot", "--picture") else "mine.txt")
    path.write_text("a letter of mine")
    if words[0] == "tune":
        status = tune(tmp_path, *words[1:], path)
    else:
        status = cli.main([words[0], str(DIGITS), *words[1:], str(path)])
    assert status == 1
    told = capsys.readouterr()
    assert "a file of another kind" in told.err and not told.out
    assert path.read_text() == "a letter of mine"
