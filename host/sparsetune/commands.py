"""The subcommands that work on models: inspect, plan, build, export."""

from __future__ import annotations

import argparse
from pathlib import Path

from .boardspec import BoardSpec, load_spec
from .compile import compile_image
from .export import export_tflite, parse_checkpoint
from .files import read_file, write_whole
from .graph import TRAINABLE, Graph, Operator, input_channels
from .image import Image, Layout, parse_image, read_image
from .lower import conv_geometry
from .memory import RamUse, check_fits, predict
from .plan import UpdatePlan, default_plan, load_plan, plan_within, save_plan
from .tflite import read_tflite

SAMPLES_ASSUMED = 1000  # where the number of samples is not known yet


def inspect(args: argparse.Namespace) -> None:
    """Prints the model's operators."""
    graph = read_tflite(args.model)
    for line in describe(graph):
        print(line)


def describe(graph: Graph) -> list[str]:
    """One line for each operator: shapes, multiply-accumulates, bytes of weights."""
    lines = [f"{'op':>3} {'kind':<18} {'output':<16} {'MACs':>10} {'weights':>8} {'in ch.':>6}"]
    total = 0
    for op in graph.operators:
        macs, weights, channels = _costs(graph, op)
        total += macs
        shape = "x".join(str(n) for n in graph.tensor(op.outputs[0]).shape)
        ends = f"{macs:>10,} {weights:>8,} {channels:>6}" if weights else ""
        lines.append(f"{op.index:>3} {op.kind:<18} {shape:<16} {ends}".rstrip())
    x = graph.tensor(graph.input)
    shape = "x".join(str(n) for n in x.shape)
    classes = graph.tensor(graph.logits).shape[-1]
    lines.append(f"input {shape} int8 (scale {x.scale:g}, zero point {x.zero_point}), ")
    lines[-1] += f"{classes} classes, {total:,} MACs"
    return lines


def _costs(graph: Graph, op: Operator) -> tuple[int, int, int]:
    """(multiply-accumulates, weights, input channels) of an operator; zeros where it has none."""
    if op.kind not in TRAINABLE:
        return 0, 0, 0
    weights = graph.tensor(op.inputs[1]).size
    return weights * conv_geometry(graph, op).out_positions, weights, input_channels(graph, op)


def plan(args: argparse.Namespace) -> None:
    """Chooses what to train; prints what it costs; writes the plan where asked."""
    graph = read_tflite(args.model)
    spec = load_spec(args.board)
    chosen, layout = choose_plan(graph, args, spec, SAMPLES_ASSUMED)
    image = parse_image(layout.image)
    use = predict(image, SAMPLES_ASSUMED, spec)
    for line in describe_plan(graph, chosen, layout, use, SAMPLES_ASSUMED):
        print(line)
    if args.output:
        write_whole(args.output, save_plan(chosen))
        print(f"plan: {args.output}")


def choose_plan(
    graph: Graph, args: argparse.Namespace, spec: BoardSpec, samples: int
) -> tuple[UpdatePlan, Layout]:
    """The plan that the arguments ask for, and its layout. Raises SparsetuneError when it does
    not fit the board, or --ram."""

    def fits(candidate: UpdatePlan) -> bool:
        return _use(graph, candidate, spec, samples).used <= (args.ram or spec.heap_bytes)

    if getattr(args, "plan", None):
        chosen = load_plan(args.plan)
    elif args.last is not None or args.ratio is not None:
        ratio = 0.5 if args.ratio is None else args.ratio
        chosen = default_plan(graph, args.last or 6, ratio)
    else:
        chosen = plan_within(graph, fits)
    layout = compile_image(graph, chosen)
    check_fits(predict(parse_image(layout.image), samples, spec), args.ram)
    return chosen, layout


def _use(graph: Graph, candidate: UpdatePlan, spec: BoardSpec, samples: int) -> RamUse:
    return predict(parse_image(compile_image(graph, candidate).image), samples, spec)


def describe_plan(
    graph: Graph, plan: UpdatePlan, layout: Layout, use: RamUse, samples: int
) -> list[str]:
    """What trains, and what it takes."""
    lines = []
    for layer in plan.layers:
        op = graph.operators[layer.operator]
        channels = input_channels(graph, op)
        bias = "and bias" if layer.bias else "no bias"
        lines.append(
            f"trains operator {op.index:>2} {op.kind:<18} "
            f"{layer.channels}/{channels} input channels a step, {bias}"
        )
    lines.append(
        f"RAM {use.used:,} of {use.heap:,} bytes: arena {use.arena:,} (no order of buffers can "
        f"need less than {layout.arena_lower_bound:,}), trained weights and state {use.state:,}, "
        f"order of {samples} samples {use.data:,}, program {use.package:,}; "
        f"flash {len(layout.image):,} bytes"
    )
    return lines


def build(args: argparse.Namespace) -> None:
    """Compiles model and plan into an image."""
    graph = read_tflite(args.model)
    _, layout = choose_plan(graph, args, load_spec(args.board), SAMPLES_ASSUMED)
    output = args.output or args.model.with_suffix(".img")
    write_whole(output, layout.image)
    print(f"{output}: {len(layout.image):,} bytes, arena {layout.arena_bytes:,} bytes")


def export(args: argparse.Namespace) -> None:
    """Puts trained weights back into the .tflite."""
    image = read_image(args.image or args.model.with_suffix(".img"))
    trained = read_file(args.trained)
    output = args.output or args.model.with_name(args.model.stem + "_trained.tflite")
    write_whole(output, export_bytes(args.model, image, trained))
    print(f"{output}: {parse_checkpoint(trained, image).steps} steps of training")


def export_bytes(model: Path, image: Image, checkpoint: bytes) -> bytes:
    return export_tflite(read_file(model), image, parse_checkpoint(checkpoint, image))


def tune(args: argparse.Namespace) -> None:
    """The whole chain; in a file of its own."""
    from .tune import tune as whole_chain

    whole_chain(args)
