"""The command `sparsetune`.

Every subcommand is a function that takes the parsed arguments. What belongs to the board is
here; what belongs to models is in sparsetune.commands, imported when it is needed, because
reading TFLite takes a second that `sparsetune push` need not wait.

`sparsetune X` for an X that is not here runs the program `sparsetune-X`, as git does.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from sparsetune_device.telemetry import parse

from sparsetune import arguments
from sparsetune.board import Board, PortLost, still_learnt, usual_port
from sparsetune.board_files import (
    BOARD_DATA,
    BOARD_TEST,
    BOARD_TRAINED,
    CHECKPOINTS,
    check_trained,
    make_room,
)
from sparsetune.boardspec import load_spec
from sparsetune.data import Dataset, fit_dataset, leaks, load_npz, sample_file
from sparsetune.errors import SparsetuneError, warn
from sparsetune.files import check_outputs, read_file, write_output, write_whole
from sparsetune.flash import Job, flash
from sparsetune.image import Image, parse_image
from sparsetune.install import Coming, make_ready
from sparsetune.monitor import Monitor, Options, Run, default_log, plot_loss
from sparsetune.options import blaming_policy, run_options
from sparsetune.squared import SQUARED, squared_error
from sparsetune.transfer import (
    image_head,
    image_path,
    is_checked,
    mark_pulled,
    pull_checkpoint,
    push_data,
    push_image,
    push_policy,
    rescue,
    sample_bytes,
)

Command = Callable[[argparse.Namespace], None]
ALIKE = 0.75  # options with a slip in them are, as difflib measures it
MOST_IN_USAGE = 12  # options: of more the list below tells


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status and never raises."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        program = _other_program(args)
        if program:
            return _become(program, args[1:])
        namespace = build_parser().parse_args(args)
        check_outputs({k: v for k, v in vars(namespace).items() if isinstance(v, Path)})
        namespace.run(namespace)
        return 0
    except SystemExit as end:  # argparse has printed its message
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        print("sparsetune: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    """Print one line about `error`, or the traceback when SPARSETUNE_DEBUG is set."""
    if os.environ.get("SPARSETUNE_DEBUG"):
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.filename:  # a disk's fault, not ours
        text = f"cannot use {error.filename} ({error.strerror}): name another"
    elif not isinstance(error, SparsetuneError):
        text = (
            f"unexpected {type(error).__name__}: {text};"
            " set SPARSETUNE_DEBUG=1 for details and report them"
        )
    print(f"sparsetune: error: {text}", file=sys.stderr)
    for line in error.more if isinstance(error, SparsetuneError) else ():
        print(f"  {line}", file=sys.stderr)
    return 1


def _become(program: str, args: list[str]) -> int:
    """Run another program in our place, so that signals reach it."""
    if os.name == "nt":
        return subprocess.call([program, *args])
    os.execv(program, [program, *args])


def _other_program(args: list[str]) -> str | None:
    """Return the program `sparsetune-X` for `sparsetune X` with an X unknown here."""
    if not args or args[0].startswith("-") or args[0] in COMMANDS or "/" in args[0]:
        return None
    name = f"sparsetune-{args[0]}"
    beside = os.path.dirname(sys.executable)
    return shutil.which(name) or shutil.which(name, path=beside)


# Model commands ---------------------------------------------------------------------


def _model_command(name: str) -> Command:
    """Return a function that runs sparsetune.commands.NAME, imported only then."""

    def run(args: argparse.Namespace) -> None:
        getattr(importlib.import_module("sparsetune.commands"), name)(args)

    return run


# Board commands ---------------------------------------------------------------------


def run_flash(args: argparse.Namespace) -> None:
    """Put firmware on the board."""
    spec = load_spec(args.board)
    job = Job(
        firmware=args.firmware,
        spec=spec,
        port=args.port or usual_port(),
        drive=args.drive,
        keep_files=args.keep_files,
        dry_run=args.dry_run,
    )
    info = flash(job, print)
    if info is not None:
        kernels = "with" if info.has_kernels else "without"
        print(f"{info.machine}, MicroPython {info.micropython}, {kernels} sparsetune kernels")
        if not info.is_frozen:
            print("`tune`, `push` and `train` send them where they are missing")


def run_push(args: argparse.Namespace) -> None:
    """Copy model image and samples to the board."""
    files = [(Path(local), remote) for local, remote in args.file]
    if not files and args.image is None and args.data is None:
        raise SparsetuneError("nothing to push: name a model image, --data or --file")
    # Read everything first: a missing file must not be found out half-way.
    image = read_file(args.image) if args.image else None
    if image is not None:
        parse_image(image, str(args.image))  # a damaged image must not reach the board
    contents = [(read_file(local), remote) for local, remote in files]
    is_last = args.data is not None and image is None and is_checked(args.data)
    if args.data and not is_last:
        contents.append((sample_bytes(args.data, image or b""), BOARD_DATA))
    with Board.connect(args.port) as board:
        if is_last:
            contents.append((sample_bytes(args.data, image_head(board)), BOARD_DATA))
        sizes = {remote: len(data) for data, remote in contents}
        parsed = None if image is None else parse_image(image)
        make_ready(board, Coming(parsed, sizes, args.replace), args.kernels)
        if image is not None:
            push_image(board, image, args.replace, sizes)
        else:
            make_room(board, sizes)
        for data, remote in contents:
            push_data(board, remote, data)


def run_train(args: argparse.Namespace) -> None:
    """Train on the board and watch; what is named on the command line is pushed first."""
    if args.model is None:
        _train_what_is_there(args)
        return
    if args.resume or args.image or args.data != BOARD_DATA:
        raise SparsetuneError(
            f"--resume, --image and --data are of what the board holds: leave out {args.model}, or "
            "them"
        )
    if args.model.suffix == ".img":
        data = ["--data", str(args.samples)] if args.samples else []
        port = ["--port", args.port] if args.port else []
        run_push(build_parser().parse_args(["push", str(args.model), *data, *port]))
        _train_what_is_there(args)
        return
    if args.samples is None:
        raise SparsetuneError(f"name the samples (.npz) that {args.model} shall learn, too")
    whole = build_parser().parse_args(["tune", str(args.model), str(args.samples)])
    given = {name: value for name, value in vars(args).items() if name in whole and name != "run"}
    whole.run(argparse.Namespace(**{**vars(whole), **given}))


def _train_what_is_there(args: argparse.Namespace) -> None:
    keywords: dict[str, object] = {
        "image": args.image,
        "data": args.data,
        "save_to": BOARD_TRAINED,
        "resume": args.resume or None,
        "discard": True,  # of what rescue() fetches
        **run_options(args),
    }
    log = args.log or default_log()
    with Board.connect(args.port) as board:
        make_ready(board)
        keywords["image"] = args.image or image_path(board)
        push_policy(board, args.policy)
        rescue(board, CHECKPOINTS[1:] if args.resume else CHECKPOINTS)
        try:
            with blaming_policy(args.policy):
                train_on_board(board, keywords, _options(args, board.port, log, args.steps))
        except KeyboardInterrupt:
            print("what was learnt is on the board: `train --resume` goes on, `pull` fetches it")
            raise
        except PortLost as error:
            raise still_learnt(error) from error
        finally:
            if log.is_file():  # not where nothing was heard
                print(f"log: {log}")
    if args.plot:
        _plot(log, args.plot)


def train_on_board(board: Board, keywords: dict[str, object], options: Options) -> Run:
    """Run sparsetune_device.main.train(**keywords) on the board, watched and logged.

    Arguments that are None are left out. Returns what the board said. Raises
    SparsetuneError when the run fails.
    """
    arguments = ", ".join(f"{k}={v!r}" for k, v in keywords.items() if v is not None)
    code = f"from sparsetune_device.main import train\ntrain({arguments})"
    with Monitor(options) as monitor:
        board.stream(code, monitor.feed)
    if monitor.run.error:
        raise SparsetuneError(f"training stopped on the board: {monitor.run.error}")
    return monitor.run


def run_monitor(args: argparse.Namespace) -> None:
    """Watch a run that is already going."""
    if args.log_file:
        _plot(args.log_file, args.plot or args.log_file.with_suffix(".png"))
        return
    log = args.log or default_log(name="monitor")
    with Board.connect(args.port) as board:
        options = replace(_options(args, board.port, log), joined=True)
        try:
            with Monitor(options) as monitor:
                if monitor.is_plain:
                    print(f"waiting for a run on {board.port} (Ctrl-C ends)", flush=True)
                board.attach(monitor.feed, lambda: monitor.run.done)
        finally:
            print(f"log: {log}")
            if args.plot:
                _plot(log, args.plot)


def _options(args: argparse.Namespace, port: str, log: Path, steps: int | None = None) -> Options:
    return Options(
        port=port,
        log=log,
        plain=True if args.plain else None,
        every=args.every,
        total_steps=steps,
        cores=getattr(args, "cores", None),
    )


def _plot(log: Path, png: Path) -> None:
    if plot_loss(log, png):
        print(f"plot: {png}")
    else:
        print("plot: not drawn, matplotlib is not installed (pip install 'sparsetune[plot]')")


EVALUATED_BYTES = 48 * 1024  # of samples at a time, where the file system has room for them
FILE_BYTES = 12 * 1024  # that a file takes beside its samples: blocks, labels


def run_evaluate(args: argparse.Namespace) -> None:
    """Count the board's right answers on labelled samples."""
    image = parse_image(read_file(args.image), str(args.image))
    train, test = load_npz(args.samples)
    data = fit_dataset(train if test is None else test, image.input, image.task)
    if test is not None and not args.untrained:
        with suppress(SparsetuneError):  # of training samples nothing else is asked here
            warn(leaks(Dataset(image.input.stored(train.x), None), data))
    checkpoint = None if args.untrained else BOARD_TRAINED
    correct, loss = 0, 0.0
    with Board.connect(args.port) as board:
        make_ready(board, Coming(image))
        if checkpoint:
            check_trained(board, image)
        push_image(board, image.data)
        # In parts: the samples of training fill the file system.
        board.remove_file(BOARD_TEST)
        room = max(0, (board.identify().fs_free or 0) - FILE_BYTES)
        each = min(EVALUATED_BYTES, room) // max(1, data.x[0].size) or 1
        for begin in range(0, len(data), each):
            part = data.part(slice(begin, begin + each))
            push_data(board, BOARD_TEST, sample_file(part, image.task))
            found = evaluate_on_board(board, checkpoint, image, part)
            correct, loss = correct + found.correct, loss + found.loss * len(part)
        board.remove_file(BOARD_TEST)
    remark = ", training samples: the .npz has no x_test" if test is None else ""
    if image.task.counts_right:
        print(f"{correct} of {len(data)} right ({correct / len(data):.1%}){remark}")
    print(f"mean loss {loss / len(data):.4f} ({image.task.loss}) over {len(data)} samples{remark}")


