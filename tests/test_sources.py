"""The fetching of sources: mirrors from apt's files, pinned sums, one-line errors, recovery."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from sparsetune_tools import apt, needs, sources
from sparsetune_tools.shell import ROOT, ToolError

ONE_LINE = """\
# deb http://commented.example/debian trixie main
deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib
"""
DEB822 = """\
# A comment
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb deb-src
# http://dated.example/archive
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""
UBUNTU = """\
Types: deb
URIs: http://archive.example/ubuntu/
Suites: noble noble-updates
Components: main universe
"""


@pytest.fixture
def etc_apt(tmp_path, monkeypatch):
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_mirror_from_one_line_format(etc_apt):
    (etc_apt / "sources.list").write_text(ONE_LINE)
    assert apt.debian_mirror(etc_apt) == "http://mirror.example/debian"


def test_mirror_from_deb822_format(etc_apt):
    (etc_apt / "sources.list.d" / "debian.sources").write_text(DEB822)
    assert apt.debian_mirror(etc_apt) == "http://mirror.example/debian"


def test_mirror_file_of_cloud_images(etc_apt):
    (etc_apt / "mirrors").write_text("# first\nhttp://mirror.example/debian\n")
    (etc_apt / "sources.list").write_text(f"deb mirror+file:{etc_apt}/mirrors trixie main\n")
    assert apt.debian_mirror(etc_apt) == "http://mirror.example/debian"


def test_ubuntu_has_no_debian_mirror(etc_apt):
    (etc_apt / "sources.list.d" / "ubuntu.sources").write_text(UBUNTU)
    assert apt.debian_mirror(etc_apt) is None


def test_environment_names_the_mirror(etc_apt, monkeypatch):
    monkeypatch.setenv("DEBIAN_MIRROR", "http://own.example/debian")
    assert apt.debian_mirror(etc_apt) == "http://own.example/debian"


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_without_a_mirror_it_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DOWNLOADS", tmp_path)
    monkeypatch.setattr(sources, "debian_mirror", lambda: None)
    with pytest.raises(ToolError) as error:
        sources.fetch(sources.TINYUSB)
    text = one_line(error)
    for variable in ("DEBIAN_MIRROR", "MICROPYTHON_DIR", "PICO_SDK_DIR", "TINYUSB_DIR"):
        assert variable in text


def test_a_wrong_sum_is_refused_and_the_file_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DOWNLOADS", tmp_path)
    file = tmp_path / sources.TINYUSB.file
    file.write_bytes(b"not the package")
    with pytest.raises(ToolError) as error:
        sources.fetch(sources.TINYUSB)
    text = one_line(error)
    assert sources.TINYUSB.sha256 in text and sources.TINYUSB.file in text
    assert not file.exists()


def test_no_tree_from_a_file_with_a_wrong_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", tmp_path)
    wrong = replace(sources.TINYUSB, sha256="0" * 64)
    monkeypatch.setattr(sources, "DOWNLOADS", tmp_path / "downloads")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / wrong.file).write_bytes(b"anything")
    with pytest.raises(ToolError):
        sources.from_debian(wrong)
    assert not (tmp_path / wrong.name).exists()


fetchable = pytest.mark.skipif(
    apt.debian_mirror() is None and not (sources.DOWNLOADS / sources.TINYUSB.file).exists(),
    reason="no Debian mirror here: the sources are the user's own checkouts")


def files_of(tree):
    return sorted(path.relative_to(tree) for path in tree.rglob("*"))


@fetchable
def test_an_interrupted_unpack_recovers(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", tmp_path)
    tree = sources.from_debian(sources.TINYUSB)
    whole = files_of(tree)
    assert (tree / sources.TINYUSB.marker).is_file()
    # As a run leaves it that was killed while unpacking: half a tree, with no stamp.
    (tree / sources.STAMP).unlink()
    (tree / sources.TINYUSB.marker).unlink()
    (tmp_path / "tinyusb.partial" / "usr").mkdir(parents=True)
    assert files_of(sources.from_debian(sources.TINYUSB)) == whole
    assert not (tmp_path / "tinyusb.partial").exists()


@fetchable
def test_a_whole_tree_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", tmp_path)
    tree = sources.from_debian(sources.TINYUSB)
    before = (tree / sources.STAMP).stat().st_mtime_ns  # it is read, which is another time
    monkeypatch.setattr(sources, "unpack", lambda *_: pytest.fail("unpacked again"))
    assert (sources.from_debian(sources.TINYUSB) / sources.STAMP).stat().st_mtime_ns == before


def run_sources(**environment):
    return subprocess.run([sys.executable, "-m", "sparsetune_tools.sources"],
                          env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), **environment},
                          capture_output=True, text=True, check=False)


def test_own_checkouts_are_used():
    trees = sources.ensure()
    done = run_sources(MICROPYTHON_DIR=str(trees.micropython), PICO_SDK_DIR=str(trees.pico_sdk),
                       TINYUSB_DIR=str(trees.tinyusb))
    assert done.returncode == 0, done.stderr
    assert sources.micropython_version(trees.micropython) in done.stdout


@pytest.mark.parametrize("variable", ["MICROPYTHON_DIR", "PICO_SDK_DIR", "TINYUSB_DIR"])
def test_a_wrong_checkout_is_one_clear_line(variable, tmp_path):
    done = run_sources(**{variable: str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"error: {variable}=")


def test_a_missing_command_prints_the_apt_line(monkeypatch):
    monkeypatch.setitem(needs.COMMANDS, "no-such-command-here", "some-package")
    with pytest.raises(ToolError) as error:
        needs.require("no-such-command-here", "make")
    assert "apt-get install" in one_line(error) and one_line(error).endswith(" some-package")
