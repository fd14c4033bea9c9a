"""The firmware image and its UF2, read here by the specifications and not by our own writer."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
from sparsetune_tools import firmware, sources
from sparsetune_tools.shell import BUILD, ROOT, ToolError
from sparsetune_tools.uf2 import to_uf2

FLASH = 0x10000000


@pytest.fixture(scope="module")
def built():
    return firmware.build()


@pytest.fixture(scope="module")
def image(built):
    return (built.folder / "firmware.bin").read_bytes()


def uf2_blocks(data):
    """Blocks of a UF2 file as the specification lays them out (32-byte head, 476, magic)."""
    assert len(data) % 512 == 0
    for start in range(0, len(data), 512):
        block = data[start:start + 512]
        assert block[:4] == b"UF2\n"
        assert int.from_bytes(block[4:8], "little") == 0x9E5D5157
        assert int.from_bytes(block[508:], "little") == 0x0AB16F30
        fields = [int.from_bytes(block[at:at + 4], "little") for at in range(8, 32, 4)]
        yield (*fields, block[32:508])


def check_uf2(data, image):
    blocks = list(uf2_blocks(data))
    payload = b""
    for index, (flags, address, size, number, count, family, content) in enumerate(blocks):
        assert flags == 0x2000  # the last head field is a family, and nothing else is special
        assert (address, size) == (FLASH + 256 * index, 256)
        assert (number, count) == (index, len(blocks))
        assert family == 0xE48BFF56  # RP2040
        assert not any(content[size:])
        payload += content[:size]
    assert payload[:len(image)] == image
    assert not any(payload[len(image):]) and len(payload) - len(image) < 256


def test_uf2_is_the_image_by_the_specification(built, image):
    check_uf2((built.folder / "firmware.uf2").read_bytes(), image)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000])
def test_uf2_of_odd_sizes(size):
    image = bytes(range(1, 252)) * 4
    check_uf2(to_uf2(image[:size]), image[:size])


def boot2_crc(data):
    """CRC-32 as the RP2040's boot ROM takes it: not reflected, no final inversion."""
    def mirrored(value, bits):
        return int(f"{value:0{bits}b}"[::-1], 2)
    reflected = zlib.crc32(bytes(mirrored(byte, 8) for byte in data)) ^ 0xFFFFFFFF
    return mirrored(reflected, 32)


def test_boot_stage_has_its_checksum(image):
    assert boot2_crc(image[:252]) == int.from_bytes(image[252:256], "little")


def test_vector_table_follows_the_boot_stage(image):
    stack, reset = struct.unpack_from("<2I", image, 256)
    assert 0x20000000 < stack <= 0x20042000 and stack % 8 == 0
    assert reset & 1 and FLASH + 256 <= reset < FLASH + len(image)


def test_flash_regions_fill_the_flash(image):
    romfs = firmware.board_bytes("MICROPY_HW_ROMFS_BYTES")
    storage = firmware.board_bytes("MICROPY_HW_FLASH_STORAGE_BYTES")
    assert romfs == 768 * 1024 and romfs % 4096 == storage % 4096 == 0
    assert len(image) <= firmware.app_bytes() == 640 * 1024
    assert firmware.app_bytes() + romfs + storage == 2 * 1024 * 1024


def test_no_path_of_this_machine_in_the_image(image):
    for path in (ROOT, sources.ensure().micropython, sources.ensure().pico_sdk):
        assert str(path).encode() not in image


