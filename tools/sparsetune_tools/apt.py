"""Debian packages of one suite, fetched with apt but apart from the machine's own apt set-up.

Only the mirror's address is taken from the machine: no host name stands in this project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .needs import require
from .shell import Missing, ToolError, run, write_if_changed

ETC_APT = Path("/etc/apt")
DEBIAN_SUITE = re.compile(
    r"(buster|bullseye|bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable)$")


def one_line_entries(text: str) -> Iterator[tuple[str, str]]:
    """(address, suite) of each line `deb [options] address suite components`."""
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)\s", line + " ")
        if match:
            yield match[1], match[2]


def deb822_entries(text: str) -> Iterator[tuple[str, str]]:
    """(address, suite) of each enabled stanza of a `.sources` file."""
    text = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", text):
        fields = {name.lower(): value.split() for name, value in
                  re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, flags=re.MULTILINE)}
        if fields.get("enabled") == ["no"]:
            continue
        for address in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield address, suite


def mirror_lists(address: str) -> list[str]:
    """The addresses behind `mirror+file:`, which some cloud images use, or the address itself."""
    if not address.startswith("mirror+file:"):
        return [address]
    path = Path(address.removeprefix("mirror+file:"))
    lines = path.read_text().splitlines() if path.is_file() else []
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def debian_mirror(etc: Path = ETC_APT) -> str | None:
    """The first Debian mirror named by the machine's apt files, or by DEBIAN_MIRROR."""
    if os.environ.get("DEBIAN_MIRROR"):
        return os.environ["DEBIAN_MIRROR"]
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        if not file.is_file() or file.suffix not in (".list", ".sources"):
            continue
        entries = deb822_entries if file.suffix == ".sources" else one_line_entries
        for address, suite in entries(file.read_text(errors="replace")):
            if DEBIAN_SUITE.match(suite):
                return next(iter(mirror_lists(address)), None)
    return None


class PrivateApt:
    """An apt of our own: lists, cache and sources in one folder of the project."""

    def __init__(self, folder: Path, mirror: str, suite: str) -> None:
        require("apt-get")
        self.folder = folder
        self.log = folder / "apt.log"
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # `trusted`: a machine of another suite may lack this one's key. What we keep is
        # checked against our own SHA-256 table, which is stricter than the archive's key.
        entries = "".join(f"{kind} [trusted=yes] {mirror} {suite} main\n"
                          for kind in ("deb", "deb-src"))
        write_if_changed(folder / "sources.list", entries.encode())
        write_if_changed(folder / "status", b"")

    def apt_get(self, what: str, *words: str, cwd: Path | None = None) -> None:
        settings = {
            "Dir::State": self.folder,
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Sandbox::User": "root",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Retries": "3",
            "APT::Update::Error-Mode": "any",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        try:
            run(what, ["apt-get", "-q", *options, *words], self.log, cwd=cwd)
        except ToolError as error:
            raise ToolError(f"{error}; or name your own checkouts in MICROPYTHON_DIR, "
                            "PICO_SDK_DIR and TINYUSB_DIR") from None

    def update(self) -> None:
        """Raises Missing where the mirror is out of reach."""
        try:
            self.apt_get("reading the package lists", "update")
        except ToolError as error:
            raise Missing(str(error)) from None

    def source_tar(self, package: str, folder: Path) -> None:
        """Download the upstream tar of a source package (`name=version`)."""
        self.apt_get(f"fetching {package}", "source", "--download-only", "--tar-only", package,
                     cwd=folder)

    def binary(self, package: str, folder: Path) -> None:
        """Download the .deb of a binary package (`name=version`)."""
        self.apt_get(f"fetching {package}", "download", package, cwd=folder)
