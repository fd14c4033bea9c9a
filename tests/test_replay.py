"""Earlier samples among the new ones: which steps take them, who makes the buffer, what it costs,
and that it helps against forgetting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
import sparsetune_device.reservoir as reservoir
from sparsetune.beside import replay_file, stored_bytes
from sparsetune.board import Board
from sparsetune.boardspec import load_spec
from sparsetune.cli import main
from sparsetune.data import Dataset, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.image import Image
from sparsetune.memory import Beside, predict
from sparsetune.plan import default_plan
from sparsetune.push import push_file
from sparsetune.tflite import parse_tflite
from sparsetune.twin import Twin
from sparsetune_device.data import Order, Samples
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image as DeviceImage
from sparsetune_device.replay import Earlier, Replay
from test_cache import COUNT, image_of, learnt, samples_of, small_net, told, train
from test_columns import a_net

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")


def net_and_image(last: int = 4, seed: int = 2) -> tuple[Any, Image]:
    """last=4: what the front hands on is larger than a sample, 2: smaller."""
    net = a_net(seed)
    model = net.to_bytes()
    return net, image_of(model, default_plan(parse_tflite(model), last))


def earlier_data(net: Any, image: Image, count: int = 9) -> Dataset:
    x = np.stack([net.sample()[0] for _ in range(count)])
    return Dataset(x, np.arange(count) % image.task.outputs)


@pytest.mark.parametrize("percent", [1, 25, 60, 100])
def test_the_share_is_that_of_the_steps(percent: int, tmp_path: Path) -> None:
    net, image = net_and_image()
    path = tmp_path / "replay.dat"
    path.write_bytes(replay_file(earlier_data(net, image), image, 9, 0))
    steps = 20000
    replay = Replay(str(path), Engine(DeviceImage(image.data)), percent, 5)
    due = [step for step in range(steps) if replay.is_due(step)]
    spread = 4 * np.sqrt(steps * percent / 100 * (1 - percent / 100))
    assert abs(len(due) - steps * percent / 100) <= spread
    assert replay.own_before(777) == 777 - sum(step < 777 for step in due)


def stored(image: Image) -> str:
    return "tensors" if stored_bytes(image) < image.input_bytes else "samples"


@pytest.mark.parametrize(("last", "kind"), [(2, "tensors"), (4, "samples")])
def test_a_step_on_an_earlier_sample_is_a_step_on_it(last: int, kind: str) -> None:
    """A run of nothing but earlier samples learns what one of them learns that are its own."""
    net, image = net_and_image(last)
    assert stored(image) == kind
    data = earlier_data(net, image, 1)
    samples = samples_of(net, image)
    with Twin(image.data, sample_file(data, image.task)) as twin:
        own = train(twin, steps=12)
    with Twin(image.data, samples) as twin:
        twin.put_replay(replay_file(data, image, 1, 0))
        replayed = train(twin, steps=12, replay=100)
    assert own[0] == replayed[0] and learnt(own[1], image) == learnt(replayed[1], image)


def latent_task() -> tuple[Any, Image]:
    """What the front hands on (10 values behind the pool) is less than a sample (126)."""
    net = small_pooled_net()
    model = net.to_bytes()
    image = image_of(model, default_plan(parse_tflite(model), 1))
    assert stored(image) == "tensors"
    return net, image


def small_pooled_net() -> Any:
    from small_models import RELU, Net

    net = Net((1, 7, 6, 3), zero=9, seed=4, unevenness=1.0)
    net.conv(10, 3, activation=RELU, zero=-128)
    net.pool((7, 6))
    net.flatten()
    net.dense(5, scale=0.03)
    net.softmax()
    return net


def test_tensors_of_the_host_are_those_of_the_board() -> None:
    """And a step on one is a step on its sample."""
    net, image = latent_task()
    data = earlier_data(net, image, 1)
    with Twin(image.data, sample_file(data, image.task)) as twin:
        own = train(twin, steps=12)
        train(twin, steps=12, keep=3)
        kept = (twin.path / "replay.dat").read_bytes()
    made = replay_file(data, image, 1, 0)
    assert kept[52:-4] == made[52:-4] and len(kept) == len(made)
    for buffer in (kept, made):
        with Twin(image.data, samples_of(net, image)) as twin:
            twin.put_replay(buffer)
            replayed = train(twin, steps=12, replay=100)
            assert own[0] == replayed[0] and learnt(own[1], image) == learnt(replayed[1], image)


@pytest.mark.parametrize("make", [latent_task, net_and_image])
def test_new_samples_keep_their_epochs(make: Any) -> None:
    """Steps on earlier samples are put between: of the new ones none is passed over."""
    net, image = make()
    with Twin(image.data, samples_of(net, image)) as twin:
        twin.put_replay(replay_file(earlier_data(net, image), image, 9, 0))
        lines = train(twin, steps=100, replay=40)[2]
        epochs = [fields["n"] for fields in runs.events(lines, "epoch")]
        assert epochs == list(range(1, len(epochs) + 1)) and 3 <= len(epochs) <= 5
        plain = train(twin, steps=100, replay=40, cache=COUNT)
        assert plain[0] == runs.losses(lines)  # a cache changes nothing here either


@pytest.mark.parametrize("make", [latent_task, net_and_image])
def test_resuming_with_earlier_samples(make: Any) -> None:
    net, image = make()
    buffer = replay_file(earlier_data(net, image), image, 9, 0)
    samples, how = samples_of(net, image), {"replay": 40, "cache": 8, "keep": 5}
    with Twin(image.data, samples) as twin:
        twin.put_replay(buffer)
        whole = train(twin, **how)
        kept = (twin.path / "replay.dat").read_bytes()
    lines: list[str] = []

    def pull_the_plug(line: str) -> None:
        lines.append(line)
        if len(runs.losses(lines)) == 21:
            raise KeyboardInterrupt

    with Twin(image.data, samples) as twin:
        twin.put_replay(buffer)
        with pytest.raises(KeyboardInterrupt):
            twin.train(pull_the_plug, schedule="constant", seed=3, steps=47, **how)
        assert (twin.path / "replay.dat").read_bytes() == buffer
        rest: list[str] = []
        resumed = twin.train(rest.append, resume=True)
        assert (twin.path / "replay.dat").read_bytes() == kept
    losses = [line.split(",")[0] for line in runs.losses(lines + rest)]
    assert losses == [line.split(",")[0] for line in whole[0]]
    assert learnt(resumed, image) == learnt(whole[1], image)


# The reservoir ------------------------------------------------------------------------------------


def test_all_that_went_in_has_the_same_chance() -> None:
    """Three runs of 20, 30 and 10 samples into a buffer of 12: each in it 12 times in 60."""
    counts: Counter[int] = Counter()
    draws = 600
    for seed in range(draws):
        held: list[int] = []
        seen = 0
        for n, size in enumerate((20, 30, 10)):
            order = np.random.default_rng(seed).permutation(size).tolist()
            chosen = reservoir.draw(12, len(held), seen, order, 31 * seed + n)
            held = [held[i] if i < len(held) else seen + i - len(held) for i in chosen]
            seen += size
        assert len(set(held)) == 12
        counts.update(held)
    assert set(counts) == set(range(60))
    expected = draws * 12 / 60
    chi2 = sum((counts[i] - expected) ** 2 / expected for i in range(60))
    assert chi2 / (1 - 12 / 60) < 95  # 59 degrees of freedom: 99.8 %


def contents(twin: Twin, image: Image) -> tuple[list[bytes], list[int], Earlier]:
    device = DeviceImage(image.data)
    earlier = Earlier(str(twin.path / "replay.dat"), device)
    sample = bytearray(earlier.sample_bytes)
    found, labels = [], []
    for i in range(earlier.count):
        labels.append(earlier.load(i, sample, bytearray()))
        found.append(bytes(sample))
    return found, labels, earlier


@pytest.mark.parametrize("make", [latent_task, net_and_image])
def test_a_run_leaves_what_it_trained_on(make: Any) -> None:
    net, image = make()
    device = DeviceImage(image.data)
    with Twin(image.data, samples_of(net, image)) as twin:
        lines = train(twin, keep=6)[2]
        assert told(lines, "kept")["samples"] == 6 and told(lines, "kept")["seen"] == COUNT
        engine, samples = Engine(device), Samples(str(twin.path / "train.dat"), device)
        known = {}
        for i in range(COUNT):
            label = samples.load(i, engine.sample, engine.target)
            if stored(image) == "tensors":
                engine.run_front()
            is_latent = stored(image) == "tensors"
            known[bytes(engine.cut() if is_latent else engine.sample)] = label
        first, labels, earlier = contents(twin, image)
        assert len(set(first)) == 6 and [known[x] for x in first] == labels
        assert earlier.seen == COUNT
        same = (twin.path / "replay.dat").read_bytes()
        train(twin, keep=6)  # these samples went in before
        assert (twin.path / "replay.dat").read_bytes() == same
        (twin.path / "train.dat").write_bytes(samples_of(net, image))
        assert told(train(twin, keep=6)[2], "kept")["seen"] == 2 * COUNT
        second = contents(twin, image)[0]
        assert 0 < len(set(first) & set(second)) < 6


def test_a_short_run_leaves_only_what_it_saw() -> None:
    net, image = net_and_image()
    with Twin(image.data, samples_of(net, image)) as twin:
        lines = train(twin, steps=4, keep=6)[2]
        assert told(lines, "kept")["samples"] == told(lines, "kept")["seen"] == 4
        device = DeviceImage(image.data)
        samples, order = Samples(str(twin.path / "train.dat"), device), Order(COUNT, 3)
        order.shuffle(0)
        sample = bytearray(image.input_bytes)
        visited = set()
        for i in order.order[:4]:
            samples.load(i, sample, bytearray())
            visited.add(bytes(sample))
        assert set(contents(twin, image)[0]) == visited
        (twin.path / "replay.dat").unlink()
        resumed: list[str] = []
        twin.train(resumed.append, resume=True, steps=9)  # `keep` comes from the checkpoint
        assert told(resumed, "kept")["samples"] == 6 and told(resumed, "kept")["seen"] == 9


def test_new_samples_in_a_resumed_run_are_new() -> None:
    """Task A, then task B from its checkpoint: what is left is of both."""
    net, image = net_and_image()
    with Twin(image.data, samples_of(net, image)) as twin:
        train(twin, steps=20, keep=6)
        first = set(contents(twin, image)[0])
        (twin.path / "train.dat").write_bytes(samples_of(net, image))
        lines: list[str] = []
        twin.train(lines.append, resume=True, steps=30, replay=20)
        assert COUNT < told(lines, "kept")["seen"] <= COUNT + 10
        assert first & set(contents(twin, image)[0])


def test_vectors_as_targets() -> None:
    net = small_net(3)
    model = net.to_bytes()
    image = image_of(model, default_plan(parse_tflite(model), 1))
    with Twin(image.data, samples_of(net, image)) as twin:
        train(twin, keep=8)
        lines = train(twin, replay=50, keep=8)[2]
        assert told(lines, "kept")["samples"] == 8


# What goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "damaged or cut short"),
        (lambda data: data[:60] + b"\x55" + data[61:], "damaged or cut short"),
        (lambda data: data[:36] + b"\1\2\3\4" + data[40:], "stored for another image"),
        (lambda data: b"", "is not a sample file"),
        (lambda data: data[:40], "damaged or cut short|another image|samples of"),
    ],
)
def test_a_damaged_buffer_is_refused(damage: Any, message: str) -> None:
    net, image = latent_task()
    with Twin(image.data, samples_of(net, image)) as twin:
        twin.put_replay(damage(replay_file(earlier_data(net, image), image, 9, 0)))
        for how in ({"replay": 30}, {"keep": 4}):
            with pytest.raises(SparsetuneError, match=message):
                train(twin, **how)


def test_no_buffer_at_all() -> None:
    net, image = net_and_image()
    with Twin(image.data, samples_of(net, image)) as twin:
        with pytest.raises(SparsetuneError, match="there are no earlier samples"):
            train(twin, replay=30)


def test_power_cut_while_the_buffer_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = net_and_image()
    with Twin(image.data, samples_of(net, image)) as twin:
        train(twin, keep=6)
        before = (twin.path / "replay.dat").read_bytes()
        (twin.path / "train.dat").write_bytes(samples_of(net, image))

        def power_cut(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(reservoir, "rename", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train(twin, keep=6)
        assert (twin.path / "replay.dat").read_bytes() == before


def test_no_room_for_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt is saved, and the old buffer stays."""
    net, image = net_and_image()
    with Twin(image.data, samples_of(net, image)) as twin:
        train(twin, keep=6)
        before = (twin.path / "replay.dat").read_bytes()
        (twin.path / "train.dat").write_bytes(samples_of(net, image))

        def full(*_: object) -> None:
            raise OSError(28, "no room")

        monkeypatch.setattr(reservoir.Reservoir, "_put", full)
        with pytest.raises(SparsetuneError, match="no room for 6 earlier samples: keep fewer"):
            train(twin, keep=6)
        assert (twin.path / "replay.dat").read_bytes() == before
        assert not (twin.path / "replay.dat.part").exists() and twin.has_checkpoint


