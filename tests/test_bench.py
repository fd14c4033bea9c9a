"""What the benches count with: multiply-accumulates, lines, linker maps, single operators."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import bars
import cores
import cycles
import emulated
import kept
import layers
import learning
import learning_picture
import networks
import numpy as np
import promised
import pytest
import ratios
import sizes
import sparsetune_kernels as kernels
import steps
import xtensa
from conftest import FIRMWARE
from four_layer_cnn import four_layer_cnn, train_in_full
from host_speed import Speed, with_earlier_torch
from layers import kind_of, macs_of
from machine import Machine
from networks import blocks, network, own_model, plan_of
from one_operator import Replay
from runs import DIGITS
from sparsetune.errors import SparsetuneError
from sparsetune.methods import parse_methods
from sparsetune.program import Buffer, Code, Slot
from sparsetune.run_log import RunLog, key_of
from sparsetune.tflite import parse_tflite
from sparsetune_tools import natmod
from whole_program import settle

Capture = pytest.CaptureFixture[str]


def test_the_four_layer_cnn_is_the_issue_s() -> None:
    """Inside of the padding: 82 = 3 * 28 - 2 taps an axis, 40 = 3 * 14 - 2."""
    graph = parse_tflite(four_layer_cnn().to_bytes())
    macs = [macs_of(graph, op) for op in graph.trainable]
    assert macs == [82 * 82 * 16, 40 * 40 * 16 * 32, 7 * 7 * 32 * 64, 64 * 10]
    assert [kind_of(graph, op) for op in graph.trainable] == ["conv 3x3"] * 2 + [
        "fully connected"
    ] * 2
    plan = train_in_full(graph)
    assert [(p.channels, p.bias) for p in plan.layers] == [(1, True), (16, True), (1568, True),
                                                           (64, True)]  # fmt: skip


def test_an_operator_alone_does_what_it_does_in_its_program() -> None:
    """Forward and updates, each with an image of its own: the same bytes in every operand. Error
    tensors may have found another exponent."""
    net = blocks()
    graph = parse_tflite(net.to_bytes())
    x, plan = net.sample(), train_in_full(graph)
    replay, machine = Replay(Machine(graph, plan), x), Machine(graph, plan)
    settle(machine, x)
    compared = 0
    for i, case in replay.cases.items():
        machine.run(i, i + 1)
        if "GRAD" in machine.ops[i].code.name or machine.ops[i].code == Code.LOSS:
            continue
        arena, state = bytearray(case.arena), bytearray(case.state)
        if i < machine.program.forward:  # earlier steps have left the answer there
            *_, y = (here for _, here in replay.places[i] if isinstance(here, Buffer))
            arena[y.offset : y.offset + y.size] = bytes(y.size)
        kernels.run(case.image, state, arena, bytearray(), b"", 0, 1, 1)
        for there, here in replay.places[i]:
            whole, part = (
                (machine.state, state) if isinstance(here, Slot) else (machine.arena, arena)
            )
            assert part[here.offset :][: here.size] == whole[there.offset :][: here.size], i
        compared += 1
    assert compared > 20


def test_a_model_of_ones_own_is_measured_as_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(DIGITS.read_bytes())
    mine, ours = network(own_model(str(path))), network(own_model("digits"))
    assert mine and ours and (mine.title, mine.model) == ("mine.tflite", ours.model)
    assert np.array_equal(mine.x, ours.x)
    path.write_bytes(b"no model")
    for other in (path, tmp_path / "none.tflite"):
        with pytest.raises(argparse.ArgumentTypeError, match="or name one of cnn4, digits"):
            own_model(str(other))


@pytest.mark.skipif(not FIRMWARE.exists(), reason="no firmware: run make firmware")
@pytest.mark.parametrize("bench", [steps, cores])
def test_steps_of_a_model_of_ones_own(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A file trains what `tune` would choose, whatever it is called: for the digits that is what
    the benches train anyway, so that the figures are the same."""
    path = tmp_path / "kws.tflite"
    path.write_bytes(DIGITS.read_bytes())
    monkeypatch.setattr(sys, "argv", ["bench", "--model", "digits", "--model", str(path)])
    bench.main()
    ours, mine = (line.split() for line in capsys.readouterr().out.splitlines()[1:3])
    assert (ours[0], mine[0]) == ("digits", "kws.tflite")
    assert ours[1:] == mine[1:] and float(mine[1]) > 1


