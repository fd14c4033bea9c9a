"""Boards with fast and slow RAM: what a plan counts on in each, and where MicroPython puts it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import Net
from sparsetune.boardspec import BoardSpec, load_spec
from sparsetune.compile import compile_image
from sparsetune.graph import Graph
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.room import Room
from sparsetune.tflite import parse_tflite

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT / "boards" / "SPARSETUNE_ESP32S3"


def wide() -> tuple[Graph, UpdatePlan]:
    """A network with large maps, and weights of as many bytes; all of it trains."""
    net = Net((1, 24, 24, 4), seed=3)
    for _ in range(3):
        net.conv(24, 3)
    net.mean((1, 2), False)
    net.dense(200)
    net.dense(5, scale=0.03)
    graph = parse_tflite(net.to_bytes())
    return graph, default_plan(graph, len(graph.trainable), 1.0)


def board(heap: int, slow: int) -> BoardSpec:
    return replace(load_spec("pico"), heap_bytes=heap, slow_ram_bytes=slow)


def room(heap: int, slow: int) -> Room:
    return Room(board(heap, slow), heap, 100)


def test_what_is_learnt_may_lie_in_the_slower_memory() -> None:
    """The arena alone, with Python's objects, has to have room in the faster one."""
    graph, plan = wide()
    whole = room(1 << 20, 0)
    use = whole.use(whole.compile(graph, plan))
    assert use.fast == use.arena + use.package and use.used > use.fast + 10000
    rest = use.used - use.fast
    two = room(use.fast, rest)
    layout = two.compile(graph, plan)
    assert two.holds(layout) and layout.cold_bytes == 0 and two.short(layout) == 0
    assert not room(use.fast, rest - 1).holds(layout)


def test_what_the_faster_one_has_no_room_for_leaves_the_arena() -> None:
    graph, plan = wide()
    whole = room(1 << 20, 0)
    use = whole.use(whole.compile(graph, plan))
    two = room(use.fast - 5000, 1 << 20)
    layout = two.compile(graph, plan)
    found = two.use(layout)
    assert two.holds(layout) and found.cold == layout.cold_bytes > 0
    assert found.fast <= two.ram and found.state == use.state
    assert found.used == found.fast + found.cold + found.state + found.data


def test_one_memory_is_as_it_was() -> None:
    graph, plan = wide()
    use = room(1 << 20, 0).use(compile_image(graph, plan))
    assert use.used == use.arena + use.state + use.data + use.package
    one = room(use.used, 0)
    assert one.holds(compile_image(graph, plan))
    assert not room(use.used - 1, 0).holds(compile_image(graph, plan))


SCRIPT = """
import sys, uctypes
from sparsetune_device.engine import Engine
class Image:
    arena_bytes, cold_bytes, input_at, input_bytes, output_at, output_bytes = 120000, 0, 0, 4, 4, 4
    target_at, target_bytes, has_vectors = 0, 0, False
    def initial_state(self):
        return bytearray(150000)
begin = uctypes.addressof(bytearray(1))
engine = Engine(Image(), 1)
print(*(uctypes.addressof(b) - begin for b in (engine.arena, engine.state)))
"""
HALF = 200000
STAND_IN = "import sys; sys.modules['sparsetune_kernels'] = type('K', (), {'abi': lambda: 6})"


def test_the_arena_lies_in_the_heaps_first_part(unix_micropython: Path) -> None:
    """Under MicroPython's unix port, whose heap is in two halves of 200,000 bytes: what is learnt
    is larger than what is left of the first."""
    done = subprocess.run(
        [unix_micropython, "-X", f"heapsize={2 * HALF}", "-c", STAND_IN + SCRIPT],
        cwd=ROOT / "device", capture_output=True, text=True, check=True,
    )  # fmt: skip
    arena, state = map(int, done.stdout.split())
    assert 0 < arena < HALF - 120000 and not -HALF < state < HALF - 150000


# The board's header -----------------------------------------------------------------------------

PROGRAM = """
#include <stdio.h>
#include "mpconfigboard.h"
void *heap_caps_malloc_prefer(unsigned long size, unsigned long n, ...) {
    __builtin_va_list caps;
    __builtin_va_start(caps, n);
    printf("%lu", size);
    for (; n; n--)
        printf(" %d", __builtin_va_arg(caps, int));
    printf("\\n");
    return 0;
}
int main(void) {
    MP_PLAT_ALLOC_HEAP(MICROPY_GC_INITIAL_HEAP_SIZE);
    MP_PLAT_ALLOC_HEAP(2 * MICROPY_GC_INITIAL_HEAP_SIZE);
}
"""
CAPS = """
enum { MALLOC_CAP_8BIT = 1, MALLOC_CAP_SPIRAM = 2, MALLOC_CAP_INTERNAL = 4 };
void *heap_caps_malloc_prefer(unsigned long, unsigned long, ...);
"""


def test_the_heap_begins_in_the_chip_and_grows_beside_it(tmp_path: Path) -> None:
    """With a stand-in for ESP-IDF's header."""
    spec = load_spec(str(BOARD / "board_psram.toml"))
    (tmp_path / "main.c").write_text(PROGRAM)
    (tmp_path / "esp_heap_caps.h").write_text(CAPS)
    lines = (BOARD / "mpconfigvariant_SPIRAM_OCT.cmake").read_text().splitlines()
    define = next(line.strip() for line in lines if "PSRAM=" in line)
    command = ["gcc", f"-D{define}", f"-I{tmp_path}", f"-I{BOARD}", "main.c", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    first, more = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert first[1:] == (5, 1) and more[1:] == (2, 1)
    assert spec.heap_bytes < first[0] < spec.heap_bytes * 1.1 and spec.slow_ram_bytes


@pytest.mark.parametrize("name", ["board", "board_psram"])
def test_memories_are_within_what_is_there(name: str) -> None:
    spec = load_spec(str(BOARD / f"{name}.toml"))
    assert 0 < spec.own_bytes < spec.ram_bytes
