"""Instructions a multiply-accumulate of every layer on QEMU's Xtensa core: emulated, no cycles.

    python bench/xtensa.py [--model blocks] [--all] [--variant esp32s3]

As bench/layers.py, whose words it uses, for the core that stands for an ESP32-S3's; portable: the
same without the loops of xtensa_mac16.S. --all: both gradients, too. --variant esp32s3: kernels
compiled for that, MULUH and MULSH counted as one each, though QEMU's core runs others in their
place; qemu: compiled without them. QEMU counts half a million instructions a second: blocks takes a
minute, KWS five; with --all, three times as long.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from emulated import NOTHING, Case, Spent
from layers import PARTS, Row, Wanted, groups_of, wanted
from networks import NAMES, networks, tell_errors
from sparsetune.errors import SparsetuneError
from sparsetune_tools.bare import BareMachine
from sparsetune_tools.shell import ToolError
from sparsetune_tools.xtensa import VARIANTS
from sparsetune_tools.xtensa_bare import CountingCore, build


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
    return parser.parse_args()


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