def test_tune_with_earlier_samples(tmp_path: Path, capsys: Any) -> None:
    net = a_net(1)
    (tmp_path / "m.tflite").write_bytes(net.to_bytes())
    for name in ("new", "old"):
        x = np.concatenate([net.sample() for _ in range(30)])
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(30) % 5)
    tune = ["tune", str(tmp_path / "m.tflite"), str(tmp_path / "new.npz"), "--twin", "--last", "2"]
    tune += ["--plain", "--steps", "20", "--rate", "0.01", "-o", str(tmp_path / "o.tflite")]
    tune += ["--log", str(tmp_path / "l.jsonl")]
    old = ["--replay", str(tmp_path / "old.npz"), "--replay-samples", "12"]
    assert not main([*tune, *old, "--cache", "--keep", "5"])
    assert "earlier samples: 12 of 30" in capsys.readouterr().out
    for wrong, message in (
        (["--replay-share", "0.5"], "name --replay NPZ"),
        ([*old, "--replay-share", "1.5"], "is not in 0.01 to 1"),
        (["--replay", str(tmp_path / "none.npz")], "give an .npz file"),
    ):
        assert main([*tune, *wrong]) == 1
        assert message in capsys.readouterr().err


# More samples than two bytes count ----------------------------------------------------------------


