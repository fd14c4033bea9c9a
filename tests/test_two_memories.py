"""Boards with fast and slow memory: what does not fit the fast one moves, and no byte changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import Machine
from sparsetune.arena import lifetimes, lower_bound
from sparsetune.boardspec import BOARDS, load_spec
from sparsetune.cli import main
from sparsetune.compile import compile_image, source_of
from sparsetune.image import Layout, lay_out, parse_image
from sparsetune.memory import predict
from sparsetune.numerics import rate
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.tflite import parse_tflite
from test_kernels import mixed_net


class TwoMemories(Machine):
    def __init__(self, model: bytes, plan: UpdatePlan, fast_bytes: int) -> None:
        self.fast_bytes = fast_bytes
        super().__init__(model, plan)

    def lay_out(self) -> Layout:
        return lay_out(self.program, source_of(self.graph), self.fast_bytes)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3, 0.0])
def test_the_split_changes_no_byte(share: float) -> None:
    net = mixed_net(2)
    model = net.to_bytes()
    plan = default_plan(parse_tflite(model), 4)
    whole = Machine(model, plan)
    limit = int(share * whole.image.arena_bytes)
    split = TwoMemories(model, plan, limit)
    assert split.image.cold_bytes > 0
    ends = whole.image.input_bytes + 16  # input and output stay
    assert split.image.arena_bytes <= max(limit, ends)
    for step in range(4):
        x = net.sample()
        assert split.step(x, step, rate(0.05), step) == whole.step(x, step, rate(0.05), step)
        np.testing.assert_array_equal(split.infer(x), whole.infer(x))
    assert split.state == whole.state


def test_nothing_moves_where_all_fits() -> None:
    model = mixed_net(1).to_bytes()
    machine = TwoMemories(model, default_plan(parse_tflite(model), 4), 1 << 20)
    assert machine.image.cold_bytes == 0
    assert machine.image.arena_bytes >= lower_bound(lifetimes(machine.program))


def test_a_board_description_is_all_it_takes(tmp_path: Path, capsys: Any) -> None:
    """The Pico with 8 MB of PSRAM: --ram bounds the fast RAM, the rest goes there."""
    text = (BOARDS / "pico.toml").read_text()
    board = tmp_path / "psram.toml"
    board.write_text(text.replace("[ram]\n", "[ram]\nslow = 8388608\n"))
    net = mixed_net(2)
    model = tmp_path / "m.tflite"
    model.write_bytes(net.to_bytes())
    x = np.concatenate([net.sample() for _ in range(12)])
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(12) % 4)
    graph = parse_tflite(net.to_bytes())
    image = parse_image(compile_image(graph, default_plan(graph, 4)).image)
    package = predict(image, 12, load_spec("pico")).package
    plan = ["plan", str(model), "--last", "4", "--ram", f"{package + 4700}"]
    assert main([*plan, "--board", "pico"]) == 1
    assert "needs" in capsys.readouterr().err
    assert not main([*plan, "--board", str(board)])
    told = capsys.readouterr().out
    assert f"of {package + 4700:,} bytes of it: arena and device package; the rest lies" in told
    tune = ["tune", str(model), str(tmp_path / "d.npz"), "--twin", "--last", "4"]
    tune += ["--ram", f"{package + 1700}"]
    rest = ["--steps", "8", "--plain", "-o", str(tmp_path / "o.tflite"), "--board", str(board)]
    assert not main([*tune, *rest, "--log", str(tmp_path / "l.jsonl")])
    told = capsys.readouterr().out
    assert "; of the arena in slower RAM" in told and "0 differing bytes" in told


def test_what_is_kept_for_backward_goes_before_what_is_computed_with() -> None:
    """Kept channels and masks are touched twice a step, maps many times."""
    model = mixed_net(3).to_bytes()
    plan = default_plan(parse_tflite(model), 4)
    whole = Machine(model, plan)
    split = TwoMemories(model, plan, whole.image.arena_bytes - 4)
    moved = {b.name[:4] for op in split.ops for b in op.buffers if b.is_cold}
    print("moved first:", moved)
    assert moved and not {name for name in moved if name.startswith("t")}
