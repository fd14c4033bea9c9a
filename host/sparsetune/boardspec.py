"""Board descriptions: boards/NAME.toml says what a board has and how it is flashed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsetune.cycles import OTHER, Clock, Cost
from sparsetune.errors import SparsetuneError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The project's folder; where sparsetune is installed without it, the descriptions come with the
# package, and what is built is looked for in the current folder.
_INSTALLED = Path(__file__).resolve().parent / "boards"
ROOT = Path() if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2]
BOARDS = _INSTALLED if _INSTALLED.is_dir() else ROOT / "boards"


@dataclass(frozen=True)
class BoardSpec:
    """One board; sizes in bytes, addresses absolute."""

    name: str
    title: str
    chip: str
    platform: str
    arch: str
    ram_bytes: int
    heap_bytes: int
    package_bytes: int
    slow_ram_bytes: int
    flash_base: int
    flash_bytes: int
    firmware_bytes: int
    romfs_bytes: int
    filesystem_bytes: int
    store_bytes: int
    usb_vendor: int
    usb_product: int
    flash_method: str
    uf2_family: int
    drive_label: str
    firmware_file: Path
    clock: Clock | None = None  # where nobody has measured it, no time is estimated


def board_names() -> list[str]:
    """Return the names of the boards that come with sparsetune."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def load_spec(board: str) -> BoardSpec:
    """Read the description of `board`, a name or the path of a .toml file."""
    path = Path(board) if board.endswith(".toml") else BOARDS / f"{board}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        known = ", ".join(board_names()) or "none"
        raise SparsetuneError(
            f"unknown board {board!r}: choose one of {known}, or give the path of a .toml file"
        ) from None
    try:
        return _spec(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SparsetuneError(
            f"{path} is not a complete board description ({error}): compare it with"
            " boards/pico.toml"
        ) from None


def _spec(table: dict[str, Any]) -> BoardSpec:
    ram, flash, usb, boot = (table[key] for key in ("ram", "flash", "usb", "bootloader"))
    return BoardSpec(
        name=table["name"],
        title=table["title"],
        chip=table["chip"],
        platform=table["platform"],
        arch=table["arch"],
        ram_bytes=ram["total"],
        heap_bytes=ram["heap"],
        package_bytes=ram["package"],
        slow_ram_bytes=ram.get("slow", 0),
        flash_base=flash["base"],
        flash_bytes=flash["total"],
        firmware_bytes=flash["firmware"],
        romfs_bytes=flash["romfs"],
        filesystem_bytes=flash["filesystem"],
        store_bytes=flash.get("store", 0),
        usb_vendor=usb["vendor"],
        usb_product=usb["product"],
        flash_method=boot["method"],
        uf2_family=boot["family"],
        drive_label=boot["drive_label"],
        firmware_file=ROOT / boot["firmware_file"],
        clock=_clock(table["cycles"]) if "cycles" in table else None,
    )


def _clock(table: dict[str, Any]) -> Clock:
    costs = {name: Cost(*values) for name, values in table["operators"].items()}
    if OTHER not in costs:
        raise KeyError(f"cycles.operators.{OTHER}")
    return Clock(table["source"], table["hertz"], table["step"], costs, table.get("both"))
