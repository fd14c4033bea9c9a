"""The subcommands that work on models: inspect, plan, build, export; quantize, tune elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sparsetune_device.channels import POLICIES

from .boardspec import BoardSpec, load_spec
from .compile import build_program
from .data import Dataset, fit_dataset, load_npz
from .errors import SparsetuneError, warn
from .export import export_tflite, parse_checkpoint
from .files import JSON, check_outputs, read_file, refuse_other, write_output
from .geometry import macs
from .graph import TRAINABLE, Graph, input_channels
from .head import FINE_ROOM, ROOM, HeadRequest, with_new_head
from .image import Image, Layout, parse_image, read_image, refuse_no_image, write_image
from .inputs import input_of
from .memory import NOTHING, Beside, RamUse, predict
from .patch_doubts import patch_doubts
from .picture import draw
from .plan import (
    UpdatePlan,
    check_plan,
    check_store,
    default_plan,
    load_plan,
    save_plan,
    with_biases,
)
from .plan_text import describe_analytic, describe_layers, describe_memory, name_patches
from .room import Room, beyond_files, with_residual
from .rules import groups_of, may_skip, with_rules
from .schemes import load_scheme, scheme_plan
from .search.asked import asks_for_search, plan_within, refuse_beside, searched_plan
from .share import plan_of_share
from .task import task_of
from .tflite import read_tflite
from .trial import choose_rate
from .ways_out import Wanted, does_not_fit

SAMPLES_ASSUMED = 1000  # where the number of samples is not known yet
WHOLE = ("plan", "scheme")  # options that say all that trains
DEFAULT_LAST, DEFAULT_RATIO = 6, 0.5


def inspect(args: argparse.Namespace) -> None:
    """Prints the model's operators."""
    graph = read_tflite(args.model)
    for line in describe(graph):
        print(line)


def describe(graph: Graph) -> list[str]:
    """One line for each operator: shapes, multiply-accumulates, bytes of weights."""
    lines = [f"{'op':>3} {'kind':<18} {'output':<16} {'MACs':>10} {'weights':>8} {'in ch.':>6}"]
    total = 0
    for op, count in zip(graph.operators, macs(graph), strict=True):
        total += count
        shape = "x".join(str(n) for n in graph.tensor(op.outputs[0]).shape)
        ends = ""
        if op.kind in TRAINABLE:
            weights = graph.tensor(op.inputs[1]).size
            ends = f"{count:>10,} {weights:>8,} {input_channels(graph, op):>6}"
        lines.append(f"{op.index:>3} {op.kind:<18} {shape:<16} {ends}".rstrip())
    x = graph.tensor(graph.input)
    shape = "x".join(str(n) for n in x.shape)
    outputs, loss = graph.tensor(graph.logits).size, graph.loss_name
    file_takes = " (float32 in the file)" if graph.entry >= 0 else ""
    file_takes = " (uint8 in the file)" if graph.shift(graph.input) else file_takes
    steps = f"scale {x.scale:g}, zero point {x.zero_point}"
    lines.append(f"input {shape} int8{file_takes} ({steps}), ")
    lines[-1] += f"{outputs} {'classes' if loss == 'softmax' else 'outputs'}, "
    lines[-1] += f"loss {loss}, {total:,} MACs"
    return lines


def read_model(args: argparse.Namespace) -> Graph:
    """The model, with the loss of --loss, else of the plan file, else its own."""
    graph = read_tflite(args.model)
    planned = load_plan(args.plan).loss if getattr(args, "plan", None) else ""
    return replace(graph, loss=getattr(args, "loss", None) or planned)


def plan(args: argparse.Namespace) -> None:
    """Chooses what to train; prints what it costs; writes plan and picture where asked."""
    if args.output:
        refuse_other(args.output, JSON)  # before a search, and not behind it
    graph = read_model(args)
    spec = load_spec(args.board)
    data = _samples(args, graph)
    chosen = choose_plan(graph, args, spec, data)
    use = _use(chosen.layout, spec, data)
    for line in (
        *describe_layers(graph, chosen.plan, chosen.layout, spec),
        *describe_memory(graph, chosen.layout, use, _limit(args, spec), spec, _count(data)),
        describe_analytic(graph, chosen.plan),
        *_remarks(graph, chosen),
        _describe_rate(chosen, data),
    ):
        print(line)
    if data is None:
        print(
            f"assumed: {SAMPLES_ASSUMED:,} samples, each with some bytes of RAM for its place in "
            "the order and its label (--data counts yours)"
        )
    if args.picture:
        draw(chosen.layout, graph, args.picture)
        print(f"picture: {args.picture}")
    if args.output:
        measured = chosen.rate if data is not None else ""
        made_for = replace(chosen.plan, model=graph.digest.hex(), rate=measured)
        write_output(args.output, save_plan(made_for))
        print(f"plan: {args.output}")


