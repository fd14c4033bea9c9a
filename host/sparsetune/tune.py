"""The whole chain in one go: plan, build, push, train, pull, export, and an honest comparison."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sparsetune_device.telemetry import parse

from .beside import (
    SHARE,
    CacheRoom,
    cache_room,
    check_cut,
    replay_bytes,
    replay_file,
    stored_bytes,
)
from .board import Board, PortLost, still_learnt
from .boardspec import load_spec
from .commands import choose_plan, describe_plan, read_model
from .data import Dataset, doubts, fit_dataset, lacks, leaks, load_npz, sample_file
from .errors import SparsetuneError, warn
from .files import read_file, write_output, write_whole
from .graph import Graph
from .head import FINE_ROOM, ROOM, HeadRequest, with_new_head
from .image import Image, parse_image, write_image
from .inputs import as_file_takes, as_graph_gives, input_of
from .install import board_of
from .judge import judge
from .litert import predict
from .monitor import Monitor, Options, duration, plot_loss
from .options import blaming_policy, run_options
from .room import beyond_files
from .search.asked import asks_for_search
from .target import OnBoard, OnTwin, Target
from .task import task_of
from .tune_files import Files, checked_files, what_is_left, write_trained
from .tune_result import Result
from .twin import Twin

CHECKED = 10  # samples on which the board's outputs are compared with LiteRT's
HELD_OUT = 0.2  # share of the samples when the file has no test set


def tune(args: argparse.Namespace) -> None:
    """`sparsetune tune`."""
    load_spec(args.board)
    asked = run_options(args)
    if args.twin and args.port:
        raise SparsetuneError("the twin is on no port: leave out --port, or --twin")
    if args.twin:
        result = run(args, asked, OnTwin(load_spec(args.board).store_bytes), "twin")
    else:
        for path in (args.model, args.samples):
            read_file(path)  # before a board that may be busy is asked what it is
        with Board.connect(args.port) as board:
            args.board = board_of(board, args.board)
            result = run(args, asked, OnBoard(board, args.policy), board.port)
    for line in result.lines(load_spec(args.board)):
        print(line)
    if isinstance(result.differing, SparsetuneError):
        raise SparsetuneError(
            f"board and LiteRT were not compared ({result.differing}): the trained model is there"
        ) from result.differing
    if result.differing:
        raise SparsetuneError(
            f"board and LiteRT differ in {result.differing} bytes of output: report this model"
        )


def run(args: argparse.Namespace, asked: dict[str, Any], target: Target, port: str) -> Result:
    """asked: keywords of the device's train(); what is not in there, samples and model decide."""
    files = checked_files(args)
    with tempfile.TemporaryDirectory(prefix="sparsetune-") as folder:
        graph = _graph(args, Path(folder))
        train, test = _datasets(args.samples, graph, args.seed or 0)
        task = task_of(graph)
        warn([*doubts(train, task), *leaks(train, test), *lacks(train, test, task)])
        options = {"steps": max(200, len(train)), **asked}
        image, earlier = _planned(args, options, graph, train)
        if files.head:  # not before: what is refused leaves no file
            args.model = _moved(args.model, files.head)
            print(f"new head of {args.classes} classes: {files.head}")
    before = judge(read_file(args.model), test, graph)
    print(f"before, on {len(test)} held-out samples: {before}", flush=True)
    print(f"image: {files.image}{write_image(files.image, image.data)}")
    target.push(image.data, sample_file(train, task), earlier)
    monitor, checkpoint = _watched(args, options, (target, port), files)
    trained = write_trained(args, files, image, checkpoint)
    target.fetched()
    curve = _drawn(monitor.log_path, args.plot or monitor.log_path.with_suffix(".png"))
    few = train.part(slice(CHECKED))
    where = ", on this computer (`plan` estimates the board's)" if args.twin else ""
    return Result(
        before,
        judge(trained, test, graph),
        len(test),
        monitor.run,
        f"{duration(monitor.run.seconds_a_step())} a step{where or monitor.run.on_cores}",
        len(few),
        _differing(target, trained, few, graph),
        files.output,
        monitor.log_path,
        curve,
    )


