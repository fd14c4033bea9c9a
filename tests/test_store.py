"""The store in flash: channels that take turns in RAM learn as if all were there; it wears evenly,
and a power cut at any moment costs nothing that was written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sparsetune.cli import main
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.export import export_tflite, parse_checkpoint
from sparsetune.graph import input_channels
from sparsetune.image import Image, parse_image
from sparsetune.nor_flash import NorFlash
from sparsetune.plan import UpdatePlan, check_plan, check_store, leave_in_flash, save_plan
from sparsetune.pulled import split
from sparsetune.store_room import Kept, fits
from sparsetune.tflite import parse_tflite
from sparsetune.twin import Twin
from sparsetune_device.columns import Records
from sparsetune_device.store import PAGE, SECTOR, Store
from sparsetune_device.telemetry import HEX_BYTES, parse
from test_columns import a_net, plan_of

RUN = {"schedule": "constant", "hold": 2}


def reaching(model: bytes) -> UpdatePlan:
    """Slots for the channels of one step; all channels learn."""
    graph, plan = parse_tflite(model), plan_of(model, True)
    layers = [
        replace(p, reach=input_channels(graph, graph.operator(p.operator))) if p.slots else p
        for p in plan.layers
    ]
    few = (p if p.reach > p.slots else replace(p, reach=0) for p in layers)
    return UpdatePlan(tuple(few))


def samples(seed: int = 1) -> tuple[bytes, Dataset]:
    net = a_net(seed)
    x = np.stack([net.sample()[0] for _ in range(10)])
    return net.to_bytes(), Dataset(x, np.arange(10) % 5)


def image_of(model: bytes, plan: UpdatePlan) -> Image:
    return parse_image(compile_image(parse_tflite(model), plan, "0.02").image)


def losses(lines: list[str]) -> list[str]:
    return [line.split(",ms:")[0] for line in lines if line.startswith("loss")]


def train(model: bytes, plan: UpdatePlan, data: Dataset, **options: Any) -> tuple[Any, ...]:
    """(losses, trained model, flash, lines)"""
    image, lines = image_of(model, plan), []
    with Twin(image.data, sample_file(data, image.task)) as twin:
        checkpoint = twin.train(lines.append, **{**RUN, **options})
    trained = export_tflite(model, image, parse_checkpoint(checkpoint, image))
    return losses(lines), trained, twin.flash, lines


@pytest.mark.parametrize("policy", ["cyclic", "random", "static"])
def test_the_same_as_in_ram(policy: str) -> None:
    model, data = samples()
    in_ram = train(model, plan_of(model, False), data, steps=60, policy=policy)
    in_flash = train(model, reaching(model), data, steps=60, policy=policy)
    assert in_flash[:2] == in_ram[:2] and in_ram[1] != model
    assert (sum(in_flash[2].erases) > 0) == (policy != "static")


def test_erases_are_counted_told_and_even() -> None:
    model, data = samples()
    _, _, flash, lines = train(model, reaching(model), data, steps=1500, hold=1)
    (told,) = [event[1] for event in map(parse, lines) if event and event[0] == "store"]
    assert told["erases"] == sum(flash.erases) and told["most"] == max(flash.erases)
    assert max(flash.erases) >= 3 and max(flash.erases) - min(flash.erases) <= 1
    assert told["columns"] > 1500


def test_evaluation_resuming_and_export_find_the_columns() -> None:
    model, data = samples()
    plan = reaching(model)
    image = image_of(model, plan)
    file = sample_file(data, image.task)
    outputs: list[list[str]] = [[], []]
    whole, first, second = [], [], []
    with Twin(image.data, file) as twin:
        checkpoint = twin.train(whole.append, steps=50, **RUN)
        twin.evaluate(outputs[0].append, file, True, outputs=True)
    with Twin(image.data, file) as twin:
        twin.train(first.append, steps=23, **RUN)
        again = twin.train(second.append, steps=50, resume=True)
        twin.evaluate(outputs[1].append, file, True, outputs=True)
    told = [line.split(",")[0] for line in losses(first) + losses(second)]  # not the accuracy
    assert told == [line.split(",")[0] for line in losses(whole)]
    assert outputs[0] == outputs[1]
    trained = [export_tflite(model, image, parse_checkpoint(c, image)) for c in (checkpoint, again)]
    assert trained[0] == trained[1]
    raw = split(checkpoint)
    assert raw.columns and raw.has_store
    assert max(map(len, raw.columns.values())) > HEX_BYTES  # some were told in pieces
    without = checkpoint.replace(b"#column", b"#nothing")
    with pytest.raises(SparsetuneError, match="damaged"):
        parse_checkpoint(without, image)


@pytest.mark.parametrize("cut", [25, 31, 38, 57])
def test_power_cut_in_a_run(cut: int) -> None:
    """Flash and checkpoint as they are in the middle of a run; from there it goes on as if nothing
    had been."""
    model, data = samples()
    image = image_of(model, reaching(model))
    file = sample_file(data, image.task)
    whole: list[str] = []
    kept: list[bytes] = []
    with Twin(image.data, file) as twin:

        def on_line(line: str) -> None:
            whole.append(line)
            if len(losses(whole)) == cut and not kept:
                kept.extend([(twin.path / "trained.ckpt").read_bytes(), bytes(twin.flash.data)])

        wanted = twin.train(on_line, steps=80, save_every=20, **RUN)
    with Twin(image.data, file) as twin:
        (twin.path / "trained.ckpt").write_bytes(kept[0])
        twin.flash.data[:] = kept[1]
        lines: list[str] = []
        got = twin.train(lines.append, resume=True)
    from_there = losses(whole)[cut // 20 * 20 :]
    assert [x.split(",")[0] for x in losses(lines)] == [x.split(",")[0] for x in from_there]
    trained = [export_tflite(model, image, parse_checkpoint(c, image)) for c in (wanted, got)]
    assert trained[0] == trained[1]


def test_a_new_run_takes_the_place_of_the_last() -> None:
    model, data = samples()
    image = image_of(model, reaching(model))
    with Twin(image.data, sample_file(data, image.task)) as twin:
        first = twin.train(lambda line: None, steps=40, **RUN)
        runs = {split(first).events[0][1]["store"]}
        for _ in range(3):
            with pytest.raises(SparsetuneError, match="pull .*, (or|then) train with discard=1"):
                twin.train(lambda line: None, steps=40, **RUN)
            again = twin.train(lambda line: None, steps=40, discard=True, **RUN)
            runs.add(split(again).events[0][1]["store"])
    assert len(runs) == 4
    columns = [split(c).columns for c in (first, again)]
    assert columns[0] == columns[1]


# The store alone ----------------------------------------------------------------------------------


class Layer(Records):
    """A layer whose channels are all out of RAM; only its references are kept."""

    def __init__(self, channels: int, column_bytes: int) -> None:
        super().__init__(channels)
        self.layer, self.operator, self.column_bytes = self, 0, column_bytes
        self.refs = [7 << 29] * channels

    def ref(self, channel: int) -> int:
        return self.refs[channel]

    def set_ref(self, channel: int, ref: int) -> None:
        self.refs[channel] = ref


def layers_of(**sizes: tuple[int, int]) -> dict[int, Layer]:
    """op3=(channels, bytes of a column) -> {3: Layer}"""
    layers = {}
    for name, size in sizes.items():
        layers[int(name[2:])] = layer = Layer(*size)
        layer.operator = int(name[2:])
    return layers


class PowerCut(Exception):
    pass


class FailingFlash(NorFlash):
    """Power goes after so many page writes and erases; the last one is done in part."""

    def __init__(self, size: int, rng: Any) -> None:
        super().__init__(size)
        self.left, self.rng = -1, rng

    def _tick(self) -> bool:
        self.left -= 1
        return self.left == 0

    def writeblocks(self, block: int, data: bytes | bytearray, offset: int = 0) -> None:
        if self._tick():
            part = bytes(int(b) | int(self.rng.integers(256)) for b in data)
            super().writeblocks(block, part, offset)
            raise PowerCut
        super().writeblocks(block, data, offset)

    def ioctl(self, command: int, argument: int) -> int:
        if self._tick():
            sector = slice(argument * SECTOR, (argument + 1) * SECTOR)
            done = self.rng.random(SECTOR) < self.rng.random()
            part = np.where(done, 0xFF, np.frombuffer(self.data[sector], np.uint8))
            self.data[sector] = part.astype(np.uint8).tobytes()
            raise PowerCut
        return super().ioctl(command, argument)


class Run:
    """A run on a flash that may lose power: what it wrote, and what its last checkpoint knows."""

    def __init__(self, flash: FailingFlash, rng: Any) -> None:
        self.flash, self.rng = flash, rng
        self.layers = layers_of(op3=(20, 300), op7=(30, 256), op9=(4, 1300))
        self.store = Store(flash, self.layers)
        self.generation = 0
        self.now: dict[tuple[int, int], bytes] = {}
        self.known = dict(self.now)

    def write(self) -> None:
        operator = int(self.rng.choice(list(self.layers)))
        layer = self.layers[operator]
        channel = int(self.rng.integers(len(layer.refs)))
        column = self.rng.bytes(layer.column_bytes)
        layer.refs[channel] = 1 << 29  # in RAM until it is written
        layer.refs[channel] = self.store.put(operator, channel, memoryview(column))
        self.now[operator, channel] = column

    def checkpoint(self) -> None:
        self.generation, self.known = self.store.generation, dict(self.now)
        self.store.checkpointed()

    def resume(self) -> None:
        self.layers = layers_of(op3=(20, 300), op7=(30, 256), op9=(4, 1300))
        for operator, channel in self.known:
            self.layers[operator].refs[channel] = 4 << 29  # as its state has it: somewhere
        self.store = Store(self.flash, self.layers, self.store.run, self.generation)
        self.store.recover()
        self.now = dict(self.known)

    def check(self) -> None:
        found = {
            (operator, channel): bytes(self.store.get(ref, layer.column_bytes))
            for operator, layer in self.layers.items()
            for channel, ref in enumerate(layer.refs)
            if ref >> 29 == 4
        }
        assert found == self.now


@pytest.mark.parametrize("seed", range(8))
def test_power_cuts(seed: int) -> None:
    """After a cut all columns are there as the last checkpoint knew them, and no later ones; cuts
    come while columns are written, copied, erased, and while they are looked for again."""
    rng = np.random.default_rng(seed)
    flash = FailingFlash(20 * SECTOR, rng)
    run, cuts = Run(flash, rng), 0
    run.checkpoint()
    while cuts < 60:
        flash.left = int(rng.integers(1, 150))
        try:
            run.resume()
            run.check()
            while True:
                run.write()
                if run.store.is_crowded() or rng.random() < 0.05:
                    run.checkpoint()
        except PowerCut:
            cuts += 1
    flash.left = -1
    run.resume()
    run.check()
    assert len(run.now) > 30 and min(flash.erases) >= 3


def test_columns_of_other_runs_are_not_taken() -> None:
    """Run 2 is cut short, run 1 goes on (its sectors are the newest then), run 3 begins."""
    rng = np.random.default_rng(1)
    flash = FailingFlash(20 * SECTOR, rng)
    first = Run(flash, rng)
    for _ in range(10):
        first.write()
    first.checkpoint()
    second = Run(flash, rng)
    second.write()
    first.resume()
    first.write()
    third = Run(flash, rng)
    assert len({run.store.run for run in (first, second, third)}) == 3
    third.checkpoint()
    third.resume()
    third.check()
    assert not third.now


def test_a_damaged_column_is_not_taken() -> None:
    rng = np.random.default_rng(2)
    run = Run(FailingFlash(20 * SECTOR, rng), rng)
    for _ in range(10):
        run.write()
    run.checkpoint()
    (operator, channel), column = next(iter(run.now.items()))
    at = run.layers[operator].refs[channel] & 0x1FFFFFFF
    run.flash.data[at : at + 8] = bytes(8)
    with pytest.raises(ValueError, match="no more in flash"):
        run.resume()


def test_the_last_run_is_used_up() -> None:
    rng = np.random.default_rng(3)
    run = Run(FailingFlash(20 * SECTOR, rng), rng)
    run.write()
    run.store.run = 0xFFFF
    run.store._next_sector()
    assert Run(run.flash, rng).store.run == 1


def test_what_is_full_says_so() -> None:
    layers = layers_of(op1=(60, PAGE))
    store = Store(NorFlash(4 * SECTOR), layers)
    with pytest.raises(ValueError, match="store in flash is full"):
        for channel in range(60):
            store.put(1, channel, memoryview(bytes(PAGE)))


@pytest.mark.parametrize("column_bytes", [16, 256, 300, 1000, 3840])
def test_what_fits_can_be_written_for_ever(column_bytes: int) -> None:
    """As many channels as store_room allows, written in a random order many times."""
    size = 10 * SECTOR
    channels = max(n for n in range(200) if fits([Kept(n, column_bytes)], size))
    assert channels > 0
    layers, rng = layers_of(op1=(channels, column_bytes)), np.random.default_rng(column_bytes)
    store, last = Store(NorFlash(size), layers), {}
    for _ in range(600):
        channel = int(rng.integers(channels))
        last[channel] = rng.bytes(column_bytes)
        store.put(1, channel, memoryview(last[channel]))
        if store.is_crowded():
            store.checkpointed()
            assert not store.is_crowded()
    for channel, column in last.items():
        assert bytes(store.get(layers[1].refs[channel], column_bytes)) == column


def test_lost_columns_are_missed() -> None:
    """A checkpoint that knows of columns which a later run has overwritten."""
    model, data = samples()
    image = image_of(model, reaching(model))
    with Twin(image.data, sample_file(data, image.task)) as twin:
        twin.train(lambda line: None, steps=40, **RUN)
        twin.flash.data[:] = b"\xff" * len(twin.flash.data)
        with pytest.raises(SparsetuneError, match="no more in flash"):
            twin.train(lambda line: None, steps=60, resume=True)


def test_no_store_is_said() -> None:
    model, data = samples()
    image = image_of(model, reaching(model))
    with Twin(image.data, sample_file(data, image.task)) as twin:
        twin.flash = None  # type: ignore[assignment]
        with pytest.raises(SparsetuneError, match="--no-store"):
            twin.train(lambda line: None, steps=4)


def test_the_command_line_tells_the_erases(tmp_path: Path, capsys: Any) -> None:
    model, data = samples()
    (tmp_path / "m.tflite").write_bytes(model)
    (tmp_path / "p.json").write_bytes(save_plan(reaching(model)))
    np.savez(tmp_path / "s.npz", x=data.x, y=data.y)
    command = ["tune", str(tmp_path / "m.tflite"), str(tmp_path / "s.npz"), "--twin", "--plain"]
    rest = ["--plan", str(tmp_path / "p.json"), "--log", str(tmp_path / "log.jsonl")]
    run = ["--steps", "300", "--hold", "1", "-o", str(tmp_path / "t.tflite")]
    assert not main([*command, *rest, *run])
    told = capsys.readouterr().out
    assert "0 differing bytes" in told
    found = re.search(r"store in flash: ([\d,]+) columns written; ([\d,]+) erases", told)
    assert found
    columns, erases = (int(number.replace(",", "")) for number in found.groups())
    assert columns > 300 and erases > 10
    assert main([*command, *rest, *run, "--no-store"]) == 1
    assert "no room for that" in capsys.readouterr().err


def test_plans() -> None:
    model, _ = samples()
    graph, plan = parse_tflite(model), reaching(model)
    check_store(graph, plan, 128 * 1024)
    with pytest.raises(SparsetuneError, match="no room for that"):
        check_store(graph, plan, 2 * SECTOR)
    layer = plan.layers[1]
    for wrong in (replace(layer, reach=layer.slots), replace(layer, reach=99, slots=0)):
        with pytest.raises(SparsetuneError, match="reach"):
            check_plan(graph, UpdatePlan((wrong,)))
    assert not any(p.reach for p in leave_in_flash(graph, plan_of(model, False), 0).layers)