def test_kernels_are_compiled_for_speed_and_innermost_loops_lie_in_ram(built):
    commands = json.loads((built.work / "compile_commands.json").read_text())
    ours = [each["command"] for each in commands if f"{ROOT}/ulab_kernels/" in each["file"]]
    assert len(ours) > 5
    assert {re.findall(r" -O(\S+)", command)[-1] for command in ours} == {"2"}
    names = subprocess.run(["arm-none-eabi-nm", built.folder / "firmware.elf"],
                           capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^(\w+) [tT] (st_\w+)$", names, flags=re.MULTILINE)
    kernels = {name: address for address, name in found}
    in_ram = {name for name, at in kernels.items() if at.startswith("20")}
    assert {"st_lanes_run_3", "st_requantize_run_relu", "st_add_rows_words"} <= in_ram
    assert all(at.startswith("10") for name, at in kernels.items() if name not in in_ram)
    assert len(in_ram) < len(kernels) / 3


def test_the_second_build_changes_no_file(built):
    files = [built.folder / f"firmware.{suffix}" for suffix in ("bin", "uf2", "elf")]
    before = [file.stat().st_mtime_ns for file in files]
    firmware.build()
    assert [file.stat().st_mtime_ns for file in files] == before


def test_stock_variant_is_without_us(built):
    stock = firmware.build("stock")
    image = (stock.folder / "firmware.bin").read_bytes()
    assert b"sparsetune_kernels" in (built.folder / "firmware.bin").read_bytes()
    assert b"sparsetune_kernels" not in image and b"sparsetune_device" not in image
    check_uf2((stock.folder / "firmware.uf2").read_bytes(), image)


def test_too_large_an_image_is_refused(built, monkeypatch):
    monkeypatch.setattr(firmware, "app_bytes", lambda: 100_000)
    with pytest.raises(ToolError, match="100,000 are left"):
        firmware.publish(built)


def test_a_failed_build_shows_its_end_in_one_line(tmp_path, capsys):
    with pytest.raises(ToolError) as error:
        firmware.run("building nothing", ["sh", "-c", "seq 100; exit 3"], tmp_path / "log")
    assert "\n" not in str(error.value) and "building nothing failed" in str(error.value)
    assert capsys.readouterr().err.splitlines() == [str(n) for n in range(86, 101)]
    assert len((tmp_path / "log").read_text().splitlines()) == 101


def copy_of_the_project(folder):
    """What the firmware is built from, elsewhere; with its sources as 'own checkouts'."""
    for name in ("boards", "device", "ulab_kernels", "tools/sparsetune_tools"):
        shutil.copytree(ROOT / name, folder / name,
                        ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    trees = sources.ensure()
    own = {"MICROPYTHON_DIR": trees.micropython, "PICO_SDK_DIR": trees.pico_sdk,
           "TINYUSB_DIR": trees.tinyusb}
    for variable, tree in own.items():
        shutil.copytree(tree, folder / variable, symlinks=True,
                        ignore=shutil.ignore_patterns(".git"))
    return {variable: str(folder / variable) for variable in own}


def snapshot(folders):
    return {path: path.lstat().st_mtime_ns for folder in folders
            for top, _, names in os.walk(folder) for path in map(
                firmware.Path(top).joinpath, [".", *names])}


@pytest.mark.slow
def test_built_elsewhere_it_is_the_same_bit_for_bit(built, image, tmp_path):
    """Another folder, own checkouts, other flags in the environment; the checkouts stay as
    they are."""
    folder = tmp_path / "another" / "place"
    own = copy_of_the_project(folder)
    before = snapshot(own.values())
    done = subprocess.run([sys.executable, "-m", "sparsetune_tools.firmware"], cwd=tmp_path,
                          env={**os.environ, **own, "PYTHONPATH": str(folder / "tools"),
                               "CFLAGS": "-O0", "MAKEFLAGS": "-n"},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    there = folder / "build" / "firmware" / firmware.BOARD
    assert not BUILD.is_relative_to(folder)
    assert (there / "firmware.bin").read_bytes() == image
    assert ((there / "firmware.uf2").read_bytes()
            == (built.folder / "firmware.uf2").read_bytes())
    assert snapshot(own.values()) == before


def test_a_path_with_a_space_is_refused(tmp_path):
    with pytest.raises(ToolError, match="has a space"):
        firmware.refuse_spaces(tmp_path / "my projects")
