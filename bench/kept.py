"""The emulated cycles that the project is held to: tests/test_emulated_cycles.py fails where one is
more than 3 % worse than kept in bench/results/kept_cycles.json, or better: then new ones are kept,
so that the next change for the worse is seen.

    python bench/kept.py             measures and compares
    python bench/kept.py --accept    keeps what was measured (make bench-accept)

Every layer's forward pass and gradients, and whole training steps, of one sample; of some networks
what the weights take where they have a residual, too. Gradients twice:
with error tensors that have no zero, whose work does not hang on the numbers, and with those of the
sample, whose zeros are skipped, of layers that meet some. What needs ../shared is compared where
that is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import astuple, replace
from typing import Any

from emulated import ROOT
from layers import DW, DX, FORWARD, TRAINED, Row, measured, wanted
from networks import Network, networks, plan_of
from ratios import with_share
from sparsetune.plan import UpdatePlan
from steps import measure_steps

PATH = ROOT / "bench" / "results" / "kept_cycles.json"
FINE = ("digits", "kws")  # with residuals, too
NAMES = ("cnn4", "digits", "blocks", "kws", "resnet8", "vww", "mbv2")
OF_SAMPLE = (DX, DW)
PARTS = (FORWARD, TRAINED, f"{DX} dense", f"{DW} dense", *OF_SAMPLE)
SPARSE = 0.9  # share of errors that are not zero; above, the dense figure says it all
TOLERANCE = 0.03
ACCEPT = "make bench-accept keeps the new figures, if they are meant"

Cycles = dict[str, list[int]]  # name -> cycles, instructions


def compiler() -> str:
    """The one that firmware is built with here."""
    command = ["arm-none-eabi-gcc", "--version"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0]
    except OSError:
        return "none"


def is_kept(row: Row) -> bool:
    return row.part not in OF_SAMPLE or row.share < SPARSE


def measure_network(network: Network) -> Cycles:
    found: Cycles = {}
    layers = [layer for layer in wanted(network, PARTS, samples=1) if is_kept(layer.row)]
    for row in measured(layers):
        if row.spent:
            found[f"layer {row.layer} {row.kind}, {row.part}"] = list(astuple(row.spent))
    others = other_plans(network)
    step, *rest = measure_steps(network, [plan_of(network), *others.values()])
    parts = {"inference": step.inference, "forward": step.forward}
    parts |= {"backward": step.backward, "weights": step.weights}
    parts |= {name: other.weights for name, other in zip(others, rest, strict=True)}
    return found | {f"step, {name}": list(astuple(spent)) for name, spent in parts.items()}


def other_plans(network: Network) -> dict[str, UpdatePlan]:
    """Of which what the weights take is kept."""
    if network.name == "mbv2":
        return {"weights of 1/8 of the channels": with_share(network.graph, 0.125)}
    fine = replace(plan_of(network), residual=True)
    return {"weights with a residual": fine} if network.name in FINE else {}


def read_kept() -> dict[str, Any]:
    """compiler, and cycles by network."""
    return dict(json.loads(PATH.read_text())) if PATH.exists() else {"compiler": "", "cycles": {}}


def complaints(kept: Cycles, found: Cycles) -> list[str]:
    """A line for each figure that is worse or better, new, or gone."""
    lines = [f"{name}: is not kept yet" for name in found if name not in kept]
    lines += [f"{name}: is kept, but was not measured" for name in kept if name not in found]
    for name, (cycles, _) in found.items():
        before = kept.get(name, [cycles])[0]
        if abs(cycles - before) > TOLERANCE * before:
            word = "worse" if cycles > before else "better"
            change = abs(cycles / before - 1)
            lines.append(f"{name}: {cycles:,} cycles, kept are {before:,}: {change:.1%} {word}")
    return lines


def accept(found: dict[str, Cycles]) -> None:
    """Keeps these; of networks that could not be measured here, what was kept."""
    cycles = {**read_kept()["cycles"], **found}
    lines = [f'"compiler": {json.dumps(compiler())}, "cycles": {{']
    for n, (network, figures) in enumerate(sorted(cycles.items())):
        rows = ",\n".join(f"  {json.dumps(name)}: {pair}" for name, pair in figures.items())
        lines.append(f" {json.dumps(network)}: {{\n{rows}}}{',' if n < len(cycles) - 1 else ''}")
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text("{" + "\n".join(lines) + "}}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accept", action="store_true")
    options = parser.parse_args()
    found = {network.name: measure_network(network) for network in networks(NAMES)}
    kept = read_kept()["cycles"]
    lines = [f"{network} {line}" for network, figures in found.items()
             for line in complaints(kept.get(network, {}), figures)]  # fmt: skip
    print(*lines or ["all is as it was kept"], sep="\n")
    if options.accept:
        accept(found)
    elif lines:
        sys.exit(f"error: {ACCEPT}")


if __name__ == "__main__":
    main()
