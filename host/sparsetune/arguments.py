"""The arguments of every subcommand."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import (
    count,
    hold,
    natural,
    percent,
    png,
    positive,
    ram,
    rate,
    setting,
    share_of_outputs,
    size,
)
from .board_files import BOARD_DATA, BOARD_TRAINED
from .boardspec import board_names
from .cores import core_count
from .native import FLAVOURS
from .task import LOSSES
from .transfer import BOARD_IMAGE, FILE_IMAGE

Group = argparse._ArgumentGroup  # argparse has no public name for it


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
        "--every", type=count, default=10, metavar="N", help="a plain line every N steps (10)"
    )
    parser.add_argument("--log", type=Path, help="JSONL log (default: a new file in out/)")
    parser.add_argument("--plot", type=png, metavar="PNG", help="draw the loss curve at the end")


def _add_budget(parser: argparse.ArgumentParser) -> None:
    _add_layers(parser.add_argument_group("what learns"))
    _add_search(parser.add_argument_group("search for what learns"))
    _add_gradients(parser.add_argument_group("gradients and weights"))
    _add_state(parser.add_argument_group("what a weight keeps beside itself"))


def _add_layers(group: Group) -> None:
    group.add_argument("--last", type=count, help="train the last N layers that have weights")
    group.add_argument("--ratio", type=float, help="share of input channels a step trains (0.5)")
    group.add_argument(
        "--share",
        type=float,
        metavar="PERCENT",
        help="in place of --ratio, or beside --search: of all convolution weights, what a step "
        "trains at most",
    )
    group.add_argument(
        "--biases", type=count, metavar="N", help="train the biases of the last N layers too"
    )
    group.add_argument(
        "--scheme", metavar="NAME", help="train what others published, e.g. mbv2-99 (MCUNetV3)"
    )
    group.add_argument(
        "--no-store", action="store_true", help="keep no trained channels in flash (stock firmware)"
    )


def _add_search(group: Group) -> None:
    group.add_argument(
        "--search",
        nargs="?",
        const="gradients",
        choices=("gradients", "runs"),
        help="find the plan that gains most: by one pass of gradients (so do the limits below "
        "by themselves), or by short runs (minutes)",
    )
    group.add_argument(
        "--ram", type=ram, help="bytes of board RAM to use beside MicroPython's own, e.g. 120K"
    )
    group.add_argument(
        "--budget-analytic", type=size, metavar="SIZE", help="search: memory as MCUNetV3 counts it"
    )
    group.add_argument(
        "--time", type=positive, metavar="S", help="search: seconds of a step on one core, at most"
    )
    group.add_argument(
        "--flash-writes", type=size, metavar="SIZE", help="search: bytes of flash a step, at most"
    )


def _add_gradients(group: Group) -> None:
    group.add_argument("--loss", choices=LOSSES, help="what is learnt (by the model's end)")
    group.add_argument(
        "--smoothing", type=float, metavar="E", help="share of a label that all classes get (0)"
    )
    group.add_argument(
        "--tinyprop",
        metavar="LEAST:MOST:DAMPING",
        help="of an error tensor only the channels with the largest errors stay: their share, by "
        "how large a sample's errors are, times DAMPING for each layer from the output (off; "
        "0.5:1:1; 1:1:1 counts effort alone)",
    )
    group.add_argument(
        "--outputs",
        type=share_of_outputs,
        metavar="SHARE",
        help="of a convolution's output channels a step updates the weights of so much, those with "
        "its sample's largest errors (1; 0.2 costs little)",
    )
    group.add_argument(
        "--patch",
        type=count,
        metavar="R",
        help="gradients of convolutions over patches of R x R, where maps are large enough: less "
        "is kept for them (any R; 2, 4 and 7 are those that were measured; --kept loses less)",
    )
    group.add_argument(
        "--kept",
        type=float,
        metavar="PERCENT",
        help="codes of 2 bits of the activations that are kept, in as many layers as it takes to "
        "keep at most PERCENT of the bytes (30); below about 28 patches for the weights' gradients "
        "as well; beside --search as far as both go",
    )
    group.add_argument(
        "--no-qas",
        dest="qas",
        action="store_const",
        const=False,
        help="plain gradient descent on the stored integers, to compare with",
    )
    group.add_argument(
        "--error-bits", type=count, metavar="N", help="of error tensors, 4 to 16 (16)"
    )


def _add_state(group: Group) -> None:
    group.add_argument(
        "--residual",
        action=argparse.BooleanOptionalAction,
        help="8 more bits of each trained weight, a byte of RAM each, while it learns (where there "
        "is room)",
    )
    group.add_argument(
        "--velocity",
        action="store_const",
        const=True,
        help="make room for momentum and accumulation",
    )
    group.add_argument(
        "--scores",
        action="store_true",
        help="measure what --policy importance chooses by (tune: as the policy needs)",
    )


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="samples (.npz): the learning rate is measured")


def _add_plan_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, help="plan to use (default: make one)")


def _add_output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=Path, help=text)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_steps(parser.add_argument_group("a run"))
    _add_rule(parser.add_argument_group("its steps"))
    _add_visits(parser.add_argument_group("its samples"))


def _add_steps(group: Group) -> None:
    group.add_argument(
        "--steps", type=count, help="training steps (200; tune: through all samples at least once)"
    )
    group.add_argument("--seed", type=natural, help="seed of all that is random (1)")
    group.add_argument(
        "--save-every",
        type=natural,
        metavar="N",
        help="checkpoint every N steps (100; 0: at the end)",
    )
    group.add_argument(
        "--cores", type=int, choices=(1, 2), help="of an RP2040 that work; same result (2)"
    )
    group.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other argument of the board's train()",
    )


def _add_rule(group: Group) -> None:
    group.add_argument("--rate", type=rate, help="learning rate (default: what suits the model)")
    group.add_argument(
        "--schedule",
        help="of the learning rate: constant, linear, cosine, step: a tenth from half of the steps "
        "on, a hundredth from three quarters on (cosine)",
    )
    group.add_argument(
        "--policy",
        help="choice of channels: static, magnitude, cyclic, random, random-epoch, importance, or "
        "FILE.py:CLASS (cyclic)",
    )
    group.add_argument(
        "--hold",
        type=hold,
        metavar="N",
        help="steps for which a choice of channels stays, or: epoch (1; 8 where channels go to "
        "flash; random-epoch: epoch)",
    )
    group.add_argument(
        "--decay", type=rate, help="of weights, decoupled: w -= rate * decay * w, a step (0)"
    )
    group.add_argument(
        "--momentum", type=rate, metavar="M", help="share of a step that goes on, below 1 (0)"
    )
    group.add_argument(
        "--accumulate", type=count, metavar="N", help="samples that make a step together (1)"
    )
    group.add_argument(
        "--standardise", type=rate, metavar="STEPS",
        help="each filter's weights move by so many quantisation steps, root mean square (0: as "
        "the gradient says)",
    )  # fmt: skip


def _add_visits(group: Group) -> None:
    group.add_argument(
        "--skip",
        metavar="SHARE",
        help="end a step at its loss where the output's error is below this share of the largest "
        "of late, such as 0.5 (off)",
    )
    group.add_argument(
        "--effort",
        type=percent,
        metavar="PERCENT",
        help="go on behind the loss in so many of 100 steps alone, most often where the output's "
        "error is large, such as 25 (all; runs of 240 steps come within about five)",
    )
    group.add_argument(
        "--augment",
        metavar="HOW",
        help="change each sample a little: flip,shift=4,gain=20,offset=10,erase=16 (nothing)",
    )
    group.add_argument(
        "--cache",
        action="store_true",
        help="keep what the frozen layers make of each sample in a file: later epochs skip them",
    )
    group.add_argument(
        "--replay-share",
        type=float,
        metavar="SHARE",
        help="share of the steps that take an earlier sample, against forgetting (0; tune: 0.25)",
    )
    group.add_argument(
        "--keep",
        type=natural,
        metavar="N",
        help="leave N of the samples trained on for the --replay-share of later runs (0)",
    )


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help=".tflite file")


def quantize_arguments(parser: argparse.ArgumentParser) -> None:
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


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    _add_board(parser)
    parser.add_argument("model", type=Path, help=".tflite file")
    _add_budget(parser)
    _add_samples(parser)
    parser.add_argument(
        "--picture", type=png, metavar="PNG", help="draw the arena's buffers over time"
    )
    _add_output(parser, "write the plan here (JSON)")


def build_arguments(parser: argparse.ArgumentParser) -> None:
    _add_board(parser)
    parser.add_argument("model", type=Path, help=".tflite file")
    _add_budget(parser)
    _add_samples(parser)
    _add_plan_file(parser)
    _add_output(parser, "write the image here (MODEL.img)")


def head_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help=".tflite file")
    parser.add_argument("--classes", type=count, required=True, help="of the new head")
    parser.add_argument(
        "--append", action="store_true", help="behind the output, not in place of the last layer"
    )
    parser.add_argument("--data", type=Path, help="samples (.npz) to size the new weights by")
    parser.add_argument("--seed", type=natural, default=1, help="of the first weights (1)")
    parser.add_argument(
        "--residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether it will be trained with one: larger weights (yes)",
    )
    _add_output(parser, "the new .tflite file (MODEL_head.tflite)")


def export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the original .tflite file")
    parser.add_argument("trained", type=Path, help="trained weights, as pulled from the board")
    parser.add_argument("--image", type=Path, help="the image they trained on (MODEL.img)")
    _add_output(parser, "the trained .tflite file (MODEL_trained.tflite)")


def tune_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    _add_board(parser)
    parser.add_argument("model", type=Path, help=".tflite file")
    parser.add_argument("samples", type=Path, help="labelled samples (.npz)")
    parser.add_argument("--classes", type=count, help="replace the head by one of N classes first")
    _add_budget(parser)
    _add_plan_file(parser)
    parser.add_argument(
        "--replay", type=Path, metavar="NPZ", help="earlier samples, of which some are trained on"
    )
    parser.add_argument(
        "--replay-samples", type=count, default=200, metavar="N", help="how many of them (200)"
    )
    parser.add_argument("--twin", action="store_true", help="train on this computer instead")
    _add_output(parser, "the trained .tflite file (out/MODEL_trained.tflite)")
    _add_run(parser)
    _add_view(parser)


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    _add_board(parser)
    parser.add_argument("--model", type=Path, required=True, help=".tflite file")
    parser.add_argument("--data", type=Path, required=True, help="labelled samples (.npz)")
    parser.add_argument("--classes", type=count, help="replace the head by one of N classes first")
    parser.add_argument("--loss", choices=LOSSES, help="what is learnt (by the model's end)")
    _add_methods(parser.add_argument_group("what is compared"))
    _add_choices(parser.add_argument_group("runs, and how they are judged"))
    _add_float(parser.add_argument_group("PyTorch beside it"))
    _add_results(parser.add_argument_group("results, and what they take"))
    parser.set_defaults(method_parser=method_parser())


def _add_methods(group: Group) -> None:
    group.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="NAME, NAME:KEY=VALUE,... or MINE=NAME:...; NAME: head, bias, full, int8, residual, "
        "published, or a policy; KEY: an option of plan or train that says what learns and how, or "
        "a field of a plan (what a search finds: plan=FILE)",
    )
    group.add_argument("--methods-file", type=Path, help="more of them: [NAME] KEY = VALUE (TOML)")
    group.add_argument("--common", default="", metavar="KEY=VALUE,...", help="keys of all methods")
    group.add_argument("--baseline", default="", help="method to tell differences to (the first)")


def _add_choices(group: Group) -> None:
    group.add_argument("--seeds", type=count, default=3, help="runs of each method (3)")
    group.add_argument("--epochs", type=count, default=4, help="of the training samples (4)")
    group.add_argument(
        "--rates", default="auto", help="auto, or several to choose from: auto,x3,0.01 (auto)"
    )
    group.add_argument(
        "--search-epochs", type=count, default=1, help="of the runs that choose a rate (1)"
    )
    group.add_argument(
        "--select",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the training samples, at most 1,000, is held out to choose on (0.1)",
    )
    group.add_argument("--test-data", action="store_true", help="judge on the test samples")


def _add_float(group: Group) -> None:
    group.add_argument(
        "--float",
        nargs="+",
        default=[],
        metavar="KIND",
        help="last, all, same, or KIND:KEY=VALUE,...; KEY: of (a METHOD), batch, momentum, rate, "
        "augment (such as flip+shift=4)",
    )
    group.add_argument("--float-rates", default="0.003,0.01,0.03,0.1", help="to choose from")
    group.add_argument("--torch", default="", metavar="PYTHON", help="a Python that has torch")


def _add_results(group: Group) -> None:
    group.add_argument(
        "--folder", type=Path, default=Path("out/compare"), help="of the results (out/compare)"
    )
    group.add_argument("--runs", type=Path, help="finished runs (FOLDER/runs.jsonl)")
    group.add_argument("--cache", type=size, default=4 << 30, help="most bytes of cache (4096M)")
    group.add_argument("--plots", choices=("png", "svg"), default="png", help="of the plots (png)")
    group.add_argument("--jobs", type=count, default=core_count(), help="runs at a time (cores)")


def method_parser() -> argparse.ArgumentParser:
    """Of the options that methods are made of. What is wrong with one is an exception."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    _add_budget(parser)
    _add_plan_file(parser)
    _add_run(parser)
    return parser


def flash_arguments(parser: argparse.ArgumentParser) -> None:
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


def push_arguments(parser: argparse.ArgumentParser) -> None:
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


def train_arguments(parser: argparse.ArgumentParser) -> None:
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


def monitor_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument("log_file", type=Path, nargs="?", help="draw this log and end")
    _add_view(parser)


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument("image", type=Path, help="model image, as built")
    parser.add_argument("samples", type=Path, help="labelled samples (.npz)")
    parser.add_argument("--untrained", action="store_true", help="the model as it came")


def pull_arguments(parser: argparse.ArgumentParser) -> None:
    _add_port(parser)
    parser.add_argument(
        "remote", nargs="?", default=BOARD_TRAINED, help=f"file on the board ({BOARD_TRAINED})"
    )
    _add_output(parser, "local file (default: the same name, here)")
