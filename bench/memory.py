"""Arena, lower bound, RAM and planning time of every shared int8 model. Run: python bench/memory.py

Three plans each: inference alone, the plan that `sparsetune plan` chooses for a Pico, all layers;
of MobileNetV2, with a head of ten classes, also the published scheme of MCUNetV3; that without
scratch for the fast kernels too, and without its front being run by rows. The figures are those of
the layouts that are sent: arena, arena and state (what is trained), all of a run's RAM.
Models that cannot be imported are listed with the reason.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from schemes import MBV2_99, published
from shared_tasks import shared_folder
from sparsetune.boardspec import load_spec
from sparsetune.commands import SAMPLES_ASSUMED
from sparsetune.compile import build_program, source_of
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.image import Layout, lay_out, parse_image
from sparsetune.memory import predict
from sparsetune.plan import UpdatePlan, default_plan
from sparsetune.room import Room
from sparsetune.search.asked import plan_within
from sparsetune.tflite import parse_tflite, read_tflite

PICO = load_spec("pico")
MOBILENET_V2 = "mobilenet_v2_w0.35_128_int8.tflite"


def ram(layout: Layout) -> int:
    return predict(parse_image(layout.image), SAMPLES_ASSUMED, PICO).used


def row(title: str, graph: Graph, plan: UpdatePlan, begin: float) -> None:
    """begin: when planning began (time.perf_counter)."""
    try:
        layout = lay_out(build_program(graph, plan), source_of(graph))
    except SparsetuneError as error:
        print(f"  {title:<18} {error}")
        return
    seconds, least = time.perf_counter() - begin, layout.arena_lower_bound
    print(
        f"  {title:<18} arena {layout.arena_bytes:>9,}  lower bound {least:>9,}  "
        f"ratio {layout.arena_bytes / least:.4f}  with state "
        f"{layout.arena_bytes + parse_image(layout.image).state_bytes:>9,}  "
        f"RAM {ram(layout):>9,}  {seconds:5.2f} s"
    )


def chosen(graph: Graph) -> UpdatePlan:
    return plan_within(graph, Room(PICO, PICO.heap_bytes, SAMPLES_ASSUMED))


def show(path: Path) -> None:
    print(f"{path.parent.name}/{path.name}")
    try:
        begin = time.perf_counter()
        graph = read_tflite(path)
        row("inference", graph, UpdatePlan(()), begin)
        begin = time.perf_counter()
        row("planned for a Pico", graph, chosen(graph), begin)
        begin = time.perf_counter()
        if path.name == MOBILENET_V2:
            ten = parse_tflite(with_new_head(path.read_bytes(), HeadRequest(10)))
            plan = published(ten, MBV2_99)
            portable = replace(plan, scratch=False)
            row("MCUNetV3's 100 KB", ten, plan, time.perf_counter())
            row("... no scratch", ten, portable, time.perf_counter())
            row("... nor by rows", ten, replace(portable, strips=False), time.perf_counter())
        begin = time.perf_counter()
        row("all layers", graph, default_plan(graph, len(graph.trainable) or 1, 1.0), begin)
    except SparsetuneError as error:
        print(f"  refused: {error}".replace(str(path), path.name))


def main() -> None:
    shared = shared_folder()
    if shared is None:
        print("SKIP: there is no ../shared")
        return
    for path in sorted((shared / "models").glob("*/*.tflite")):
        show(path)


if __name__ == "__main__":
    main()
