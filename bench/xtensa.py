"""Instructions a multiply-accumulate of every layer on QEMU's Xtensa core: emulated, no cycles.

    python bench/xtensa.py [--model blocks] [--all] [--variant esp32s3] [--keep]

As bench/layers.py, whose words it uses, for the core that stands for an ESP32-S3's; portable: the
same without the loops of xtensa_*.S. --all: both gradients, too. --keep: in bench/results/, as JSON
and as a table. --variant esp32s3: kernels
compiled for that, MULUH and MULSH counted as one each, though QEMU's core runs others in their
place; qemu: compiled without them. QEMU counts half a million instructions a second: blocks takes a
minute, KWS five; with --all, three times as long.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emulated import NOTHING, ROOT, Case, Spent
from layers import PARTS, Row, Wanted, groups_of, wanted
from networks import NAMES, networks, tell_errors
from sparsetune.errors import SparsetuneError
from sparsetune_tools.bare import BareMachine
from sparsetune_tools.shell import ToolError
from sparsetune_tools.xtensa import VARIANTS
from sparsetune_tools.xtensa_bare import CountingCore, build

RESULTS = ROOT / "bench" / "results"


def count(core: CountingCore, case: Case) -> Spent:
    """Of all its stretches; cycles are not known."""
    machine = BareMachine(core, case.image, [case.state, case.arena, b""])
    spans = (machine.run(*span, case.training).instructions for span in case.spans)
    return sum((Spent(0, spent) for spent in spans), NOTHING)


def counted(core: CountingCore, wanted: Iterable[Wanted]) -> Iterator[Row]:
    """Each row with the figures of its first sample."""
    for w in wanted:
        yield replace(w.row, spent=count(core, w.cases[0]))


def average(rows: Iterable[Row]) -> float:
    rows = list(rows)
    return sum(row.spent.instructions for row in rows if row.spent) / sum(row.macs for row in rows)


def keep(name: str, core: str, rows: Sequence[Row], portable: Sequence[Row]) -> None:
    """Into bench/results/NAME.json, and tables of all cores that are there into NAME.md."""
    path = RESULTS / f"{name}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[f"{rows[0].model}, {core}"] = [
        {"layer": row.layer, "kind": row.kind, "shape": row.shape, "part": row.part,
         "macs": row.macs, "instructions": row.spent.instructions if row.spent else None,
         "portable": other.spent.instructions if other.spent else None}
        for row, other in zip(rows, portable, strict=True)]
    path.write_text(json.dumps(kept, indent=1) + "\n")
    path.with_suffix(".md").write_text("\n".join(table_of(kept)) + "\n")


def table_of(kept: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Of all layers; portable: the same without assembly, and without SMLAD."""
    yield "Instructions a multiply-accumulate in QEMU: emulated, no cycles."
    for title, rows in kept.items():
        yield f"\n## {title}\n\n| layer | kind | shape | part | a MAC | portable |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            each = (f"{row[of] / row['macs']:.2f}" if row[of] else "no room"
                    for of in ("instructions", "portable"))
            yield (f"| {row['layer']} | {row['kind']} | {row['shape']} | {row['part']} | "
                   f"{' | '.join(each)} |")


def by_kind(rows: Sequence[Row], portable: Sequence[Row]) -> Iterator[str]:
    yield f"{'kind':<16} {'part':<9} {'layers':>6} {'average':>8} {'worst':>8} {'portable':>8}"
    others = groups_of(list(portable))
    for (kind, part), group in groups_of(list(rows)).items():
        worst = max(row.instructions_per_mac for row in group)
        yield (f"{kind:<16} {part:<9} {len(group):>6} {average(group):>8.2f} {worst:>8.2f} "
               f"{average(others[kind, part]):>8.2f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="blocks")
    parser.add_argument("--all", action="store_true", help="both gradients, too")
    parser.add_argument("--variant", choices=VARIANTS, default="esp32s3")
    add_keep_option(parser)
    return parser.parse_args()


def add_keep_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="in bench/results/")


def main() -> None:
    options = parse()
    parts = PARTS if options.all else PARTS[:1]
    print(f"instructions a multiply-accumulate on QEMU's Xtensa core (emulated), {options.variant}")
    try:
        for network in networks((options.model,)):
            everything = list(wanted(network, parts, samples=1))
            both = [counted_by(build(options.variant, portable), everything)
                    for portable in (False, True)]
            print(network.title, *lines_of(*both), "", *by_kind(*both), sep="\n")
            if options.keep:
                keep("xtensa", options.variant, *both)
    except ToolError as error:
        raise SparsetuneError(str(error)) from None


def counted_by(elf: Path, everything: Sequence[Wanted]) -> list[Row]:
    with CountingCore(elf) as core:
        return list(counted(core, everything))


def lines_of(rows: Sequence[Row], portable: Sequence[Row]) -> Iterator[str]:
    for row, other in zip(rows, portable, strict=True):
        yield (f"{row.layer:>5} {row.kind:<16} {row.shape:<26} {row.part:<9} {row.macs:>10,} MACs "
               f"{row.instructions_per_mac:>8.2f} portable {other.instructions_per_mac:>8.2f}")


if __name__ == "__main__":
    tell_errors(main)