def _drawn(log: Path, png: Path) -> str:
    """The loss curve's file, or why there is none: what was learnt must be told all the same."""
    try:
        return str(png) if plot_loss(log, png) else "not drawn (pip install matplotlib)"
    except SparsetuneError as error:
        return f"not drawn ({error})"


def _graph(args: argparse.Namespace, folder: Path) -> Graph:
    """With the new head that --classes asks for, which args.model, now in `folder`, has from then
    on."""
    if args.classes:
        searches = asks_for_search(args)
        args.model = _new_head(args, folder)
        if not (args.plan or args.scheme or args.last or args.ratio or args.biases or searches):
            args.last = 1  # the old layers' rate would keep the new one from learning
            print("trains the new head alone; --last N trains more layers")
    return read_model(args)


def _planned(
    args: argparse.Namespace, options: dict[str, Any], graph: Graph, train: Dataset
) -> tuple[Image, bytes]:
    """The image, and the buffer of earlier samples. What the run's options leave open is filled
    in. Raises SparsetuneError for what does not go together, or has no room."""
    spec, task, old = load_spec(args.board), task_of(graph), _earlier_samples(args, graph)
    first = sample_file(train.part(slice(1)), task)

    def check(image: bytes) -> None:
        _check_run(args, options, image, first)
        if not args.twin:
            _check_files(args, options, parse_image(image), len(train))

    chosen = choose_plan(graph, args, spec, train, check)
    image = parse_image(chosen.layout.image)
    options.setdefault("rate", chosen.rate)
    check(image.data)
    for line in describe_plan(graph, chosen, spec, train):
        print(line)
    earlier = _earlier(args, old, image, options) if old else b""
    if "cache" in options and not args.twin:
        room = _cache_room(args, options, image, len(train))
        print(room)
        options["cache"] = room.samples
    return image, earlier


def _watched(
    args: argparse.Namespace, options: dict[str, Any], where: tuple[Target, str], files: Files
) -> tuple[Monitor, bytes]:
    """Trains, and returns the checkpoint. where: target and port."""
    target, port = where
    plain = True if args.plain else None
    view = Options(port, args.log, plain, args.every, options["steps"], cores=args.cores)
    try:
        with Monitor(view) as monitor, blaming_policy(args.policy):
            return monitor, target.train(options, monitor.feed)
    except KeyboardInterrupt:
        print(what_is_left(args, files, target.interrupted()))
        raise
    except PortLost as error:
        raise still_learnt(error) from error
    except OSError as error:
        left = what_is_left(args, files, target.interrupted())
        raise SparsetuneError(f"the run could not go on ({error.strerror}); {left}") from error


def _check_run(
    args: argparse.Namespace, options: dict[str, Any], image: bytes, samples: bytes
) -> None:
    """What a run would refuse behind its start, told before anything takes long or is written.
    Without a rate it is not known whether that suits the others. Raises SparsetuneError."""
    if args.cache:
        check_cut(parse_image(image))
    with Twin(image, samples) as twin, blaming_policy(args.policy):
        twin.check(options)


def _earlier_samples(args: argparse.Namespace, graph: Graph) -> Dataset | None:
    """Those of --replay. Raises SparsetuneError."""
    if args.replay is not None:
        earlier, _ = load_npz(args.replay)
        args.replay_samples = min(len(earlier), args.replay_samples)
        try:
            return fit_dataset(earlier, input_of(graph), task_of(graph))
        except SparsetuneError as error:
            raise SparsetuneError(f"--replay {args.replay}: {error}") from error
    if args.replay_share is not None and args.twin:
        raise SparsetuneError("the twin keeps nothing of earlier runs: name --replay NPZ")
    return None


