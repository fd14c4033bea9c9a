"""The main job: what twin and emulated Pico learn, that they agree, and what comes back."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import runs
import shared_tasks
import sparsetune_device.engine as engine
import sparsetune_kernels as kernels
from sparsetune.board import Board
from sparsetune.boardspec import load_spec
from sparsetune.compile import compile_image
from sparsetune.errors import SparsetuneError
from sparsetune.export import export_tflite, parse_checkpoint
from sparsetune.graph import Graph
from sparsetune.image import ABSENT, parse_image
from sparsetune.litert import litert_accuracy, predict
from sparsetune.memory import Beside
from sparsetune.memory import predict as predict_ram
from sparsetune.plan import UpdatePlan, default_plan, leave_in_flash
from sparsetune.twin import STORE_BYTES
from sparsetune_device.schedule import parse_rate, rate_text

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")
RAM_TOLERANCE = 512


def accuracies(task: runs.Task, checkpoint: bytes) -> tuple[float, float]:
    """Held-out accuracy by LiteRT, before and after."""
    model = task.model.read_bytes()
    trained = export_tflite(model, task.image, parse_checkpoint(checkpoint, task.image))
    test = task.test
    return litert_accuracy(model, test.x, test.y), litert_accuracy(trained, test.x, test.y)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_digits_recover_on_the_twin(seed: int) -> None:
    task = runs.digits_task(steps=500, seed=seed)
    before, after = accuracies(task, runs.twin_train(task)[1])
    print(f"digits, seed {seed}: {before:.1%} before, {after:.1%} after")
    assert after - before >= 0.25


@needs_shared
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kws_recovers_half_of_the_shift(seed: int) -> None:
    assert SHARED
    task = runs.kws_task(SHARED, steps=200, seed=seed)
    clean = shared_tasks.kws_task(SHARED, shifted=False)
    normal = litert_accuracy(task.model, clean["x_test"], clean["y_test"])
    before, after = accuracies(task, runs.twin_train(task)[1])
    print(f"KWS, seed {seed}: {normal:.1%} normal, {before:.1%} shifted, {after:.1%} after")
    assert after - before >= (normal - before) / 2


def check_board_against_twin(board: Board, task: runs.Task) -> list[str]:
    """Telemetry, checkpoint, exported model and memory of one run; returns the board's lines."""
    twin_lines, twin_checkpoint = runs.twin_train(task)
    lines, checkpoint = runs.board_train(board, task)
    assert len(runs.losses(lines)) == task.options["steps"]
    assert runs.telemetry(lines) == runs.telemetry(twin_lines)
    assert checkpoint == twin_checkpoint
    check_export(board, task, checkpoint)
    check_memory(task, lines)
    return lines


def check_export(board: Board, task: runs.Task, checkpoint: bytes) -> None:
    """The exported .tflite gives in LiteRT what the board gives."""
    trained = export_tflite(
        task.model.read_bytes(), task.image, parse_checkpoint(checkpoint, task.image)
    )
    few = runs.Dataset(task.test.x[:10], task.test.y[:10])
    samples = runs.sample_file(few, task.image.task)
    want = predict(trained, few.x).tobytes()
    assert runs.board_outputs(board, samples, runs.CKPT) == want
    untrained = predict(task.model, few.x).tobytes()
    assert untrained != want  # the run did change the model


def has_store(task: runs.Task) -> bool:
    in_flash = (layer for layer in task.image.layers if layer.table_at != ABSENT)
    return any(layer.count > layer.slots for layer in in_flash)


def check_memory(task: runs.Task, lines: list[str]) -> None:
    spec = load_spec("pico")
    options = task.options
    skips = bool(options.get("skip") or options.get("effort"))
    worth = "effort" in options
    decay = "decay" in options
    beside = Beside(augment="augment" in options, skip=skips, worth=worth, decay=decay)
    use = predict_ram(task.image, len(task.train), spec, beside)
    told = runs.events(lines, "mem")[-1]
    peak = spec.ram_bytes - told["free"]
    print(
        f"{task.name}, emulated Pico: {peak:,} of {spec.ram_bytes:,} bytes of RAM at the peak; "
        f"heap free {told['free']:,}, predicted {use.free:,}"
    )
    assert told["arena"] == use.arena and told["state"] == use.state
    assert use.free <= told["free"]  # never less than promised
    if task.options.get("hold") != 1 or not has_store(task):  # which collects in each step
        assert told["free"] - use.free <= RAM_TOLERANCE
    assert peak <= spec.ram_bytes


