"""What sparsetune brings for boards with stock MicroPython: kernels as native modules, and the
device package, compiled. `make natmods` builds them; what is installed after that has them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sparsetune_device

from .boardspec import ROOT
from .errors import SparsetuneError
from .firmware_file import OLDEST

_INSTALLED = Path(__file__).resolve().parent / "modules"
MODULES = _INSTALLED if _INSTALLED.is_dir() else ROOT / "build" / "modules"
PACKAGE = "sparsetune_device"
SOURCES = "SOURCES"  # in the compiled package: a line of SHA-256 and name for each source
FLAVOURS = ("full", "small", "head")  # of the kernels, the fastest first

# py/persistentcode.h, MP_NATIVE_ARCH_*: by number.
ARCHES = (
    "", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp", "xtensa",
    "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip
_THUMB = ("armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp")  # each runs those before it


@dataclass(frozen=True)
class Abi:
    """version, sub: of the .mpy format, sub of its native code. arch: "" for none."""

    version: int
    sub: int
    arch: str

    @classmethod
    def of_board(cls, mpy: int) -> Abi:
        """From sys.implementation._mpy."""
        return cls(mpy & 0xFF, mpy >> 8 & 3, _arch(mpy >> 10 & 15))

    @classmethod
    def of_file(cls, data: bytes) -> Abi:
        """Raises SparsetuneError where `data` is no .mpy file."""
        if len(data) < 4 or data[:1] != b"M":
            raise SparsetuneError("a native module is no .mpy file: build it again (make natmods)")
        return cls(data[1], data[2] & 3, _arch(data[2] >> 2 & 15))

    def runs(self) -> tuple[str, ...]:
        """Architectures whose native code a board of this one loads, the best first."""
        if self.arch not in _THUMB:
            return (self.arch,) if self.arch else ()
        return tuple(reversed(_THUMB[: _THUMB.index(self.arch) + 1]))


def _arch(number: int) -> str:
    return ARCHES[number] if number < len(ARCHES) else f"number {number}"


def check_core(mpy: int, machine: str, port: str) -> None:
    """mpy, machine: of sys.implementation. Raises SparsetuneError for an ESP32-S2: it takes modules
    of the same name as an ESP32-S3, but has not all of its instructions."""
    if Abi.of_board(mpy).arch == "xtensawin" and re.search(r"ESP32-?S2", machine, re.IGNORECASE):
        raise SparsetuneError(
            f"the board on {port} ({machine}) cannot run our kernels: the core of an ESP32-S2 has"
            " neither loops nor MAC16 nor floats; use an ESP32-S3 or an ESP32"
        )


def native_module(mpy: int, flavour: str, board: str) -> bytes:
    """The module of the kernels that a board with this sys.implementation._mpy loads. board: what
    to call it. Raises SparsetuneError with what to do where there is none."""
    abi = Abi.of_board(mpy)
    if not abi.arch:
        raise SparsetuneError(
            f"{board} loads no native modules: flash the sparsetune firmware (sparsetune flash), "
            f"or MicroPython {'.'.join(map(str, OLDEST))} or newer for a chip that has them"
        )
    paths = [MODULES / f"{name}.mpy" for arch in abi.runs() for name in _names(arch, flavour)]
    for path in paths:
        if path.is_file():
            return _fitting(path, abi, board)
    raise SparsetuneError(
        f"there is no module of the kernels for {board} (native code {abi.arch}): build it with "
        f"`make natmods` (it would be {paths[0]}), or flash the sparsetune firmware"
    )


def _names(arch: str, flavour: str) -> tuple[str, ...]:
    """The wanted flavour, else the only one that some architectures have."""
    return tuple(dict.fromkeys((arch if flavour == "full" else f"{arch}-{flavour}", arch)))


def _fitting(path: Path, abi: Abi, board: str) -> bytes:
    data = path.read_bytes()
    ours = Abi.of_file(data)
    if (ours.version, ours.sub) == (abi.version, abi.sub):
        return data
    older = (abi.version, abi.sub) < (ours.version, ours.sub)
    raise SparsetuneError(
        f"{board} loads native modules of version {abi.version}.{abi.sub}, ours have "
        f"{ours.version}.{ours.sub}: "
        + (f"flash MicroPython {'.'.join(map(str, OLDEST))} or newer, or the sparsetune firmware"
           if older else "flash the sparsetune firmware, or an older MicroPython")
    )  # fmt: skip


def device_files(mpy: int) -> Mapping[str, bytes]:
    """The device package, by file name: compiled where that is of the same sources and the board
    loads it, else as source, which the board compiles."""
    folder = Path(sparsetune_device.__file__).parent
    compiled = MODULES / PACKAGE
    known = _known(compiled / SOURCES)
    files = {}
    for source in sorted(folder.glob("*.py")):
        data, made = source.read_bytes(), compiled / f"{source.stem}.mpy"
        if known.get(source.name) == hashlib.sha256(data).hexdigest() and made.is_file():
            code = made.read_bytes()
            if Abi.of_file(code).version == Abi.of_board(mpy).version:
                files[made.name] = code
                continue
        files[source.name] = data
    return files


def _known(path: Path) -> dict[str, str]:
    """SHA-256 of the sources that the compiled package is of, by name."""
    if not path.is_file():
        return {}
    lines = (line.split(" ", 1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in lines}
