"""Instructions a multiply-accumulate of every layer for Cortex-M4 (RP2350) and RISC-V (ESP32-C3):
emulated, no cycles.

    python bench/qemu_cores.py [--model blocks] [--all] [--arch armv7emsp] [--keep]

As bench/xtensa.py, whose words it uses, for what QEMU runs as programs of Linux; portable: the same
without SMLAD, compiled outside of the module. RISC-V has nothing but portable kernels.
"""

from __future__ import annotations

import argparse

from layers import PARTS, Row, wanted
from networks import NAMES, networks, tell_errors
from sparsetune.errors import SparsetuneError
from sparsetune_tools.qemu_bare import PROCESSORS, CountingQemuCore
from sparsetune_tools.shell import ToolError
from xtensa import add_keep_option, by_kind, counted, keep, lines_of


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="blocks")
    parser.add_argument("--all", action="store_true", help="both gradients, too")
    parser.add_argument("--arch", choices=PROCESSORS, action="append", help="several times")
    add_keep_option(parser)
    return parser.parse_args()


def rows_of(options: argparse.Namespace, arch: str, portable: bool) -> list[Row]:
    (network,) = networks((options.model,))
    parts = PARTS if options.all else PARTS[:1]
    with CountingQemuCore(arch, portable) as core:
        return list(counted(core, wanted(network, parts, samples=1)))


def main() -> None:
    options = parse()
    try:
        for arch in options.arch or PROCESSORS:
            print(f"instructions a multiply-accumulate, {arch}, QEMU (emulated): {options.model}")
            both = [rows_of(options, arch, portable) for portable in (False, True)]
            print(*lines_of(*both), "", *by_kind(*both), "", sep="\n")
            if options.keep:
                keep("qemu_cores", arch, *both)
    except ToolError as error:
        raise SparsetuneError(str(error)) from None


if __name__ == "__main__":
    tell_errors(main)