def test_digits_on_the_emulated_pico(emulated_pico) -> None:
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, runs.digits_task(steps=60))


@needs_shared
@pytest.mark.parametrize("weights_only", [False, True], ids=["both gradients", "weights alone"])
def test_kws_in_patches_on_the_emulated_pico(emulated_pico, weights_only: bool) -> None:
    assert SHARED
    task = runs.kws_in_patches_task(SHARED, weights_only)
    assert len(runs.losses(runs.equal_runs(emulated_pico.port, task))) == 100


@needs_shared
def test_kws_200_steps_on_the_emulated_pico(emulated_pico) -> None:
    assert SHARED
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, runs.kws_task(SHARED, steps=200))


@needs_shared
@pytest.mark.parametrize(
    ("rules", "options"),
    [
        ({"velocity": True}, {"momentum": "0.9", "accumulate": 4, "decay": "0.001"}),
        ({"velocity": True, "residual": True}, {"accumulate": 8, "standardise": "0.3"}),
        ({"qas": False, "error_bits": 8}, {"rate": "300"}),
    ],
)
def test_other_update_rules_on_the_emulated_pico(
    emulated_pico, rules: dict[str, Any], options: dict[str, Any]
) -> None:
    """Board and twin print the same losses, and end with the same checkpoint."""
    assert SHARED
    task = runs.kws_task(SHARED, steps=100)
    plan = replace(default_plan(task.graph, 6), **rules)
    task = with_plan(task, plan, 500, **options)
    lines = runs.equal_runs(emulated_pico.port, task)
    check_memory(task, lines)


DRAWN = {"policy": "random", "schedule": "step", "warmup": 20, "augment": "flip,erase=8x4"}


@needs_shared
@pytest.mark.parametrize(
    ("last", "patch", "options"),
    [(4, 1, {"policy": "static"}), (4, 1, DRAWN), (4, 4, {}), (4, 7, {})],
    ids=["static", "random, warm-up, step, flip and erase", "patches of 4", "patches of 7"],
)
def test_other_choices_on_the_emulated_pico(
    emulated_pico, last: int, patch: int, options: dict[str, Any]
) -> None:
    """Which channels learn, at which rates, from which samples, over which patches: board and twin
    print the same losses, and end with the same checkpoint."""
    assert SHARED
    task = runs.kws_task(SHARED, steps=100)
    plan = in_patches(task.graph, default_plan(task.graph, last), patch)
    task = with_plan(task, plan, 500, **options)
    runs.equal_runs(emulated_pico.port, task)


def in_patches(graph: Graph, plan: UpdatePlan, size: int) -> UpdatePlan:
    """With patches of that size in all convolutions, as a plan file may have them: --patch 7 leaves
    this model's maps of 25 x 5 as they are."""
    maps = {op.index for op in graph.trainable if op.kind != "FULLY_CONNECTED"}
    layers = (replace(p, patch=size) if p.operator in maps else p for p in plan.layers)
    return replace(plan, layers=tuple(layers))


@needs_shared
def test_layers_left_in_flash_on_the_emulated_pico(emulated_pico) -> None:
    assert SHARED
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, runs.kws_in_flash_task(SHARED))


def with_plan(task: runs.Task, plan: UpdatePlan, samples: int, **options: Any) -> runs.Task:
    image = parse_image(compile_image(task.graph, plan).image)
    train = task.train.part(slice(samples))
    return replace(task, image=image, train=train, options={**task.options, **options})


