"""The command line: what it says, and that every error is one line and an exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import DIGITS, digits_task, push, twin_train
from sparsetune import cli, files
from sparsetune.board import Board
from sparsetune.board_files import BOARD_DATA, BOARD_TRAINED
from sparsetune.data import Dataset, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.image import MAGIC, VERSION
from sparsetune.litert import litert_accuracy
from sparsetune.pulled import split
from sparsetune.push import push_file, push_rom
from sparsetune.transfer import BOARD_IMAGE
from sparsetune_device.telemetry import parse

StandIn = Callable[..., str]


def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sparsetune", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def assert_error(result: subprocess.CompletedProcess[str], message: str, status: int = 1) -> None:
    assert result.returncode == status, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if status == 1:
        assert result.stderr.startswith("sparsetune: error: ")
        assert result.stderr.count("\n") == 1


# Help and usage ---------------------------------------------------------------------


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    for name in cli.COMMANDS:
        assert f"\n    {name} " in result.stdout


def test_the_readme_lists_every_command() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)", readme, re.M)
    assert {*cli.COMMANDS, "emulate"} == {*listed, "tune"} and "sparsetune tune " in readme


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"example: sparsetune {name}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("name", "usage", "option"),
    [
        ("tune", "[options] model samples", "--last"),
        ("compare", "--model MODEL --data DATA [options]", "--seeds"),
        ("flash", "[-h] [--port PORT] [--board BOARD]", "--keep-files"),
    ],
)
def test_many_options_stand_in_their_list_alone(
    name: str, usage: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: sparsetune {name} {usage} ")
    assert text.count(option) == (2 if name == "flash" else 1)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_examples_parse(name: str) -> None:
    example = cli.COMMANDS[name][1]
    assert cli.build_parser().parse_args(example.split()).run is cli.COMMANDS[name][3]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["no-such-command"],
        ["push", "--nonsense"],
        ["train", "--steps", "0"],
        ["train", "--steps", "many"],
        ["train", "--save-every", "-1"],
        ["train", "--seed", "-1"],
        ["train", "--set", "nonsense"],
        ["plan", "m.tflite", "--ram", "lots"],
        ["plan", "m.tflite", "--ram", "0"],
        ["plan", "m.tflite", "--picture", "arena.svg"],
        ["train", "--plot", "loss"],
    ],
)
def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    told = capsys.readouterr()
    assert not told.out and told.err.startswith("sparsetune: error: ")
    assert told.err.count("\n") == 1 and " --help`\n" in told.err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--last", "0", "'0' is too small, give 1 or more"),
        ("--ram", "1T", "try 120K"),
        ("--ram", "120", "'120' are 120 bytes: did you mean 120K?"),
        ("--hold", "foo", "nor: epoch"),
        ("--hold", "0", "give 1 or more"),
        ("--effort", "0", "is not in 1 to 99 (try 25)"),
        ("--effort", "some", "is not in 1 to 99 (try 25)"),
        ("--seed", "-1", "give 0 or more"),
        ("--seed", "many", "give one from 0 on"),
        ("--time", "0", "try 0.5"),
        ("--set", "steps", "try warmup=20"),
    ],
)
def test_a_bad_value_is_told_with_what_to_do(
    option: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune", "m.tflite", "s.npz", option, value]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"sparsetune: error: argument {option}: ") and line.count("\n") == 1
    assert says in line and "see `sparsetune tune --help`" in line


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("120K", 122880), ("120k", 122880), ("2M", 2097152),
     ("120KB", 122880), ("2mb", 2097152)],
)
def test_sizes(text: str, size: int) -> None:
    assert cli.build_parser().parse_args(["plan", "m", "--ram", text]).ram == size


# Errors -----------------------------------------------------------------------------


def test_errors_are_one_line(tmp_path: Path) -> None:
    assert_error(run("push", tmp_path / "none.img"), "cannot read")
    assert_error(run("push"), "nothing to push")
    assert_error(run("pull", "--port", "/dev/nowhere"), "there is no port /dev/nowhere")
    assert_error(run("flash", "--board", "teapot"), "unknown board 'teapot'")
    assert_error(run("flash", tmp_path / "none.uf2"), "cannot read")
    assert_error(run("monitor", tmp_path / "none.jsonl"), "cannot read")
    assert_error(run("pull", SPARSETUNE_PORT="/dev/from-environment"), "/dev/from-environment")


def test_unexpected_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(cli, "load_spec", broken)
    monkeypatch.delenv("SPARSETUNE_DEBUG", raising=False)
    assert cli.main(["flash"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("sparsetune: error: unexpected ValueError: first line second line;")
    assert err.count("\n") == 1
    monkeypatch.setenv("SPARSETUNE_DEBUG", "1")
    assert cli.main(["flash"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_closed_pipe() -> None:
    command = f"{sys.executable} -m sparsetune --help | true"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in result.stderr


# Other programs ---------------------------------------------------------------------


def test_unknown_command_runs_the_program_of_that_name(tmp_path: Path) -> None:
    program = tmp_path / "sparsetune-hello"
    program.write_text('#!/bin/sh\necho "hello $*"\nexit 7\n')
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = run("hello", "a", "--help", PATH=path)
    assert (result.returncode, result.stdout) == (7, "hello a --help\n")
    assert_error(run("../sparsetune-hello"), "invalid choice", status=2)


def test_own_commands_are_not_replaced(tmp_path: Path) -> None:
    program = tmp_path / "sparsetune-push"
    program.write_text("#!/bin/sh\necho hijacked\n")
    program.chmod(0o755)
    assert_error(run("push", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"), "nothing to push")


# Files ------------------------------------------------------------------------------


def test_write_whole_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    files.write_whole(path, b"data")
    assert path.read_bytes() == b"data"
    (tmp_path / "folder").mkdir()
    with pytest.raises(SparsetuneError, match="cannot write"):
        files.write_whole(tmp_path / "folder", b"data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "new"]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def image_of(size: int) -> bytes:
    """An image that passes every check, of random content; nothing runs it."""
    rest = bytes(112) + os.urandom(size - 128)
    return MAGIC + struct.pack("<3I", VERSION, size, zlib.crc32(rest)) + rest


# The chain on the stand-in ----------------------------------------------------------


def test_push_and_pull(stand_in: StandIn, tmp_path: Path) -> None:
    port = stand_in()
    image, remote, back = tmp_path / "model.img", tmp_path / "board" / "x", tmp_path / "back"
    image.write_bytes(image_of(10_000))
    push = ("push", image, "--file", image, remote, "--port", port)
    result = run(*push)
    assert result.returncode == 0, result.stderr
    assert "/rom/model.img: 10,000 bytes, " in result.stdout
    assert f"{remote}: 10,000 bytes, " in result.stdout
    assert run(*push).stdout.count("already on the board") == 2
    result = run("pull", remote, "-o", back, "--port", port)
    assert result.stdout == f"{back}: 10,000 bytes\n"
    assert back.read_bytes() == image.read_bytes()


def test_train(stand_in: StandIn, tmp_path: Path) -> None:
    """The training is the stand-in's: only the way of the lines is tested."""
    log, png = tmp_path / "log.jsonl", tmp_path / "loss.png"
    args = ("train", "--port", stand_in(), "--steps", 20, "--log", log)
    result = run(*args, "--every", 5, "--plot", png)
    assert result.returncode == 0, result.stderr
    assert "step 20/20" in result.stdout
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds == ["start", *["step"] * 20, "done"]
    assert png.exists() or "matplotlib is not installed" in result.stdout


