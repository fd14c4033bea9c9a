"""Bytes: what each part of the firmware takes of flash and RAM, and the image of each model.

    python bench/sizes.py [--map FILE]

The firmware's figures are read from the linker's map. Code that runs from RAM counts in both.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulated import FIRMWARE, ROOT
from networks import Network, networks, plan_of
from sparsetune.compile import build_program, source_of
from sparsetune.image import lay_out, parse_image

MAP = FIRMWARE.parent / "cmake" / "firmware.elf.map"
NATMODS = ROOT / "build" / "natmod"
MODULES = sorted((p.stem for p in (ROOT / "device").glob("*/*.py")), key=len, reverse=True)
IN_FLASH = {".boot2", ".text", ".rodata", ".binary_info", ".big_const"}
IN_RAM = {".bss", ".uninitialized_data", ".uninitialized_bss", ".ram_vector_table"}
IN_BOTH = {".data", ".scratch_x", ".scratch_y"}  # loaded from flash
# Where an object file belongs: the first of these words in its path.
PLACES = (
    ("frozen_content", "other frozen Python"), ("tinyusb", "USB (TinyUSB)"),
    ("pico-sdk", "Pico SDK"), ("/littlefs/", "file system (littlefs)"), ("/oofatfs/", "FAT"),
    ("/extmod/", "MicroPython extmod"), ("/py/", "MicroPython core"), ("/shared/", "MicroPython"),
    ("/ports/", "MicroPython port"), ("/drivers/", "MicroPython"), ("/libm", "float functions"),
    ("libgcc", "libgcc, libc"), ("libc", "libgcc, libc"), ("/lib/", "MicroPython libraries"),
    ("firmware.dir", "MicroPython port"),
)  # fmt: skip
INPUT = re.compile(r"^ +(?:(\S+) +)?0x[0-9a-f]+ +0x([0-9a-f]+) (\S.*)$")
OUTPUT = re.compile(r"^(\.\w+)")


@dataclass
class Size:
    flash: int = 0
    ram: int = 0


def firmware_sizes(text: str) -> dict[str, Size]:
    """By part: each file of ulab_kernels, each module of the device package, the rest in groups.
    text: a linker map."""
    sizes: dict[str, Size] = {}
    output = section = ""
    for line in text.partition("Linker script and memory map")[2].splitlines():
        if head := OUTPUT.match(line):
            output = head[1]
        if re.fullmatch(r" \S+", line):
            section = line.strip()  # a long name has a line of its own
            continue
        if (found := INPUT.match(line)) and output in IN_FLASH | IN_RAM | IN_BOTH:
            name = found[1] or section
            size = sizes.setdefault(part_of(name, found[3]), Size())
            size.flash += int(found[2], 16) * (output in IN_FLASH | IN_BOTH)
            size.ram += int(found[2], 16) * (output in IN_RAM | IN_BOTH)
    return dict(sorted((part, size) for part, size in sizes.items() if size != Size()))


def part_of(section: str, path: str) -> str:
    if "/ulab_kernels/" in path:
        return f"ulab_kernels/{Path(path).name.removesuffix('.o').removesuffix('.obj')}"
    if "frozen_content" in path and "sparsetune_device" in section:
        rest = section.partition("sparsetune_device_")[2]
        module = next((name for name in MODULES if rest.startswith(name)), "__init__")
        return f"device/{module}.py"
    return next((title for word, title in PLACES if word in path), "other")


def totals(sizes: dict[str, Size]) -> dict[str, Size]:
    """Of ulab_kernels, of the device package, and of all."""
    found = {}
    for title, prefix in (("ulab_kernels", "ulab_kernels/"), ("device", "device/"), ("all", "")):
        parts = [size for part, size in sizes.items() if part.startswith(prefix)]
        found[title] = Size(sum(s.flash for s in parts), sum(s.ram for s in parts))
    return found


def image_sizes(network: Network) -> dict[str, int]:
    """Of the model file, the image of the plan that the benches train, its arena and its state."""
    program = build_program(network.graph, plan_of(network))
    layout = lay_out(program, source_of(network.graph))
    image = parse_image(layout.image)
    return {"tflite": len(network.model), "image": len(image.data),
            "arena": image.arena_bytes, "state": image.state_bytes}  # fmt: skip


def natmod_sizes() -> dict[str, int]:
    """Bytes of each native module that is built."""
    return {str(p.relative_to(NATMODS)): p.stat().st_size for p in sorted(NATMODS.glob("*/*.mpy"))}


def table(sizes: dict[str, Size]) -> Iterator[str]:
    yield f"{'firmware, bytes':<40}{'flash':>9}{'RAM':>9}"
    for part, size in {**sizes, **totals(sizes)}.items():
        yield f"{part:<40}{size.flash:>9,}{size.ram:>9,}"


def image_table(images: dict[str, dict[str, int]]) -> Iterator[str]:
    yield f"{'model, bytes':<24}{'.tflite':>10}{'image':>10}{'arena':>10}{'state':>10}"
    for title, sizes in images.items():
        yield f"{title:<24}" + "".join(f"{size:>10,}" for size in sizes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", type=Path, default=MAP)
    options = parser.parse_args()
    print(*table(firmware_sizes(options.map.read_text())), sep="\n")
    print(*(f"{name:<40}{size:>9,}" for name, size in natmod_sizes().items()), sep="\n")
    print(*image_table({n.title: image_sizes(n) for n in networks()}), sep="\n")


if __name__ == "__main__":
    main()
