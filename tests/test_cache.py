"""The cached prefix: later epochs begin behind the frozen front, and learn what they would have
learnt without it. A cache is whole, or made anew."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
import sparsetune_device.cache as device_cache
from machine import Machine
from small_models import Net
from sparsetune.beside import cache_room
from sparsetune.board import Board
from sparsetune.boardspec import load_spec
from sparsetune.cli import main
from sparsetune.compile import compile_image, source_of
from sparsetune.cut import cut_of
from sparsetune.data import Dataset, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.export import export_tflite, parse_checkpoint
from sparsetune.graph import Graph
from sparsetune.image import Image, Layout, lay_out, parse_image
from sparsetune.littlefs import blocks_of
from sparsetune.memory import Beside, predict
from sparsetune.plan import UpdatePlan, default_plan, with_biases
from sparsetune.program import Buffer, Flag
from sparsetune.room import free_blocks
from sparsetune.tflite import parse_tflite
from sparsetune.twin import Twin
from sparsetune_device.cache import HEADER_BYTES, RECORD_BYTES
from test_columns import a_net
from test_kernels import mixed_net
from test_losses import small_net
from test_store import reaching
from test_strips import wide_front

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")
COUNT = 14
RUN = {"schedule": "constant", "seed": 3, "steps": 3 * COUNT + 5}


class InTwo(Machine):
    """With so much of fast memory."""

    def __init__(self, model: bytes, plan: UpdatePlan, fast_bytes: int | None) -> None:
        self.fast_bytes = fast_bytes
        super().__init__(model, plan)

    def lay_out(self) -> Layout:
        return lay_out(self.program, source_of(self.graph), self.fast_bytes)


def last(n: int, ratio: float = 0.5) -> Callable[[Graph], UpdatePlan]:
    return lambda graph: default_plan(graph, n, ratio)


def biases(graph: Graph) -> UpdatePlan:
    return with_biases(graph, default_plan(graph, 1), 2)


def in_flash(graph: Graph) -> UpdatePlan:
    """The last two layers with weights stay in flash, with columns in RAM or in the store."""
    layers = reaching(a_net(2).to_bytes()).layers[-2:]
    assert all(layer.slots for layer in layers) and any(layer.reach for layer in layers)
    return UpdatePlan(layers)


# A net, a plan, bytes of fast memory.
CASES = {
    "head": (mixed_net, last(1), None),
    "residual": (mixed_net, last(2), None),
    "two memories": (mixed_net, last(1), 900),
    "all in the slower one": (mixed_net, last(1), 0),
    "strips": (lambda seed: wide_front(), last(1), None),
    "strips, no strip in front": (lambda seed: wide_front(), last(3), None),
    "chain": (a_net, last(2), None),
    "biases": (a_net, biases, None),
    "regression": (lambda seed: small_net(3), last(1), None),
}


def case(name: str) -> tuple[Net, bytes, UpdatePlan, int | None]:
    make, plan, fast = CASES.get(name, (a_net, in_flash, None))
    net = make(2)
    model = net.to_bytes()
    return net, model, plan(parse_tflite(model)), fast


def image_of(model: bytes, plan: UpdatePlan, fast: int | None = None) -> Image:
    return parse_image(compile_image(parse_tflite(model), plan, "0.02", fast).image)


def samples_of(net: Net, image: Image, seed: int = 1) -> bytes:
    rng = np.random.default_rng(seed)
    x = np.stack([net.sample()[0] for _ in range(COUNT)])
    y = np.arange(COUNT) % image.task.outputs
    if not image.task.has_classes:
        y = rng.normal(0, 1, (COUNT, image.task.outputs))
    return sample_file(Dataset(x, y), image.task)


def learnt(checkpoint: bytes, image: Image) -> bytes:
    """The state, without the settings behind it."""
    return checkpoint[32 : 32 + image.state_bytes]


def told(lines: list[str], kind: str = "cache") -> dict[str, Any]:
    return runs.events(lines, kind)[-1]


def train(twin: Twin, **options: Any) -> tuple[list[str], bytes, list[str]]:
    """(losses, checkpoint, lines)"""
    lines: list[str] = []
    checkpoint = twin.train(lines.append, discard=True, **{**RUN, **options})
    return runs.losses(lines), checkpoint, lines


def memory_of(machine: Machine, buffer: Buffer) -> bytearray:
    return machine.cold if buffer.is_cold else machine.arena


@pytest.mark.parametrize("name", CASES)
def test_behind_the_cut_a_step_needs_one_tensor_and_the_target(name: str) -> None:
    """All other memory is filled with something else there."""
    net, model, plan, fast = case(name)
    plain, cut = InTwo(model, plan, fast), InTwo(model, plan, fast)
    place = cut_of(cut.program)
    assert place and place.at == cut.image.cut_at and place.buffer.size == cut.image.cut_bytes
    assert not cut.ops[place.at].flags & Flag.IN_STRIP
    keep = [place.buffer] + ([cut.program.target] if cut.program.target else [])
    for step in range(4):
        x, rng = net.sample(), np.random.default_rng(step)
        if plain.program.target:
            for machine in (plain, cut):
                machine.set_target(np.full(machine.program.target.size, step - 2))
        label = step % plain.image.task.outputs if not plain.program.target else 0
        plain.step(x, label, (40000, -20), step)
        cut.load(x)
        cut.control(label, (40000, -20), step)
        cut.run(0, place.at)
        stays = [bytes(memory_of(cut, b)[b.offset : b.offset + b.size]) for b in keep]
        for memory in (cut.arena, cut.cold):
            memory[:] = rng.bytes(len(memory))
        for buffer, values in zip(keep, stays, strict=True):
            memory_of(cut, buffer)[buffer.offset : buffer.offset + buffer.size] = values
        cut.run(place.at, len(cut.ops))
        assert cut.state == plain.state


def test_no_cut_where_the_sample_is_needed_again_or_all_trains() -> None:
    for net in (mixed_net(1), small_net(90)):  # the latter an autoencoder
        model = net.to_bytes()
        graph = parse_tflite(model)
        plan = default_plan(graph, len(graph.trainable))
        if net.shapes[net.at][-1] == 90:
            plan = default_plan(graph, 1)
        image = image_of(model, plan)
        assert (image.cut_at, image.cut_bytes) == (0, 0)
        with Twin(image.data, samples_of(mixed_net(1), image)) as twin:
            if image.task.has_classes:
                with pytest.raises(SparsetuneError, match="several tensors cross"):
                    train(twin, cache=5)


def test_inference_alone_has_no_cut() -> None:
    program = Machine(mixed_net(1).to_bytes()).program
    assert cut_of(program) is None


@pytest.mark.parametrize("most", [COUNT, 5, 1000])
@pytest.mark.parametrize("name", [*CASES, "columns"])
def test_the_same_bytes_with_a_cache(name: str, most: int) -> None:
    net, model, plan, fast = case(name)
    image = image_of(model, plan, fast)
    with Twin(image.data, samples_of(net, image)) as twin:
        plain = train(twin)
        cached = train(twin, cache=most)
        assert cached[0] == plain[0]
        found = (parse_checkpoint(run[1], image) for run in (plain, cached))
        models = [export_tflite(model, image, checkpoint) for checkpoint in found]
        assert models[0] == models[1] != model
        held, steps = min(most, COUNT), RUN["steps"]
        event = told(cached[2])
        assert event["samples"] == event["written"] == held
        size = (twin.path / "train.dat.cache").stat().st_size
        assert size == HEADER_BYTES + held * (RECORD_BYTES + image.cut_bytes)
        assert event["bytes"] == size - HEADER_BYTES
        assert 2 * held <= event["used"] <= min(steps - held, 3 * held)
        again = train(twin, cache=most, seed=9)  # another order, the same file
        assert told(again[2])["written"] == 0 and told(again[2])["used"] > 2 * held
        assert again[0] == train(twin, seed=9)[0]
        assert not (twin.path / "train.dat.cache").exists()  # a run without it needs none


@pytest.mark.parametrize("broken", [4, COUNT, COUNT + 3, 2 * COUNT + 1])
@pytest.mark.parametrize("save_every", [2, 0])
def test_resuming_in_each_phase(broken: int, save_every: int) -> None:
    """Broken off while the cache is written, when it is just done, when it is used."""
    net, model, plan, _ = case("chain")
    image = image_of(model, plan)
    samples = samples_of(net, image)
    with Twin(image.data, samples) as twin:
        plain = train(twin)
    lines: list[str] = []

    def pull_the_plug(line: str) -> None:
        lines.append(line)
        if len(runs.losses(lines)) == broken:
            raise KeyboardInterrupt

    with Twin(image.data, samples) as twin:
        with pytest.raises(KeyboardInterrupt):
            twin.train(pull_the_plug, **RUN, cache=COUNT, save_every=save_every)
        rest: list[str] = []
        resumed = twin.train(rest.append, resume=True)
    assert learnt(resumed, image) == learnt(plain[1], image)
    losses = [line.split(",")[0] for line in runs.losses(lines + rest)]
    assert losses == [line.split(",")[0] for line in plain[0]]
    event = told(rest)
    assert event["samples"] == COUNT and event["written"] == max(0, COUNT - broken)


@pytest.mark.parametrize("cut", [3, 9, COUNT + 2])
def test_power_cut_in_a_run(cut: int) -> None:
    """Files as they are in the middle of a run, what was not yet flushed gone."""
    net, model, plan, _ = case("chain")
    image = image_of(model, plan)
    samples = samples_of(net, image)
    whole: list[str] = []
    kept: dict[str, bytes] = {}
    with Twin(image.data, samples) as twin:

        def on_line(line: str) -> None:
            whole.append(line)
            if len(runs.losses(whole)) == cut and not kept:
                names = ("trained.ckpt", "train.dat.cache")
                kept.update({name: (twin.path / name).read_bytes() for name in names})

        wanted = twin.train(on_line, **RUN, cache=COUNT, save_every=2)
    with Twin(image.data, samples) as twin:
        for name, data in kept.items():
            (twin.path / name).write_bytes(data)
        rest: list[str] = []
        assert twin.train(rest.append, resume=True, save_every=2) == wanted
    written = COUNT - min(COUNT, cut // 2 * 2)
    assert told(rest)["samples"] == COUNT and told(rest)["written"] == written


def damage(data: bytes, each: int) -> dict[str, tuple[bytes, int]]:
    """Damaged caches, and how many samples must be written again."""
    tensor = HEADER_BYTES + 2 * each + RECORD_BYTES
    number = HEADER_BYTES + 3 * each
    flipped = bytearray(data)
    flipped[tensor] ^= 1
    moved = bytearray(data)
    struct.pack_into("<I", moved, number, 1 << 30)
    version = bytearray(data)
    version[4] += 1
    return {
        "a bit of a tensor": (bytes(flipped), 1),
        "the number of a sample": (bytes(moved), 1),
        "the header": (bytes(version), COUNT),
        "the end is missing": (data[:-3], COUNT),
        "a record is missing": (data[:-each], 1),
        "nothing but a header": (data[:HEADER_BYTES], COUNT),
        "half of a header": (data[:7], COUNT),
        "empty": (b"", COUNT),
        "twice": (data + data[HEADER_BYTES:], 0),
        "other bytes": (bytes(range(256)) * 20, COUNT),
    }


@pytest.mark.parametrize("what", damage(bytes(2000), 40))
def test_a_damaged_cache_is_not_believed(what: str) -> None:
    net, model, plan, _ = case("chain")
    image = image_of(model, plan)
    with Twin(image.data, samples_of(net, image)) as twin:
        plain = train(twin)
        train(twin, cache=COUNT)
        path = twin.path / "train.dat.cache"
        good = path.read_bytes()
        bad, again = damage(good, RECORD_BYTES + image.cut_bytes)[what]
        path.write_bytes(bad)
        cached = train(twin, cache=COUNT)
        assert cached[0] == plain[0] and told(cached[2])["written"] == again
        assert told(cached[2])["samples"] == COUNT


def test_a_cache_of_another_image_or_other_samples_is_made_anew() -> None:
    net, model, plan, _ = case("chain")
    image, other = image_of(model, plan), image_of(model, default_plan(parse_tflite(model), 1))
    samples = samples_of(net, image)
    with Twin(image.data, samples) as twin:
        train(twin, cache=COUNT)
        (twin.path / "train.dat").write_bytes(samples_of(net, image))
        assert told(train(twin, cache=COUNT)[2])["written"] == COUNT
        (twin.path / "model.img").write_bytes(other.data)
        assert told(train(twin, cache=COUNT)[2])["written"] == COUNT


class FullDisk:
    """A file that takes so many bytes more."""

    def __init__(self, file: Any, room: list[int]) -> None:
        self.file, self.room, self.failed = file, room, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        self.room[0] -= len(data)
        if self.room[0] < 0:
            raise OSError(errno.ENOSPC, "no room")
        return int(self.file.write(data))


@pytest.mark.parametrize("records", [0, 0.5, 1, 4, 4.9, COUNT - 0.5])
def test_a_full_file_system_ends_the_cache_and_not_the_run(
    records: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, model, plan, _ = case("chain")
    image = image_of(model, plan)
    each = RECORD_BYTES + image.cut_bytes
    room = [HEADER_BYTES + int(records * each)]
    with Twin(image.data, samples_of(net, image)) as twin:
        plain = train(twin)
        monkeypatch.setattr(
            device_cache, "open", lambda *how: FullDisk(open(*how), room), raising=False
        )
        cached = train(twin, cache=COUNT)
    assert cached[0] == plain[0] and learnt(cached[1], image) == learnt(plain[1], image)
    assert told(cached[2])["written"] == int(records)


def test_the_cache_leaves_room_for_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    net, model, plan, _ = case("chain")
    image = image_of(model, plan)
    each, block = RECORD_BYTES + image.cut_bytes, 4096

    def few_blocks(path: str) -> tuple[int, ...]:
        return (block, block, 64, 2 + -(-2 * (image.state_bytes + 1024) // block) + 1, 0)

    monkeypatch.setattr(device_cache.os, "statvfs", few_blocks)
    with Twin(image.data, samples_of(net, image)) as twin:
        lines = train(twin, cache=COUNT)[2]
    assert told(lines)["samples"] == min(COUNT, (block - 8) // each)


def test_the_host_plans_what_littlefs_holds() -> None:
    spec = load_spec("pico")
    image = image_of(a_net(1).to_bytes(), default_plan(parse_tflite(a_net(1).to_bytes()), 2))
    for samples in (10, 1000, 2000):
        room = cache_room(spec, image, samples)
        taken = blocks_of(36 + samples * (image.input_bytes + 1))
        left = free_blocks(spec, image.state_bytes) - taken
        if room.samples < samples:
            assert blocks_of(HEADER_BYTES + room.samples * room.each) <= left
            assert blocks_of(HEADER_BYTES + (room.samples + 2) * room.each) > left
    assert cache_room(spec, image, 10).samples == 10


def test_tune_with_a_cache(tmp_path: Path, capsys: Any) -> None:
    net = a_net(1)
    (tmp_path / "m.tflite").write_bytes(net.to_bytes())
    x = np.concatenate([net.sample() for _ in range(30)])
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(30) % 5)
    tune = ["tune", str(tmp_path / "m.tflite"), str(tmp_path / "d.npz"), "--twin", "--last", "2"]
    rest = ["--plain", "--steps", "60", "--rate", "0.01", "-o", str(tmp_path / "o.tflite")]
    outputs = []
    for more in ([], ["--cache"]):
        log = ["--log", str(tmp_path / f"l{len(more)}.jsonl")]
        assert not main([*tune, *rest, *more, *log]), capsys.readouterr().err
        outputs.append((tmp_path / "o.tflite").read_bytes())
    assert outputs[0] == outputs[1]
    assert "36 steps began behind it" in capsys.readouterr().out  # 60 of 24 samples
    assert main([*tune, "--cache", "--last", "5", "-o", str(tmp_path / "o.tflite")]) == 1
    assert "leave out --cache" in capsys.readouterr().err
    assert main([*tune, *rest, "--set", "cache=3"]) == 1
    assert "it has an option, --cache" in capsys.readouterr().err


def test_plan_tells_how_many_samples_a_cache_holds(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "m.tflite").write_bytes(a_net(1).to_bytes())
    assert not main(["plan", str(tmp_path / "m.tflite"), "--last", "2"])
    assert "cache 1,000 of 1,000 samples have room" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [(1 << 30, 2 << 29, 4), (3, 2 << 29 | 1 << 28, 4), (3, 3 << 29, 1 << 28)]
)
def test_a_damaged_place_is_refused(words: tuple[int, ...]) -> None:
    net, model, plan, _ = case("chain")
    image = image_of(model, plan)
    data = bytearray(image.data)
    struct.pack_into("<3I", data, 4 * 41, *words)
    struct.pack_into("<I", data, 12, zlib.crc32(data[16:]))
    with Twin(bytes(data), samples_of(net, image)) as twin:
        with pytest.raises(SparsetuneError, match="the image is damaged"):
            train(twin, cache=COUNT)


# The emulated Pico ------------------------------------------------------------------------------


def check_pico(board: Board, task: runs.Task) -> list[str]:
    """Loss lines, checkpoint and RAM of a run with a cache."""
    twin_lines, checkpoint = runs.twin_train(task)
    lines, got = runs.board_train(board, task)
    assert runs.losses(lines) == runs.losses(twin_lines) and got == checkpoint
    assert told(lines) == told(twin_lines)
    use = predict(task.image, len(task.train), load_spec("pico"), Beside(cache=True))
    free = runs.events(lines, "mem")[-1]["free"]
    print(f"heap free {free:,}, predicted {use.free:,}")
    assert use.free <= free <= use.free + 700
    return lines


@needs_shared
def test_kws_on_the_emulated_pico(emulated_pico) -> None:
    """100 steps of 36 samples: nearly three epochs, of which the first one alone runs the front."""
    assert SHARED
    task = runs.kws_task(SHARED, steps=100)
    few = runs.make_task(
        task.model,
        {"x_train": task.train.x[:36], "y_train": task.train.y[:36],
         "x_test": task.test.x, "y_test": task.test.y},
        lambda graph: default_plan(graph, 4),
        **{**task.options, "cache": 36},
    )  # fmt: skip
    with Board.connect(emulated_pico.port) as board:
        lines = check_pico(board, few)
    ms = [float(line.split("ms:")[1]) for line in lines if line.startswith("loss:")]
    plain, cached = np.median(ms[2:36]), np.median(ms[37:])
    print(f"emulated Pico: a step that fills the cache {plain:.1f} ms, one that uses it "
          f"{cached:.1f} ms")
    assert cached < plain and told(lines)["used"] == 64
