"""Cycles and instructions a multiply-accumulate of every layer on the emulated Pico.

    python bench/layers.py [--model resnet8] [--forward] [--backward] [--all] [--firmware FILE]
    python bench/layers.py --model mine.tflite --forward

The whole operator counts, requantisation included; multiply-accumulates with padding do not count.
forward: weights in flash, as in inference; trained: as training runs it, weights in RAM.
dx, dw: input and weight gradient (the update included) with the gradients of a real sample, whose
zeros are skipped, per multiply-accumulate of the whole layer; "dense" stands for gradients without
a zero. The forward pass of a depthwise layer hangs on the sample's numbers (docs/DESIGN.md): it is
the mean of SAMPLES samples. A layer that has no room on the board is measured on the first rows of
its map, whose multiply-accumulates are told. --all: operators without weights, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from emulated import FIRMWARE, NOTHING, Case, Spent, measure
from four_layer_cnn import train_in_full
from machine import Machine
from networks import REPORTED, Network, add_model_option, networks, tell_errors
from one_operator import Replay, geometry_of
from sparsetune.geometry import Geometry, conv_geometry
from sparsetune.graph import TRAINABLE, Graph, Operator
from sparsetune.plan import UpdatePlan
from sparsetune.program import Code, Const, Op

FORWARD, TRAINED, DX, DW = "forward", "trained", "dx", "dw"
PARTS = (FORWARD, TRAINED, DX, f"{DX} dense", DW, f"{DW} dense")
INFERENCE = UpdatePlan((), strips=False)
SAMPLES = 4
MEAN = f"depthwise forward and trained: the mean of {SAMPLES} samples, as it hangs on their numbers"


@dataclass(frozen=True)
class Row:
    """One operator of the program, measured. part: one of PARTS, or the code's name where it has no
    weights. share: of the gradients that are not zero. spent: None where it has no room."""

    model: str
    layer: int
    kind: str
    shape: str
    part: str
    macs: int
    share: float
    spent: Spent | None

    @property
    def cycles_per_mac(self) -> float:
        return self.spent.cycles / self.macs if self.spent and self.macs else 0.0

    @property
    def instructions_per_mac(self) -> float:
        return self.spent.instructions / self.macs if self.spent and self.macs else 0.0


@dataclass(frozen=True)
class Wanted:
    """What is to be measured: a row without its figures, and the cases that it is the mean of."""

    row: Row
    cases: tuple[Case, ...]


def has_weights(op: Operator) -> bool:
    return op.kind in TRAINABLE


def kind_of(graph: Graph, op: Operator) -> str:
    """As the bars name them: pointwise, conv 3x3, depthwise 3x3, fully connected."""
    if op.kind == "FULLY_CONNECTED" or not has_weights(op):
        return op.kind.lower().replace("_", " ")
    high, wide = graph.tensor(op.inputs[1]).shape[1:3]
    if op.kind == "CONV_2D" and (high, wide) == (1, 1):
        return "pointwise"
    return f"{'depthwise' if op.kind.startswith('DEPTH') else 'conv'} {high}x{wide}"


def macs_of(graph: Graph, op: Operator) -> int:
    """Multiply-accumulates of a layer's forward pass, and of each of its gradients. Taps that lie
    in the padding are none."""
    if not has_weights(op):
        return 0
    g = conv_geometry(graph, op)
    return positions_of(g) * graph.tensor(op.inputs[1]).size // (g.kernel_h * g.kernel_w)


def positions_of(g: Geometry) -> int:
    """Pairs of an output and a tap whose input is no padding."""
    rows = _inside(g.in_h, g.out_h, g.stride_h, g.kernel_h, g.dilation_h, g.pad_h)
    columns = _inside(g.in_w, g.out_w, g.stride_w, g.kernel_w, g.dilation_w, g.pad_w)
    return rows * columns


def _inside(size: int, out: int, stride: int, kernel: int, dilation: int, pad: int) -> int:
    """Along one axis."""
    at = (o * stride + k * dilation - pad for o in range(out) for k in range(kernel))
    return sum(0 <= i < size for i in at)


def shape_of(graph: Graph, op: Operator) -> str:
    x, y = (graph.tensor(t).shape for t in (op.inputs[0], op.outputs[0]))
    return f"{'x'.join(map(str, x[1:]))} > {'x'.join(map(str, y[1:]))}"


def part_of(op: Op, forward: str) -> str:
    if op.code.name.endswith("UPDATE"):
        return DW
    return DX if op.code.name.endswith("GRAD_INPUT") else forward


def wanted(
    network: Network, parts: Iterable[str], others: bool = False, samples: int = SAMPLES
) -> Iterator[Wanted]:
    """others: operators without weights, too. samples: of depthwise layers."""
    parts = set(parts)
    network = replace(network, x=network.x[:samples])
    if FORWARD in parts:
        yield from _of_program(network, INFERENCE, {FORWARD}, others)
    if parts - {FORWARD}:
        plan = train_in_full(network.graph)
        yield from _of_program(network, plan, parts - {FORWARD}, others)


def _of_program(
    network: Network, plan: UpdatePlan, parts: set[str], others: bool
) -> Iterator[Wanted]:
    machine = Machine(network.graph, plan)
    replay = Replay(machine, network.x[:1])
    more = [Replay(Machine(network.graph, plan), x[None], (Code.DEPTHWISE_CONV2D,)).cases
            for x in network.x[1:]]  # fmt: skip
    for i, case in replay.cases.items():
        op = replay.ops[i]
        weighted = isinstance(op.words[0], Const) and has_weights(machine.graph.operator(op.source))
        part = part_of(op, TRAINED if plan.layers else FORWARD) if weighted else op.code.name
        row = _row(network, op, part, replay.shares[i])
        if part in parts or (others and not weighted):
            yield Wanted(row, (case, *(cases[i] for cases in more if i in cases)))
        if f"{part} dense" in parts and i in replay.dense:
            yield Wanted(_row(network, op, f"{part} dense", 1.0), (replay.dense[i],))


def _row(network: Network, op: Op, part: str, share: float) -> Row:
    graph = network.graph
    source = graph.operator(op.source)
    kind, shape = kind_of(graph, source), shape_of(graph, source)
    macs, g = macs_of(graph, source), geometry_of(op)
    if macs and g:  # the case may have fewer rows
        macs = macs * positions_of(g) // positions_of(conv_geometry(graph, source))
    return Row(network.name, source.index, kind, shape, part, macs, share, None)


def measured(wanted: list[Wanted], firmware: Path = FIRMWARE) -> list[Row]:
    """The rows with their figures."""
    cases = [case for w in wanted for case in w.cases if case.fits]
    spent = dict(zip(map(id, cases), measure(cases, firmware), strict=True))
    return [replace(w.row, spent=_mean([spent[id(c)] for c in w.cases if c.fits])) for w in wanted]


def _mean(of_cases: list[list[Spent]]) -> Spent | None:
    """Of the sums of each case's spans; None of none."""
    if not of_cases:
        return None
    whole = sum((sum(spans, NOTHING) for spans in of_cases), NOTHING)
    return Spent(whole.cycles // len(of_cases), whole.instructions // len(of_cases))


# Showing --------------------------------------------------------------------------------------


def table(rows: list[Row]) -> Iterator[str]:
    """One line a layer: cycles (instructions) a multiply-accumulate of every part."""
    parts = [part for part in PARTS if any(row.part == part for row in rows)]
    if any(row.kind.startswith("depthwise") for row in rows):
        yield MEAN
    yield f"{'layer':>5} {'kind':<16} {'shape':<26} {'MACs':>10} {'not 0':>6}" + "".join(
        f" {part:>14}" for part in parts
    )
    layers: dict[int, dict[str, Row]] = {}
    for row in rows:
        layers.setdefault(row.layer, {})[row.part] = row
    for layer in layers.values():
        known = {part: row for part, row in layer.items() if part in PARTS}
        if known:
            yield _line(known, parts)
    yield from (_other(row) for row in rows if row.part not in PARTS)


def _line(layer: dict[str, Row], parts: list[str]) -> str:
    row = next(iter(layer.values()))
    share = min(r.share for r in layer.values())
    head = f"{row.layer:>5} {row.kind:<16} {row.shape:<26} {row.macs:>10,} {share:>6.0%}"
    return head + "".join(f" {_cell(layer.get(part)):>14}" for part in parts)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.spent is None:
        return "no room"
    return f"{row.cycles_per_mac:.2f} ({row.instructions_per_mac:.2f})"


def _other(row: Row) -> str:
    spent = f"{row.spent.cycles:>10,} cycles" if row.spent else "no room"
    return f"{row.layer:>5} {row.kind:<16} {row.shape:<26} {spent}  {row.part}"


def by_kind(rows: list[Row]) -> Iterator[str]:
    """Of each kind of layer and part: the average over all multiply-accumulates, the median and
    the worst layer."""
    yield f"{'kind':<16} {'part':<9} {'layers':>6} {'average':>8} {'median':>8} {'worst':>8}"
    for (kind, part), group in groups_of(rows).items():
        average, middle, worst = summary(group)
        yield (
            f"{kind:<16} {part:<9} {len(group):>6} {average:>8.2f} {middle:>8.2f} "
            f"{worst.cycles_per_mac:>8.2f}  {worst.model} layer {worst.layer}, {worst.shape}"
        )


def groups_of(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """By kind and part, those that were measured."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.part in PARTS and row.spent:
            groups.setdefault((row.kind, row.part), []).append(row)
    return dict(sorted(groups.items()))


def summary(rows: list[Row]) -> tuple[float, float, Row]:
    """Cycles a multiply-accumulate: average over the work, median of the layers, worst layer."""
    total = sum(row.spent.cycles for row in rows if row.spent) / sum(row.macs for row in rows)
    worst = max(rows, key=lambda row: row.cycles_per_mac)
    return total, median(row.cycles_per_mac for row in rows), worst


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_option(parser)
    parser.add_argument("--forward", action="store_true", help="only the forward pass")
    parser.add_argument("--backward", action="store_true", help="only the gradients")
    parser.add_argument("--all", action="store_true", help="operators without weights, too")
    parser.add_argument("--firmware", type=Path, default=FIRMWARE)
    return parser.parse_args()


def main() -> None:
    options = parse()
    parts = PARTS[:1] if options.forward else PARTS[2:] if options.backward else PARTS
    rows: list[Row] = []
    print("emulated cycles (instructions) a multiply-accumulate; flash cache not modelled")
    for network in networks(options.model or REPORTED):
        found = measured(list(wanted(network, parts, options.all)), options.firmware)
        print(f"\n{network.title}", *table(found), sep="\n")
        rows += found
    print("\nall of these", *by_kind(rows), sep="\n")


if __name__ == "__main__":
    tell_errors(main)
