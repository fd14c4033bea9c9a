"""What firmware files are: chips, versions, partitions, and what is refused. Images are checked by
esptool itself, and what we know of chips against what it knows."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import esp_files
import pytest
from sparsetune.boardspec import BoardSpec, load_spec
from sparsetune.errors import SparsetuneError
from sparsetune.esp_image import CHIPS, EspFirmware, parse_partitions
from sparsetune.firmware_file import check_firmware, read_firmware, version_number
from sparsetune.uf2 import Uf2
from test_flash import uf2

ARM, ABSOLUTE = 0xE48BFF59, 0xE48BFF57


def esptool(*arguments: object) -> str:
    command = [sys.executable, "-m", "esptool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def says(path: Path, spec: BoardSpec) -> str:
    """How the file is refused."""
    with pytest.raises(SparsetuneError) as caught:
        check_firmware(read_firmware(path), spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Espressif ---------------------------------------------------------------------------


def test_chips_are_those_of_esptool() -> None:
    from esptool.targets import CHIP_DEFS

    known = {c.IMAGE_CHIP_ID: c for c in CHIP_DEFS.values() if hasattr(c, "IMAGE_CHIP_ID")}
    for number, (name, offset) in CHIPS.items():
        assert (known[number].CHIP_NAME, known[number].BOOTLOADER_FLASH_OFFSET) == (name, offset)


def test_images_made_here_are_images_for_esptool(tmp_path: Path) -> None:
    app = esp_files.write(tmp_path / "app.bin", esp_files.application())
    told = esptool("image-info", app)
    for text in ("ESP32-S3", "micropython", "v1.25.0", "v5.4.1"):
        assert text in told
    assert told.count("(valid)") == 2  # checksum and hash
    assert "(valid)" in esptool("image-info", esp_files.write(app, esp_files.boot_loader(5)))


def test_merged_image_of_esptool_is_recognised(tmp_path: Path) -> None:
    """As MicroPython's build makes its firmware.bin."""
    parts = {
        0x0: esp_files.boot_loader(),
        0x8000: esp_files.partition_table(),
        0x10000: esp_files.application(),
    }
    arguments: list[object] = []
    for at, data in parts.items():
        arguments += [hex(at), esp_files.write(tmp_path / f"{at}.bin", data)]
    merged = tmp_path / "firmware.bin"
    esptool("--chip", "esp32s3", "merge-bin", "-o", merged, *arguments)
    assert merged.read_bytes() == esp_files.firmware()

    found = read_firmware(merged)
    content = found.content
    assert isinstance(content, EspFirmware)
    assert (content.chip, content.offset, content.idf) == ("ESP32-S3", 0, "v5.4.1")
    assert [part.label for part in content.partitions] == ["nvs", "factory", "vfs"]
    assert (found.version, found.date) == ("v1.25.0", "2025-04-15")
    assert found.machine == "Generic ESP32S3 module with ESP32S3"
    assert "for ESP32-S3, at 0x00000000; MicroPython v1.25.0 of 2025-04-15" in found.describe()
    assert found.doubts() == []
    check_firmware(found, load_spec("esp32s3"))


def test_offset_of_an_older_chip(tmp_path: Path) -> None:
    path = esp_files.write(tmp_path / "f.bin", esp_files.firmware(0, 0x1000))
    content = read_firmware(path).content
    assert isinstance(content, EspFirmware)
    assert (content.chip, content.offset, len(content.partitions)) == ("ESP32", 0x1000, 3)


def test_file_for_another_chip(tmp_path: Path) -> None:
    entries = ((0, 0, 0x10000, 0x1F0000, "factory"),)
    path = esp_files.write(tmp_path / "f.bin", esp_files.firmware(5, 0, entries))
    said = says(path, load_spec("esp32s3"))
    assert said.endswith(
        "f.bin is for ESP32-C3, not for ESP32-S3: choose another file, or --board esp32c3"
    )
    assert "not for RP2040: choose another file, or --board esp32c3" in says(
        path, load_spec("pico")
    )


WHOLE = esp_files.firmware()


def changed(at: int) -> bytes:
    """A bit of a whole file."""
    data = bytearray(WHOLE)
    data[at] ^= 4
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (esp_files.application(), "an application alone for ESP32-S3, not all of a firmware"),
        (esp_files.boot_loader(), "a boot loader alone, or a part for ESP32-S3"),
        (esp_files.firmware()[:0x8000], "not all of a firmware"),
        (esp_files.firmware(chip_id=77), r"a chip that is not known here \(number 77\)"),
        (b"\xe9", "no firmware that is known here"),
        (b"\x7fELF" + bytes(600), "no firmware that is known here"),
        (b"", "f.bin is empty: download or build it again"),
        (WHOLE[:0x8C00], "cut off or damaged: download"),
        (WHOLE[:0x10010], "cut off or damaged"),
        (WHOLE[:-33], "cut off or damaged"),
        (WHOLE[:-1], "cut off or damaged"),
        (changed(-40), "cut off or damaged"),
        (changed(-1), "cut off or damaged"),
        (changed(100), "cut off or damaged"),
    ],
)
def test_what_is_not_a_whole_firmware(tmp_path: Path, data: bytes, message: str) -> None:
    path = esp_files.write(tmp_path / "f.bin", data)
    with pytest.raises(SparsetuneError, match=message):
        read_firmware(path)