@pytest.mark.parametrize(
    ("last", "ratio", "samples"), [(1, 0.5, 500), (9, 0.5, 37), (6, 1.0, 500), (6, 0.5, 2)]
)
def test_memory_on_the_emulated_pico(emulated_pico, last: int, ratio: float, samples: int) -> None:
    """Few layers and many, all channels and some, and epochs that are shorter than the time between
    two collections of garbage."""
    task = runs.digits_task(steps=17)
    with Board.connect(emulated_pico.port) as board:
        few = with_plan(task, default_plan(task.graph, last, ratio), samples)
        check_memory(few, runs.board_train(board, few)[0])


@needs_shared
@pytest.mark.parametrize(("store", "policy"), [(0, "static"), (STORE_BYTES, "cyclic")])
def test_memory_with_layers_left_in_flash(emulated_pico, store: int, policy: str) -> None:
    assert SHARED
    task = runs.kws_in_flash_task(SHARED, steps=17)
    with Board.connect(emulated_pico.port) as board:
        for last in (2, 6):
            plan = leave_in_flash(task.graph, default_plan(task.graph, last, 0.25), store)
            few = with_plan(task, plan, 400, policy=policy, hold=None)
            check_memory(few, runs.board_train(board, few)[0])


@needs_shared
def test_resnet8_20_steps_on_the_emulated_pico(emulated_pico) -> None:
    assert SHARED
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, runs.cifar_task(SHARED, steps=20))


@needs_shared
def test_vww_on_the_emulated_pico(emulated_pico) -> None:
    assert SHARED
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, runs.vww_task(SHARED, steps=17))


@needs_shared
def test_mobilenet_v2_on_the_emulated_pico(emulated_pico, tmp_path: Path) -> None:
    """Six of its layers, one of them a new head, the front by strips."""
    assert SHARED
    with Board.connect(emulated_pico.port) as board:
        check_board_against_twin(board, runs.mobilenet_v2_task(SHARED, tmp_path, steps=17))


def test_resuming_equals_an_unbroken_run() -> None:
    task = runs.digits_task(steps=60)
    whole_lines, whole = runs.twin_train(task)
    with runs.Twin(task.image.data, task.samples) as twin:
        options = {**task.options, "schedule": "constant"}
        straight: list[str] = []
        unbroken = twin.train(straight.append, **options)
        first: list[str] = []
        twin.train(first.append, **{**options, "steps": 25})
        rest: list[str] = []
        resumed = twin.train(rest.append, resume=True, **options)
    assert resumed == unbroken
    assert [r.split(",")[0] for r in runs.losses(first + rest)] == [
        s.split(",")[0] for s in runs.losses(straight)
    ]


def test_runs_that_were_broken_off_cost_no_longer_one() -> None:
    """Of two earlier runs the one that learnt for longer is kept."""
    task = runs.digits_task(steps=5)
    with runs.Twin(task.image.data, task.samples) as twin:
        old, now = twin.path / "trained.ckpt.old", twin.path / "trained.ckpt"
        longest = twin.train(print, **task.options)
        twin.train(print, **{**task.options, "steps": 1})
        assert old.read_bytes() == longest and now.read_bytes() != longest
        twin.train(print, discard=True, **{**task.options, "steps": 2})
        assert old.read_bytes() == longest


def test_a_run_that_does_not_start_changes_no_checkpoint() -> None:
    task = runs.digits_task(steps=5)
    with runs.Twin(task.image.data, task.samples) as twin:
        learnt = twin.train(print, **task.options)
        for _ in range(2):
            with pytest.raises(TypeError):
                twin.train(print, **{**task.options, "warmup": "abc"})
        assert (twin.path / "trained.ckpt").read_bytes() == learnt