def test_train_default_log(stand_in: StandIn, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sparsetune", "train", "--port", stand_in()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    (log,) = (tmp_path / "out").glob("train-*.jsonl")
    assert f"log: out/{log.name}" in result.stdout


def test_train_pushes_the_image_that_is_named(stand_in: StandIn, tmp_path: Path) -> None:
    task = digits_task(steps=5)
    image, data, log = tmp_path / "model.img", tmp_path / "train.dat", tmp_path / "log.jsonl"
    image.write_bytes(task.image.data)
    data.write_bytes(task.samples)
    train = "train", image, data, "--steps", 5, "--port", stand_in(), "--log", log
    told = run(*train)
    assert told.returncode == 0, told.stderr
    lines = [line.partition(":")[0] for line in told.stdout.splitlines()]
    names = "/rom/model.img", "/sparsetune/train.dat"
    assert [line for line in lines if line in names] == [*names]
    assert "step 5/5" in told.stdout and len(log.read_text().splitlines()) == 7
    again = run(*train).stdout  # what is there is not sent again
    assert again.count("already on the board") == 2 and "step 5/5" in again


@pytest.mark.parametrize(
    "words, message",
    [
        (("m.tflite",), "name the samples (.npz) that m.tflite shall learn, too"),
        (("m.tflite", "s.npz", "--resume"), "leave out m.tflite, or them"),
        (("m.img", "--data", "/other.dat"), "leave out m.img, or them"),
        (("m.tflite", "s.npz", "--image", "/rom/x.img"), "leave out m.tflite, or them"),
        (("m.img",), "m.img"),
        (("m.tflite", "s.npz"), "m.tflite"),
    ],
)
def test_train_is_told_what_does_not_go_together(words: tuple[str, ...], message: str) -> None:
    """Before a board is looked for."""
    result = run("train", *words, "--port", "/dev/no-such-port")
    assert_error(result, message)
    assert "no-such-port" not in result.stderr


def test_train_of_a_model_is_tune_with_its_usual_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsetune import commands

    asked: list[dict[str, object]] = []
    monkeypatch.setattr(commands, "tune", lambda args: asked.append(vars(args)))
    options = "--steps", "7", "--rate", "0.01", "--board", "esp32c3", "--plain", "-o", "t.tflite"
    assert cli.main(["train", "m.tflite", "s.npz", *options]) == 0
    assert cli.main(["tune", "m.tflite", "s.npz", *options]) == 0
    of_train, of_tune = ({k: v for k, v in one.items() if k != "run"} for one in asked)
    assert of_train == of_tune and of_train["steps"] == 7 and of_train["board"] == "esp32c3"


def test_train_that_fails_on_the_board(stand_in: StandIn, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    args = ("train", "--port", stand_in(), "--steps", 20, "--set", "warmup=4", "--log", log)
    assert_error(run(*args), "the board stopped with MemoryError")
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds == ["start", "step", "step", "step"]


def test_ctrl_c_stops_training(stand_in: StandIn, tmp_path: Path) -> None:
    port, log = stand_in(), tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "sparsetune", "train", "--port", port]
    command += ["--steps", "100000", "--log", str(log), "--every", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read() == "sparsetune: interrupted\n"
    assert '"stopped"' in log.read_text(), "the board's last words are kept"
    with Board.connect(port) as board:
        assert board.exec("print('alive')") == "alive"


def test_monitor_draws_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"time": 1, "kind": "step", "step": 1, "loss": 1, "acc": 0, "ms": 1}\n')
    result = run("monitor", log)
    assert result.returncode == 0
    assert (tmp_path / "log.png").exists() or "matplotlib is not installed" in result.stdout


# On the emulated Pico ---------------------------------------------------------------


def test_emulated_push_and_pull(emulated_pico, tmp_path: Path) -> None:
    port = str(emulated_pico.port_link)
    image, back = tmp_path / "model.img", tmp_path / "back"
    image.write_bytes(image_of(20_000))
    samples = tmp_path / "samples.dat"
    samples.write_bytes(b"STDA" + bytes(range(256)) * 50)
    result = run("push", image, "--data", samples, "--replace", "--port", port)
    assert result.returncode == 0, result.stderr
    for remote, pushed in ((BOARD_IMAGE, image), (BOARD_DATA, samples)):
        assert run("pull", remote, "-o", back, "--port", port).returncode == 0
        assert back.read_bytes() == pushed.read_bytes()
    assert_error(run("push", "--data", __file__, "--port", port), "holds no samples")


def test_emulated_new_samples_for_the_image_on_the_board(emulated_pico, tmp_path: Path) -> None:
    """Replay as README tells it: earlier samples are kept, others are pushed without an image, and
    the run goes on with both."""
    port, task, log = emulated_pico.port_link, digits_task(steps=1), tmp_path / "log.jsonl"
    image, samples, back = tmp_path / "m.img", tmp_path / "s.npz", tmp_path / "back"
    image.write_bytes(task.image.data)
    x = np.random.default_rng(0).integers(-128, 128, (60, 16, 16, 1), np.int8)
    y = np.arange(60) % 10
    np.savez(samples, x=x[:20], y=y[:20])
    assert run("push", image, "--data", samples, "--port", port).returncode == 0
    train = ("train", "--port", port, "--log", log, "--plain")
    assert run(*train, "--steps", 10, "--keep", 5).returncode == 0
    np.savez(samples, x=x[20:, :8], y=y[20:])
    assert_error(run("push", "--data", samples, "--port", port), "samples have shape [8, 16, 1]")
    np.savez(samples, x=x[20:], y=y[20:])
    result = run("push", "--data", samples, "--port", port)
    assert result.returncode == 0, result.stderr
    assert run("pull", BOARD_DATA, "-o", back, "--port", port).returncode == 0
    assert back.read_bytes() == sample_file(Dataset(x[20:], y[20:]), task.image.task)
    result = run(*train, "--resume", "--steps", 30, "--replay-share", "0.25")
    assert "step 30/30" in result.stdout, result.stderr


def test_samples_without_an_image_anywhere(stand_in: StandIn, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 4), np.int8), y=np.zeros(2, np.uint8))
    result = run("push", "--data", tmp_path / "s.npz", "--port", stand_in())
    assert_error(result, "the board has no image to check the samples against: push model.img")


