"""Board descriptions: what each must say, and what `plan` says of figures that nobody measured."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import sparsetune
from sparsetune import cli
from sparsetune.boardspec import BOARDS, board_names, boards_with, load_spec
from sparsetune.commands import Chosen, describe_plan
from sparsetune.compile import build_program, source_of
from sparsetune.errors import SparsetuneError
from sparsetune.image import lay_out, parse_image
from sparsetune.memory import predict
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.plan_text import describe_layers
from sparsetune.tflite import read_tflite
from sparsetune.uf2 import FAMILIES
from sparsetune_tools import natmod
from test_budget import small_model

DIGITS = Path(sparsetune.__file__).parent / "models" / "digits_int8.tflite"
MEASURED = {"pico"}  # by bench/cycles.py and the emulated Pico
ARCHES = {"armv6m", "armv7emsp", "xtensawin", "rv32imc"}  # of native modules


def test_all_boards_are_there() -> None:
    assert set(board_names()) == {
        *("pico", "pico_stock", "pico_w", "pico2", "esp32s3", "esp32s3_psram", "esp32c3"),
    }


@pytest.mark.parametrize("name", board_names())
def test_description(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    parts = spec.firmware_bytes, spec.romfs_bytes, spec.filesystem_bytes, spec.store_bytes
    assert sum(parts) == spec.flash_bytes
    assert spec.package_bytes < spec.heap_bytes < spec.ram_bytes
    assert spec.arch in ARCHES
    assert spec.download.startswith("https://micropython.org/download/")
    assert bool(spec.estimated) == (name not in MEASURED)
    if spec.flash_method == "uf2":
        assert spec.uf2_family in FAMILIES
        assert FAMILIES[spec.uf2_family].startswith(spec.chip)
        assert spec.drive_label
    else:
        assert spec.flash_method == "esptool"
        assert spec.uf2_family is None


def test_a_board_is_one_file(tmp_path: Path) -> None:
    text = (BOARDS / "esp32c3.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("4194304", "8388608").replace("= 2097152", "= 4194304"))
    assert load_spec(str(path)).flash_bytes == 8388608


def test_same_chip_has_the_same_costs() -> None:
    clock = load_spec("pico").clock
    assert clock is not None
    assert load_spec("pico_w").clock == clock
    assert load_spec("pico2").clock is None


def test_costs_of_a_board_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((BOARDS / "pico_w.toml").read_text().replace('"pico"\n', '"teapot"\n'))
    with pytest.raises(SparsetuneError, match="unknown board 'teapot'"):
        load_spec(str(path))


def test_a_path_that_is_not_there_is_no_unknown_board(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    with pytest.raises(SparsetuneError, match=r"nowhere\.toml: No such file .*by name are .*pico"):
        load_spec(str(path))


def test_image_counts_as_ram_where_there_is_no_romfs() -> None:
    image = parse_image(small_model().layout.image)
    pico = load_spec("pico")
    in_place, in_ram = predict(image, 100, pico), predict(image, 100, replace(pico, romfs_bytes=0))
    assert in_ram.used - in_place.used == in_ram.image == len(image.data)


STOCK = boards_with(romfs_bytes=0)


@pytest.mark.parametrize("name", STOCK)
def test_stock_boards_count_kernels_and_the_packages_code(name: str) -> None:
    """The module, and all else as on a stock Pico, where it was measured (tests/test_stock.py)."""
    spec, pico = load_spec(name), load_spec("pico_stock")
    if not natmod.is_possible(spec.arch):
        pytest.skip(f"no compiler for {spec.arch}")
    flavour = "small" if "small" in natmod.flavours_of(spec.arch) else "full"
    small = natmod.build("armv6m", flavour="small").stat().st_size
    module = natmod.build(spec.arch, flavour=flavour).stat().st_size
    more = spec.package_bytes - module - (pico.package_bytes - small)
    assert -1024 < more < 8192  # never too little


@pytest.mark.parametrize("name", board_names())
def test_plan_says_what_nobody_measured(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "plan.json")
    assert cli.main(["plan", str(DIGITS), "--board", name, "-o", out]) == 0
    text = capsys.readouterr().out
    spec = load_spec(name)
    assert (f"{spec.title}, estimated: {spec.estimated}" in text) == (name not in MEASURED)
    assert ("nobody has measured times" in text) == (spec.clock is None)
    assert ("time: about" in text) == (spec.clock is not None)
    assert ("without ROMFS" in text) == (spec.romfs_bytes == 0)


@pytest.mark.parametrize(("name", "place"), [("pico", "flash"), ("esp32c3", "the image")])
def test_where_weights_are_left(name: str, place: str) -> None:
    """Without ROMFS no word of a plan tells of flash: the image lies in RAM."""
    graph, plan = read_tflite(DIGITS), UpdatePlan((LayerPlan(6, 8, slots=8),))
    layout, spec = lay_out(build_program(graph, plan), source_of(graph)), load_spec(name)
    chosen = Chosen(plan, "0.001", layout, spec.heap_bytes)
    told = "\n".join(describe_plan(graph, chosen, spec, None))
    assert f", in {place} but for 8 channels" in told
    told += "\n".join(describe_layers(graph, plan, layout, spec))
    assert f"/48, {place.removeprefix('the ')}" in told
    assert ("flash" in told) == (place == "flash")


def test_too_little_ram_names_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    """The parts of what is needed add up, the image among them."""
    assert cli.main(["plan", str(DIGITS), "--board", "esp32c3", "--ram", "20K"]) == 1
    text = capsys.readouterr().err
    found = re.search(r"needs ([\d,]+) bytes of RAM \((.*?)\), 20,480 are there", text)
    assert found and ", image " in found[2]
    parts = [int(n.replace(",", "")) for n in re.findall(r" (\d[\d,]*\d)", found[2])]
    assert sum(parts) == int(found[1].replace(",", ""))


def test_an_image_that_has_no_room_in_ram(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where only the image is too large, another firmware is a way out; else it is none."""
    text = (BOARDS / "esp32c3.toml").read_text()
    package = load_spec("esp32c3").package_bytes
    for heap, is_way_out in ((package + 13_160, True), (package + 3_160, False)):
        path = tmp_path / f"{heap}.toml"
        path.write_text(re.sub(r"(?m)^heap = \d+", f"heap = {heap}", text))
        assert cli.main(["plan", str(DIGITS), "--board", str(path)]) == 1
        told = capsys.readouterr().err
        assert "the forward pass alone needs" in told
        assert ("flash the sparsetune firmware, which reads it from flash" in told) == is_way_out
