"""Boards with fast and slow memory: what does not fit the fast one moves, and no byte changes."""

from __future__ import annotations

import numpy as np
import pytest
from machine import Machine
from sparsetune.arena import lifetimes, lower_bound
from sparsetune.compile import source_of
from sparsetune.image import Layout, lay_out
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


def test_what_is_kept_for_backward_goes_before_what_is_computed_with() -> None:
    """Kept channels and masks are touched twice a step, maps many times."""
    model = mixed_net(3).to_bytes()
    plan = default_plan(parse_tflite(model), 4)
    whole = Machine(model, plan)
    split = TwoMemories(model, plan, whole.image.arena_bytes - 4)
    moved = {b.name[:4] for op in split.ops for b in op.buffers if b.is_cold}
    print("moved first:", moved)
    assert moved and not {name for name in moved if name.startswith("t")}
