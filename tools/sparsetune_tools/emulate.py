"""`sparsetune-emulate`: serve an emulated Raspberry Pi Pico on a PTY to any tool."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from .emulated_pico import OUTPUT, SOURCES, EmulatedPico, default_firmware
from .firmware import FLASH_BYTES
from .shell import ToolError, run_main, say

__all__ = ["EmulatedPico", "main"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparsetune-emulate", description=__doc__)
    parser.add_argument("--firmware", type=Path, help=".bin or .uf2 to run (default: ours)")
    parser.add_argument("--flash", type=Path, default=OUTPUT / "flash.bin",
                        help="file that keeps the board's flash (default: build/emulator)")
    parser.add_argument("--port-link", type=Path, help="symbolic link to keep pointed at the PTY")
    parser.add_argument("--bootsel", type=Path, default=OUTPUT / "RPI-RP2",
                        help="folder that stands for the BOOTSEL drive")
    parser.add_argument("--reset-flash", action="store_true",
                        help="erase the flash file first: firmware, file system and all")
    parser.add_argument("--fresh", action="store_true",
                        help="an erased flash that is forgotten at the end; --flash is not used")
    return parser.parse_args(argv)


def make_board(options: argparse.Namespace) -> EmulatedPico:
    if not SOURCES.is_dir():
        raise ToolError("the emulated Pico is no part of an install: run this in the project's "
                        "folder, after `make firmware`")
    if options.firmware and not options.firmware.is_file():
        raise ToolError(f"there is no firmware file {options.firmware}")
    if options.port_link:
        check_link(options.port_link)
    firmware = options.firmware or default_firmware()
    if not options.fresh:
        check_flash(options.flash)
    if options.reset_flash and not options.fresh:
        options.flash.unlink(missing_ok=True)
    flash = None if options.fresh else options.flash.absolute()
    return EmulatedPico(firmware, flash, options.port_link, options.bootsel.absolute())


def check_link(link: Path) -> None:
    """Raises ToolError where no link can be, or where it would take the place of a file."""
    if not link.parent.is_dir():
        raise ToolError(f"there is no folder {link.parent} for --port-link: make it first")
    if link.exists() and not link.is_symlink():
        raise ToolError(f"--port-link {link} is a file: choose another name")


def check_flash(file: Path) -> None:
    """Raises ToolError for a file of something else, which would be written over."""
    if file.exists() and (not file.is_file() or file.stat().st_size not in (0, FLASH_BYTES)):
        raise ToolError(f"{file} is no flash of an emulated Pico: give another --flash")


def stop_on_signals() -> None:
    """SIGTERM and SIGHUP end the program as Ctrl-C does, so that nothing is left behind."""
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)


class Cable:
    """SIGUSR1 yanks the cable, the next one plugs it in again."""

    def __init__(self, board: EmulatedPico) -> None:
        self.board = board
        self.plugged = self.wanted = True
        signal.signal(signal.SIGUSR1, self._toggle)

    def _toggle(self, number: int, frame: FrameType | None) -> None:
        self.wanted = not self.wanted

    def follow(self) -> None:
        """Do what the last signal asked for; not in its handler, which may interrupt anything."""
        if self.wanted == self.plugged:
            return
        self.plugged = self.wanted
        if self.plugged:
            self.board.plug()
            say(f"emulated Pico on {self.board.port}")
        else:
            self.board.unplug()
            say("emulated Pico unplugged")


def tell(events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["event"] == "bootsel":
            say(f"in BOOTSEL mode: copy a .uf2 file to {event['folder']}")
        elif event["event"] == "flashed":
            say(f"flashed {event['blocks']} blocks, starting")


def serve(argv: Sequence[str] | None) -> None:
    stop_on_signals()
    with make_board(parse(argv)) as board:
        cable = Cable(board)
        say(f"emulated Pico on {board.port}")
        while board.running():
            cable.follow()
            tell(board.events())
            time.sleep(0.1)
    raise ToolError("the emulator has ended by itself")


def main(argv: Sequence[str] | None = None) -> None:
    try:
        run_main(lambda: serve(argv))
    except SystemExit as error:
        if str(error.code).startswith("stopped"):
            sys.exit(0)  # Ctrl-C is how one ends it
        raise


if __name__ == "__main__":
    main()
