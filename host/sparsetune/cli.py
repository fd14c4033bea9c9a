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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from sparsetune_device.channels import EPOCH
from sparsetune_device.telemetry import parse

from sparsetune.board import Board, PortLost, still_learnt, usual_port
from sparsetune.board_files import (
    BOARD_DATA,
    BOARD_TEST,
    BOARD_TRAINED,
    CHECKPOINTS,
    check_trained,
    make_room,
)
from sparsetune.boardspec import board_names, load_spec
from sparsetune.cores import core_count
from sparsetune.data import Dataset, fit_dataset, leaks, load_npz, sample_file
from sparsetune.errors import SparsetuneError, warn
from sparsetune.files import check_outputs, read_file, write_output, write_whole
from sparsetune.flash import Job, flash
from sparsetune.image import Image, parse_image
from sparsetune.install import Coming, make_ready
from sparsetune.monitor import Monitor, Options, Run, default_log, plot_loss
from sparsetune.native import FLAVOURS
from sparsetune.options import blaming_policy, run_options
from sparsetune.squared import SQUARED, squared_error
from sparsetune.task import LOSSES
from sparsetune.transfer import (
    BOARD_IMAGE,
    FILE_IMAGE,
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


class _Parser(argparse.ArgumentParser):
    """What is wrong with a command line is told in one line, as all else is."""

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(2, f"sparsetune: error: {text}: see `{self.prog} --help`\n")


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
        )
        add_arguments(sub)
        sub.set_defaults(run=run)
    return parser


def _add_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        help="serial port (default: $SPARSETUNE_PORT, else the only board plugged in)",
    )


def _add_board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--board",
        default="pico",
        help=f"board: {', '.join(board_names())}, or a description of your own (.toml) (pico)",
    )


def _add_view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parser.add_argument(
        "--every", type=_count, default=10, metavar="N", help="a plain line every N steps (10)"
    )
    parser.add_argument("--log", type=Path, help="JSONL log (default: a new file in out/)")
    parser.add_argument("--plot", type=_png, metavar="PNG", help="draw the loss curve at the end")


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ram", type=_size, help="bytes of board RAM to use beside MicroPython's own, e.g. 120K"
    )
    parser.add_argument("--loss", choices=LOSSES, help="what is learnt (by the model's end)")
    parser.add_argument(
        "--smoothing", type=float, metavar="E", help="share of a label that all classes get (0)"
    )
    parser.add_argument("--last", type=_count, help="train the last N layers that have weights")
    parser.add_argument("--ratio", type=float, help="share of input channels a step trains (0.5)")
    parser.add_argument(
        "--share",
        type=float,
        metavar="PERCENT",
        help="in place of --ratio, or beside --search: of all convolution weights, what a step "
        "trains at most",
    )
    parser.add_argument(
        "--biases", type=_count, metavar="N", help="train the biases of the last N layers too"
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="measure what --policy importance chooses by (tune: as the policy needs)",
    )
    parser.add_argument(
        "--scheme", metavar="NAME", help="train what others published, e.g. mbv2-99 (MCUNetV3)"
    )
    parser.add_argument(
        "--residual",
        action=argparse.BooleanOptionalAction,
        help="8 more bits of each trained weight, a byte of RAM each, while it learns (where there "
        "is room)",
    )
    parser.add_argument(
        "--tinyprop",
        metavar="LEAST:MOST:DAMPING",
        help="of an error tensor only the channels with the largest errors stay: their share, by "
        "how large a sample's errors are, times DAMPING for each layer from the output (off; "
        "0.5:1:1; 1:1:1 counts effort alone)",
    )
    parser.add_argument(
        "--patch",
        type=_count,
        metavar="R",
        help="gradients of convolutions over patches of R x R, where maps are large enough: less "
        "is kept for them (any R; 2, 4 and 7 are those that were measured; --kept loses less)",
    )
    parser.add_argument(
        "--kept",
        type=float,
        metavar="PERCENT",
        help="codes of 2 bits of the activations that are kept, in as many layers as it takes to "
        "keep at most PERCENT of the bytes (30); below about 28 patches for the weights' gradients "
        "as well; beside --search as far as both go",
    )
    parser.add_argument(
        "--no-qas",
        dest="qas",
        action="store_const",
        const=False,
        help="plain gradient descent on the stored integers, to compare with",
    )
    parser.add_argument(
        "--error-bits", type=_count, metavar="N", help="of error tensors, 4 to 16 (16)"
    )
    parser.add_argument(
        "--velocity",
        action="store_const",
        const=True,
        help="make room for momentum and accumulation",
    )
    parser.add_argument(
        "--search",
        nargs="?",
        const="gradients",
        choices=("gradients", "runs"),
        help="find the plan that gains most: by one pass of gradients (so do the limits below "
        "by themselves), or by short runs (minutes)",
    )
    parser.add_argument(
        "--budget-analytic", type=_size, metavar="SIZE", help="search: memory as MCUNetV3 counts it"
    )
    parser.add_argument(
        "--time", type=_positive, metavar="S", help="search: seconds of a step on one core, at most"
    )
    parser.add_argument(
        "--flash-writes", type=_size, metavar="SIZE", help="search: bytes of flash a step, at most"
    )
    parser.add_argument(
        "--no-store", action="store_true", help="keep no trained channels in flash (stock firmware)"
    )


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="samples (.npz): the learning rate is measured")