def test_more_than_65536_samples() -> None:
    net = small_pooled_net()
    model = net.to_bytes()
    image = image_of(model, default_plan(parse_tflite(model), 1))
    count = 65537 + 9
    x = np.random.default_rng(0).integers(-128, 128, (count, *net.sample().shape[1:]), np.int8)
    samples = sample_file(Dataset(x, np.arange(count) % 5), image.task)
    with Twin(image.data, samples) as twin:
        lines = train(twin, steps=20, cache=70000)[2]
        assert told(lines)["written"] == 20
    order = Order(count, 7)
    order.shuffle(1)
    assert sorted(order.order) == list(range(count))
    spec = load_spec("pico")
    few, many = (predict(image, n, spec).data for n in (65536, 65537))
    assert many - few == 2 * 65536 + 5


# The emulated Pico --------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("last", [1, 4])
def test_kws_with_earlier_samples_on_the_emulated_pico(emulated_pico, last: int) -> None:
    """100 steps over more than two epochs; then the board leaves some of its own, in tensors (the
    head alone trains) or as they came."""
    assert SHARED
    task = runs.kws_task(SHARED, steps=100)
    sets = {"x_train": task.train.x[:36], "y_train": task.train.y[:36]}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    options = {**task.options, "replay": 25, "keep": 20, "cache": 36}
    few = runs.make_task(task.model, sets, lambda graph: default_plan(graph, last), **options)
    assert stored(few.image) == ("tensors" if last == 1 else "samples")
    buffer = replay_file(task.train.part(slice(100, 400)), few.image, 20, 0)
    twin_lines: list[str] = []
    with Twin(few.image.data, few.samples) as twin:
        twin.put_replay(buffer)
        checkpoint = twin.train(twin_lines.append, **options)
        kept = (twin.path / "replay.dat").read_bytes()
    with Board.connect(emulated_pico.port) as board:
        runs.push(board, few)
        push_file(board, "/sparsetune/replay.dat", buffer)
        how = {"save_to": runs.CKPT, "discard": True, **options}
        lines = runs.board_call(board, "train", "/sparsetune/train.dat", **how)
        assert runs.telemetry(lines) == runs.telemetry(twin_lines)
        assert runs.pull_checkpoint(board) == checkpoint
        assert board.read_file("/sparsetune/replay.dat") == kept
        for name in ("replay.dat", "train.dat.cache"):
            board.remove_file(f"/sparsetune/{name}")
    use = predict(few.image, 36, load_spec("pico"), Beside(True, 20, 20))
    free = runs.events(lines, "mem")[-1]["free"]
    print(f"heap free {free:,}, predicted {use.free:,}")
    assert use.free <= free <= use.free + 5000  # what leaving some takes is needed at the end alone
