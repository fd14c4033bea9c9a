"""All figures of speed and size in one run (`make bench`): prints them, and keeps them with the
versions of everything in bench/results, as JSON and in speed.md.

    python bench/speed.py [--torch PYTHON] [--only steps,promised]

With --only, the other parts stay as they were kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import bars
import cores
import host_speed
import kept
import layers
import natmod_memory
import promised
import push
import ratios
import sizes
import steps
from emulated import FIRMWARE, HERTZ, ROOT
from networks import networks
from sparsetune_tools.sources import PACKAGES

RESULTS = ROOT / "bench" / "results"
MARKDOWN = RESULTS / "speed.md"
CHANGED = ("status", "--short", "--", ".", ":!bench/results")  # what differs from the commit
EMULATED = f"emulated Pico at {HERTZ // 1_000_000} MHz, flash cache not modelled"


def versions() -> dict[str, str]:
    """Of all that the figures hang on."""
    lock = json.loads((ROOT / "tools" / "emulator" / "package-lock.json").read_text())
    return {
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git(*CHANGED) else ""),
        "firmware": hashlib.sha256(FIRMWARE.read_bytes()).hexdigest()[:16],
        "compiler": kept.compiler(),
        "emulator": f"rp2040js {lock['packages']['node_modules/rp2040js']['version']}, fast core",
        **{package.name: package.version for package in PACKAGES},
        "LiteRT": host_speed.litert_version(),
        "Python": platform.python_version(),
        "NumPy": version("numpy"),
        "processor": _processor(),
    }


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = open("/proc/cpuinfo").read().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "unknown")


# Each part: what it prints, and its figures as JSON. -----------------------------------------

Part = tuple[list[str], Any]
ROW = ("model", "layer", "part", "macs", "share", "cycles", "instructions")


def part_layers() -> Part:
    text, rows = [], []
    for network in networks():
        found = layers.measured(list(layers.wanted(network, layers.PARTS)))
        text += [network.title, *layers.table(found), ""]
        rows += found
    text += ["all of these, cycles a multiply-accumulate", *layers.by_kind(rows)]
    return text, {"kinds": kinds(rows), "columns": ROW, "rows": [as_list(row) for row in rows]}


def as_list(row: layers.Row) -> list[Any]:
    spent = (row.spent.cycles, row.spent.instructions) if row.spent else (None, None)
    return [row.model, row.layer, row.part, row.macs, round(row.share, 3), *spent]


def kinds(rows: list[layers.Row]) -> dict[str, Any]:
    """Cycles a multiply-accumulate by kind and part: average, median, worst, which that is; of
    every layer; averages by network."""
    found = {}
    for (kind, part), group in layers.groups_of(rows).items():
        average, middle, worst = layers.summary(group)
        figures = (average, middle, worst.cycles_per_mac)
        each = [round(row.cycles_per_mac, 3) for row in group if row.spent]
        rounded = [round(x, 3) for x in figures]
        models = {name: [row for row in group if row.model == name] for name in
                  dict.fromkeys(row.model for row in group)}  # fmt: skip
        by_model = {name: round(layers.summary(some)[0], 2) for name, some in models.items()}
        found[f"{kind}, {part}"] = [*rounded, worst.model, worst.layer, each, by_model]
    return found


def part_steps() -> Part:
    found = {network.name: (network, steps.whole_step(network)) for network in networks()}
    text = list(steps.table({network.title: step for network, step in found.values()}))
    return text, {name: asdict(step) for name, (_, step) in found.items()}


def part_ratios() -> Part:
    mbv2 = next(networks(("mbv2",)), None)
    if mbv2 is None:
        return ["not measured: there is no ../shared"], {}
    found = ratios.measure_shares(mbv2)
    text = [*ratios.table(found), ratios.plot(found)]
    lines = {name: asdict(line) for name, line in ratios.lines(found).items()}
    return text, {"lines": lines, "steps": {str(share): asdict(s) for share, s in found.items()}}


def part_cores() -> Part:
    found = cores.all_steps()
    text = list(cores.table({network.title: work for network, work in found.values()}))
    return text, {name: cores.figures(work) for name, (_, work) in found.items()}


def part_host(torch: str) -> Part:
    kept = kept_parts().get("host", {"versions": {}})
    run = ", ".join(kept["versions"].get(name, "?") for name in ("commit", "processor"))
    found = {}
    for n in networks():
        speed = host_speed.measure_host(n, torch)
        found[n.name] = n, host_speed.with_earlier_torch(speed, kept.get(n.name, {}), run)
    text = list(host_speed.table({network.title: speed for network, speed in found.values()}))
    return text, {name: asdict(speed) for name, (_, speed) in found.items()}


def part_push() -> Part:
    """Without what the clock says, which hangs on what else this computer does."""
    figures = {name: rate for name, rate in push.measure().items() if not name.endswith("_wall")}
    return [f"{name:<24}{rate:>10.1f} KB/s" for name, rate in figures.items()], figures


def part_promised() -> Part:
    found = promised.measure()
    least, most = promised.ends(found)
    whole = {"runs": len(found), "least": least, "most": most}
    return list(promised.table(found)), {**whole, "each": [asdict(promise) for promise in found]}


def part_sizes() -> Part:
    found = sizes.firmware_sizes(sizes.MAP.read_text())
    natmods = sizes.natmod_sizes()
    images = {network.name: (network, sizes.image_sizes(network)) for network in networks()}
    text = [*sizes.table(found), "", *(f"{n:<40}{s:>9,}" for n, s in natmods.items()), ""]
    text += sizes.image_table({network.title: size for network, size in images.values()})
    return text, {
        "firmware": {part: asdict(size) for part, size in (found | sizes.totals(found)).items()},
        "natmods": natmods,
        "models": {name: size for name, (_, size) in images.items()},
    }


def part_natmods() -> Part:
    found = natmod_memory.measure_all()
    return list(natmod_memory.table(found)), {name: asdict(taken) for name, taken in found.items()}


TITLES = {
    "layers": f"Cycles (instructions) a multiply-accumulate, {EMULATED}",
    "steps": f"Whole steps, {EMULATED}",
    "ratios": f"A sparse step of MobileNetV2-w0.35@128 over its channels, {EMULATED}",
    "cores": "Steps on both cores, projected from emulated halves, no bus contention",
    "host": "The twin on this computer, against LiteRT with XNNPACK and PyTorch, one thread",
    "push": "Push, emulated Pico",
    "promised": "RAM at the peak of runs, and what the planner promised them, emulated Pico",
    "sizes": "Sizes in bytes",
    "natmods": "Native modules in bytes, of RAM around the import; emulated Pico, others in QEMU",
}


def measure_part(name: str, torch: str) -> Part:
    parts: dict[str, Callable[[], Part]] = {
        "layers": part_layers, "steps": part_steps, "ratios": part_ratios,
        "cores": part_cores,
        "host": lambda: part_host(torch), "push": part_push,
        "promised": part_promised, "sizes": part_sizes,
        "natmods": part_natmods,
    }  # fmt: skip
    return parts[name]()


# Keeping --------------------------------------------------------------------------------------


def keep(name: str, part: Part) -> None:
    text, figures = part
    RESULTS.mkdir(exist_ok=True)
    lines = [f'"versions": {json.dumps(versions())}', f'"text": {_one_a_line(text)}']
    lines += [f"{json.dumps(key)}: {_one_a_line(value)}" for key, value in figures.items()]
    (RESULTS / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n")


def _one_a_line(value: Any) -> str:
    """JSON whose differences can be read."""
    if isinstance(value, list):
        return "[\n " + ",\n ".join(json.dumps(item) for item in value) + "\n]"
    return json.dumps(value)


def kept_parts() -> dict[str, Any]:
    """What the files hold, by part."""
    files = {name: RESULTS / f"{name}.json" for name in TITLES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def markdown(parts: dict[str, Any]) -> Iterator[str]:
    yield "# Speed and sizes: the last run of `make bench`, or of its parts\n"
    yield "The board's figures are emulated: 125 MHz, flash cache misses not modelled. Each part"
    yield "names the commit that it was run at.\n"
    yield "```\n" + "\n".join(bars.table(parts)) + "\n```"
    for name, part in parts.items():
        yield f"\n## {TITLES[name]}\n"
        yield ", ".join(f"{key} {value}" for key, value in part["versions"].items()) + "\n"
        yield "```\n" + "\n".join(part["text"]) + "\n```"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", default="", metavar="PYTHON", help="a Python that has torch")
    parser.add_argument("--only", default=",".join(TITLES), metavar="PART,PART")
    options = parser.parse_args()
    if not FIRMWARE.exists():
        sys.exit("error: no firmware is built: run make firmware")
    names = options.only.split(",")
    if unknown := set(names) - set(TITLES):
        sys.exit(f"error: --only knows {','.join(TITLES)}, not {','.join(sorted(unknown))}")
    for name in names:
        print(f"\n== {TITLES[name]}", flush=True)
        part = measure_part(name, options.torch)
        print(*part[0], sep="\n", flush=True)
        keep(name, part)
    MARKDOWN.write_text("\n".join(markdown(kept_parts())) + "\n")
    print(
        "\n== Bars", *bars.table(kept_parts()), f"\nkept in {RESULTS.relative_to(ROOT)}", sep="\n"
    )


if __name__ == "__main__":
    main()
