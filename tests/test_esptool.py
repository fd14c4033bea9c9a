"""Flashing Espressif's chips: the real esptool, as our command runs it, against a stand-in of the
ROM's boot loader (stand_in_esp_rom.py). No real chip was ever flashed by this."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import esp_files
import pytest
import serial
from own_port import StandIn
from sparsetune import board as board_module
from sparsetune import cli, esptool_run
from sparsetune import flash as flash_module
from sparsetune.board import BoardInfo
from sparsetune.boardspec import BoardSpec, load_spec
from sparsetune.errors import SparsetuneError
from sparsetune.flash import Job, flash

SMALL = 0x20000  # where files of the board begin in these tests: behind what the firmware takes


@pytest.fixture
def spec() -> BoardSpec:
    return load_spec("esp32s3")


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    return esp_files.write(tmp_path / "firmware.bin", esp_files.firmware())


@pytest.fixture
def rom(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start stand-ins for a chip in its boot loader; returns their port."""
    with contextlib.ExitStack() as running:

        def start(*arguments: object) -> str:
            files = "--flash", tmp_path / "flash", "--log", tmp_path / "commands"
            stand_in = StandIn("stand_in_esp_rom.py", *files, *arguments)
            running.callback(stand_in.kill)
            return stand_in.port

        yield start


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot loader does not answer as MicroPython would: that is waited for."""
    monkeypatch.setattr(board_module, "STOP_S", 0.3)


@pytest.fixture
def back(monkeypatch: pytest.MonkeyPatch) -> BoardInfo:
    """What the board says after its restart, which the stand-in cannot make."""
    info = BoardInfo("Generic ESP32S3", "1.25.0", "esp32", "", 0, False, None, 1, None, 1)
    monkeypatch.setattr(flash_module, "_identify", lambda found: info)
    return info


def commands(tmp_path: Path) -> list[str]:
    path = tmp_path / "commands"
    return path.read_text().split() if path.exists() else []


def test_whole_way(
    rom: Callable[..., str], back: BoardInfo, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    """The chip is asked what it is, all flash erased, the file written, and what flash holds
    compared, in this order."""
    said: list[str] = []
    assert flash(Job(firmware, spec, port=rom()), said.append) is back
    data = firmware.read_bytes()
    held = (tmp_path / "flash").read_bytes()
    assert held[: len(data)] == data
    assert set(held[len(data) :]) == {0xFF}
    order = commands(tmp_path)
    steps = ["sync", "get_security_info", "erase_flash", "flash_defl_begin", "flash_defl_data"]
    steps += ["flash_defl_end", "spi_flash_md5"]
    places = [order.index(step) for step in steps]
    assert places == sorted(places)
    assert any("Chip type: ESP32-S3" in line for line in said)
    assert "esptool: Hash of data verified." in said


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch, back: BoardInfo) -> list[str]:
    """What is done to a board, in its order; nothing of it is."""
    done: list[str] = []
    monkeypatch.setattr(flash_module, "rescue", lambda board: done.append(f"fetch {board.port}"))
    monkeypatch.setattr(flash_module, "write_firmware", lambda job, say: done.append("write"))
    return done


def test_what_was_learnt_is_fetched_before_flash_is_erased(
    stand_in: Callable[..., str], order: list[str], firmware: Path, spec: BoardSpec
) -> None:
    port = stand_in("--stock")
    flash(Job(firmware, spec, port=port), lambda text: None)
    assert order == [f"fetch {port}", "write"]
    flash(Job(firmware, spec, port=port, keep_files=True), lambda text: None)
    assert order[2:] == ["write"]


def test_nothing_is_erased_where_fetching_fails(
    monkeypatch: pytest.MonkeyPatch,
    stand_in: Callable[..., str],
    order: list[str],
    firmware: Path,
    spec: BoardSpec,
) -> None:
    def fail(board: board_module.Board) -> None:
        raise board_module.PortLost("the port went away")

    monkeypatch.setattr(flash_module, "rescue", fail)
    with pytest.raises(SparsetuneError, match="the port went away"):
        flash(Job(firmware, spec, port=stand_in("--stock")), lambda text: None)
    assert order == []


def test_a_board_without_micropython_has_nothing_to_fetch(
    rom: Callable[..., str], order: list[str], firmware: Path, spec: BoardSpec
) -> None:
    said: list[str] = []
    port = rom()
    flash(Job(firmware, spec, port=port), said.append)
    assert order == ["write"]
    assert f"no MicroPython answers on {port}: whether the board has learnt is not known" in said


def test_files_are_kept_where_asked_for(
    rom: Callable[..., str], back: BoardInfo, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    flash(Job(firmware, spec, port=rom(), keep_files=True), lambda text: None)
    held = (tmp_path / "flash").read_bytes()
    assert held[: firmware.stat().st_size] == firmware.read_bytes()
    assert set(held[SMALL:]) == {0x5A}  # as it was
    assert "erase_flash" not in commands(tmp_path)


def test_chip_whose_boot_loader_lies_elsewhere(
    rom: Callable[..., str], back: BoardInfo, spec: BoardSpec, tmp_path: Path
) -> None:
    """Another offset, with the same description otherwise; esptool is told by the file."""
    entries = ((0, 0, 0x10000, 0x1F0000, "factory"),)
    path = esp_files.write(tmp_path / "c3.bin", esp_files.firmware(5, 0, entries))
    flash(Job(path, load_spec("esp32c3"), port=rom("--chip-id", 5)), lambda text: None)
    assert (tmp_path / "flash").read_bytes().startswith(path.read_bytes())
    path.write_bytes(esp_files.firmware(0, 0x1000, entries))
    job = Job(path, replace(spec, chip="ESP32"), port="/dev/ttyUSB0", dry_run=True)
    said: list[str] = []
    flash(job, said.append)
    assert any("--chip esp32 " in line and f" 0x1000 {path}" in line for line in said)


def test_wrong_chip(
    rom: Callable[..., str], firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    port = rom("--chip-id", 5)
    with pytest.raises(SparsetuneError) as caught:
        flash(Job(firmware, spec, port=port), lambda text: None)
    assert str(caught.value) == (
        f"the chip on {port} is ESP32-C3, {firmware} is for ESP32-S3: choose another file and"
        " --board; nothing was written"
    )
    assert not (tmp_path / "flash").exists()


def test_flash_that_does_not_hold(rom: Callable[..., str], firmware: Path, spec: BoardSpec) -> None:
    with pytest.raises(SparsetuneError, match="does not hold what was written .MD5 of file does"):
        flash(Job(firmware, spec, port=rom("--bad-flash")), lambda text: None)


def test_locked_chip(rom: Callable[..., str], firmware: Path, spec: BoardSpec) -> None:
    with pytest.raises(SparsetuneError, match="esptool gave up: .* does not support .*esptool"):
        flash(Job(firmware, spec, port=rom("--locked")), lambda text: None)


def test_silent_port(rom: Callable[..., str], firmware: Path, spec: BoardSpec) -> None:
    port = rom("--silent")
    with pytest.raises(SparsetuneError, match=f"no boot loader answers on {port}: hold BOOT"):
        flash(Job(firmware, spec, port=port), lambda text: None)


RESTARTED = "went away: the chip has restarted into its boot loader, .*; repeat the command"
UNPLUGGED = "went away during writing: plug the board in again"


@pytest.mark.parametrize(
    ("command", "after", "message"),
    [
        ("sync", 0.0, RESTARTED),
        ("sync", 0.11, RESTARTED),
        ("sync", 0.13, RESTARTED),
        ("sync", 0.4, RESTARTED),
        ("flash_defl_data", 0.0, UNPLUGGED),
    ],
)
def test_port_that_goes(
    rom: Callable[..., str],
    firmware: Path,
    spec: BoardSpec,
    command: str,
    after: float,
    message: str,
) -> None:
    """The first as MicroPython's USB port does when the chip restarts into its boot loader.
    after: s, in which esptool gives up a first time and does other things to the port."""
    port = rom("--leaves", command, "--after", after)
    with pytest.raises(SparsetuneError, match=f"^{port} {message}"):
        flash(Job(firmware, spec, port=port), lambda text: None)


def test_ctrl_c(
    rom: Callable[..., str], firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if "Erasing" in line:
            raise KeyboardInterrupt

    with pytest.raises(SparsetuneError, match="stopped: the board may hold half a firmware"):
        flash(Job(firmware, spec, port=rom()), stop)


def test_port_in_use(
    rom: Callable[..., str], firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    port = rom()
    with (
        serial.Serial(port, exclusive=True),
        pytest.raises(SparsetuneError, match=f"{port} is in use by another program: close it"),
    ):
        flash(Job(firmware, spec, port=port), lambda text: None)
    assert commands(tmp_path) == []


def test_no_such_port(firmware: Path, spec: BoardSpec) -> None:
    with pytest.raises(SparsetuneError, match="there is no port /dev/none: plug the board in"):
        flash(Job(firmware, spec, port="/dev/none"), lambda text: None)


def test_no_port_at_all(
    monkeypatch: pytest.MonkeyPatch, firmware: Path, spec: BoardSpec
) -> None:
    monkeypatch.setattr(flash_module, "list_boards", lambda *vendors: [])
    monkeypatch.setattr(flash_module, "list_bridges", lambda: ["/dev/ttyUSB0"])
    with pytest.raises(SparsetuneError, match=r"no ESP32-S3 is seen on USB: .* \(/dev/ttyUSB0\)"):
        flash(Job(firmware, spec), lambda text: None)


def test_file_for_another_chip_touches_nothing(
    rom: Callable[..., str], spec: BoardSpec, tmp_path: Path
) -> None:
    path = esp_files.write(tmp_path / "c3.bin", esp_files.firmware(5))
    with pytest.raises(SparsetuneError, match="is for ESP32-C3, not for ESP32-S3"):
        flash(Job(path, spec, port=rom()), lambda text: None)
    assert commands(tmp_path) == []


def test_dry_run_says_what_would_run_and_does_nothing(
    rom: Callable[..., str], firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    port = rom()
    said: list[str] = []
    assert flash(Job(firmware, spec, port=port, dry_run=True), said.append) is None
    assert commands(tmp_path) == []
    assert said[1:] == [
        "would fetch what the board learnt and nobody has pulled, to out/",
        "would erase all flash, the board's files too (--keep-files leaves them)",
        f"would run {sys.executable} -m esptool --chip esp32s3 --port {port} --baud 460800"
        f" write-flash --no-progress --erase-all 0x0 {firmware}",
        "would wait for the board to restart, and ask it for its version",
    ]


def test_board_that_says_another_version(
    monkeypatch: pytest.MonkeyPatch,
    rom: Callable[..., str],
    back: BoardInfo,
    firmware: Path,
    spec: BoardSpec,
    capsys: pytest.CaptureFixture[str],
) -> None:
    older = replace(back, micropython="1.22.0")
    monkeypatch.setattr(flash_module, "_identify", lambda found: older)
    flash(Job(firmware, spec, port=rom()), lambda text: None)
    assert "the board runs MicroPython 1.22.0, not v1.25.0: flash again" in capsys.readouterr().out


def test_board_that_came_back_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    rom: Callable[..., str],
    stand_in: Callable[..., str],
    firmware: Path,
    spec: BoardSpec,
) -> None:
    """On its new port, where a stand-in for MicroPython answers."""
    port, new = rom(), stand_in("--stock")
    listings = iter([[]])
    monkeypatch.setattr(flash_module, "list_boards", lambda: next(listings, [(new, "board")]))
    monkeypatch.setattr(flash_module, "port_exists", lambda name: name == new)
    info = flash(Job(firmware, spec, port=port), lambda text: None)
    assert info is not None
    assert (info.platform, info.has_kernels) == (sys.platform, False)


def test_board_comes_back_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chip's own USB serial port goes, MicroPython's comes."""
    ports = [("/dev/old-pico", ""), ("/dev/new", "")]
    monkeypatch.setattr(flash_module, "list_boards", lambda *vendors: ports)
    monkeypatch.setattr(flash_module, "port_exists", lambda name: name != "/dev/ttyACM0")
    monkeypatch.setattr(flash_module, "_identify", lambda found: found())
    found = flash_module._wait_board("/dev/ttyACM0", {"/dev/old-pico"}, lambda text: None)
    assert found == ["/dev/new"]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("version", "message"),
    [("4.8.1", "esptool 4.8.1 is too old: pip install"), (None, "esptool is not installed: pip")],
)
def test_esptool_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, firmware: Path, spec: BoardSpec, version: str, message: str
) -> None:
    def told(name: str) -> str:
        if version is None:
            raise esptool_run.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(esptool_run.importlib.metadata, "version", told)
    with pytest.raises(SparsetuneError, match=message):
        flash(Job(firmware, spec, port="/dev/none"), lambda text: None)


def test_drive_is_of_other_boards(firmware: Path, spec: BoardSpec, tmp_path: Path) -> None:
    with pytest.raises(SparsetuneError, match="ESP32-S3 has no drive: leave --drive out"):
        flash(Job(firmware, spec, drive=tmp_path), lambda text: None)


def test_command_line(
    rom: Callable[..., str], back: BoardInfo, firmware: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["flash", "--board", "esp32s3", "--port", rom(), str(firmware)]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "Hash of data verified" in out
    assert "Generic ESP32S3, MicroPython 1.25.0, without sparsetune kernels" in out
    assert cli.main(["flash", "--board", "pico", str(firmware)]) == 1
    assert "is for ESP32-S3, not for RP2040" in capsys.readouterr().err
