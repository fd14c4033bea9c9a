"""Augmentation: the kernel against NumPy, how what it draws is distributed, and whole runs."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import shared_tasks
import sparsetune_kernels as kernels
from c_tools import compile_program
from small_models import RELU, Array, Net
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.errors import SparsetuneError
from sparsetune.image import parse_image
from sparsetune.plan import default_plan
from sparsetune.tflite import parse_tflite
from sparsetune.twin import Twin
from sparsetune_device.augment import open_augment, parse_augment
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image
from test_training import check_memory
from uint8_models import to_uint8

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")
ONE = 1 << 14
SHAPES = [(1, 1, 1), (1, 1, 40), (1, 9, 1), (7, 1, 2), (2, 2, 1), (49, 10, 1), (8, 5, 3)]
SHAPES += [(5, 6, 17)]


@dataclass(frozen=True)
class Augment:
    """st_augment_t."""

    height: int
    width: int
    channels: int
    zero: int = 0
    flip: int = 0
    shift_y: int = 0
    shift_x: int = 0
    gain: int = 0
    offset: int = 0
    erase_h: int = 0
    erase_w: int = 0

    @property
    def params(self) -> bytes:
        return struct.pack("<11i", *astuple(self))

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def __call__(self, x: Array, seed: int) -> Array:
        """By the kernel."""
        data = bytearray(x.astype(np.int8).tobytes())
        kernels.augment(data, self.params, seed)
        return np.frombuffer(bytes(data), np.int8).reshape(self.shape)


# The reference, from the definitions ------------------------------------------------------------


def mixed(x: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = (x ^ x >> shift) * factor & 0xFFFFFFFF
    return x


def drawn(seed: int, what: int, count: int) -> int:
    """One of 0 ... count - 1, by the upper half of the what-th hash of a seed."""
    number = mixed(seed ^ 0x61756721 ^ (what * 0x9E3779B9 + 0x85EBCA6B & 0xFFFFFFFF))
    return (number >> 16) * count >> 16


def either_way(seed: int, what: int, limit: int) -> int:
    return drawn(seed, what, 2 * limit + 1) - limit


def wanted(a: Augment, x: Array, seed: int) -> Array:
    """Whole maps at a time, where the kernel goes row by row in place."""
    y = x[:, ::-1] if a.flip and drawn(seed, 0, 2) else x
    down, right = either_way(seed, 1, a.shift_y), either_way(seed, 2, a.shift_x)
    border = ((a.shift_y,) * 2, (a.shift_x,) * 2, (0, 0))
    top, left = a.shift_y - down, a.shift_x - right
    y = np.pad(y, border, mode="edge")[top : top + a.height, left : left + a.width]
    factor = ONE + either_way(seed, 3, a.gain)
    scaled = np.floor((y.astype(np.float64) - a.zero) * factor / ONE + 0.5) + a.zero
    y = np.clip(scaled + either_way(seed, 4, a.offset), -128, 127)
    if a.erase_h and a.erase_w:
        rows = np.arange(a.height) - drawn(seed, 5, a.height) + a.erase_h // 2
        columns = np.arange(a.width) - drawn(seed, 6, a.width) + a.erase_w // 2
        is_in = (rows >= 0) & (rows < a.erase_h), (columns >= 0) & (columns < a.erase_w)
        y[np.ix_(*is_in)] = a.zero
    return y.astype(np.int8)


def extremes(shape: tuple[int, int, int], zero: int) -> list[Augment]:
    """Each alone, and all together, as strong as they may be."""
    h, w, c = shape
    alone = [
        {"flip": 1},
        {"shift_y": h - 1},
        {"shift_x": w - 1},
        {"gain": ONE},
        {"offset": 255},
        {"erase_h": h, "erase_w": w},
    ]
    together = {k: v for part in alone for k, v in part.items()}
    return [Augment(h, w, c, zero, **part) for part in (*alone, together)]


def swept(rng: Any, shape: tuple[int, int, int]) -> Augment:
    h, w, c = shape
    rest = (h - 1, w - 1, ONE, 255, h, w)
    limits = [int(rng.integers(0, n + 1)) for n in rest]
    return Augment(h, w, c, int(rng.integers(-128, 128)), int(rng.integers(2)), *limits)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_gives_what_numpy_gives(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    cases = [swept(rng, shape) for _ in range(40)]
    cases += [a for zero in (-128, 0, 83, 127) for a in extremes(shape, zero)]
    for a in cases:
        for values in ([-128, 127], range(-128, 128)):
            x = rng.choice(np.array(values, np.int8), shape)
            seed = int(rng.integers(1 << 32))
            assert (a(x, seed) == wanted(a, x, seed)).all(), (a, seed)


def test_nothing_asked_for_changes_nothing() -> None:
    x = np.random.default_rng(0).integers(-128, 128, (9, 8, 3))
    assert all((Augment(9, 8, 3, zero=5)(x, seed) == x).all() for seed in range(200))


def test_the_kernel_under_the_sanitizers(tmp_path: Path) -> None:
    """Samples that end where their memory does; impossible parameters among the possible."""
    program = compile_program("augment.c", tmp_path)
    rng = np.random.default_rng(1)
    records, expected = b"", b""
    for i in range(400):
        shape = tuple(int(n) for n in rng.integers(1, 12, 3))
        a = swept(rng, shape)  # type: ignore[arg-type]
        seed, size = int(rng.integers(1 << 32)), int(np.prod(shape))
        if i % 4 == 0:
            a = replace(a, **{str(rng.choice(list(a.__dict__))): int(rng.integers(-9, 1 << 20))})
        records += a.params + struct.pack("<2I", seed, size)
        x = np.array([kernel_byte(seed, n) for n in range(size)], np.int8).reshape(shape)
        if is_possible(a, size):
            expected += wanted(a, x, seed).tobytes()
    result = subprocess.run([program], input=records, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    assert result.stdout == expected


def kernel_byte(seed: int, counter: int) -> int:
    """The lowest byte of st_random(), as int8."""
    number = mixed(seed ^ (counter * 0x9E3779B9 + 0x85EBCA6B & 0xFFFFFFFF))
    return (number + 128 & 255) - 128


def is_possible(a: Augment, size: int) -> bool:
    sides = (a.height, a.width, a.channels)
    return (
        all(0 < n <= 32768 for n in sides)
        and int(np.prod(sides)) == size
        and -128 <= a.zero <= 127
        and 0 <= a.flip <= 1
        and 0 <= a.shift_y < a.height
        and 0 <= a.shift_x < a.width
        and 0 <= a.gain <= ONE
        and 0 <= a.offset <= 255
        and 0 <= a.erase_h <= a.height
        and 0 <= a.erase_w <= a.width
    )


@pytest.mark.parametrize(
    "change",
    [
        *({"height": 0}, {"height": 1 << 16, "width": 1 << 16}, {"channels": -1}, {"zero": 128}),
        *({"flip": 2}, {"shift_y": 4}, {"shift_x": -1}, {"gain": ONE + 1}, {"offset": 256}),
        *({"erase_h": 5}, {"erase_w": -1}),
    ],
)
def test_what_is_impossible_is_refused(change: dict[str, int]) -> None:
    a = replace(Augment(4, 4, 1, erase_w=2), **change)
    with pytest.raises(ValueError, match="impossible augmentation"):
        kernels.augment(bytearray(16), a.params, 1)
    with pytest.raises(ValueError, match="impossible augmentation"):
        kernels.augment(bytearray(16), Augment(4, 4, 1).params[:-1], 1)


# Distributions ----------------------------------------------------------------------------------


def draws(a: Augment, x: Array, seeds: int = 4000) -> Array:
    """With the seeds of a run."""
    run = [kernels.random(7, step) for step in range(seeds)]
    return np.stack([a(x, seed) for seed in run]).astype(int)


def assert_uniform(found: Array, lowest: int, highest: int) -> None:
    """Chi-squared within four standard deviations of its mean."""
    counts = np.bincount(found - lowest, minlength=highest - lowest + 1)
    each = len(found) / (highest - lowest + 1)
    freedom = highest - lowest
    assert len(counts) == freedom + 1
    assert ((counts - each) ** 2 / each).sum() < freedom + 4 * np.sqrt(2 * freedom)


def test_every_second_sample_is_mirrored() -> None:
    x = np.arange(4).reshape(1, 4, 1)
    assert_uniform(draws(Augment(1, 4, 1, flip=1), x)[:, 0, 0, 0] // 3, 0, 1)


def test_shifts_are_uniform_and_hang_on_nothing_else() -> None:
    """x = row + 20 * column in the middle tells where the middle came from."""
    rows, columns = np.mgrid[:9, :9]
    x = (rows + 12 * columns - 60)[..., None]
    middle = draws(Augment(9, 9, 1, shift_y=2, shift_x=3), x)[:, 4, 4, 0] + 60
    down, right = 4 - middle % 12, 4 - middle // 12
    assert_uniform(down, -2, 2)
    assert_uniform(right, -3, 3)
    assert_uniform(7 * (down + 2) + right + 3, 0, 34)


def test_gain_and_offset_are_uniform() -> None:
    x = np.full((1, 1, 1), 100)
    assert_uniform(draws(Augment(1, 1, 1, offset=20), x)[:, 0, 0, 0], 80, 120)
    scaled = draws(Augment(1, 1, 1, zero=0, gain=ONE // 5), x)[:, 0, 0, 0]
    assert scaled.min() == 80 and scaled.max() == 120
    assert abs(scaled.mean() - 100) < 0.8 and abs(scaled.std() - 40 / np.sqrt(12)) < 0.4


def test_the_patch_lies_anywhere() -> None:
    a = Augment(6, 5, 1, erase_h=1, erase_w=1)
    erased = draws(a, np.ones((6, 5, 1))).reshape(-1, 30) == 0
    assert (erased.sum(axis=1) == 1).all()
    assert_uniform(erased.argmax(axis=1), 0, 29)


# What a run asks for ----------------------------------------------------------------------------


def image_of(shape: tuple[int, ...], zero: int = 9) -> bytes:
    net = Net(shape, zero=zero)
    if len(shape) == 4:
        net.conv(3, 1, activation=RELU)
        net.flatten()
    elif len(shape) == 3:
        net.reshape((1, shape[1] * shape[2]))
    net.dense(4)
    graph = parse_tflite(net.to_bytes())
    return compile_image(graph, default_plan(graph, 1)).image


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flip", Augment(6, 5, 3, 9, flip=1)),
        ("shift=2", Augment(6, 5, 3, 9, shift_y=2, shift_x=2)),
        ("shift=5x0", Augment(6, 5, 3, 9, shift_y=5)),
        ("gain=20,offset=10", Augment(6, 5, 3, 9, gain=3277, offset=10)),
        ("erase=3", Augment(6, 5, 3, 9, erase_h=3, erase_w=3)),
        ("erase=6x1,flip", Augment(6, 5, 3, 9, flip=1, erase_h=6, erase_w=1)),
    ],
)
def test_what_is_asked_for(text: str, found: Augment) -> None:
    assert open_augment(text, image_of((1, 6, 5, 3))) == found.params


def test_sound_is_a_map_and_a_vector_has_no_places() -> None:
    assert open_augment("shift=3x0", image_of((1, 7, 4))) == Augment(7, 4, 1, 9, shift_y=3).params
    assert open_augment("gain=50", image_of((1, 20))) == Augment(1, 1, 20, 9, gain=ONE // 2).params
    for text in ("flip", "shift=1", "erase=1"):
        with pytest.raises(ValueError, match="takes vectors: augment them by gain and offset"):
            open_augment(text, image_of((1, 20)))


def test_old_uint8_models_have_their_zero_in_int8() -> None:
    net = Net((1, 4, 4, 2), zero=-28)
    net.flatten()
    net.dense(3)
    graph = parse_tflite(to_uint8(net, 90))
    image = compile_image(graph, default_plan(graph, 1)).image
    assert open_augment("gain=0", image) == Augment(4, 4, 2, zero=-28).params


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("turn", "no augmentation turn: choose erase, flip, gain, offset, shift"),
        ("flip,", "no augmentation : choose"),
        ("flip=1", "flip=1: write each once"),
        ("shift", "augment shift: write each once"),
        ("gain=5,gain=6", "gain=6: write each once"),
        ("shift=2x3x4", "give whole numbers, shift=N or NxN"),
        ("gain=1x2", "give whole numbers, gain=N$"),
        ("gain=-1", "give whole numbers"),
        ("gain=", "give whole numbers"),
        ("offset=1234567", "give whole numbers"),
        ("shift=x4", "give whole numbers"),
        ("gain=101", "up to 100"),
        ("offset=256", "up to 255"),
        ("shift=5", "shift=5x5: samples of 6 x 5 move by less"),
        ("erase=6", "erase=6x6: the samples are 6 x 5"),
    ],
)
def test_what_cannot_be_done_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_augment(text, image_of((1, 6, 5, 3)))


def test_a_flip_needs_width() -> None:
    with pytest.raises(ValueError, match="flip: the samples are one place wide"):
        open_augment("flip", image_of((1, 6, 1, 3)))
    assert parse_augment("flip") == {"flip": []}
    assert parse_augment("flip+shift=4+gain=9") == parse_augment("flip,shift=4,gain=9")


# Runs -------------------------------------------------------------------------------------------

HOW = "flip,shift=2,gain=20,offset=10,erase=3"


def test_a_resumed_run_goes_on_as_the_unbroken_one() -> None:
    task = runs.digits_task(steps=60)
    options = {**task.options, "schedule": "constant", "augment": HOW}
    with Twin(task.image.data, task.samples) as twin:
        straight: list[str] = []
        unbroken = twin.train(straight.append, **options)
        parts: list[str] = []
        twin.train(parts.append, **{**options, "steps": 25})
        del options["augment"]  # the checkpoint knows
        assert twin.train(parts.append, resume=True, **options) == unbroken
    assert [line.split(",")[0] for line in runs.losses(parts)] == [
        line.split(",")[0] for line in runs.losses(straight)
    ]
    plain = runs.twin_train(replace(task, options={**task.options, "schedule": "constant"}))[0]
    assert runs.losses(plain) != runs.losses(straight)


def test_each_step_sees_the_sample_that_its_seed_makes() -> None:
    """The loss of the first step is that of the sample augmented by hand, for an autoencoder too,
    whose target is then the augmented sample."""
    for loss in ("softmax", "autoencoder"):
        end = Net((1, 5, 6, 3), zero=7, seed=3)
        end.conv(3, 3, zero=4)
        if loss == "softmax":
            end.flatten()
            end.dense(4)
        graph = replace(parse_tflite(end.to_bytes()), loss=loss)
        image = compile_image(graph, default_plan(graph, 1)).image
        x, y = end.sample().reshape(1, 5, 6, 3), np.array([1]) if loss == "softmax" else None
        samples = sample_file(Dataset(x, y), parse_image(image).task)
        lines: list[str] = []
        with Twin(image, samples) as twin:
            twin.train(lines.append, steps=1, seed=5, augment=HOW)
        engine = Engine(Image(image))
        seed = kernels.random(5, 0)
        by_hand = wanted(Augment(5, 6, 3, 7, 1, 2, 2, 3277, 10, 3, 3), x[0], seed)
        engine.sample[:] = by_hand.tobytes()
        told = float(runs.losses(lines)[0].split(",")[0].removeprefix("loss:"))
        assert abs(engine.measure(1 if loss == "softmax" else 0)[0] / 65536 - told) < 1e-4


def test_the_twin_refuses_in_one_line() -> None:
    task = runs.digits_task(steps=2)
    with Twin(task.image.data, task.samples) as twin:
        with pytest.raises(SparsetuneError, match="move by less than that"):
            twin.train(print, **task.options, augment="shift=99")


@needs_shared
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_kws_on_the_emulated_pico(emulated_pico, smoothing: float) -> None:
    """Loss lines and what was learnt are the twin's; RAM as it was promised."""
    assert SHARED
    task = runs.kws_task(SHARED, steps=100)
    plan = replace(default_plan(task.graph, 6), smoothing=smoothing)
    options = {**task.options} if smoothing else {**task.options, "augment": "shift=5x0,gain=20"}
    image = parse_image(compile_image(task.graph, plan).image)
    changed = replace(task, image=image, options=options)
    lines, checkpoint = runs.twin_train(changed)
    assert runs.losses(lines) != runs.losses(runs.twin_train(task)[0])
    with Board.connect(emulated_pico.port) as board:
        told, learnt = runs.board_train(board, changed)
    assert len(runs.losses(told)) == 100 and runs.telemetry(told) == runs.telemetry(lines)
    assert learnt == checkpoint
    check_memory(changed, told)


def test_cached_samples_are_not_augmented() -> None:
    """Of an earlier epoch's features no other sample can be made."""
    task = runs.digits_task(steps=2)
    graph = parse_tflite(runs.DIGITS.read_bytes())
    image = compile_image(graph, default_plan(graph, 1)).image
    with Twin(image, task.samples) as twin:
        with pytest.raises(SparsetuneError, match="leave out augment, or cache"):
            twin.train(print, **task.options, augment="flip", cache=10)