def _add_plan_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, help="plan to use (default: make one)")


def _add_output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=Path, help=text)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps", type=_count, help="training steps (200; tune: through all samples at least once)"
    )
    parser.add_argument("--seed", type=_natural, help="seed of all that is random (1)")
    parser.add_argument("--rate", type=_rate, help="learning rate (default: what suits the model)")
    parser.add_argument(
        "--policy",
        help="choice of channels: static, magnitude, cyclic, random, random-epoch, importance, or "
        "FILE.py:CLASS (cyclic)",
    )
    parser.add_argument(
        "--hold",
        type=_hold,
        metavar="N",
        help="steps for which a choice of channels stays, or: epoch (1; 8 where channels go to "
        "flash; random-epoch: epoch)",
    )
    parser.add_argument(
        "--schedule",
        help="of the learning rate: constant, linear, cosine, step: a tenth from half of the steps "
        "on, a hundredth from three quarters on (cosine)",
    )
    parser.add_argument(
        "--skip",
        metavar="SHARE",
        help="end a step at its loss where the output's error is below this share of the largest "
        "of late, such as 0.5 (off)",
    )
    parser.add_argument(
        "--effort",
        type=_percent,
        metavar="PERCENT",
        help="go on behind the loss in so many of 100 steps alone, most often where the output's "
        "error is large, such as 25 (all; runs of 240 steps come within about five)",
    )
    parser.add_argument(
        "--augment",
        metavar="HOW",
        help="change each sample a little: flip,shift=4,gain=20,offset=10,erase=16 (nothing)",
    )
    parser.add_argument(
        "--decay", type=_rate, help="of weights, decoupled: w -= rate * decay * w, a step (0)"
    )
    parser.add_argument(
        "--momentum", type=_rate, metavar="M", help="share of a step that goes on, below 1 (0)"
    )
    parser.add_argument(
        "--accumulate", type=_count, metavar="N", help="samples that make a step together (1)"
    )
    parser.add_argument(
        "--standardise", type=_rate, metavar="STEPS",
        help="each filter's weights move by so many quantisation steps, root mean square (0: as "
        "the gradient says)",
    )  # fmt: skip
    parser.add_argument(
        "--save-every",
        type=_natural,
        metavar="N",
        help="checkpoint every N steps (100; 0: at the end)",
    )
    parser.add_argument(
        "--cores", type=int, choices=(1, 2), help="of an RP2040 that work; same result (2)"
    )
    parser.add_argument(
        "--cache",
        action="store_true",
        help="keep what the frozen layers make of each sample in a file: later epochs skip them",
    )
    parser.add_argument(
        "--replay-share",
        type=float,
        metavar="SHARE",
        help="share of the steps that take an earlier sample, against forgetting (0; tune: 0.25)",
    )
    parser.add_argument(
        "--keep",
        type=_natural,
        metavar="N",
        help="leave N of the samples trained on for the --replay-share of later runs (0)",
    )
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other argument of the board's train()",
    )


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help=".tflite file")