def test_more_flash_than_the_board_has(tmp_path: Path) -> None:
    entries = (*esp_files.PARTITIONS[:2], (1, 0x81, 0x200000, 0xE00000, "vfs"))
    path = esp_files.write(tmp_path / "f.bin", esp_files.firmware(entries=entries))
    assert "made for 16,777,216 bytes of flash, ESP32-S3 has 8,388,608" in says(
        path, load_spec("esp32s3")
    )


def test_partition_table_ends_where_it_ends() -> None:
    table = esp_files.partition_table()
    assert [part.label for part in parse_partitions(table)] == ["nvs", "factory", "vfs"]
    assert len(parse_partitions(table[:70])) == 2  # cut off
    assert parse_partitions(b"\xff" * 0xC00) == parse_partitions(b"") == ()


# Versions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("banner", "doubt"),
    [
        (b"MicroPython v1.24.0 on 2024-10-25\0", ""),
        (b"3.4.0; MicroPython v1.26.0-preview.12.g1a2b3c4 on 2025-06-01\0", ""),
        (b"MicroPython v1.23.0 on 2024-06-02\0", "older than MicroPython 1.24"),
        (b"Arduino", "holds no MicroPython"),
    ],
)
def test_versions(tmp_path: Path, banner: bytes, doubt: str) -> None:
    path = esp_files.write(tmp_path / "f.bin", esp_files.firmware(banner=banner))
    doubts = read_firmware(path).doubts()
    assert len(doubts) == bool(doubt)
    assert not doubt or doubt in doubts[0]


def test_version_numbers() -> None:
    assert version_number("v1.24.1") == version_number("1.24.1") == (1, 24, 1)
    assert version_number("v1.26.0-preview.12.g1a2b3c4") == (1, 26, 0)
    assert version_number(None) is version_number("nightly") is None


# UF2 ----------------------------------------------------------------------------------


def with_first_block(data: bytes, tag: int) -> bytes:
    """As files for the RP2350 begin since its first revision's error (RP2350-E10)."""
    head = struct.pack("<8I", 0x0A324655, 0x9E5D5157, 0xA000, 0x10FFFF00, 256, 0, 2, ABSOLUTE)
    body = b"\xef" * 256 + struct.pack("<I", tag)
    return head + body.ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30) + data


def test_first_block_of_pico2_files_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "pico2.uf2"
    path.write_bytes(with_first_block(uf2(family=ARM), 0x9957E304))
    found = read_firmware(path)
    assert isinstance(found.content, Uf2)
    assert (found.content.start, found.content.size) == (0x10000000, 1024)
    check_firmware(found, load_spec("pico2"))
    assert "RP2350 (Arm), not for RP2040: choose another file, or --board pico2" in says(
        path, load_spec("pico")
    )
    path.write_bytes(with_first_block(uf2(family=ARM), 0))
    with pytest.raises(SparsetuneError, match="not a whole UF2"):
        read_firmware(path)


def test_uf2_where_esptool_writes(tmp_path: Path) -> None:
    """Files for the boot loader that some boards have before MicroPython."""
    path = tmp_path / "f.uf2"
    path.write_bytes(uf2(family=0xC47E5767))
    said = says(path, load_spec("esp32s3"))
    assert "is for ESP32-S3, not for ESP32-S3's own boot loader (.bin): choose another" in said
    path.write_bytes(uf2())
    said = says(path, load_spec("esp32s3"))
    assert "is for RP2040, not for ESP32-S3: choose another file, or --board pico or" in said


def test_banner_across_uf2_blocks(tmp_path: Path) -> None:
    path = tmp_path / "f.uf2"
    data = bytearray(uf2())
    banner = b"MicroPython v1.25.0 on 2025-04-15\0Raspberry Pi Pico with RP2040\0"
    cut = 20
    data[32 + 256 - cut : 32 + 256] = banner[:cut]
    data[512 + 32 : 512 + 32 + len(banner) - cut] = banner[cut:]
    path.write_bytes(data)
    found = read_firmware(path)
    assert (found.version, found.machine) == ("v1.25.0", "Raspberry Pi Pico with RP2040")


def test_our_own_firmware_is_recognised() -> None:
    spec = load_spec("pico")
    assert spec.firmware_file is not None
    if not spec.firmware_file.is_file():
        pytest.skip("SKIP: the firmware is not built (make firmware)")
    found = read_firmware(spec.firmware_file)
    assert found.machine == "Sparsetune Pico with RP2040"
    assert version_number(found.version) is not None
    assert found.doubts() == []
