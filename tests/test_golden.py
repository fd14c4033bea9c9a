"""Forward passes of the shared models against LiteRT's reference kernels: 0 differing bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import runs
import shared_tasks
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.data import Dataset, sample_file
from sparsetune.image import parse_image
from sparsetune.plan import default_plan
from sparsetune.push import push_rom
from sparsetune.tflite import read_tflite
from sparsetune.twin import Twin

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")
MODELS = ["kws_ref_model", "pretrainedResnet_quant"]


def golden(shared: Path, name: str) -> tuple[bytes, bytes, bytes]:
    """(image, sample file, expected outputs) of a shared model."""
    model = shared / "models" / "mlcommons" / f"{name}.tflite"
    graph = read_tflite(model)
    image = compile_image(graph, default_plan(graph, 2)).image
    with np.load(shared / "golden" / f"litert_ref__mlcommons__{name}.npz") as file:
        x, y = file["x"], file["y0"]
    labels = np.zeros(len(x), np.uint8)
    return image, sample_file(Dataset(x, labels), parse_image(image).task), y.tobytes()


def differing(ours: bytes, want: bytes) -> int:
    assert len(ours) == len(want)
    return int((runs.as_int8(ours) != runs.as_int8(want)).sum())


@needs_shared
@pytest.mark.parametrize("name", MODELS)
def test_twin_equals_litert(name: str) -> None:
    assert SHARED
    image, samples, want = golden(SHARED, name)
    lines: list[str] = []
    with Twin(image, samples) as twin:
        twin.evaluate(lines.append, samples, trained=False, outputs=True)
    print(f"{name} twin: {differing(runs.outputs(lines), want)} differing bytes of {len(want)}")
    assert runs.outputs(lines) == want


@needs_shared
@pytest.mark.parametrize("name", MODELS)
def test_emulated_pico_equals_litert(name: str, emulated_pico) -> None:
    assert SHARED
    image, samples, want = golden(SHARED, name)
    with Board.connect(emulated_pico.port) as board:
        push_rom(board, {"model.img": image})
        ours = runs.board_outputs(board, samples)
    print(f"{name} emulated Pico: {differing(ours, want)} differing bytes of {len(want)}")
    assert ours == want
