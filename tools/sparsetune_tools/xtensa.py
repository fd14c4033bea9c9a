"""A compiler for the Xtensa cores of ESP32, S2 and S3, of Debian packages alone.

Debian's is for the ESP8266, whose calls turn no register window. A plugin of ours
(tools/xtensa/plugin) tells it and its assembler what an ESP32-S3 has. All lies in build/xtensa/,
and a second run costs nothing. `python -m sparsetune_tools.xtensa` sets it up.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .needs import require
from .shell import BUILD, ROOT, Missing, locked, run, run_main, say, show
from .sources import SOURCES, Package, check_sha256, fetch, scratch_folder, updated_apt

OURS = ROOT / "tools" / "xtensa"
FOLDER = BUILD / "xtensa"
LOG = BUILD / "logs" / "xtensa.log"
TARGET = "xtensa-lx106-elf"
# The C library is trixie's for programs that an older Debian runs. Its usual package changes with
# every point release, the one for cross-compiling does not.
PACKAGES = (
    Package("gcc-xtensa", "13.3.0", "gcc-xtensa-lx106=13.3.0-16+14+b4",
            "gcc-xtensa-lx106_13.3.0-16+14+b4_amd64.deb",
            "1d61537d9ac09a6aaed48355fee5c63529c644c63ee3636a8c22f52b583d88bd"),
    Package("binutils-xtensa", "2.44", "binutils-xtensa-lx106=2.44-3+6+b2",
            "binutils-xtensa-lx106_2.44-3+6+b2_amd64.deb",
            "434f0712a0ea19f96fe09a55a3e943a4960408802e8e6031e2c162f6bbb0b235"),
    Package("picolibc-xtensa", "1.8.10", "picolibc-xtensa-lx106-elf=1.8.10-2",
            "picolibc-xtensa-lx106-elf_1.8.10-2_all.deb",
            "34e6b9e3593cd4c8c6875e7f1b12faa10e9b0d93daa87056113185a3b651f5f7"),
    Package("libc6-cross", "2.41", "libc6-amd64-cross=2.41-11cross1",
            "libc6-amd64-cross_2.41-11cross1_all.deb",
            "b0e7cce4eb4029b5f23a67c439f0e13b5b8418be949390fd22ebc67e30a659aa"),
)
# The glibc that these programs ask for.
GLIBC = (2, 38)
# The plugin's headers. Of packages whose version changes within a Debian release these files do
# not; they alone are kept.
BINUTILS_HEADERS = {
    "ansidecl.h": "ad38622cd19e079228ce345d383cdf12cce71a869f89bb6b4bc2173829bb8ddb",
    "xtensa-dynconfig.h": "89575f90d52d980e01734f2a00f03f2beec293cdb0f9ca22b9b65166cd0dacf8",
    "xtensa-isa-internal.h": "7612239a153e2fe18ae04bfed55b5380da17a2326e03bef343c9ae86bb359300",
    "xtensa-isa.h": "033f2c5b8bb8dbebeaf1658acefd84fd695ff28bba350ccb8bfd9e426c5ac531",
}
QEMU_HEADERS = {
    "xtensa-modules.c.inc": "70717c4060f356ad038def74241c4de76cbd57758edd19616ad449222a04d0a7",
}
# `esp32s3` has MULSH; the core of QEMU has not, for whose tests `qemu` is.
VARIANTS = {"esp32s3": 1, "qemu": 0}
TOOLS = ("ar", "as", "ld", "nm", "objcopy", "objdump", "readelf", "size", "strip")
# What `qemu` makes runs in it, under Linux.
EMULATOR = ("qemu-xtensa", "-cpu", "de233_fpu")
# Beyond a call's 18-bit distance; no fused multiply-add, which rounds otherwise.
FLAGS = ("-mlongcalls", "-ffp-contract=off")


@dataclass(frozen=True)
class Toolchain:
    """A compiler and its tools. cross: what stands before `gcc`. runtime: a library of what the
    compiler calls. environment: without it, the tools are the ESP8266's."""

    cross: str
    include: Path
    runtime: Path
    environment: dict[str, str]

    @property
    def flags(self) -> list[str]:
        return [*FLAGS, "-isystem", str(self.include)]

    def run(self, what: str, tool: str, *words: str | Path, cwd: Path | None = None) -> str:
        return run(what, [self.cross + tool, *words], LOG, env=self.environment, cwd=cwd)


def require_machine() -> None:
    """Raises Missing where Debian's packages cannot run."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Missing("Debian has this compiler for Linux on x86-64 alone")
    require("apt-get", "dpkg-deb", "xz", "gcc")


# Headers ----------------------------------------------------------------------------------------


def take_members(tar: Path, members: Sequence[str], folder: Path) -> None:
    """Files of a tar, wherever in it they lie, into a folder."""
    run("unpacking", ["tar", "-xf", tar, "-C", tar.parent, "--wildcards", *members], LOG)
    for member in members:
        found = tar.parent.glob(member.removeprefix("*/").join(("*/", "")))
        next(found).replace(folder / member.rpartition("/")[2])


def fetch_headers(folder: Path) -> None:
    """The plugin's headers, from the sources of binutils and QEMU."""
    folder.mkdir(parents=True, exist_ok=True)
    apt, scratch = updated_apt(), scratch_folder()
    apt.binary("binutils-source", scratch)
    (package,) = scratch.glob("binutils-source_*.deb")
    run("unpacking", ["dpkg-deb", "-x", package, scratch], LOG)
    (tar,) = scratch.glob("usr/src/binutils/*.tar.xz")
    take_members(tar, [f"*/include/{name}" for name in BINUTILS_HEADERS], folder)
    apt.source_tar("qemu", scratch)
    (tar,) = scratch.glob("qemu_*.orig.tar.xz")
    take_members(tar, [f"*/target/xtensa/core-de233_fpu/{name}" for name in QEMU_HEADERS], folder)
    shutil.rmtree(scratch)


