"""Flashing: what a UF2 must be, which drive is ours, and the emulated Pico from end to end.

The drive of most tests is a stand-in: a folder with INFO_UF2.TXT that vanishes when a file
has arrived.
"""

from __future__ import annotations

import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sparsetune import flash as flash_module
from sparsetune.board import Board, BoardInfo
from sparsetune.boardspec import BoardSpec, board_names, load_spec
from sparsetune.errors import SparsetuneError
from sparsetune.firmware_file import check_firmware, read_firmware
from sparsetune.flash import Job, find_drives, flash
from sparsetune.uf2 import Uf2

ROOT = Path(__file__).parent.parent
RP2040 = 0xE48BFF56
INFO = "UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: RPI-RP2\n"


def uf2(blocks: int = 4, family: int = RP2040, start: int = 0x10000000) -> bytes:
    """Make a UF2 file of `blocks` pages."""
    out = b""
    for i in range(blocks):
        head = (0x0A324655, 0x9E5D5157, 0x2000, start + 256 * i, 256, i, blocks, family)
        out += struct.pack("<8I", *head) + bytes(476) + struct.pack("<I", 0x0AB16F30)
    return out


@pytest.fixture
def spec() -> BoardSpec:
    return load_spec("pico")


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    path = tmp_path / "firmware.uf2"
    path.write_bytes(uf2())
    return path