@pytest.mark.skipif(not FIRMWARE.exists(), reason="no firmware: run make firmware")
@pytest.mark.parametrize("policy", ["1:1:1", "0.5:0.5:1"])
def test_what_selecting_errors_is_estimated_to_cost(policy: str) -> None:
    """On the emulated Pico, in the digits' model: each selection, and all together."""
    digits = network("digits")
    assert digits and emulated.PICO.clock
    plan = replace(plan_of(digits), tinyprop=policy)
    rows = [row for row in cycles.measure_ops(Machine(digits.graph, plan), digits.x[:1])
            if row.op.code == Code.SELECT_ERRORS]
    estimated = [emulated.PICO.clock.cycles(row.op, row.work) for row in rows]
    measured = [row.cycles for row in rows]
    assert len(rows) > 3
    assert estimated == pytest.approx(measured, rel=0.2)
    assert sum(estimated) == pytest.approx(sum(measured), rel=0.1)


def test_a_model_that_a_pico_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with pytest.raises(SparsetuneError, match="of flash, 786,432 are there: measure a smaller"):
        emulated.flash_with(tmp_path, bytes(emulated.PICO.romfs_bytes + 1))
    case = emulated.Case(b"", bytes(emulated.RAM), b"1", ())
    with pytest.raises(SparsetuneError, match="of RAM, .* are there: measure a smaller"):
        emulated.measure([case])
    path = tmp_path / "mine.tflite"
    path.write_bytes(DIGITS.read_bytes())
    mine = network(str(path))
    assert mine
    monkeypatch.setattr(networks, "PICO", replace(networks.PICO, heap_bytes=20_000))
    with pytest.raises(SystemExit, match="error: training needs .*, 20,000 are there"):
        networks.tell_errors(lambda: print(plan_of(mine)))


def test_a_line_is_found() -> None:
    line = ratios.line_through({0.25: 30.0, 0.5: 40.0, 1.0: 60.0})
    assert (round(line.slope, 6), round(line.intercept, 6)) == (40, 20)
    assert line.worst < 1e-9
    assert ratios.line_through({0.0: 0.0, 0.5: 3.0, 1.0: 0.0}).worst == pytest.approx(2)


