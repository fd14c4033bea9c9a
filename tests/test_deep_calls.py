"""A step needs stack: from a call too deep it is refused, as Python calls are, before it writes
over the heap, which lies behind the stack."""

from __future__ import annotations

from pathlib import Path

import pytest
import runs
from conftest import FIRMWARE
from sparsetune.board import Board
from sparsetune_tools.emulated_pico import EmulatedPico

# Blocks hold the heap to its end; each says what was written over it.
SCRIPT = """
import gc
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image
engine = Engine(Image(memoryview(open("/rom/model.img", "rb"))), {cores})
def changed(blocks):
    return sum(1 for block in blocks if block != filled)
def step_at(depth):
    if depth:
        return step_at(depth - 1)
    engine.step(1, (32768, -20), 3)
def steps(blocks):
    depth = 0
    try:
        while True:
            step_at(depth)
            depth += 1
    except RuntimeError as error:
        print(depth, changed(blocks), error)
filled = b"U" * 512
blocks = [None] * 400
gc.collect()
try:
    for i in range(len(blocks)):
        blocks[i] = bytearray(filled)
except MemoryError:
    pass
for j in range(8):
    blocks[j] = None
blocks = [block for block in blocks if block is not None]
gc.collect()
print(len(blocks), changed(blocks), "blocks")
steps(blocks)
"""


@pytest.mark.parametrize("cores", [1, 2])
def test_a_step_from_too_deep_is_refused(tmp_path: Path, cores: int) -> None:
    if not FIRMWARE.exists():
        pytest.skip("no firmware is built: run make firmware")
    lines: list[str] = []
    with EmulatedPico(FIRMWARE, tmp_path / "flash.bin", cores=cores) as pico:
        with Board.connect(pico.port) as board:
            runs.push(board, runs.digits_task(steps=1))
            board.stream(SCRIPT.format(cores=cores), lines.append)
    count, before, _ = lines[0].split()
    depth, after, *error = lines[1].split()
    assert int(count) > 300 and before == "0"
    assert int(depth) > 3
    assert (after, " ".join(error)) == ("0", "maximum recursion depth exceeded")