@dataclass(frozen=True)
class Found:
    """loss: the mean over the samples, in real units."""

    correct: int
    loss: float


def evaluate_on_board(board: Board, checkpoint: str | None, image: Image, data: Dataset) -> Found:
    """What the board's model makes of the samples `data` in BOARD_TEST. The board's own squared
    error is against targets that were rounded and clipped to its int8: that is made here."""
    squared = image.task.loss in SQUARED
    found: list[dict[str, int]] = []
    outputs: list[bytes] = []

    def on_line(line: str) -> None:
        event = parse(line)
        if event and event[0] == "eval":
            found.append(event[1])
        if event and event[0] == "output":
            outputs.append(bytes.fromhex(event[1]["hex"][1:]))

    board.stream(
        "from sparsetune_device.main import evaluate\n"
        f"evaluate({image_path(board)!r}, {BOARD_TEST!r}, {checkpoint!r}, {squared})",
        on_line,
    )
    loss = found[0]["loss"] / 65536
    if squared:
        loss = squared_error(b"".join(outputs), data, image.task, image.input)
    return Found(found[0]["correct"], loss)


def run_pull(args: argparse.Namespace) -> None:
    """Fetch a file from the board."""
    with Board.connect(args.port) as board:
        if args.remote == BOARD_TRAINED and not board.has_file(BOARD_TRAINED):
            raise SparsetuneError("the board holds no checkpoint: train first (sparsetune train)")
        ours = args.remote in CHECKPOINTS
        data = pull_checkpoint(board, args.remote) if ours else board.read_file(args.remote)
        local = args.output or Path(args.remote.rsplit("/", 1)[-1])
        write = write_output if ours else write_whole
        write(local, data)
        if ours:
            mark_pulled(board, args.remote)
    print(f"{local}: {len(data):,} bytes")


