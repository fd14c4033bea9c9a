"""The sources that the firmware is built from: MicroPython, pico-sdk and TinyUSB.

They come as Debian packages, checked against the SHA-256 sums below, and are unpacked into
build/sources/. A checkout named in MICROPYTHON_DIR, PICO_SDK_DIR or TINYUSB_DIR is used
instead, and nothing in it is ever changed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from .apt import PrivateApt, debian_mirror
from .needs import require
from .shell import BUILD, Missing, ToolError, locked, run, run_main, say, show

SUITE = "trixie"
NEXT_SUITE = "forky"  # whose versions go when others come
STAMP = ".sha256"
DOWNLOADS = BUILD / "downloads"
SOURCES = BUILD / "sources"
LOG = BUILD / "logs" / "sources.log"


@dataclass(frozen=True)
class Package:
    """One upstream tree and the Debian package that holds it."""

    name: str
    version: str
    debian: str
    file: str
    sha256: str
    variable: str = ""  # of the environment: names a checkout of one's own
    marker: str = ""  # a file that every checkout of this project has
    suite: str = SUITE


MICROPYTHON = Package(
    "micropython", "1.25.0", "micropython=1.25.0+ds-1", "micropython_1.25.0+ds.orig.tar.xz",
    "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea",
    "MICROPYTHON_DIR", "py/mpconfig.h")
# Another version, on which tests try what is built of the first.
NEWER_MICROPYTHON = Package(
    "micropython-1.26.1", "1.26.1", "micropython=1.26.1+ds-1", "micropython_1.26.1+ds.orig.tar.xz",
    "f5ad2ec89d3e921f753d448955af98b6005655f84ba26087dde6ba0e8d062f34", suite=NEXT_SUITE)
PICO_SDK = Package(
    "pico-sdk", "2.1.1", "pico-sdk-source=2.1.1-1", "pico-sdk-source_2.1.1-1_all.deb",
    "507a3ca37636641bc90239d7c04dc9dc28c5008087a8162102ea94d2273153d3",
    "PICO_SDK_DIR", "pico_sdk_init.cmake")
TINYUSB = Package(
    "tinyusb", "0.18.0", "tinyusb-source=0.18.0+dfsg-1", "tinyusb-source_0.18.0+dfsg-1_all.deb",
    "01ce2c645df68f14a8a7dcfc8fb355713152543757955820479a87949a61154e",
    "TINYUSB_DIR", "src/tusb.h")
PACKAGES = (MICROPYTHON, PICO_SDK, TINYUSB)


@dataclass(frozen=True)
class Trees:
    """Where the three source trees lie. suffix: of the folders of what is built of them."""

    micropython: Path
    pico_sdk: Path
    tinyusb: Path
    suffix: str = ""


def check_sha256(path: Path, expected: str) -> None:
    """Raise ToolError, and remove the file, when it is not the one that was pinned."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        path.unlink()
        raise ToolError(f"{path.name}: sha256 is {found}, expected {expected}; "
                        "the file was removed, run it again to fetch it anew")


def fetch(package: Package) -> Path:
    """The package's file in build/downloads/, fetched when it is not there, and checked."""
    path = DOWNLOADS / package.file
    if not path.exists():
        download(package, updated_apt(package.suite))
    check_sha256(path, package.sha256)
    return path


def updated_apt(suite: str = SUITE) -> PrivateApt:
    """An apt that has the suite's package lists."""
    mirror = debian_mirror()
    if mirror is None:
        wanted = ", ".join(f"{each.variable} ({each.version})" for each in PACKAGES)
        raise Missing("this machine's apt names no Debian mirror: set DEBIAN_MIRROR to the "
                      f"address of one, or name checkouts of your own in {wanted}")
    return _apt_of(mirror, suite)


@functools.cache
def _apt_of(mirror: str, suite: str) -> PrivateApt:
    folder = BUILD / "apt"
    apt = PrivateApt(folder if suite == SUITE else folder / suite, mirror, suite)
    apt.update()
    return apt


