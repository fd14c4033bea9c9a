"""The networks that the benches measure, each with a sample."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from emulated import PICO  # and the path to tests
from four_layer_cnn import four_layer_cnn, train_in_full
from runs import DIGITS
from schemes import MBV2_99, published
from shared_tasks import CIFAR_MODEL, KWS_MODEL, shared_folder
from small_models import RELU, Array, Net
from sparsetune.commands import SAMPLES_ASSUMED
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.room import Room
from sparsetune.search.asked import plan_within
from sparsetune.tflite import parse_tflite, read_tflite
from sparsetune.ways_out import Wanted, does_not_fit

VWW_MODEL = "models/mlcommons/vww_96_int8.tflite"
MBV2_MODEL = "models/tiny_training/mobilenet_v2_w0.35_128_int8.tflite"
OF_SHARED = {"kws": KWS_MODEL, "resnet8": CIFAR_MODEL, "vww": VWW_MODEL, "mbv2": MBV2_MODEL}
OURS = ("cnn4", "digits", "blocks")
NAMES = (*OURS, *OF_SHARED)
REPORTED = ("cnn4", *OF_SHARED)  # those that figures are told of; the others are for the check
TITLES = {
    "cnn4": "four-layer CNN",
    "digits": "digits",
    "blocks": "blocks",
    "kws": "KWS",
    "resnet8": "ResNet-8",
    "vww": "VWW",
    "mbv2": "MobileNetV2-w0.35@128",
}


@dataclass(frozen=True)
class Network:
    """model: the .tflite. x: int8 samples [n, ...] as its input takes them."""

    name: str
    model: bytes
    x: Array

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name)

    @property
    def graph(self) -> Graph:
        return parse_tflite(self.model)


def networks(names: tuple[str, ...] = REPORTED) -> Iterator[Network]:
    """Those that are to be had here."""
    for name in names:
        found = network(name)
        if found:
            yield found
        else:
            print(f"SKIP: {TITLES[name]}: there is no ../shared")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """--model, which may be given more than once."""
    parser.add_argument(
        "--model",
        type=own_model,
        action="append",
        metavar="NAME_OR_TFLITE",
        help=f"{', '.join(NAMES)}, or a file of yours (on random samples)",
    )


def tell_errors(main: Callable[[], None]) -> None:
    """Runs a bench. What is wrong with a model is one line."""
    try:
        main()
    except SparsetuneError as error:
        sys.exit(f"error: {error}")


def own_model(text: str) -> str:
    """For argparse: one of NAMES, or the path of a .tflite that can be read."""
    if text not in NAMES:
        try:
            read_tflite(Path(text))
        except SparsetuneError as error:
            known = ", ".join(NAMES)
            raise argparse.ArgumentTypeError(f"{error} (or name one of {known})") from error
    return text


def network(name: str) -> Network | None:
    """One of NAMES, or a .tflite, which gets random samples; None where ../shared is needed and is
    not there."""
    if name not in NAMES:
        return _of_file(Path(name), Path(name).name)
    if name in ("cnn4", "blocks"):
        net = four_layer_cnn() if name == "cnn4" else blocks()
        return Network(name, net.to_bytes(), np.concatenate([net.sample() for _ in range(4)]))
    if name == "digits":
        return _of_file(DIGITS, name)
    shared = shared_folder()
    return _of_shared(shared, name) if shared else None


def blocks() -> Net:
    """The kinds of layers that MobileNets and ResNets are made of, in usual sizes."""
    relu = {"activation": RELU, "zero": -128}
    net = Net((1, 12, 12, 16), seed=2)
    net.conv(16, 3, **relu)
    net.conv(64, 1, **relu)
    net.depthwise(1, 3, **relu)
    net.conv(64, 1, **relu)
    net.depthwise(1, 3, stride=2, **relu)
    net.conv(24, 1)
    net.conv(32, 3, stride=2, **relu)
    net.flatten()
    net.dense(64, **relu)
    net.dense(10)
    net.softmax()
    return net


def _of_file(path: Path, name: str) -> Network:
    """With random samples."""
    graph = read_tflite(path)
    shape = graph.tensor(graph.input).shape[1:]
    x = np.random.default_rng(1).integers(-128, 128, (4, *shape), np.int8)
    return Network(name, path.read_bytes(), x)


def _of_shared(shared: Path, name: str) -> Network:
    path = shared / OF_SHARED[name]
    golden = f"litert_ref__{path.parent.name}__{path.stem}.npz"
    x = np.load(shared / "golden" / golden)["x"][:4]
    model = path.read_bytes()
    if name == "mbv2":
        model = with_new_head(model, HeadRequest(10, x=x))
    return Network(name, model, x)


def _scheme(graph: Graph) -> UpdatePlan:
    return published(graph, MBV2_99)


# What a whole step trains: as tests/runs.py and the bars have it.
PLANS: dict[str, Callable[[Graph], UpdatePlan]] = {
    "digits": lambda graph: default_plan(graph, 6),
    "kws": lambda graph: default_plan(graph, 6),
    "resnet8": lambda graph: default_plan(graph, 4),
    "vww": lambda graph: default_plan(graph, 6),
    "mbv2": _scheme,
}


def plan_of(network: Network) -> UpdatePlan:
    """What a step of this network trains here: PLANS, or all of it; of a file what fits a Pico."""
    if network.name not in NAMES:
        return plan_that_fits(network.graph)
    return PLANS.get(network.name, train_in_full)(network.graph)


def plan_that_fits(graph: Graph) -> UpdatePlan:
    """What `tune` trains where no channels take turns. Raises SparsetuneError where none fits."""
    room = Room(PICO, PICO.heap_bytes, SAMPLES_ASSUMED)
    plan = plan_within(graph, room)
    layout = room.compile(graph, plan)
    if not room.holds(layout):
        raise does_not_fit(Wanted(graph, plan, room), layout)
    return replace(plan, scratch=layout.program.has_scratch)
