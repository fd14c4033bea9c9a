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
    """One board; sizes in bytes, addresses absolute. slow_ram_bytes: of MicroPython's heap, beside
    heap_bytes, what lies in slower memory, which is used when the other is full."""

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
    uf2_family: int | None  # of its boot loader's files; None where it takes others
    drive_label: str
    firmware_file: Path | None  # where our firmware for it is built; None where there is none
    download: str  # where MicroPython's own is
    clock: Clock | None = None  # where nobody has measured it, no time is estimated
    estimated: str = ""  # what figures of RAM and time stand on where we never measured them

    @property
    def own_bytes(self) -> int:
        """RAM that is no heap: MicroPython's own."""
        return self.ram_bytes - self.heap_bytes - self.slow_ram_bytes


def board_names() -> list[str]:
    """Return the names of the boards that come with sparsetune."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def boards_with(**wanted: object) -> list[str]:
    """Return the names of the boards whose description has these fields."""
    specs = [(name, load_spec(name)) for name in board_names()]
    return [n for n, s in specs if all(getattr(s, key) == wanted[key] for key in wanted)]


def load_spec(board: str) -> BoardSpec:
    """Read the description of `board`, a name or the path of a .toml file."""
    path = Path(board) if board.endswith(".toml") else BOARDS / f"{board}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SparsetuneError(_not_read(board, error)) from None
    try:
        return _spec(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SparsetuneError(
            f"{path} is not a complete board description ({error}): compare it with"
            " boards/pico.toml"
        ) from None


def _not_read(board: str, error: OSError) -> str:
    """What is wrong with the name or path `board`, and what to do."""
    known = ", ".join(board_names()) or "none"
    if board.endswith(".toml"):
        return f"cannot read {board}: {error.strerror}; boards by name are {known}"
    return f"unknown board {board!r}: choose one of {known}, or give the path of a .toml file"


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
        uf2_family=boot.get("family"),
        drive_label=boot.get("drive_label", ""),
        firmware_file=ROOT / boot["firmware_file"] if "firmware_file" in boot else None,
        download=boot["download"],
        clock=_clock(table["cycles"]) if "cycles" in table else None,
        estimated=table.get("estimated", ""),
    )


def _clock(table: dict[str, Any]) -> Clock | None:
    if "same_as" in table:  # another board with this chip
        return load_spec(table["same_as"]).clock
    costs = {name: Cost(*values) for name, values in table["operators"].items()}
    if OTHER not in costs:
        raise KeyError(f"cycles.operators.{OTHER}")
    return Clock(table["source"], table["hertz"], table["step"], costs, table.get("both"))