def test_a_power_cut_while_saving_leaves_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cut comes just before the rename: PATH must still be the checkpoint before."""
    task = runs.digits_task(steps=4)
    with runs.Twin(task.image.data, task.samples) as twin:
        whole = twin.train(print, **task.options)

        def power_cut(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("sparsetune_device.checkpoint.os.replace", power_cut)
        with pytest.raises(KeyboardInterrupt):
            twin.train(print, resume=True, **{**task.options, "steps": 6})
        assert (twin.path / "trained.ckpt").read_bytes() == whole


@pytest.mark.parametrize("name", ["rename", "replace"])
def test_a_rename_that_fails_leaves_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """MicroPython's os, which has no replace, and CPython's."""
    task = runs.digits_task(steps=4)
    with runs.Twin(task.image.data, task.samples) as twin:
        whole = twin.train(print, **task.options)

        def fails(*_: object) -> None:
            raise OSError(errno.EIO, "the flash")

        if name == "rename":
            monkeypatch.delattr("sparsetune_device.checkpoint.os.replace")
        monkeypatch.setattr(f"sparsetune_device.checkpoint.os.{name}", fails)
        with pytest.raises(OSError):
            twin.train(print, resume=True, **{**task.options, "steps": 6})
        monkeypatch.undo()
        assert twin.pull() == whole


def test_a_step_that_fails_halfway_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of its updates are done: the checkpoint is that of the last save."""
    task = runs.digits_task(steps=5)
    kept: list[bytes] = []

    def run(*arguments: Any) -> int:
        cores: int = kernels.run(*arguments)
        if path.exists():
            kept.append(path.read_bytes())
        if len(kept) == 2:
            raise ValueError("the second core stopped")
        return cores

    with runs.Twin(task.image.data, task.samples) as twin:
        path = twin.path / "trained.ckpt"
        monkeypatch.setattr(engine, "kernels", SimpleNamespace(run=run))
        with pytest.raises(SparsetuneError, match="the second core stopped"):
            twin.train(print, save_every=2, **task.options)
        assert path.read_bytes() == kept[0]


@pytest.mark.parametrize("schedule", ["linear", "step"])
def test_resuming_remembers_the_run(schedule: str) -> None:
    """Steps, rate, seed, policy and schedule come from the checkpoint where none are given."""
    task = runs.digits_task(steps=40)
    options = {**task.options, "schedule": schedule, "rate": "0.003"}
    with runs.Twin(task.image.data, task.samples) as twin:
        unbroken = twin.train(print, **options)
    broken: list[str] = []

    def pull_the_plug(line: str) -> None:
        broken.append(line)
        if len(runs.losses(broken)) == 25:
            raise KeyboardInterrupt

    with runs.Twin(task.image.data, task.samples) as twin:
        with pytest.raises(KeyboardInterrupt):
            twin.train(pull_the_plug, **options)
        rest: list[str] = []
        assert twin.train(rest.append, resume=True) == unbroken
        with pytest.raises(SparsetuneError, match="all 40 steps are done"):
            twin.train(print, resume=True)
    (start,) = runs.events(rest, "start")
    assert (start["first"], start["rate"], start["cores"]) == (25, "0.003", 1)


def test_the_start_tells_the_rate_of_the_image_where_none_is_given() -> None:
    task = runs.digits_task(steps=1)
    lines: list[str] = []
    with runs.Twin(task.image.data, task.samples) as twin:
        twin.train(lines.append, steps=1)
    assert runs.events(lines, "start")[0]["rate"] == "0.005"  # compile_image's


@pytest.mark.parametrize("digits", [1, 25, 777, 9999])
def test_rates_are_told_as_they_were_given(digits: int) -> None:
    for power in range(10):
        text = f"{digits / 10**power:.9f}".rstrip("0").rstrip(".")
        assert rate_text(parse_rate(text)) == text


def test_a_lost_board_has_saved_what_it_learnt() -> None:
    """Power that fails without warning costs at most save_every steps."""
    task = runs.digits_task(steps=30)
    told: list[str] = []
    unsaved: list[int] = []
    with runs.Twin(task.image.data, task.samples) as twin:
        path = twin.path / "trained.ckpt"

        def on_line(line: str) -> None:
            told.append(line)
            if not path.exists():
                unsaved.append(len(runs.losses(told)))

        twin.train(on_line, save_every=10, **task.options)
    assert unsaved[-1] == 10  # told just before it is saved


