"""boards/SPARSETUNE_ESP32S3, as far as that goes without ESP-IDF: nobody has built or run it.

MicroPython's esp32 port reads it (build/sources); ESP-IDF's part of CMake and its headers are
stand-ins.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import esp_files
import pytest
from sparsetune.boardspec import load_spec
from sparsetune.esp_image import EspFirmware, Partition, parse_partitions
from sparsetune.firmware_file import check_firmware, read_firmware

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT / "boards" / "SPARSETUNE_ESP32S3"
MICROPYTHON = ROOT / "build" / "sources" / "micropython"
PORT = MICROPYTHON / "ports" / "esp32"

TYPES = {"app": 0, "data": 1}
SUBTYPES = {"factory": 0x00, "nvs": 0x02, "phy": 0x01, "fat": 0x81, "0x8f": 0x8F}
MMU_PAGE = 0x10000  # what flash is mapped by, for code and for memory that reads flash
SECTOR = 0x1000

Entry = tuple[int, int, int, int, str]


@pytest.fixture
def port() -> Path:
    if not PORT.is_dir():
        pytest.skip("SKIP: MicroPython's source is not there (make firmware)")
    return PORT


def entries() -> tuple[Entry, ...]:
    """The table as (type, subtype, offset, size, label)."""
    text = (BOARD / "partitions-8MiB-romfs.csv").read_text()
    rows = csv.reader(line for line in text.splitlines() if line and line[0] != "#")
    cells = [[cell.strip() for cell in row] for row in rows]
    return tuple((TYPES[r[1]], SUBTYPES[r[2]], int(r[3], 0), int(r[4], 0), r[0]) for r in cells)


def partition(label: str) -> Partition:
    found = {p.label: p for p in parse_partitions(esp_files.partition_table(entries()))}
    return found[label]


# Partitions ---------------------------------------------------------------------------


def test_partitions_follow_each_other_within_the_flash() -> None:
    end = esp_files.TABLE_AT + SECTOR  # behind the table itself
    for kind, _, offset, size, label in entries():
        assert offset == end, label  # no gap, no overlap
        assert offset % (MMU_PAGE if kind == 0 else SECTOR) == 0, label
        assert size > 0 and size % SECTOR == 0, label
        assert len(label) <= 15
        end = offset + size
    assert end == load_spec(str(BOARD / "board.toml")).flash_bytes == 8 * 1024 * 1024


def test_romfs_is_what_micropython_maps(port: Path) -> None:
    romfs = partition("romfs")
    assert (romfs.kind, romfs.subtype) == (1, 0x8F)
    assert romfs.offset % MMU_PAGE == romfs.size % MMU_PAGE == 0
    assert '"romfs"' in (port / "esp32_partition.c").read_text()
    assert 'label="vfs"' in (port / "modules" / "flashbdev.py").read_text()
    assert (partition("vfs").kind, partition("vfs").subtype) == (1, 0x81)
    assert re.search(r"define MICROPY_VFS_ROM\s+\(1\)", (BOARD / "mpconfigboard.h").read_text())


def test_application_has_as_much_room_as_stock(port: Path) -> None:
    stock = (port / "partitions-8MiB.csv").read_text()
    row = next(line for line in stock.splitlines() if line.startswith("factory"))
    assert partition("factory").size == int(row.split(",")[4], 0)


@pytest.mark.parametrize("name", ["board", "board_psram"])
def test_description_agrees(name: str, tmp_path: Path) -> None:
    spec = load_spec(str(BOARD / f"{name}.toml"))
    assert spec.firmware_bytes == partition("romfs").offset
    assert spec.romfs_bytes == partition("romfs").size
    assert spec.filesystem_bytes == partition("vfs").size
    assert spec.estimated and spec.clock is None
    path = esp_files.write(tmp_path / "f.bin", esp_files.firmware(entries=entries()))
    firmware = read_firmware(path)
    check_firmware(firmware, spec)
    assert isinstance(firmware.content, EspFirmware)
    assert len(firmware.content.partitions) == len(entries())


# Settings -----------------------------------------------------------------------------


def keys(text: str) -> set[str]:
    return set(re.findall(r"^(CONFIG_\w+)=", text, re.M))


def test_settings_are_those_that_micropythons_boards_use(port: Path) -> None:
    known = set()
    for path in (port / "boards").rglob("sdkconfig*"):
        known |= keys(path.read_text())
    assert keys((BOARD / "sdkconfig.board").read_text()) <= known


def test_options_are_those_that_micropython_has(port: Path) -> None:
    text = (BOARD / "mpconfigboard.h").read_text()
    options = set(re.findall(r"#define (MICROPY_\w+)", text))
    headers = [port / "mpconfigport.h", MICROPYTHON / "py" / "mpconfig.h", port / "uart.h"]
    known = "".join(path.read_text() for path in headers)
    assert {o for o in options if not re.search(rf"\b{o}\b", known)} <= {"MICROPY_HW_MCU_NAME"}


# The build ----------------------------------------------------------------------------


def with_empty_database(folder: Path) -> Path:
    """MicroPython's folder with links to all that is there, and empty files for a library that
    Debian's source has not."""
    library = folder / "lib" / "berkeley-db-1.xx"
    library.mkdir(parents=True)
    for path in (*MICROPYTHON.iterdir(), *(MICROPYTHON / "lib").iterdir()):
        link = folder / path.relative_to(MICROPYTHON)
        if not link.exists():
            link.symlink_to(path)
    wanted = (MICROPYTHON / "extmod" / "extmod.cmake").read_text()
    for name in ["README", *re.findall(r"MICROPY_LIB_BERKELEY_DIR}/(\S+\.c)", wanted)]:
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).touch()
    return folder