@dataclass(frozen=True)
class Chosen:
    """A plan, the learning rate (decimal text) that suits it or was given, the image of both. ram:
    bytes of the heap that it may use."""

    plan: UpdatePlan
    rate: str
    layout: Layout
    ram: int
    rate_is_given: bool = False
    beside: Beside = NOTHING
    is_spelt: bool = False  # by --last and --ratio


def choose_plan(
    graph: Graph,
    args: argparse.Namespace,
    spec: BoardSpec,
    data: Dataset | None,
    check: Callable[[bytes], None] = lambda image: None,
) -> Chosen:
    """The plan that the arguments ask for. data: the samples, if they are known already. check: of
    the image, before a rate is measured for it. Raises SparsetuneError when it does not fit the
    board, or --ram."""
    store = 0 if getattr(args, "no_store", False) else spec.store_bytes
    each = 0 if data is None or getattr(args, "twin", False) else _stored(graph, data)
    room = Room(spec, _limit(args, spec), _count(data), store, beside_of(args), each)
    spelt = asked_for(graph, args)
    chosen = replace(spelt or _found(graph, args, room, data), loss=graph.loss)
    chosen = with_rules(graph, chosen, args, is_found=spelt is None)
    check_plan(graph, chosen)
    is_filled = not _decides_residual(args)
    chosen = with_residual(graph, chosen, room) if is_filled else chosen
    check_store(graph, chosen, store)
    model = read_file(args.model)
    given = getattr(args, "rate", None)
    rate = given or (chosen.rate if data is None else "")
    if not rate and data is None:
        rate = choose_rate(graph, chosen, model, None)
    layout = room.compile(graph, chosen, rate or "0")
    if not room.holds(layout):
        raise does_not_fit(Wanted(graph, chosen, room, is_filled, _whole(args)), layout)
    check(layout.image)
    warn([*_ram_doubts(args, spec), *patch_doubts(graph, chosen, args, room)])
    warn(_file_doubts(room, layout))
    if not rate:
        print("measuring a learning rate: short runs on this computer ...", flush=True)
        rate = choose_rate(graph, chosen, model, data, groups_of(args))
        layout = room.compile(graph, chosen, rate)
    is_spelt = bool(store and (args.last or args.ratio))
    return Chosen(chosen, rate, layout, room.ram, given is not None, room.beside, is_spelt)


def _stored(graph: Graph, data: Dataset) -> int:
    return int(data.x[0].size) + task_of(graph).target_bytes


def _whole(args: argparse.Namespace) -> str:
    """The option that asks for a whole plan, if one does."""
    return next((f"--{name}" for name in WHOLE if getattr(args, name, None)), "")


def _decides_residual(args: argparse.Namespace) -> bool:
    """Whether the options do: it takes time, too."""
    given = [getattr(args, name, None) for name in ("residual", "plan", "time")]
    return any(value is not None for value in given)


def _found(
    graph: Graph, args: argparse.Namespace, room: Room, data: Dataset | None
) -> UpdatePlan:
    """What a search finds: where it was asked for, or the usual plan does not fit."""
    whole = partial(with_rules, graph, args=args)
    base = whole(UpdatePlan((), loss=graph.loss))
    if asks_for_search(args):
        return searched_plan(graph, args, room, base, data)
    return plan_within(graph, room, base, whole, partial(whole, is_found=True))


def beside_of(args: argparse.Namespace) -> Beside:
    """What the run has beside its samples, as far as that is known before."""
    replay = getattr(args, "replay_share", None) or getattr(args, "replay", None)
    earlier = args.replay_samples if replay else 0
    late = isinstance(POLICIES.get(getattr(args, "policy", None) or ""), str)
    keep, augment = getattr(args, "keep", None) or 0, bool(getattr(args, "augment", None))
    skip, worth = may_skip(args), bool(getattr(args, "effort", None))
    decay = getattr(args, "decay", None) not in (None, "0")
    return Beside(getattr(args, "cache", False), earlier, keep, augment, skip, late, worth, decay)