def scratch_folder() -> Path:
    """An empty folder for what apt fetches."""
    scratch = DOWNLOADS / "partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def download(package: Package, apt: PrivateApt) -> None:
    """Fetch into a scratch folder; the file appears in build/downloads/ when it is whole."""
    scratch = scratch_folder()
    say(f"{package.name}: fetching {package.file}")
    get = apt.source_tar if package.file.endswith(".tar.xz") else apt.binary
    get(package.debian, scratch)
    fetched = scratch / package.file
    if not fetched.exists():
        raise ToolError(f"{package.debian}: apt fetched no {package.file} (see {show(apt.log)})")
    fetched.replace(DOWNLOADS / package.file)


def unpack(package: Package, file: Path, tree: Path) -> None:
    """Unpack beside `tree` and rename, so that a tree that exists is whole."""
    scratch = tree.with_name(tree.name + ".partial")
    for old in (scratch, tree):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(parents=True)
    say(f"{package.name}: unpacking {package.version}")
    if file.suffix == ".deb":
        run("unpacking", ["dpkg-deb", "-x", file, scratch], LOG)
        inner = scratch / "usr" / "src" / package.name
    else:
        run("unpacking", ["tar", "-xf", file, "-C", scratch], LOG)
        (inner,) = scratch.iterdir()
    (inner / STAMP).write_text(package.sha256)
    inner.replace(tree)
    shutil.rmtree(scratch)


def from_debian(package: Package) -> Path:
    tree = SOURCES / package.name
    stamp = tree / STAMP
    if not stamp.is_file() or stamp.read_text() != package.sha256:
        require("apt-get", "dpkg-deb", "xz")
        unpack(package, fetch(package), tree)
    return tree


def own_checkout(package: Package) -> Path | None:
    """The checkout that the environment names, or None. Raises ToolError when it is another."""
    value = os.environ.get(package.variable)
    if not value:
        return None
    path = Path(value).expanduser().resolve()
    if not (path / package.marker).is_file():
        raise ToolError(f"{package.variable}={value} is no {package.name} checkout: "
                        f"it has no {package.marker}; name its top folder")
    return path


def submodule(micropython: Path, package: Package) -> Path | None:
    """The copy that a MicroPython checkout with submodules carries."""
    path = micropython / "lib" / package.name
    return path if (path / package.marker).is_file() else None


def ensure() -> Trees:
    """Make sure that all three trees are there; quick when they are."""
    with locked(SOURCES):
        micropython = own_checkout(MICROPYTHON) or from_debian(MICROPYTHON)
        pico_sdk, tinyusb = (
            own_checkout(package) or submodule(micropython, package) or from_debian(package)
            for package in (PICO_SDK, TINYUSB))
    return Trees(micropython, pico_sdk, tinyusb)


def newer() -> Trees:
    """Those with NEWER_MICROPYTHON. Raises Missing where nobody has that version any more."""
    trees, package = ensure(), NEWER_MICROPYTHON
    with locked(SOURCES):
        try:
            if not (DOWNLOADS / package.file).exists():
                download(package, updated_apt(package.suite))
        except ToolError as error:
            raise Missing(str(error)) from None
        tree = from_debian(package)
    return replace(trees, micropython=tree, suffix=f"-{package.version}")


def micropython_version(tree: Path) -> str:
    """Version of a tree as MicroPython writes it, such as v1.25.0, read from py/mpconfig.h."""
    text = (tree / "py" / "mpconfig.h").read_text()
    major, minor, micro, preview = (
        int(re.search(rf"#define MICROPY_VERSION_{part} \(?(\d+)", text)[1])  # type: ignore[index]
        for part in ("MAJOR", "MINOR", "MICRO", "PRERELEASE"))
    return f"v{major}.{minor}.{micro}" + ("-preview" if preview else "")


def main() -> None:
    trees = ensure()
    say(f"micropython {micropython_version(trees.micropython)}: {show(trees.micropython)}")
    say(f"pico-sdk: {show(trees.pico_sdk)}")
    say(f"tinyusb: {show(trees.tinyusb)}")


if __name__ == "__main__":
    run_main(main)
