"""The firmware of boards/SPARSETUNE_PICO: MicroPython with our kernels and device package.

The result is the same, bit for bit, wherever the project lies.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .needs import require
from .shell import BUILD, ROOT, ToolError, locked, run, run_main, say, show, write_if_changed
from .sources import Trees, ensure, micropython_version
from .uf2 import to_uf2

BOARD = "SPARSETUNE_PICO"
BOARD_DIR = ROOT / "boards" / BOARD
KERNELS = ROOT / "ulab_kernels"
VARIANTS = ("sparsetune", "stock")
# The only date in the firmware; fixed, so that a build repeats.
SOURCE_DATE_EPOCH = "1744675200"
FLASH_BYTES = 2048 * 1024
RAM_BYTES = 256 * 1024
RAM_SECTIONS = (".ram_vector_table", ".data", ".uninitialized_data", ".uninitialized_bss", ".bss")


@dataclass(frozen=True)
class Firmware:
    """One variant of the firmware and where it is built. suffix: of Trees."""

    variant: str
    suffix: str = ""

    @property
    def folder(self) -> Path:
        """Holds firmware.bin, .uf2 and .elf."""
        stock = "-STOCK" if self.variant == "stock" else ""
        return BUILD / "firmware" / (BOARD + stock + self.suffix)

    @property
    def work(self) -> Path:
        return self.folder / "cmake"

    @property
    def log(self) -> Path:
        return BUILD / "logs" / f"{self.folder.name}.log"


def mpy_cross_folder(trees: Trees) -> Path:
    return BUILD / f"mpy-cross{trees.suffix}"


def build_environment(trees: Trees) -> dict[str, str]:
    """What makes MicroPython's builds repeatable and keeps them from writing into its tree."""
    return {
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
        "MICROPY_GIT_TAG": micropython_version(trees.micropython),
        "MICROPY_GIT_HASH": "",
        "MICROPY_MPYCROSS": str(mpy_cross_folder(trees) / "mpy-cross"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C",
    }


def jobs() -> str:
    return f"-j{os.cpu_count() or 1}"


def refuse_spaces(*paths: Path) -> None:
    """MicroPython's makefiles split paths at spaces: say so instead of failing far inside."""
    for path in paths:
        if re.search(r"\s", str(path)):
            raise ToolError(f"the path '{path}' has a space, which MicroPython's makefiles "
                            "cannot take: move the folder to a path without")


def build_mpy_cross(trees: Trees) -> Path:
    """MicroPython's own cross-compiler, for the host."""
    require("make", "gcc")
    refuse_spaces(ROOT, trees.micropython)
    folder = mpy_cross_folder(trees)
    with locked(folder):
        run("building mpy-cross",
            ["make", jobs(), "-C", trees.micropython / "mpy-cross",
             f"BUILD={folder}", f"PYTHON={sys.executable}"],
            BUILD / "logs" / f"{folder.name}.log", env=build_environment(trees))
    return folder / "mpy-cross"


def cmake_options(firmware: Firmware, trees: Trees) -> list[str]:
    options = {
        "MICROPY_BOARD": BOARD,
        "MICROPY_BOARD_DIR": BOARD_DIR,
        "PICO_SDK_PATH_OVERRIDE": trees.pico_sdk,
        "TINYUSB_DIR": trees.tinyusb,
        "PICO_NO_PICOTOOL": 1,
        "Python3_EXECUTABLE": sys.executable,
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
    }
    if firmware.variant == "stock":
        options["MICROPY_BOARD_VARIANT"] = "STOCK"
    else:
        options["USER_C_MODULES"] = KERNELS / "micropython.cmake"
    return [f"-D{name}={value}" for name, value in options.items()]


def start_afresh_if_needed(work: Path, command: list[str]) -> None:
    """Remove a build that other options made, or that was interrupted in the middle of a file."""
    settings = work / "settings.txt"
    same = settings.is_file() and settings.read_text() == "\n".join(command)
    if not same or (work / "unfinished").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        settings.write_text("\n".join(command))


def forget_old_qstrs(work: Path) -> None:
    """Have the QSTRs collected again when a kernel's header changed: MicroPython's rule for them
    looks only at .c files, and our method table is a header."""
    collected = work / "genhdr" / "qstr.i.last"
    if collected.exists():
        newest = max(path.stat().st_mtime for path in KERNELS.rglob("*.h"))
        if newest > collected.stat().st_mtime:
            collected.unlink()


def compile_firmware(firmware: Firmware, trees: Trees) -> None:
    configure = ["cmake", "-S", str(trees.micropython / "ports" / "rp2"), "-B",
                 str(firmware.work), *cmake_options(firmware, trees)]
    start_afresh_if_needed(firmware.work, configure)
    if firmware.variant != "stock":
        forget_old_qstrs(firmware.work)
    firmware.log.unlink(missing_ok=True)
    unfinished = firmware.work / "unfinished"
    unfinished.touch()
    environment = build_environment(trees)
    try:
        run("configuring the firmware", configure, firmware.log, env=environment)
        run("building the firmware", ["cmake", "--build", firmware.work, jobs()],
            firmware.log, env=environment)
    except ToolError:
        # It stopped by itself: what is there is whole, and the next run goes on from it.
        unfinished.unlink()
        raise
    unfinished.unlink()


def board_bytes(name: str) -> int:
    """A size defined in mpconfigboard.h as (N * 1024), in bytes."""
    text = (BOARD_DIR / "mpconfigboard.h").read_text()
    match = re.search(rf"#define {name}\s+\((\d+) \* 1024\)", text)
    if match is None:
        raise ToolError(f"boards/{BOARD}/mpconfigboard.h: {name} is not written as (N * 1024)")
    return int(match[1]) * 1024


def app_bytes() -> int:
    """Flash that is left for the firmware itself."""
    return (FLASH_BYTES - board_bytes("MICROPY_HW_ROMFS_BYTES")
            - board_bytes("MICROPY_HW_FLASH_STORAGE_BYTES"))


def static_ram(elf: Path, log: Path) -> int:
    """Bytes of RAM that the firmware takes before the heap: data, code in RAM and bss."""
    table = run("measuring", ["arm-none-eabi-size", "-A", elf], log)
    sizes = dict(re.findall(r"^(\.\S+)\s+(\d+)\s", table, flags=re.MULTILINE))
    return sum(int(sizes.get(name, 0)) for name in RAM_SECTIONS)


def publish(firmware: Firmware) -> int:
    """Copy the results out of CMake's folder and add the UF2; returns the image's size."""
    image = (firmware.work / "firmware.bin").read_bytes()
    if len(image) > app_bytes():
        raise ToolError(f"the firmware has {len(image):,} bytes, but {app_bytes():,} are left "
                        f"below the ROMFS: make a region smaller in boards/{BOARD}/"
                        "mpconfigboard.h")
    write_if_changed(firmware.folder / "firmware.bin", image)
    write_if_changed(firmware.folder / "firmware.elf",
                     (firmware.work / "firmware.elf").read_bytes())
    write_if_changed(firmware.folder / "firmware.uf2", to_uf2(image))
    return len(image)


def build(variant: str = "sparsetune", trees: Trees | None = None) -> Firmware:
    """Build one variant, or only what changed since; returns where it lies."""
    require("make", "cmake", "gcc", "arm-none-eabi-gcc")
    trees = trees or ensure()
    firmware = Firmware(variant, trees.suffix)
    with locked(firmware.folder):
        if not (firmware.folder / "firmware.bin").exists():
            say(f"firmware ({variant}): building, about a minute")
        build_mpy_cross(trees)
        compile_firmware(firmware, trees)
        size = publish(firmware)
        ram = static_ram(firmware.folder / "firmware.elf", firmware.log)
    say(f"firmware ({variant}): {show(firmware.folder)}/firmware.uf2 and .bin: flash {size:,} "
        f"of {app_bytes():,} bytes, static RAM {ram:,}, heap {RAM_BYTES - ram:,}")
    return firmware


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=VARIANTS, default="sparsetune",
                        help="stock: the same board without our kernels and device package")
    build(parser.parse_args().variant)


if __name__ == "__main__":
    run_main(main)