def _quantize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="float32 .tflite file")
    parser.add_argument(
        "--samples", type=Path, required=True, help=".npz: x as the float model takes it, and y"
    )
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="what the lowest and highest integer stand for, where x is uint8 or int8",
    )
    parser.add_argument(
        "--data-out", type=Path, help="write the samples as the int8 model takes them (.npz)"
    )
    _add_output(parser, "the int8 .tflite file (MODEL_int8.tflite)")


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _add_board(parser)
    parser.add_argument("model", type=Path, help=".tflite file")
    _add_budget(parser)
    _add_samples(parser)
    parser.add_argument(
        "--picture", type=_png, metavar="PNG", help="draw the arena's buffers over time"
    )
    _add_output(parser, "write the plan here (JSON)")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _add_board(parser)
    parser.add_argument("model", type=Path, help=".tflite file")
    _add_budget(parser)
    _add_samples(parser)
    _add_plan_file(parser)
    _add_output(parser, "write the image here (MODEL.img)")


def _head_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help=".tflite file")
    parser.add_argument("--classes", type=_count, required=True, help="of the new head")
    parser.add_argument(
        "--append", action="store_true", help="behind the output, not in place of the last layer"
    )
    parser.add_argument("--data", type=Path, help="samples (.npz) to size the new weights by")
    parser.add_argument("--seed", type=_natural, default=1, help="of the first weights (1)")
    parser.add_argument(
        "--residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether it will be trained with one: larger weights (yes)",
    )
    _add_output(parser, "the new .tflite file (MODEL_head.tflite)")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the original .tflite file")
    parser.add_argument("trained", type=Path, help="trained weights, as pulled from the board")
    parser.add_argument("--image", type=Path, help="the image they trained on (MODEL.img)")
    _add_output(parser, "the trained .tflite file")


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    _add_board(parser)
    parser.add_argument("model", type=Path, help=".tflite file")
    parser.add_argument("samples", type=Path, help="labelled samples (.npz)")
    parser.add_argument("--classes", type=_count, help="replace the head by one of N classes first")
    _add_budget(parser)
    _add_plan_file(parser)
    parser.add_argument(
        "--replay", type=Path, metavar="NPZ", help="earlier samples, of which some are trained on"
    )
    parser.add_argument(
        "--replay-samples", type=_count, default=200, metavar="N", help="how many of them (200)"
    )
    parser.add_argument("--twin", action="store_true", help="train on this computer instead")
    _add_output(parser, "the trained .tflite file")
    _add_run(parser)
    _add_view(parser)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    _add_board(parser)
    parser.add_argument("--model", type=Path, required=True, help=".tflite file")
    parser.add_argument("--data", type=Path, required=True, help="labelled samples (.npz)")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="NAME, NAME:KEY=VALUE,... or MINE=NAME:...; NAME: head, bias, full, int8, residual, "
        "published, or a policy; KEY: an option of plan or train that says what learns and how, or "
        "a field of a plan (what a search finds: plan=FILE)",
    )
    parser.add_argument("--methods-file", type=Path, help="more of them: [NAME] KEY = VALUE (TOML)")
    parser.add_argument("--common", default="", metavar="KEY=VALUE,...", help="keys of all methods")
    parser.add_argument("--classes", type=_count, help="replace the head by one of N classes first")
    parser.add_argument("--loss", choices=LOSSES, help="what is learnt (by the model's end)")
    parser.add_argument("--seeds", type=_count, default=3, help="runs of each method (3)")
    parser.add_argument("--epochs", type=_count, default=4, help="of the training samples (4)")
    parser.add_argument(
        "--rates", default="auto", help="auto, or several to choose from: auto,x3,0.01 (auto)"
    )
    parser.add_argument(
        "--select", type=float, default=0.1, metavar="SHARE",
        help="of the training samples, at most 1,000, is held out to choose on (0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--search-epochs", type=_count, default=1, help="of the runs that choose a rate (1)"
    )
    parser.add_argument("--test-data", action="store_true", help="judge on the test samples")
    parser.add_argument("--baseline", default="", help="method to tell differences to (the first)")
    parser.add_argument(
        "--float", nargs="+", default=[], metavar="KIND",
        help="PyTorch beside it: last, all, same; KIND:of=METHOD,batch=64,momentum=0,rate=0.01,"
        "augment=flip+shift=4",
    )  # fmt: skip
    parser.add_argument("--float-rates", default="0.003,0.01,0.03,0.1", help="to choose from")
    parser.add_argument("--torch", default="", metavar="PYTHON", help="a Python that has torch")
    parser.add_argument(
        "--folder", type=Path, default=Path("out/compare"), help="of the results (out/compare)"
    )
    parser.add_argument("--runs", type=Path, help="finished runs (FOLDER/runs.jsonl)")
    parser.add_argument("--cache", type=_size, default=4 << 30, help="most bytes of cache (4096M)")
    parser.add_argument("--plots", choices=("png", "svg"), default="png", help="of the plots (png)")
    parser.add_argument("--jobs", type=_count, default=core_count(), help="runs at a time (cores)")
    parser.set_defaults(method_parser=_method_parser())