# The parser -------------------------------------------------------------------------


class _Formatter(argparse.HelpFormatter):
    """Many options stand in their list alone, not in the usage as well."""

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action],
        groups: Iterable[Any], prefix: str | None = None,
    ) -> None:  # fmt: skip
        actions = list(actions)
        shown = [action for action in actions if action.required or not action.option_strings]
        if len(actions) - len(shown) > MOST_IN_USAGE:
            options = argparse.Action([], "options", metavar="[options]")
            actions, groups = [options, *shown], ()
        super().add_usage(usage, actions, groups, prefix)


class _Parser(argparse.ArgumentParser):
    """What is wrong with a command line is told in one line, as all else is."""

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(2, f"sparsetune: error: {text}: see `{self.prog} --help`\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Unknown words are told by the command that does not know them."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown[0])}")
        return known, unknown

    def _hint(self, word: str) -> str:
        name, known = word.partition("=")[0], list(self._option_string_actions)
        near = [option for option in known if name.startswith("--") and option.startswith(name)]
        near = near or get_close_matches(name, known, 1, ALIKE)
        return f" (did you mean {' or '.join(near)}?)" if near else ""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="sparsetune",
        description="Fine-tune an int8 .tflite model on a microcontroller board.",
        epilog="The chain: inspect, plan, build, flash, push, train, pull, export."
        " `tune` does it all; `emulate` serves an emulated Pico to try it on."
        " `sparsetune COMMAND --help` has an example of each.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (help_text, example, add_arguments, run) in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            epilog=f"example: sparsetune {example}",
            formatter_class=_Formatter,
            allow_abbrev=False,  # --budget is not --budget-analytic
        )
        add_arguments(sub)
        sub.set_defaults(run=run)
    return parser


