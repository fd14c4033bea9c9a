"""Work on all cores gives what one gives, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import runs
import sparsetune.cores as cores
import sparsetune_device.main as device
from small_models import Net
from sparsetune.litert import LiteRTError, predict
from sparsetune.twin import Twin

Cores = Callable[[int], None]


@pytest.fixture
def with_cores(monkeypatch: pytest.MonkeyPatch) -> Cores:
    """As if this machine had so many."""
    return lambda count: monkeypatch.setattr(cores, "core_count", lambda: count)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 24, 100, 101])
def test_parts_are_the_whole_in_order(with_cores: Cores, count: int) -> None:
    for available in (1, 2, 3, 64):
        with_cores(available)
        parts = cores.in_parts(count, lambda part: part)
        assert [i for part in parts for i in part] == list(range(count))
        assert len(parts) == max(1, min(available, count // cores.SMALLEST))
        assert count == 0 or max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_run_at_once(with_cores: Cores) -> None:
    with_cores(3)
    together = threading.Barrier(3)  # nobody passes before all three have come
    assert cores.in_parts(30, lambda part: together.wait(timeout=20) >= 0) == [True] * 3


def test_the_first_part_that_fails_is_told(with_cores: Cores) -> None:
    with_cores(3)

    def work(part: range) -> None:
        if part.start:
            raise ValueError(str(part.start))

    with pytest.raises(ValueError, match="^10$"):
        cores.in_parts(30, work)


def test_litert_predicts_the_same(with_cores: Cores) -> None:
    net = Net((1, 5, 6, 3), seed=3)
    net.conv(4, 3)
    net.flatten()
    net.dense(5)
    model = net.to_bytes()
    x = np.concatenate([net.sample() for _ in range(50)])
    with_cores(1)
    alone = predict(model, x)
    assert len(np.unique(alone, axis=0)) > 25
    for count in (2, 3):
        with_cores(count)
        np.testing.assert_array_equal(predict(model, x), alone)
    assert predict(model, x[:0]).shape == (0, *alone.shape[1:])
    with pytest.raises(LiteRTError, match="samples are float32"):
        predict(model, x.astype(np.float32))


@pytest.mark.parametrize("trained", [False, True])
def test_the_twin_evaluates_the_same(with_cores: Cores, trained: bool) -> None:
    pytest.importorskip("sklearn", reason="SKIP: scikit-learn is not installed (extra: demo)")
    task = runs.digits_task(steps=20)
    with Twin(task.image.data, task.samples) as twin:
        twin.train(lambda line: None, **task.options)
        (twin.path / "test.dat").write_bytes(task.held_out)
        paths = str(twin.path / "model.img"), str(twin.path / "test.dat")
        checkpoint = str(twin.path / "trained.ckpt") if trained else None
        wanted: list[str] = []
        device.evaluate(*paths, checkpoint=checkpoint, outputs=True, out=wanted.append)
        for count in (1, 2, 3):
            with_cores(count)
            lines: list[str] = []
            twin.evaluate(lines.append, task.held_out, trained, outputs=True)
            assert lines == wanted
    assert len(wanted) == len(task.test) + 1 and wanted[-1].startswith("#eval|")


def test_two_twins_run_at_once() -> None:
    """Kernels keep nothing that two runs would share."""
    pytest.importorskip("sklearn", reason="SKIP: scikit-learn is not installed (extra: demo)")
    tasks = [runs.digits_task(steps=60, seed=seed) for seed in (1, 2, 3, 4)]

    def learn(task: runs.Task) -> tuple[list[str], bytes]:
        lines, checkpoint = runs.twin_train(task)
        return runs.losses(lines), checkpoint

    alone = [learn(task) for task in tasks]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(learn, tasks)) == alone