@pytest.fixture
def no_hardware(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine with nothing plugged in."""
    monkeypatch.setattr(flash_module, "list_boards", lambda *vendors: [])
    monkeypatch.setattr(flash_module, "list_bridges", list)
    monkeypatch.setattr(flash_module, "_mount_points", list)
    monkeypatch.setattr(flash_module, "DRIVE_S", 1.0)
    monkeypatch.setattr(flash_module, "RESTART_S", 1.0)
    yield


# The file ---------------------------------------------------------------------------


def test_uf2_is_read(firmware: Path, spec: BoardSpec) -> None:
    found = read_firmware(firmware)
    image = found.content
    assert isinstance(image, Uf2)
    assert (image.start, image.end, image.size) == (0x10000000, 0x10000400, 1024)
    check_firmware(found, spec)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: download or build it again"),
        (uf2()[:-1], "not a whole UF2"),
        (uf2()[:-512], "not a whole UF2"),
        (b"\x7fELF" + bytes(508), "not a UF2 file"),
        (uf2()[:-4] + bytes(4), "not a UF2 file"),
        (uf2(family=0xE48BFF59), r"is for RP2350 \(Arm\), not for RP2040"),
        (uf2(family=0x12345678), "is for 0x12345678, not for RP2040"),
        (uf2(start=0x20000000), "outside the flash"),
        (uf2(start=0x10200000 - 512), "outside the flash"),
    ],
)
def test_bad_firmware(tmp_path: Path, spec: BoardSpec, data: bytes, message: str) -> None:
    path = tmp_path / "bad.uf2"
    path.write_bytes(data)
    with pytest.raises(SparsetuneError, match=message):
        check_firmware(read_firmware(path), spec)


def test_missing_firmware(tmp_path: Path) -> None:
    with pytest.raises(SparsetuneError, match="cannot read .* build the firmware"):
        read_firmware(tmp_path / "none.uf2")


# Board descriptions -----------------------------------------------------------------


def test_descriptions_are_complete() -> None:
    assert "pico" in board_names()
    for name in board_names():
        spec = load_spec(name)
        parts = spec.firmware_bytes, spec.romfs_bytes, spec.filesystem_bytes, spec.store_bytes
        assert sum(parts) == spec.flash_bytes


def test_pico_agrees_with_its_firmware(spec: BoardSpec) -> None:
    header = (ROOT / "boards" / "SPARSETUNE_PICO" / "mpconfigboard.h").read_text()

    def kilobytes(macro: str) -> int:
        found = re.search(rf"{macro}\s+\((\d+) \* 1024\)", header)
        assert found
        return int(found[1]) * 1024

    assert spec.romfs_bytes == kilobytes("MICROPY_HW_ROMFS_BYTES")
    storage = kilobytes("MICROPY_HW_FLASH_STORAGE_BYTES")
    assert spec.filesystem_bytes + spec.store_bytes == storage
    board = (ROOT / "boards" / "SPARSETUNE_PICO" / "modules" / "sparsetune_board.py").read_text()
    assert f"STORE_BYTES = {spec.store_bytes // 1024} * 1024" in board


def test_unknown_board() -> None:
    with pytest.raises(SparsetuneError, match="unknown board 'teapot': choose one of .*pico"):
        load_spec("teapot")


def test_incomplete_description(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    for text in ("name = 'x'", "name ="):
        path.write_text(text)
        with pytest.raises(SparsetuneError, match="not a complete board description"):
            load_spec(str(path))


# The drive --------------------------------------------------------------------------


def stand_in_drive(folder: Path, vanish: bool = True) -> Path:
    """A folder that behaves like a boot loader's drive."""
    folder.mkdir()
    (folder / "INFO_UF2.TXT").write_text(INFO)

    def watch() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            arrived = [path for path in folder.iterdir() if path.suffix == ".uf2"]
            if arrived and arrived[0].stat().st_size % 512 == 0 and arrived[0].stat().st_size:
                time.sleep(0.2)
                folder.rename(folder.with_name("taken"))
                return
            time.sleep(0.05)

    if vanish:
        threading.Thread(target=watch, daemon=True).start()
    return folder


def test_firmware_is_copied_whole(
    no_hardware: None, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    drive = stand_in_drive(tmp_path / "RPI-RP2")
    said: list[str] = []
    assert flash(Job(firmware, spec, drive=drive), said.append) is None
    assert (tmp_path / "taken" / "firmware.uf2").read_bytes() == firmware.read_bytes()
    assert said[-1] == "flashed; no serial port has appeared yet"


def test_drive_is_found_by_itself(
    no_hardware: None,
    monkeypatch: pytest.MonkeyPatch,
    firmware: Path,
    spec: BoardSpec,
    tmp_path: Path,
) -> None:
    drive = stand_in_drive(tmp_path / "RPI-RP2")
    monkeypatch.setattr(flash_module, "_mount_points", lambda: [tmp_path, drive])
    assert find_drives() == [drive]
    flash(Job(firmware, spec), lambda text: None)
    assert (tmp_path / "taken" / "firmware.uf2").exists()


def test_two_drives(
    no_hardware: None,
    monkeypatch: pytest.MonkeyPatch,
    firmware: Path,
    spec: BoardSpec,
    tmp_path: Path,
) -> None:
    drives = [stand_in_drive(tmp_path / name, vanish=False) for name in ("one", "two")]
    monkeypatch.setattr(flash_module, "_mount_points", lambda: drives)
    with pytest.raises(SparsetuneError, match="several boards wait"):
        flash(Job(firmware, spec), lambda text: None)


def test_nothing_plugged_in(no_hardware: None, firmware: Path, spec: BoardSpec) -> None:
    with pytest.raises(SparsetuneError, match="hold BOOTSEL while plugging"):
        flash(Job(firmware, spec), lambda text: None)


def test_drive_of_another_chip(
    no_hardware: None, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    drive = stand_in_drive(tmp_path / "drive", vanish=False)
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v1.0\nBoard-ID: RP2350\n")
    with pytest.raises(SparsetuneError, match=r"not a Raspberry Pi Pico \(Board-ID: RP2350\)"):
        flash(Job(firmware, spec, drive=drive), lambda text: None)
    assert [path.name for path in drive.iterdir()] == ["INFO_UF2.TXT"]


def test_pico2(no_hardware: None, tmp_path: Path) -> None:
    drive = stand_in_drive(tmp_path / "RP2350")
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v1.0\nBoard-ID: RP2350\n")
    path = tmp_path / "pico2.uf2"
    path.write_bytes(uf2(family=0xE48BFF59))
    flash(Job(path, load_spec("pico2"), drive=drive), lambda text: None)
    assert (tmp_path / "taken" / "pico2.uf2").read_bytes() == path.read_bytes()


def test_drive_that_stays(
    no_hardware: None, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    drive = stand_in_drive(tmp_path / "drive", vanish=False)
    with pytest.raises(SparsetuneError, match="did not restart"):
        flash(Job(firmware, spec, drive=drive), lambda text: None)


def test_bad_firmware_touches_no_drive(
    no_hardware: None, spec: BoardSpec, tmp_path: Path
) -> None:
    drive = stand_in_drive(tmp_path / "drive", vanish=False)
    bad = tmp_path / "bad.uf2"
    bad.write_bytes(uf2(family=0xC47E5767))
    with pytest.raises(SparsetuneError, match="is for ESP32-S3"):
        flash(Job(bad, spec, drive=drive), lambda text: None)
    assert [path.name for path in drive.iterdir()] == ["INFO_UF2.TXT"]


def test_dry_run_changes_nothing(
    no_hardware: None, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    drive = stand_in_drive(tmp_path / "drive", vanish=False)
    said: list[str] = []
    assert flash(Job(firmware, spec, drive=drive, dry_run=True), said.append) is None
    assert said[1:] == [
        f"would copy {firmware} to {drive}",
        "would wait for the board to restart, and ask it for its version",
    ]
    assert [path.name for path in drive.iterdir()] == ["INFO_UF2.TXT"]


def test_dry_run_with_a_running_board(
    no_hardware: None, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    said: list[str] = []
    flash(Job(firmware, spec, port="/dev/ttyACM0", dry_run=True), said.append)
    assert "restart the board on /dev/ttyACM0 into its boot loader" in said[1]


def test_dry_run_without_a_board_says_all(
    no_hardware: None, firmware: Path, spec: BoardSpec, tmp_path: Path
) -> None:
    """Why it would stop, and what it would do else; a folder that is no drive is told as such."""
    for drive, where in (
        (None, "RPI-RP2 drive not found"),
        (tmp_path / "none", f"{tmp_path / 'none'} not found"),
        (tmp_path, f"{tmp_path} is no drive of a boot loader, which has INFO_UF2.TXT"),
    ):
        said: list[str] = []
        assert flash(Job(firmware, spec, drive=drive, dry_run=True), said.append) is None
        assert said[1:] == [
            f"would stop: no board to flash ({where}): hold BOOTSEL while plugging the board in;"
            " with its drive it",
            f"would copy {firmware} to {drive or 'the drive'}",
            "would wait for the board to restart, and ask it for its version",
        ]


def test_other_platform_is_left_alone(
    stand_in: Callable[..., str], no_hardware: None, firmware: Path, spec: BoardSpec
) -> None:
    """The stand-in's sys.platform is this machine's."""
    with pytest.raises(SparsetuneError, match="not 'rp2': choose its own description"):
        flash(Job(firmware, spec, port=stand_in()), lambda text: None)


def test_unknown_flash_method(firmware: Path, spec: BoardSpec) -> None:
    with pytest.raises(SparsetuneError, match="'jtag', which is not known here: choose uf2 or esp"):
        flash(Job(firmware, replace(spec, flash_method="jtag")), lambda text: None)


def test_board_without_a_firmware_of_ours(no_hardware: None) -> None:
    with pytest.raises(SparsetuneError, match="no firmware of ours for Raspberry Pi Pico 2: name"):
        flash(Job(None, load_spec("pico2")), lambda text: None)


def test_another_chip_that_runs_is_left_alone(
    no_hardware: None,
    monkeypatch: pytest.MonkeyPatch,
    stand_in: Callable[..., str],
    firmware: Path,
    spec: BoardSpec,
) -> None:
    """Pico and Pico 2 have the same sys.platform."""
    info = BoardInfo("Raspberry Pi Pico2 with RP2350", "1.25.0", "rp2", "", 0, False, None, 1, 0, 0)
    monkeypatch.setattr(Board, "identify", lambda board: info)
    with pytest.raises(SparsetuneError, match="is RP2350, not RP2040: choose its own description"):
        flash(Job(firmware, spec, port=stand_in()), lambda text: None)


# On the emulated Pico ---------------------------------------------------------------


def test_emulated_flash(emulated_pico, spec: BoardSpec) -> None:
    """machine.bootloader(), the drive, the copy, the restart; files on the board survive."""
    port = str(emulated_pico.port_link)
    with Board.connect(port) as board:
        board.exec("with open('/kept.txt', 'w') as f: f.write('kept')")
    said: list[str] = []
    job = Job(spec.firmware_file, spec, port=port, drive=emulated_pico.bootsel)
    info = flash(job, said.append)
    assert info is not None
    assert info.has_kernels
    assert any("restarting the board" in line for line in said)
    with Board.connect(port) as board:
        assert board.read_file("/kept.txt") == b"kept"
        board.remove_file("/kept.txt")


def test_emulated_flash_without_a_drive(no_hardware: None, emulated_pico, spec: BoardSpec) -> None:
    """The error says how to go on, and that works."""
    port = str(emulated_pico.port_link)
    job = Job(spec.firmware_file, spec, port=port)
    with pytest.raises(SparsetuneError, match="repeat the command with --drive .*/RPI-RP2"):
        flash(job, lambda text: None)
    info = flash(replace(job, drive=emulated_pico.bootsel), lambda text: None)
    assert info is not None and info.has_kernels