def _method_parser() -> argparse.ArgumentParser:
    """Of the options that methods are made of. What is wrong with one is an exception."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    _add_budget(parser)
    _add_plan_file(parser)
    _add_run(parser)
    return parser


def _flash_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    _add_board(parser)
    parser.add_argument(
        "firmware", type=Path, nargs="?", help=".uf2 or .bin, MicroPython's own or ours (as built)"
    )
    parser.add_argument("--drive", type=Path, help="RP2040, RP2350: the boot loader's drive")
    parser.add_argument(
        "--keep-files",
        action="store_true",
        help="ESP32: erase only where the firmware goes (RP2040 and RP2350 keep files anyway)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument("image", type=Path, nargs="?", help=f"model image, to {BOARD_IMAGE}")
    parser.add_argument(
        "--data", type=Path, help=f".npz with labelled samples (or a sample file), to {BOARD_DATA}"
    )
    parser.add_argument(
        "--file",
        nargs=2,
        action="append",
        default=[],
        metavar=("LOCAL", "REMOTE"),
        help="any other file",
    )
    parser.add_argument("--replace", action="store_true", help="overwrite other files in /rom")
    parser.add_argument(
        "--kernels", choices=FLAVOURS, help="stock firmware: which module (the fastest that fits)"
    )


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    _add_board(parser)
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        help="push this first: .img as built, or .tflite, for all that `tune` does with its usual "
        "plan (without: what the board holds)",
    )
    parser.add_argument("samples", type=Path, nargs="?", help="to learn it from (.npz)")
    parser.add_argument("--image", help=f"on the board ({BOARD_IMAGE}, or {FILE_IMAGE})")
    parser.add_argument("--data", default=BOARD_DATA, help=f"on the board ({BOARD_DATA})")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    _add_output(parser, "of a .tflite: the trained one (out/MODEL_trained.tflite)")
    _add_run(parser)
    _add_view(parser)


def _monitor_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument("log_file", type=Path, nargs="?", help="draw this log and end")
    _add_view(parser)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument("image", type=Path, help="model image, as built")
    parser.add_argument("samples", type=Path, help="labelled samples (.npz)")
    parser.add_argument("--untrained", action="store_true", help="the model as it came")


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument(
        "remote", nargs="?", default=BOARD_TRAINED, help=f"file on the board ({BOARD_TRAINED})"
    )
    _add_output(parser, "local file (default: the same name, here)")


def _natural(text: str, smallest: int = 0) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number, give one from {smallest} on"
        ) from None
    if value < smallest:
        raise argparse.ArgumentTypeError(f"{text!r} is too small, give {smallest} or more")
    return value


def _count(text: str) -> int:
    return _natural(text, 1)


def _hold(text: str) -> int | str:
    if text == EPOCH or text.isdecimal():
        return text if text == EPOCH else _count(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of steps (try 8), nor: {EPOCH}")


def _percent(text: str) -> int:
    """Of what is above 99 the device's own reader says the same."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 1 to 99 (try 25)")
    return int(text)