def test_emulated_errors(emulated_pico, tmp_path: Path) -> None:
    port = str(emulated_pico.port_link)
    large = tmp_path / "large.img"
    large.write_bytes(image_of(800_000))
    assert_error(run("push", large, "--port", port), "has 786,432: use a smaller model")
    assert_error(run("pull", "/none", "--port", port), "does not hold that file")
    assert_error(run("train", "--image", "/rom/none.img", "--port", port, "--plain"), "board")


def test_emulated_monitor(emulated_pico, tmp_path: Path) -> None:
    """`sparsetune monitor` watches a run that somebody else has started."""
    import serial

    port, log = str(emulated_pico.port_link), tmp_path / "log.jsonl"
    code = (
        b"from sparsetune_device.telemetry import step_line\rimport time\r"
        b"for i in range(1000): print(step_line(65536, 32768, i)); time.sleep(0.1)\r\r\r"
    )
    with serial.Serial(port, timeout=0.1) as raw:
        raw.write(code)
        time.sleep(1)
    command = [sys.executable, "-m", "sparsetune", "monitor", "--port", port]
    process = subprocess.Popen(
        [*command, "--plain", "--log", str(log), "--every", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "step 10 " not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert f"log: {log}" in process.stdout.read()
    assert log.read_text().count('"step", "step"') >= 10
    with Board.connect(port) as board:
        assert board.exec("print('alive')") == "alive"


def begin_at_prompt(port: str, task, until: int, **options) -> None:
    """A run that no command of ours has started: typed in, and left alone after step `until`."""
    import serial

    with Board.connect(port) as board:
        push(board, task)
    given = "".join(f", {name}={value!r}" for name, value in (task.options | options).items())
    code = "from sparsetune_device.main import train\r"
    code += f"train({BOARD_IMAGE!r}, {BOARD_DATA!r}{given})\r"
    with serial.Serial(port, timeout=20) as raw:
        raw.write(code.encode())
        raw.read_until(f"#at|step={until}|".encode())


def test_a_run_that_is_joined_on_the_emulated_pico(emulated_pico, tmp_path: Path) -> None:
    """Each step in the log has the number and the loss that it has on the twin."""
    task = digits_task(steps=1000)
    port, log = str(emulated_pico.port_link), tmp_path / "log.jsonl"
    begin_at_prompt(port, task, until=24)
    result = run("monitor", "--port", port, "--plain", "--log", log)
    assert "step 1000/1000" in result.stdout, result.stderr
    steps = [record for line in log.open() if (record := json.loads(line))["kind"] == "step"]
    losses = [parse(line)[1]["loss"] for line in twin_train(task)[0] if line.startswith("loss:")]
    assert len(steps) > 60 and steps[-1]["step"] == 1000
    assert all(losses[step["step"] - 1] == step["loss"] for step in steps)


# What users do of their own ---------------------------------------------------------

POLICY = '''
class Backwards:
    """The last channels, always."""

    def __init__(self, layers, seed):
        self.layers = [layer for layer in layers if layer.is_sparse]

    def choose(self, step, state):
        for layer in self.layers:
            for i in range(layer.chosen):
                channel = layer.in_channels - layer.chosen + i
                at = layer.channels_at + 2 * i
                state[at : at + 2] = channel.to_bytes(2, "little")
'''


def test_own_policy_on_twin_and_emulated_board(emulated_pico, tmp_path: Path) -> None:
    """FILE.py:CLASS travels to the board; both end with the same model."""
    policy, samples = tmp_path / "mine.py", tmp_path / "s.npz"
    policy.write_text(POLICY)
    rng = np.random.default_rng(0)
    np.savez(samples, x=rng.integers(-128, 128, (20, 16, 16, 1), np.int8), y=np.arange(20) % 10)
    ends = []
    for where in (["--twin"], ["--port", emulated_pico.port_link]):
        out, log = tmp_path / f"{len(ends)}.tflite", tmp_path / "log.jsonl"
        rest = ("-o", out, "--log", log, "--policy", f"{policy}:Backwards", "--steps", 12)
        result = run("tune", DIGITS, samples, *where, *rest)
        assert result.returncode == 0, result.stderr
        ends.append(out.read_bytes())
        policy.write_text(POLICY + "        raise ValueError('not today')\n")
        result = run("tune", DIGITS, samples, *where, *rest)
        line = len(policy.read_text().splitlines())
        assert_error(result, "ValueError: not today")
        assert f"(mine.py, line {line})" in result.stderr
        policy.write_text(POLICY)
    assert ends[0] == ends[1]
    assert_error(run("tune", DIGITS, samples, "--twin", "--policy", f"{policy}:No"), "no attribute")


def test_evaluate_on_the_emulated_board(emulated_pico, tmp_path: Path) -> None:
    """Right answers as LiteRT counts them; without a checkpoint it says so."""
    task = digits_task(steps=1)
    image, samples = tmp_path / "m.img", tmp_path / "s.npz"
    image.write_bytes(task.image.data)
    few = {"x_test": task.test.x[:30], "y_test": task.test.y[:30]}
    np.savez(samples, x_train=task.train.x, y_train=task.train.y, **few)
    port = emulated_pico.port_link
    result = run("evaluate", image, samples, "--untrained", "--port", port)
    right = round(30 * litert_accuracy(task.model, few["x_test"], few["y_test"]))
    assert f"{right} of 30 right" in result.stdout and "no x_test" not in result.stdout
    np.savez(samples, x=few["x_test"], y=few["y_test"][:, None])  # labels as Keras has them
    result = run("evaluate", image, samples, "--untrained", "--port", port)
    assert f"{right} of 30 right" in result.stdout
    assert "training samples: the .npz has no x_test" in result.stdout
    with Board.connect(str(port)) as board:
        board.exec("import os\nfor f in os.listdir('/sparsetune'):\n os.remove('/sparsetune/' + f)")
    assert_error(run("evaluate", image, samples, "--port", port), "or say --untrained")
    assert_error(run("pull", "--port", port), "the board holds no checkpoint: train first")


def test_what_is_not_asked_for_is_left_to_the_board(emulated_pico, tmp_path: Path) -> None:
    """A resumed run takes its settings from the checkpoint, the number of steps included."""
    assert cli.build_parser().parse_args(["train"]).steps is None
    task = digits_task(steps=1)
    with Board.connect(emulated_pico.port) as board:
        push_rom(board, {"model.img": task.image.data})
        push_file(board, BOARD_DATA, task.samples)
    train = ("train", "--port", emulated_pico.port, "--log", tmp_path / "log.jsonl")
    assert run(*train, "--steps", 6).returncode == 0
    assert_error(
        run(*train, "--resume"),
        "sparsetune: error: the board refuses: all 6 steps are done: ask for more (--steps); "
        "`sparsetune pull` fetches what was learnt\n",
    )
    assert "step 9/9" in run(*train, "--resume", "--steps", 9).stdout


def test_a_run_that_a_command_ends_is_told(emulated_pico, tmp_path: Path) -> None:
    """Its host was killed and it trained on: at which step it ended, and how it goes on."""
    task = digits_task(steps=30_000)  # minutes: the slowest of hosts comes before its end
    port, here = str(emulated_pico.port_link), tmp_path / "t.ckpt"
    begin_at_prompt(port, task, until=16, save_to=BOARD_TRAINED)
    time.sleep(1)
    pulled = run("pull", "-o", here, "--port", port)
    assert pulled.returncode == 0, pulled.stderr
    told = re.search(r"stopped it after step (\d+), which is saved .* --resume", pulled.stdout)
    assert told and int(told[1]) == split(here.read_bytes()).head[3] >= 16
    again = run("pull", "-o", here, "--port", port)
    assert "stopped" not in again.stdout