def asked_for(graph: Graph, args: argparse.Namespace) -> UpdatePlan | None:
    """The plan that the options spell out, if they do."""
    named = {name: getattr(args, name) for name in ("last", "ratio", "biases", "share")}
    if asks_for_search(args):
        del named["share"]  # a limit then
    spelt = {name: value for name, value in named.items() if value is not None}
    whole = [name for name in WHOLE if getattr(args, name, None)]
    refuse_beside(args, [*whole, *sorted(spelt)])
    if getattr(args, "plan", None):
        if spelt:
            raise SparsetuneError(f"--plan says what trains: leave out --{min(spelt)}, or --plan")
        for name in ("scheme", "patch", "kept", "outputs"):
            if getattr(args, name, None):
                raise SparsetuneError(f"--plan says what trains: leave out --{name}, or --plan")
        return load_plan(args.plan)
    if getattr(args, "scheme", None):
        if spelt:
            raise SparsetuneError(
                f"--scheme says what trains: leave out --{min(spelt)}, or --scheme"
            )
        return scheme_plan(graph, load_scheme(args.scheme))
    _check_layers(len(graph.trainable), spelt)
    if spelt.keys() <= {"biases"}:
        return with_biases(graph, UpdatePlan(()), args.biases) if args.biases else None
    plan = _last_layers(graph, spelt, getattr(args, "outputs", None) or 1.0)
    return with_biases(graph, plan, args.biases) if args.biases else plan


def _last_layers(graph: Graph, spelt: dict[str, Any], outputs: float) -> UpdatePlan:
    """With the same ratio of channels each, or the ratio that comes to a share of all weights, of
    which a step updates so much of the output channels."""
    last, ratio = spelt.get("last", DEFAULT_LAST), spelt.get("ratio", DEFAULT_RATIO)
    if "share" not in spelt:
        return default_plan(graph, last, ratio)
    if "ratio" in spelt:
        raise SparsetuneError("--share says how many channels train: leave out --ratio")
    return plan_of_share(graph, last, spelt["share"], outputs)


def _check_layers(most: int, spelt: dict[str, Any]) -> None:
    """Raises SparsetuneError for more layers than the model has, and for biases that train
    anyway."""
    for name in ("last", "biases"):
        if spelt.get(name, 0) > most:
            raise SparsetuneError(
                f"--{name} {spelt[name]}: the model has {most} layers with weights, choose at "
                f"most {most}"
            )
    last = min(most, spelt.get("last", DEFAULT_LAST)) if spelt.keys() > {"biases"} else 0
    if 0 < spelt.get("biases", 0) <= last:
        raise SparsetuneError(
            f"--biases {spelt['biases']}: the last {last} layers train theirs anyway, name more"
        )


def _limit(args: argparse.Namespace, spec: BoardSpec) -> int:
    return spec.heap_bytes if args.ram is None else min(args.ram, spec.heap_bytes)


def _ram_doubts(args: argparse.Namespace, spec: BoardSpec) -> Iterator[str]:
    if args.ram is not None and args.ram > spec.heap_bytes:
        yield (
            f"--ram {args.ram:,}: {spec.name} has {spec.heap_bytes:,} bytes, which are taken for it"
        )


def _file_doubts(room: Room, layout: Layout) -> Iterator[str]:
    state = parse_image(layout.image).state_bytes
    if beyond := beyond_files(room.spec, state, room.samples, room.sample_bytes):
        yield f"{beyond}: `push` and `tune` refuse more, but for `tune --twin`"


def _use(
    layout: Layout, spec: BoardSpec, data: Dataset | None, beside: Beside = NOTHING
) -> RamUse:
    return predict(parse_image(layout.image), _count(data), spec, beside)


def _count(data: Dataset | None) -> int:
    return SAMPLES_ASSUMED if data is None else len(data)


def describe_plan(graph: Graph, chosen: Chosen, spec: BoardSpec, data: Dataset | None) -> list[str]:
    """What trains, what it takes, and at which rate, in few lines."""
    lines, use = [], _use(chosen.layout, spec, data, chosen.beside)
    for layer in chosen.plan.layers:
        op = graph.operator(layer.operator)
        channels = input_channels(graph, op)
        bias = "and bias" if layer.bias else "no bias"
        where = "in the image" if use.image else "in flash"
        bias += f", {where} but for {layer.slots} channels" if layer.slots else ""
        bias += f", {layer.reach} take turns" if layer.reach else ""
        bias += f", {name_patches(layer)}" if layer.patch > 1 else ""
        lines.append(
            f"trains operator {op.index:>2} {op.kind:<18} "
            f"{layer.channels}/{channels} input channels a step, {bias}"
        )
    there = chosen.ram + spec.slow_ram_bytes
    lines.append(
        f"RAM {use.used:,} of {there:,} bytes: arena {use.arena:,} (no order of buffers can "
        f"need less than {chosen.layout.arena_lower_bound:,}), trained weights and state "
        f"{use.state:,}, order of {_count(data)} samples {use.data:,}, program {use.package:,}; "
        f"{'image, in RAM too,' if use.image else 'flash'} {len(chosen.layout.image):,} bytes"
        + (f"; of the arena in slower RAM {use.cold:,} bytes" if use.cold else "")
    )
    return [*lines, *_remarks(graph, chosen), _describe_rate(chosen, data)]