def _earlier(
    args: argparse.Namespace, data: Dataset, image: Image, options: dict[str, Any]
) -> bytes:
    """The buffer of earlier samples that --replay asks for; options say which share they take."""
    options.setdefault("replay", round(100 * SHARE))
    buffer = replay_file(data, image, args.replay_samples, args.seed or 0)
    print(f"earlier samples: {args.replay_samples:,} of {len(data):,}, {len(buffer):,} bytes, in "
          f"{options['replay']} % of the steps")
    return buffer


def _check_files(
    args: argparse.Namespace, options: dict[str, Any], image: Image, samples: int
) -> None:
    """Raises SparsetuneError where the board's file system has no room for what a run needs."""
    each, others = image.input_bytes + image.task.target_bytes, _others(args, options, image)
    spec = load_spec(args.board)
    if beyond := beyond_files(spec, image.state_bytes, samples, each, sum(others)):
        raise SparsetuneError(f"{beyond}: give fewer, or smaller ones")
    if "cache" in options and not _cache_room(args, options, image, samples).samples:
        raise SparsetuneError(
            "the board's file system has no room for a cache beside the samples: give fewer "
            "samples, or leave out --cache"
        )


def _cache_room(
    args: argparse.Namespace, options: dict[str, Any], image: Image, samples: int
) -> CacheRoom:
    others = _others(args, options, image)
    return cache_room(load_spec(args.board), image, samples, *others)


def _others(args: argparse.Namespace, options: dict[str, Any], image: Image) -> tuple[int, int]:
    """Bytes of the files with earlier samples and with those that the run keeps, at most."""
    earlier = replay_bytes(image, args.replay_samples) if args.replay else 0
    return earlier, options.get("keep", 0) * stored_bytes(image)


def _new_head(args: argparse.Namespace, folder: Path) -> Path:
    train, _ = load_npz(args.samples)
    room = ROOM if args.residual is False else FINE_ROOM
    request = HeadRequest(args.classes, x=train.x, room=room)
    path: Path = folder / args.model.name
    write_whole(path, with_new_head(read_file(args.model), request))
    return path


def _moved(path: Path, to: Path) -> Path:
    write_output(to, read_file(path))
    return to


def _datasets(path: Path, graph: Graph, seed: int) -> tuple[Dataset, Dataset]:
    """Samples to train on and samples held out; the latter are never trained on."""
    train, test = load_npz(path)
    source, task = input_of(graph), task_of(graph)
    train = fit_dataset(train, source, task)
    if test is not None:
        return train, fit_dataset(test, source, task)
    order = np.random.default_rng(seed).permutation(len(train))
    cut = max(1, round(len(train) * HELD_OUT))
    if cut == len(train):
        raise SparsetuneError("one sample is not enough: give at least two")
    held, kept = order[:cut], order[cut:]
    return train.part(kept), train.part(held)


def _differing(target: Target, trained: bytes, few: Dataset, graph: Graph) -> int | SparsetuneError:
    """Differing bytes between the target's outputs and LiteRT's on the first training samples. An
    error is returned: what was learnt must be told all the same."""
    try:
        ours = _outputs(target, len(few))
    except SparsetuneError as error:
        return error
    outputs = as_graph_gives(graph, predict(trained, as_file_takes(graph, few.x)))
    want = (outputs.astype(np.int16) - graph.shift(graph.output)).astype(np.int8).tobytes()
    if len(ours) != len(want):
        return SparsetuneError(f"the board told {len(ours)} bytes of output, not {len(want)}")
    return sum(a != b for a, b in zip(ours, want, strict=True))


def _outputs(target: Target, count: int) -> bytes:
    """The target's int8 outputs for the first training samples, one after the other."""
    got: list[bytes] = []

    def on_line(line: str) -> None:
        event = parse(line)
        if event and event[0] == "output":
            got.append(bytes.fromhex(event[1]["hex"][1:]))

    target.outputs(count, on_line)
    return b"".join(got)