# name: (help, example, arguments, function)
COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None], Command]] = {
    "inspect": (
        "show the layers of a model, and what training each would cost",
        "inspect model.tflite",
        arguments.inspect_arguments,
        _model_command("inspect"),
    ),
    "quantize": (
        "make an int8 model of a float one",
        "quantize model.tflite --samples calibration.npz -o model_int8.tflite",
        arguments.quantize_arguments,
        _model_command("quantize"),
    ),
    "plan": (
        "choose what to train within the memory of a board",
        "plan model.tflite --ram 120K --picture arena.png -o plan.json",
        arguments.plan_arguments,
        _model_command("plan"),
    ),
    "build": (
        "compile model and plan into an image for the board",
        "build model.tflite --plan plan.json --data samples.npz -o model.img",
        arguments.build_arguments,
        _model_command("build"),
    ),
    "compare": (
        "compare methods of training over seeds, on this computer",
        "compare --model model.tflite --data samples.npz --methods head int8 residual --test-data",
        arguments.compare_arguments,
        _model_command("compare"),
    ),
    "flash": (
        "put the firmware on a board",
        "flash firmware.bin --board esp32s3 --dry-run",
        arguments.flash_arguments,
        run_flash,
    ),
    "push": (
        "copy model image and samples to the board",
        "push model.img --data samples.npz",
        arguments.push_arguments,
        run_push,
    ),
    "train": (
        "train on the board and watch",
        "train model.tflite samples.npz --steps 200",
        arguments.train_arguments,
        run_train,
    ),
    "monitor": (
        "watch a run that is already going, or draw its log",
        "monitor --plain",
        arguments.monitor_arguments,
        run_monitor,
    ),
    "evaluate": (
        "count the board's right answers on the test samples of an .npz",
        "evaluate model.img samples.npz",
        arguments.evaluate_arguments,
        run_evaluate,
    ),
    "pull": (
        "fetch the trained weights",
        "pull -o trained.ckpt",
        arguments.pull_arguments,
        run_pull,
    ),
    "head": (
        "give a model a new head with other classes",
        "head model.tflite --classes 4 --data samples.npz -o mine.tflite",
        arguments.head_arguments,
        _model_command("head"),
    ),
    "export": (
        "put trained weights back into a .tflite file",
        "export model.tflite trained.ckpt -o trained.tflite",
        arguments.export_arguments,
        _model_command("export"),
    ),
    "tune": (
        "do it all: plan, build, push, train, pull, export",
        "tune model.tflite samples.npz -o trained.tflite",
        arguments.tune_arguments,
        _model_command("tune"),
    ),
}
