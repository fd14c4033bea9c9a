"""The compiler for ESP32-S3: Debian's for the ESP8266 with a plugin of ours."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from sparsetune_tools import natmod, sources, xtensa
from sparsetune_tools.apt import PrivateApt
from sparsetune_tools.shell import ToolError
from tool_chains import set_up

SOURCE = """
int dot(const short *a, const short *b, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}
int larger(int a, int b) { return a > b ? a : b; }
long long product(int a, int b) { return (long long)a * b; }
"""
# What the core of an ESP8266 has not.
OF_BOTH = ("entry", "retw", "loop", "mula.aa.ll", "max")


@pytest.fixture(params=list(xtensa.VARIANTS))
def chain(request: pytest.FixtureRequest) -> xtensa.Toolchain:
    return set_up(lambda: xtensa.toolchain(request.param))


def test_it_uses_what_an_s3_has(chain: xtensa.Toolchain, tmp_path: Path) -> None:
    (tmp_path / "test.c").write_text(SOURCE)
    chain.run("", "gcc", "-O2", "-S", *chain.flags, tmp_path / "test.c", "-o", tmp_path / "test.s")
    text = (tmp_path / "test.s").read_text()
    for name in OF_BOTH:
        assert f"\t{name}" in text, name
    has_mulsh = chain.environment["XTENSA_GNU_CONFIG"].endswith("esp32s3.so")
    assert ("\tmulsh\t" in text) == has_mulsh
    assert ("__umulsidi3" in text) != has_mulsh


def test_encodings(chain: xtensa.Toolchain, tmp_path: Path) -> None:
    """As the instruction set's manual has them (RRR: op2, op1 = 2, r, s, t, op0 = 0)."""
    lines = {"mull a2, a3, a4": 0x822340}
    if chain.environment["XTENSA_GNU_CONFIG"].endswith("esp32s3.so"):
        lines |= {"muluh a2, a3, a4": 0xA22340, "mulsh a5, a6, a7": 0xB25670}
    (tmp_path / "test.s").write_text("\n".join(f"\t{line}" for line in lines) + "\n")
    chain.run("", "as", tmp_path / "test.s", "-o", tmp_path / "test.o")
    chain.run("", "objcopy", "-O", "binary", "-j", ".text", tmp_path / "test.o",
              tmp_path / "test.bin")
    code = (tmp_path / "test.bin").read_bytes()
    words = [struct.unpack("<I", code[i:i + 3] + b"\0")[0] for i in range(0, len(code) // 3 * 3, 3)]
    assert words == list(lines.values())


def test_without_its_option_an_instruction_is_refused(tmp_path: Path) -> None:
    """Else a module for the S3 could not be told from one for QEMU."""
    chain = set_up(lambda: xtensa.toolchain("qemu"))
    (tmp_path / "test.s").write_text("\tmulsh a2, a3, a4\n")
    with pytest.raises(ToolError):
        chain.run("", "as", tmp_path / "test.s", "-o", tmp_path / "test.o")


def test_a_second_run_fetches_and_builds_nothing(
    chain: xtensa.Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xtensa, "run", lambda *_, **__: pytest.fail("ran a program"))
    assert xtensa.toolchain() == xtensa.toolchain("esp32s3")


def test_another_machine_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(xtensa.platform, "machine", lambda: "aarch64")
    assert not natmod.is_possible("xtensawin")
    told = capsys.readouterr().out
    assert told == ("native module for xtensawin: skipped: Debian has this compiler for Linux on "
                    "x86-64 alone\n")


@pytest.fixture
def failing_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[set[str]]:
    """What it holds is what apt-get fails at."""
    failing: set[str] = set()

    def apt_get(apt: PrivateApt, what: str, *words: str, **_: object) -> None:
        if words[0] in failing:
            raise ToolError(f"{what} failed")

    monkeypatch.setattr(PrivateApt, "apt_get", apt_get)
    monkeypatch.setenv("DEBIAN_MIRROR", "http://mirror.example/debian")
    monkeypatch.setattr(sources, "BUILD", tmp_path)
    monkeypatch.setattr(sources, "DOWNLOADS", tmp_path / "downloads")
    sources._apt_of.cache_clear()
    yield failing
    sources._apt_of.cache_clear()


@pytest.mark.parametrize("fails", ["download", "nothing"])
def test_a_download_that_fails_is_no_skip(
    failing_apt: set[str], tmp_path: Path, fails: str
) -> None:
    """Nor one that brings nothing: the mirror answered, and has not what we name."""
    failing_apt.add(fails)
    with pytest.raises(ToolError, match="fetching gcc-xtensa|apt fetched no gcc-xtensa"):
        set_up(lambda: xtensa.unpack_programs(tmp_path / "root"))


def test_without_a_network_it_is_a_skip(failing_apt: set[str], tmp_path: Path) -> None:
    failing_apt.add("update")
    with pytest.raises(pytest.skip.Exception, match="reading the package lists failed"):
        set_up(lambda: xtensa.unpack_programs(tmp_path / "root"))


def test_a_broken_plugin_is_no_skip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor does `make natmods` go on as if the machine had no compiler."""
    for name in ("instructions", "options"):
        (tmp_path / "plugin").mkdir(exist_ok=True)
        (tmp_path / "plugin" / f"{name}.c").write_text("#error broken\n")
    set_up(xtensa.toolchain)
    monkeypatch.setattr(xtensa, "OURS", tmp_path)
    (tmp_path / "runtime.c").write_text("")
    monkeypatch.setattr(xtensa, "mark_made", lambda *_: None)
    monkeypatch.setattr(xtensa, "write_scripts", lambda *_: None)
    with pytest.raises(ToolError, match="building the plugin"):
        natmod.is_possible("xtensawin")


def test_a_changed_compiler_builds_the_module_again(tmp_path: Path) -> None:
    module, plugin = tmp_path / "module.mpy", tmp_path / "plugin.so"
    made_by = natmod.Compiler(files=(plugin,))
    (tmp_path / "Makefile").touch()
    for path in (plugin, module):
        path.touch()
    assert not natmod.is_stale(module, made_by)
    os.utime(plugin, (module.stat().st_mtime + 1,) * 2)
    assert natmod.is_stale(module, made_by)


def test_the_xtensa_module_is_made_by_plugin_and_runtime(chain: xtensa.Toolchain) -> None:
    variant = Path(chain.environment["XTENSA_GNU_CONFIG"]).stem
    files = {file.name for file in natmod.compiler("xtensawin", variant).files}
    assert files == {f"{variant}.so", f"lib{variant}.a"}


def test_a_changed_header_is_refused(tmp_path: Path) -> None:
    for name in (*xtensa.BINUTILS_HEADERS, *xtensa.QEMU_HEADERS):
        (tmp_path / name).write_text("another\n")
    with pytest.raises(ToolError, match="ansidecl.h: sha256 is"):
        xtensa.ensure_headers(tmp_path)