def _rate(text: str) -> str:
    """A rate in scientific notation as the decimal text that the device reads; others as they
    are, which the device's own reader judges."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return text
    is_meant = value.is_finite() and "e" in text.lower() and -9 <= value.adjusted() <= 4
    return f"{value:f}" if is_meant else text


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 (try 0.5)")
    return value


def _png(text: str) -> Path:
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} is drawn as PNG: call it {text}.png")
    return Path(text)


def _size(text: str) -> int:
    """Read a number of bytes: 120000, 120K."""
    units = {"K": 1024, "M": 1024 * 1024}
    unit = units.get(text[-1:].upper(), 1)
    try:
        value = int(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes (try 120K)")
    return value


def _setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a VALUE that is an integer becomes one."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE (try warmup=20)")
    try:
        return name, int(value)
    except ValueError:
        return name, value


# name: (help, example, arguments, function)
COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None], Command]] = {
    "inspect": (
        "show the layers of a model, and what training each would cost",
        "inspect model.tflite",
        _inspect_arguments,
        _model_command("inspect"),
    ),
    "quantize": (
        "make an int8 model of a float one",
        "quantize model.tflite --samples calibration.npz -o model_int8.tflite",
        _quantize_arguments,
        _model_command("quantize"),
    ),
    "plan": (
        "choose what to train within the memory of a board",
        "plan model.tflite --ram 120K --picture arena.png -o plan.json",
        _plan_arguments,
        _model_command("plan"),
    ),
    "build": (
        "compile model and plan into an image for the board",
        "build model.tflite --plan plan.json --data samples.npz -o model.img",
        _build_arguments,
        _model_command("build"),
    ),
    "compare": (
        "compare methods of training over seeds, on this computer",
        "compare --model model.tflite --data samples.npz --methods head int8 residual --test-data",
        _compare_arguments,
        _model_command("compare"),
    ),
    "flash": (
        "put the firmware on a board",
        "flash firmware.bin --board esp32s3 --dry-run",
        _flash_arguments,
        run_flash,
    ),
    "push": (
        "copy model image and samples to the board",
        "push model.img --data samples.npz",
        _push_arguments,
        run_push,
    ),
    "train": (
        "train on the board and watch",
        "train model.tflite samples.npz --steps 200",
        _train_arguments,
        run_train,
    ),
    "monitor": (
        "watch a run that is already going, or draw its log",
        "monitor --plain",
        _monitor_arguments,
        run_monitor,
    ),
    "evaluate": (
        "count the board's right answers on the test samples of an .npz",
        "evaluate model.img samples.npz",
        _evaluate_arguments,
        run_evaluate,
    ),
    "pull": ("fetch the trained weights", "pull -o trained.ckpt", _pull_arguments, run_pull),
    "head": (
        "give a model a new head with other classes",
        "head model.tflite --classes 4 --data samples.npz -o mine.tflite",
        _head_arguments,
        _model_command("head"),
    ),
    "export": (
        "put trained weights back into a .tflite file",
        "export model.tflite trained.ckpt -o trained.tflite",
        _export_arguments,
        _model_command("export"),
    ),
    "tune": (
        "do it all: plan, build, push, train, pull, export",
        "tune model.tflite samples.npz -o trained.tflite",
        _tune_arguments,
        _model_command("tune"),
    ),
}

if __name__ == "__main__":
    sys.exit(main())
