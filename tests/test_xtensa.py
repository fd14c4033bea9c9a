"""The compiler for ESP32-S3: Debian's for the ESP8266 with a plugin of ours."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from sparsetune_tools import natmod, xtensa
from sparsetune_tools.shell import ToolError

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
    try:
        return xtensa.toolchain(request.param)
    except ToolError as error:
        pytest.skip(f"SKIP: no compiler for Xtensa: {error}")


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
    try:
        chain = xtensa.toolchain("qemu")
    except ToolError as error:
        pytest.skip(f"SKIP: no compiler for Xtensa: {error}")
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


def test_a_changed_header_is_refused(tmp_path: Path) -> None:
    for name in (*xtensa.BINUTILS_HEADERS, *xtensa.QEMU_HEADERS):
        (tmp_path / name).write_text("another\n")
    with pytest.raises(ToolError, match="ansidecl.h: sha256 is"):
        xtensa.ensure_headers(tmp_path)