def _remarks(graph: Graph, chosen: Chosen) -> list[str]:
    """What the plan does without: flash for weights, scratch for the faster kernels."""
    remarks = []
    if chosen.is_spelt:
        remarks.append(
            "all weights that train lie in RAM: --last and --ratio leave none in flash (--search "
            "may)"
        )
    if chosen.plan.residual:
        remarks.append(_residuals(chosen))
    if chosen.layout.program.has_scratch or not build_program(graph, chosen.plan).has_scratch:
        return remarks
    told = "no room for the faster kernels' scratch: with a little more RAM a step is faster"
    return [*remarks, told]


def _residuals(chosen: Chosen) -> str:
    has = [layer.residual is not None for layer in chosen.layout.program.layers if layer.weights]
    of = "each trained weight" if all(has) else f"trained weights of {sum(has)} layers"
    return f"{of}: 8 more bits, a byte of RAM, while it learns (--no-residual: none)"


def _describe_rate(chosen: Chosen, data: Dataset | None) -> str:
    if chosen.rate_is_given:
        return f"learning rate {chosen.rate} (yours)"
    if data is None and chosen.plan.rate:
        return f"learning rate {chosen.rate} (measured when the plan was made)"
    guess = "guessed, and small to be safe: give --data to have it measured"
    return f"learning rate {chosen.rate} ({'measured' if data is not None else guess})"


def build(args: argparse.Namespace) -> None:
    """Compiles model and plan into an image."""
    output = args.output or args.model.with_suffix(".img")
    check_outputs({"output": output, "model": args.model})
    refuse_no_image(output)
    graph = read_model(args)
    data = _samples(args, graph)
    chosen = choose_plan(graph, args, load_spec(args.board), data)
    replaced = write_image(output, chosen.layout.image)
    size, arena = len(chosen.layout.image), chosen.layout.arena_bytes
    print(f"{output}: {size:,} bytes, arena {arena:,} bytes{replaced}")
    print(_describe_rate(chosen, data))


def _samples(args: argparse.Namespace, graph: Graph) -> Dataset | None:
    """The training samples of --data, which the learning rate is measured on."""
    if args.data is None:
        return None
    train, _ = load_npz(args.data)
    return fit_dataset(train, input_of(graph), task_of(graph))


def head(args: argparse.Namespace) -> None:
    """Gives the model a new head."""
    output = args.output or args.model.with_name(args.model.stem + "_head.tflite")
    x = load_npz(args.data)[0].x if args.data else None
    room = ROOM if args.residual is False else FINE_ROOM
    request = HeadRequest(args.classes, args.append, args.seed, x, room)
    write_output(output, with_new_head(read_file(args.model), request))
    where = "behind the old output" if args.append else "in the place of the last layer"
    print(f"{output}: a new head of {args.classes} classes {where}")


def export(args: argparse.Namespace) -> None:
    """Puts trained weights back into the .tflite."""
    path = args.image or args.model.with_suffix(".img")
    if not path.is_file():
        raise SparsetuneError(f"{path} is missing: name the image it was trained on with --image")
    image = read_image(path)
    trained = read_file(args.trained)
    output = args.output or args.model.with_name(args.model.stem + "_trained.tflite")
    checkpoint = parse_checkpoint(trained, image, str(path))
    write_output(output, export_tflite(read_file(args.model), image, checkpoint))
    print(f"{output}: {checkpoint.steps} steps of training")


def export_bytes(model: Path, image: Image, checkpoint: bytes) -> bytes:
    return export_tflite(read_file(model), image, parse_checkpoint(checkpoint, image))


def tune(args: argparse.Namespace) -> None:
    """The whole chain; in a file of its own."""
    from .tune import tune as whole_chain

    whole_chain(args)


def quantize(args: argparse.Namespace) -> None:
    """Float to int8; in a file of its own."""
    from .quantize import quantize as make_int8

    make_int8(args)


def compare(args: argparse.Namespace) -> None:
    """Methods against each other; in a file of its own."""
    from .comparing import compare_methods

    compare_methods(args)