@pytest.fixture(params=["", "SPIRAM_OCT"])
def configured(request: pytest.FixtureRequest, port: Path, tmp_path: Path) -> dict[str, str]:
    """What ESP-IDF would be asked to build; sdkconfig: all settings together."""
    if not shutil.which("cmake") or not shutil.which("g++"):
        pytest.skip("SKIP: no cmake or no C++ compiler")
    idf = tmp_path / "idf" / "tools" / "cmake"
    idf.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "stand_in_idf.cmake", idf / "project.cmake")
    build = tmp_path / "out"
    command = [
        *("cmake", "-S", port, "-B", build, f"-DMICROPY_BOARD_DIR={BOARD}"),
        f"-DMICROPY_DIR={with_empty_database(tmp_path / 'micropython')}",
        f"-DMICROPY_LIB_DIR={BOARD}",  # micropython-lib: only looked for, as no manifest wants it
        *("-DMICROPY_BOARD=SPARSETUNE_ESP32S3", f"-DMICROPY_BOARD_VARIANT={request.param}"),
        f"-DUSER_C_MODULES={ROOT / 'ulab_kernels' / 'micropython.cmake'}",
    ]
    environment = {**os.environ, "IDF_PATH": str(tmp_path / "idf")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = dict(line.split("=", 1) for line in (build / "seen.txt").read_text().splitlines())
    seen["sdkconfig"] = Path(seen["SDKCONFIG_DEFAULTS"]).read_text()
    seen["variant"] = request.param
    return seen


def setting(text: str, key: str) -> str | None:
    """The last value of a key, which counts."""
    found = re.findall(rf"^CONFIG_{key}=(.*)$", text, re.M)
    return found[-1] if found else None


def test_cmake_reads_the_board(configured: dict[str, str]) -> None:
    assert configured["IDF_TARGET"] == "esp32s3"
    assert configured["MICROPY_FROZEN_MANIFEST"] == str(BOARD / "manifest.py")
    text = configured["sdkconfig"]
    assert setting(text, "ESPTOOLPY_FLASHSIZE_8MB") == "y"
    assert setting(text, "ESPTOOLPY_FLASHSIZE_4MB") == ""
    table = setting(text, "PARTITION_TABLE_CUSTOM_FILENAME")
    assert table is not None
    assert Path(table.strip('"')) == BOARD / "partitions-8MiB-romfs.csv"
    assert setting(text, "ESP_DEFAULT_CPU_FREQ_MHZ") == "240"
    assert setting(text, "BT_ENABLED") is None
    has_psram = configured["variant"] == "SPIRAM_OCT"
    assert (setting(text, "SPIRAM") == "y") == has_psram
    assert (setting(text, "SPIRAM_MODE_OCT") == "y") == has_psram
    assert ("octal PSRAM" in configured["DEFINITIONS"]) == has_psram


def test_kernels_are_a_user_module(configured: dict[str, str]) -> None:
    built = {Path(path).name for path in configured["KERNELS"].split(";")}
    sources = {path.name for path in (ROOT / "ulab_kernels").glob("*.c")}
    assert "bind_micropython.c" in built
    assert {name for name in sources if name.startswith("op_") or name == "run.c"} <= built
    assert not {"bind_cpython.c", "bind_core1.c"} & built
    assert "usermod" in configured["LINKED"].split(";")


def test_manifest_is_read(port: Path) -> None:
    """By MicroPython's own reader: the device package, and what boots the board."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1] + '/tools'); import manifestfile as m\n"
        "f = m.ManifestFile(m.MODE_FREEZE, dict(MPY_DIR=sys.argv[1], PORT_DIR=sys.argv[2],"
        " BOARD_DIR=sys.argv[3], MPY_LIB_DIR=''))\n"
        "f.execute(sys.argv[3] + '/manifest.py')\n"
        "print('\\n'.join(x.target_path for x in f.files()))"
    )
    command = [sys.executable, "-c", script, str(MICROPYTHON), str(port), str(BOARD)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    frozen = set(done.stdout.split())
    package = {f"sparsetune_device/{p.name}" for p in (ROOT / "device").rglob("*.py")}
    assert package <= frozen
    assert {"_boot.py", "flashbdev.py", "inisetup.py", "asyncio/__init__.py"} <= frozen


# The kernels --------------------------------------------------------------------------

# What the port's configuration takes of ESP-IDF's headers.
FREERTOS = """#pragma once
#include <stddef.h>
#include <stdint.h>
#define CONFIG_IDF_TARGET_ESP32S3 1
#define CONFIG_IDF_TARGET_ARCH_XTENSA 1
#define SOC_USB_OTG_SUPPORTED 1
#define SOC_USB_SERIAL_JTAG_SUPPORTED 1
#define IRAM_ATTR
typedef void *SemaphoreHandle_t;
typedef struct { uint32_t words[20]; } StaticSemaphore_t;
"""
GIVEN_HEADERS = {
    "freertos/FreeRTOS.h": FREERTOS,
    "esp_random.h": "#include <stdint.h>\nuint32_t esp_random(void);\n",
    **dict.fromkeys(("freertos/task.h", "freertos/semphr.h", "freertos/queue.h"), ""),
    **dict.fromkeys(("esp_system.h", "driver/i2s_std.h", "esp_wifi_types.h"), ""),
    "genhdr/root_pointers.h": "",
}


def given_headers(folder: Path) -> Path:
    """Stand-ins for ESP-IDF's headers, and for what a build of MicroPython makes of names."""
    sources = [*(ROOT / "ulab_kernels").glob("bind_*.c"), ROOT / "ulab_kernels" / "methods.def.h"]
    names = {n for path in sources for n in re.findall(r"\bMP_QSTR_\w+", path.read_text())}
    strings = "".join(f'QDEF1({name}, 0, 0, "")\n' for name in sorted(names))
    strings = 'QDEF0(MP_QSTRnull, 0, 0, "")\n' + strings
    for name, text in {**GIVEN_HEADERS, "genhdr/qstrdefs.generated.h": strings}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("configured", [""], indirect=True)
def test_kernels_compile_for_the_chip_with_the_ports_headers(
    configured: dict[str, str], port: Path, tmp_path: Path
) -> None:
    """By Debian's compiler with our plugin; nothing is linked."""
    from sparsetune_tools import xtensa
    from tool_chains import set_up

    chain = set_up(lambda: xtensa.toolchain("esp32s3"))
    folders = given_headers(tmp_path / "headers"), ROOT / "ulab_kernels", MICROPYTHON, port, BOARD
    flags = ["-O2", "-fwrapv", "-Wall", "-Werror", *chain.flags]
    flags += [f"-I{folder}" for folder in folders]
    for source in map(Path, configured["KERNELS"].split(";")):
        chain.run(f"compiling {source.name}", "gcc", "-c", *flags, source, "-o", tmp_path / "x.o")
