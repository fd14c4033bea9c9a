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
from sparsetune.graph import Array, Graph
from sparsetune.image import parse_image
from sparsetune.plan import LayerPlan, UpdatePlan
from sparsetune.push import push_rom
from sparsetune.tflite import read_tflite
from sparsetune.twin import Twin

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")
MODELS = (
    *("mlcommons/kws_ref_model", "mlcommons/pretrainedResnet_quant", "mlcommons/vww_96_int8"),
    *("mlcommons/str_ww_ref_model", "mlcommons/ad01_int8", "tflm/hello_world_int8"),
    *("tflm/micro_speech_quantized", "tflm/person_detect"),
    *("tiny_training/mobilenet_v2_w0.35_128_int8", "coral/mobilenet_v1_0.25_128_quant"),
)
# model -> samples that the emulated board runs, of those that the golden file has.
ON_BOARD = {
    "mlcommons/kws_ref_model": 16,
    "mlcommons/pretrainedResnet_quant": 16,
    "mlcommons/vww_96_int8": 3,
    "tflm/person_detect": 3,
    "tiny_training/mobilenet_v2_w0.35_128_int8": 2,
}


def golden(shared: Path, name: str, count: int | None = None) -> tuple[bytes, bytes, bytes]:
    """(image, sample file, expected outputs) of a shared model; uint8 as int8."""
    graph = read_tflite(shared / "models" / f"{name}.tflite")
    image = compile_image(graph, smallest_plan(graph)).image
    with np.load(shared / "golden" / f"litert_ref__{name.replace('/', '__')}.npz") as file:
        x, y = file["x"][:count], file["y0"][:count]
    task = parse_image(image).task
    targets = np.zeros(len(x) if task.has_classes else (len(x), task.outputs), np.uint8)
    return image, sample_file(Dataset(as_int8(x), targets), task), as_int8(y).tobytes()


def smallest_plan(graph: Graph) -> UpdatePlan:
    """One bias: the forward pass is what is looked at, and it must fit the board."""
    biased = [op.index for op in graph.trainable if graph.bias_of(op)]
    return UpdatePlan((LayerPlan(biased[-1], 0, True),))


def as_int8(values: Array) -> Array:
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values


def differing(ours: bytes, want: bytes) -> int:
    assert len(ours) == len(want)
    return int((runs.as_int8(ours) != runs.as_int8(want)).sum())


def test_every_golden_file_of_an_integer_model_is_looked_at() -> None:
    if SHARED is None:
        pytest.skip("SKIP: there is no ../shared")
    found = set()
    for path in (SHARED / "golden").glob("litert_ref__*.npz"):
        with np.load(path) as file:
            if file["x"].dtype != np.float32:
                found.add(path.stem.removeprefix("litert_ref__").replace("__", "/"))
    assert found == {*MODELS, "tflm/trained_lstm_int8"}  # which is refused


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
@pytest.mark.parametrize("name", ON_BOARD)
def test_emulated_pico_equals_litert(name: str, emulated_pico) -> None:
    assert SHARED
    image, samples, want = golden(SHARED, name, ON_BOARD[name])
    with Board.connect(emulated_pico.port) as board:
        push_rom(board, {"model.img": image})
        ours = runs.board_outputs(board, samples)
    print(f"{name} emulated Pico: {differing(ours, want)} differing bytes of {len(want)}")
    assert ours == want