@pytest.mark.skipif(not sizes.MAP.exists(), reason="no firmware: run make firmware")
def test_the_map_s_parts_are_the_firmware() -> None:
    """Their sum is what arm-none-eabi-size says of the whole, to alignment."""
    command = ["arm-none-eabi-size", "-A", str(FIRMWARE.with_suffix(".elf"))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    sections = {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 3
                and words[1].isdigit()}  # fmt: skip
    found = sizes.firmware_sizes(sizes.MAP.read_text())
    whole = sizes.totals(found)["all"]
    flash = sum(sections.get(name, 0) for name in sizes.IN_FLASH | sizes.IN_BOTH)
    ram = sum(sections.get(name, 0) for name in sizes.IN_RAM | sizes.IN_BOTH)
    assert whole.flash == pytest.approx(flash, rel=0.01)
    assert whole.ram == pytest.approx(ram, rel=0.02)
    assert all(f"ulab_kernels/{name}.c" in found for name in ("conv2d", "update", "program"))
    assert all(f"device/{name}.py" in found for name in ("main", "telemetry"))


def test_kept_runs_are_named_after_their_settings() -> None:
    """A key that is not made of what stands beside it would be found by nobody."""
    records = list(RunLog(learning.RUNS).records.values())
    assert len(records) > 100
    for r in records:
        of_run = [r["settings"], r["rate"], r.get("steps"), r.get("seed")]
        of = of_run if "method" in r else ["rate", r["settings"]]
        assert r["key"] == key_of(of), r.get("method")


def test_the_text_is_what_the_figures_say() -> None:
    """Of all experiments, with today's columns."""
    known, text = learning.kept(), learning.TABLES.with_suffix(".md").read_text()
    assert text == learning.as_text(known)
    heads = [line for line in text.splitlines() if line.startswith("| method |")]
    assert len(heads) == len(known) and len({head.partition("against")[0] for head in heads}) == 1
    assert all(" | kept | " in head for head in heads)
    told = [f"(`{name}`; {table['epochs']} epochs" for name, table in known.items()]
    assert all(part in text for part in told)


def test_effort_stands_beside_steps_that_are_counted_too() -> None:
    """Full gradients count zeros behind a ReLU as work, the kernels do not: rows of an experiment
    are counted all alike (rules.py has those that may skip steps counted)."""
    by_effort = 0
    for name, experiment in learning.EXPERIMENTS.items():
        keys = [dict(method.keys).keys() for method in parse_methods(experiment.methods)]
        counted = {bool(each & {"effort", "skip", "tinyprop"}) for each in keys}
        assert len(counted) == 1, name
        by_effort += True in counted
    assert by_effort >= 2


def test_keeping_one_table_writes_all_of_them_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = list(learning.kept().items())[:2]
    monkeypatch.setattr(learning, "TABLES", tmp_path / "learning.json")
    (tmp_path / "learning.json").write_text(json.dumps(dict([first])))
    (tmp_path / "learning.md").write_text("as it once looked")
    learning.keep(*second)
    assert learning.kept() == dict([first, second])
    assert (tmp_path / "learning.md").read_text() == learning.as_text(dict([first, second]))


def test_figures_of_pytorch_outlive_a_run_without_it() -> None:
    """As those of the run that made them; measured anew they are replaced."""
    without = Speed(1.0, 2.0, 1.9, 0.5)
    kept = asdict(replace(without, torch_forward=3.0, torch_step=9.0, agreement=0.99,
                          torch_version="2.13.0"))  # fmt: skip
    found = with_earlier_torch(without, kept, "abc, EPYC")
    assert (found.torch_step, found.twin_step) == (9.0, 2.0)
    assert found.torch_version == "2.13.0 (of an earlier run: abc, EPYC)"
    assert with_earlier_torch(without, asdict(found), "def, ARM") == found
    anew = replace(found, torch_step=8.0)
    assert with_earlier_torch(anew, kept, "abc, EPYC") == anew
    assert with_earlier_torch(without, {}, "?") == without


def test_bars_compare_and_say_what_is_missing() -> None:
    cycles = {"inference": 100, "forward": 100, "backward": 40, "weights": 30}
    step = {part: {"cycles": n} for part, n in cycles.items()}
    host = {"twin_forward": 4.0, "litert_forward": 1.0, "twin_step": 2.0, "torch_step": 12.0}
    parts = {"steps": {"mbv2": step}, "host": {"mbv2": host}}
    found = {bar.what: bar for bar in bars.bars(parts)}
    sparse = found["MobileNetV2 at 100 KB, step / forward"]
    assert sparse.figure == pytest.approx(1.7) and not sparse.is_met
    assert not found["twin forward MobileNetV2 / LiteRT"].is_met
    faster = found["twin step MobileNetV2, faster than PyTorch"]
    assert faster.figure == 6 and faster.is_met
    assert not faster.beside
    host["torch_version"] = "2.13.0 (of an earlier run: abc, EPYC)"
    (faster,) = (bar for bar in bars.bars(parts) if "faster than PyTorch" in bar.what)
    assert faster.beside == "PyTorch 2.13.0 (of an earlier run: abc, EPYC)"
    push = found["push of 300 KB with flash times, KB/s"]
    assert push.figure is None and not push.is_met


def test_the_picture_shows_the_figures_of_today() -> None:
    """Drawn again after each experiment: README's picture carries the figures that it shows."""
    folder = learning_picture.RESULTS
    known = json.loads((folder / "learning.json").read_text())
    words = learning_picture.told(known)
    assert words in (folder / "learning.svg").read_text()
    known["precision"]["rows"][0]["mean"] += 0.01
    assert learning_picture.told(known) != words


def test_a_collection_is_what_the_longest_gaps_have_more() -> None:
    """One gap in eight has one."""
    short, long = emulated.Spent(500, 300), emulated.Spent(2500, 1800)
    gaps = [long, *[short] * 9, long, *[short] * 5]
    assert steps.collection_of(gaps) == emulated.Spent(2000, 1500)
    assert steps.mean_of(gaps) == emulated.Spent(750, 488)


def test_what_runs_print_of_their_ram_is_read() -> None:
    """More than one line of a test; those that collect garbage in each step are no end."""
    line = "{}, emulated Pico: 139,664 of 270,336 bytes of RAM at the peak; "
    line += "heap free {}, predicted {}"
    printed = [line.format("kws", *pair) for pair in (("130,672", "130,584"), ("1,000", "988"))]
    often = line.format("kws", "144,816", "141,734")
    report = "<testsuites><testsuite>"
    for name, lines in (("test_a[1]", printed), (f"test_{promised.OFTEN}", [often]), ("b", [])):
        said = "\n".join(["noise", *lines])
        report += f'<testcase name="{name}"><system-out>{said}</system-out></testcase>'
    found = list(promised.read(report + "</testsuite></testsuites>"))
    assert [(p.test, p.left) for p in found][:2] == [("test_a[1]", 88), ("test_a[1]", 12)]
    assert (found[0].model, found[0].peak, found[0].ram) == ("kws", 139664, 270336)
    assert len(found) == 3 and promised.ends(found) == (12, 88)


def test_sizes_of_modules_are_those_that_are_kept() -> None:
    """Where they differ, run bench/speed.py --only natmods: DESIGN tells its figures."""
    found = json.loads((Path(bars.__file__).parent / "results" / "natmods.json").read_text())
    if found.pop("versions")["compiler"] != kept.compiler():
        pytest.skip("SKIP: another compiler than the one they were kept with")
    del found["text"]
    assert {"armv6m full", "armv6m small", "armv6m head", "armv7emsp full"} < found.keys()
    for name, taken in found.items():
        arch, flavour = name.split()
        if natmod.is_possible(arch):
            size = natmod.build(arch, flavour=flavour).stat().st_size
            assert (name, size) == (name, taken["file"])


# Instructions a multiply-accumulate, issue 6: of every layer of the kind.
S3_BARS = {"pointwise": 2.5, "depthwise 3x3": 6.0}


@pytest.mark.usefixtures("xtensa")
def test_an_s3s_instructions_are_those_that_are_kept_and_within_their_bars() -> None:
    """Both builds in one run. Where they differ, run bench/xtensa.py --all --keep."""
    kept_rows = json.loads((Path(bars.__file__).parent / "results" / "xtensa.json").read_text())
    known = {(row["layer"], row["part"]): row for row in kept_rows["blocks, esp32s3"]}
    blocks_of = network("blocks")
    assert blocks_of
    wanted = list(layers.wanted(blocks_of, layers.PARTS[:1], samples=1))
    both = (xtensa.counted_by(xtensa.build("esp32s3", portable), wanted) for portable in (0, 1))
    found = {"instructions": next(both), "portable": next(both)}
    for name, rows in found.items():
        for row in rows:
            assert row.spent
            assert abs(row.spent.instructions - known[row.layer, row.part][name]) <= 2
    held = [row for row in found["instructions"] if row.kind in S3_BARS]
    assert {row.kind for row in held} == S3_BARS.keys() and len(held) >= 5
    for row in held:
        assert row.instructions_per_mac <= S3_BARS[row.kind], row