ALLOCATED = """
import gc, struct
import sparsetune_device.engine as engine
import sparsetune_kernels as kernels
from sparsetune_device.engine import Engine
from sparsetune_device.image import open_image
engine = Engine(open_image("/rom/model.img"))
buffers = engine.image.data, engine.state, engine.arena, engine.cold, engine.store
ops = engine.image.ops
for i in range(3):
    engine.step(1, (40000, -20), i)
gc.collect()
gc.disable()
before = gc.mem_alloc()
middle = gc.mem_alloc()
kernels.run(*buffers, 0, ops, 1)
after = gc.mem_alloc()
for i in range(10):
    engine.step(1, (40000, -20), i)
print(after - middle - (middle - before), (gc.mem_alloc() - after) // 10)
gc.enable()  # a soft reset does not
"""


THRESHOLD = """
import gc
{set_it}
from sparsetune_device.main import train
print("THRESHOLD", gc.threshold())
train("/rom/model.img", "/sparsetune/train.dat", save_to="/sparsetune/trained.ckpt", {options})
print("THRESHOLD", gc.threshold())
"""


@pytest.mark.parametrize(
    ("set_it", "want"),
    [("", -1), ("gc.threshold(50000)", 50000 // 16 * 16), ("gc.threshold(4096)", 4096)],
    ids=["none", "larger than the one for imports", "smaller"],
)
def test_the_threshold_of_the_users_program_is_kept(emulated_pico, set_it: str, want: int) -> None:
    """The device package has one of its own for its imports; MicroPython counts in 16 bytes."""
    task = runs.digits_task(steps=5)
    lines: list[str] = []
    with Board.connect(emulated_pico.port) as board:
        runs.push(board, task)
        options = ", ".join(f"{name}={value!r}" for name, value in task.options.items())
        board.stream(THRESHOLD.format(set_it=set_it, options=options), lines.append)
    assert [line for line in lines if line.startswith("THRESHOLD")] == [f"THRESHOLD {want}"] * 2
    assert runs.losses(lines) == runs.losses(runs.twin_train(task)[0])


FAILS = """
import gc, sys
told = [-1]
gc.threshold = lambda *new: told.append(*new) if new else told[-1]  # as MicroPython's
sys.modules["sparsetune_device.engine"] = None
try:
    import sparsetune_device.main
except ImportError as error:
    print(error.name, told)
"""


def test_an_import_that_fails_leaves_the_users_threshold() -> None:
    """As with too little RAM for it."""
    done = subprocess.run([sys.executable, "-c", FAILS], capture_output=True, text=True)
    assert done.stdout == "sparsetune_device.engine [-1, 16384, -1]\n", done.stderr


FULL = """
import gc
gc.disable()
ballast = []
for piece in 1000, 100:  # to within the smaller one, whatever the heap's size
    while gc.mem_free() > {room} + piece:
        ballast.append(bytearray(piece))
from sparsetune_device.main import train
train('/rom/model.img', '/sparsetune/train.dat', save_to='/sparsetune/trained.ckpt', {options})
"""


def test_a_heap_without_collections_is_no_end(emulated_pico) -> None:
    """As gc.disable() in a boot.py leaves it, with little more RAM than the plan needs."""
    task = runs.digits_task(steps=40)
    options = ", ".join(f"{name}={value!r}" for name, value in task.options.items())
    room = predict_ram(task.image, len(task.train), load_spec("pico")).used + 2000
    lines: list[str] = []
    with Board.connect(emulated_pico.port) as board:
        runs.push(board, task)
        board.stream(FULL.format(room=room, options=options), lines.append)
    assert lines[-1] == "#done|steps=40"


def test_a_step_allocates_next_to_nothing(emulated_pico) -> None:
    """The kernels nothing; Python the numbers that it hands over."""
    task = runs.digits_task(steps=1)
    lines: list[str] = []
    with Board.connect(emulated_pico.port) as board:
        runs.push(board, task)
        board.stream(ALLOCATED, lines.append)
    kernels, step = (int(word) for word in lines[-1].split())
    print(f"emulated Pico: the kernels of a step allocate {kernels} bytes, the step {step}")
    assert kernels <= 64 and step <= 256