def ensure_headers(folder: Path) -> None:
    wanted = {**BINUTILS_HEADERS, **QEMU_HEADERS}
    if not all((folder / name).is_file() for name in wanted):
        fetch_headers(folder)
    for name, sha256 in wanted.items():
        check_sha256(folder / name, sha256)


# Programs ---------------------------------------------------------------------------------------


def unpack_programs(root: Path) -> None:
    for package in PACKAGES:
        run("unpacking", ["dpkg-deb", "-x", fetch(package), root], LOG)


def loader(root: Path) -> list[str]:
    """What stands before a program: nothing where the machine's C library is new enough. Else
    trixie's own, with the machine's other libraries, which came with its gcc."""
    version = tuple(int(part) for part in platform.libc_ver()[1].split(".")[:2] if part)
    if version >= GLIBC:
        return []
    libraries = root / "usr" / "x86_64-linux-gnu" / "lib"
    path = f"{libraries}:/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu"
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", path]


def write_script(path: Path, words: Sequence[str | Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexec {' '.join(map(str, words))} \"$@\"\n")
    path.chmod(0o755)


def write_scripts(folder: Path) -> None:
    """bin/xt-*, for the user of the tools; inner/*, for the compiler."""
    root = folder / "root"
    (passes,) = root.glob(f"usr/lib/gcc/{TARGET}/*")
    start, prefix = loader(root), root / "usr" / "bin" / f"{TARGET}-"
    for name in TOOLS:
        write_script(folder / "bin" / f"xt-{name}", [*start, f"{prefix}{name}"])
        write_script(folder / "inner" / name, [*start, f"{prefix}{name}"])
    for name in ("cc1", "collect2"):
        write_script(folder / "inner" / name, [*start, passes / name])
    write_script(folder / "bin" / "xt-gcc", [*start, f"{prefix}gcc", "-B", f"{folder}/inner/"])


# Ours -------------------------------------------------------------------------------------------


def build_plugin(folder: Path, variant: str) -> None:
    sources = sorted((OURS / "plugin").glob("*.c"))
    run("building the plugin of the Xtensa compiler",
        ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-DWITH_MULH={VARIANTS[variant]}",
         f"-I{folder / 'headers'}", *sources, "-o", folder / f"{variant}.so"], LOG)


def build_runtime(folder: Path, variant: str) -> None:
    chain = toolchain_in(folder, variant)
    thing, library = folder / f"{variant}.o", chain.runtime
    chain.run("building what the Xtensa compiler calls", "gcc", "-c", "-O2", "-ffreestanding",
              "-Wall", "-Wextra", "-Werror", *chain.flags, OURS / "runtime.c", "-o", thing)
    library.unlink(missing_ok=True)
    chain.run("archiving", "ar", "rcs", library, thing)


def toolchain_in(folder: Path, variant: str) -> Toolchain:
    include = folder / "root" / "usr" / "lib" / TARGET / "include"
    return Toolchain(f"{folder}/bin/xt-", include, folder / f"lib{variant}.a",
                     {"XTENSA_GNU_CONFIG": str(folder / f"{variant}.so")})


def fingerprint(folder: Path, parts: str) -> str:
    """Of all that the folder is made from."""
    told = [str(folder), *loader(folder), *(package.sha256 for package in PACKAGES)]
    if parts == "ours":
        files = [Path(__file__), *sorted(OURS.glob("plugin/*.c")), OURS / "runtime.c"]
        told += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def is_made(folder: Path, parts: str) -> bool:
    stamp = folder / f".{parts}"
    return stamp.is_file() and stamp.read_text() == fingerprint(folder, parts)


def mark_made(folder: Path, parts: str) -> None:
    (folder / f".{parts}").write_text(fingerprint(folder, parts))


def make_programs(folder: Path) -> None:
    say("Xtensa compiler: fetching its Debian packages, about a minute, once")
    shutil.rmtree(folder / "root", ignore_errors=True)
    with locked(SOURCES):
        unpack_programs(folder / "root")
        ensure_headers(folder / "headers")
    mark_made(folder, "programs")


def make_ours(folder: Path) -> None:
    write_scripts(folder)
    for variant in VARIANTS:
        build_plugin(folder, variant)
        build_runtime(folder, variant)
    mark_made(folder, "ours")


def toolchain(variant: str = "esp32s3") -> Toolchain:
    """Set it up, if it is not there; quick when it is. Raises Missing with the reason where this
    machine cannot have it, ToolError where something failed."""
    require_machine()
    with locked(FOLDER):
        if not is_made(FOLDER, "programs"):
            make_programs(FOLDER)
        if not is_made(FOLDER, "ours"):
            make_ours(FOLDER)
    return toolchain_in(FOLDER, variant)


def toolchain_and_emulator() -> Toolchain:
    """For what runs in EMULATOR."""
    require("qemu-xtensa")
    return toolchain("qemu")


def main() -> None:
    say(f"Xtensa compiler: {show(Path(toolchain().cross + 'gcc'))}")


if __name__ == "__main__":
    run_main(main)
