"""Which trained weights get 8 more bits where nobody says: those that have room for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import runs
from real_models import real_model
from shared_tasks import shared_folder
from sparsetune.board import Board
from sparsetune.boardspec import load_spec
from sparsetune.cli import main
from sparsetune.commands import SAMPLES_ASSUMED
from sparsetune.compile import compile_image
from sparsetune.image import ABSENT, Image, parse_image
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, load_plan
from sparsetune.room import Room, files_room, with_residual
from sparsetune.tflite import parse_tflite
from test_training import check_memory

PICO = load_spec("pico")
DIGITS = parse_tflite(real_model("digits", 1).model)
LAYERS = tuple(
    LayerPlan(op.index, DIGITS.tensor(op.inputs[1]).shape[-1]) for op in DIGITS.trainable[-3:]
)
PLAN = UpdatePlan(LAYERS, rate="0.01")


def weights(layer: LayerPlan) -> int:
    size = DIGITS.tensor(DIGITS.operator(layer.operator).inputs[1]).size
    return -(-size // 4) * 4


def room(more: int = 0, plan: UpdatePlan = PLAN) -> Room:
    """So many bytes beyond what the plan takes without residuals."""
    whole = Room(PICO, PICO.heap_bytes, 100)
    return replace(whole, ram=whole.use(whole.compile(DIGITS, plan)).used + more)


def compiled(plan: UpdatePlan) -> Image:
    return parse_image(room().compile(DIGITS, plan).image)


def fine(image: Image) -> list[bool]:
    return [layer.residual_at != ABSENT for layer in image.layers]


def test_all_where_there_is_room_to_the_byte() -> None:
    all_of_them = sum(map(weights, LAYERS))
    found = with_residual(DIGITS, PLAN, room(all_of_them))
    assert fine(compiled(found)) == [True] * 3
    assert room(all_of_them).holds(room().compile(DIGITS, found))
    assert compiled(found).state_bytes == compiled(PLAN).state_bytes + all_of_them
    assert not found.rate  # it is to be found anew
    assert not all(fine(compiled(with_residual(DIGITS, PLAN, room(all_of_them - 1)))))


def test_layers_next_to_the_output_come_first() -> None:
    head = weights(LAYERS[-1])
    for more in (head, head + 4):
        found = with_residual(DIGITS, PLAN, room(more))
        assert fine(compiled(found)) == [False, False, True]
        assert room(more).holds(room().compile(DIGITS, found))


def test_a_large_layer_does_not_stop_those_in_front_of_it() -> None:
    sizes = [weights(layer) for layer in LAYERS]
    assert sizes[0] < min(sizes[1:])
    assert fine(compiled(with_residual(DIGITS, PLAN, room(sizes[0])))) == [True, False, False]


def test_none_without_room_nor_in_flash_nor_of_a_bias() -> None:
    assert with_residual(DIGITS, PLAN, room()) == PLAN
    in_flash = UpdatePlan((LayerPlan(LAYERS[-1].operator, 8, slots=8),))
    assert with_residual(DIGITS, in_flash, room(9999, in_flash)) == in_flash
    bias = UpdatePlan((LayerPlan(LAYERS[-1].operator, 0),))
    assert with_residual(DIGITS, bias, room(9999, bias)) == bias


def test_samples_keep_their_place_in_the_file_system() -> None:
    """The state lies there twice, as a checkpoint and the one before."""
    files = files_room(PICO, compiled(PLAN).state_bytes)
    for taken, has in ((files, False), (files // 2, True)):
        tight = replace(room(9999), sample_bytes=taken // 100)
        found = with_residual(DIGITS, PLAN, tight)
        assert found.residual == has
        assert 100 * tight.sample_bytes <= files_room(PICO, compiled(found).state_bytes)


def tight() -> int:
    """Bytes with room for a residual of the head alone, as `plan` counts without samples."""
    whole = Room(PICO, PICO.heap_bytes, SAMPLES_ASSUMED)
    return whole.use(whole.compile(DIGITS, PLAN)).used + weights(LAYERS[-1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "each trained weight: 8 more bits"),
        (("--last", "3", "--ratio", "1", "--ram", str(tight())), "trained weights of 1 layers"),
        (("--no-residual",), ""),
        (("--time", "0.05"), ""),
    ],
)
def test_what_plan_does_and_says(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, plan = tmp_path / "m.tflite", tmp_path / "plan.json"
    model.write_bytes(real_model("digits", 1).model)
    assert main(["plan", str(model), *options, "-o", str(plan)]) == 0
    told = capsys.readouterr().out
    assert load_plan(plan).residual == bool(said)
    assert (said or "no line") in told + "no line"
    assert ("8 more bits" in told) == bool(said)


def test_kws_on_the_emulated_pico(emulated_pico) -> None:
    """Loss lines and what was learnt, to the last bit of it, are the twin's."""
    shared = shared_folder()
    if shared is None:
        pytest.skip("SKIP: there is no ../shared")
    task = runs.kws_task(shared, steps=100)
    image = parse_image(compile_image(task.graph, default_plan(task.graph, 6, residual=True)).image)
    fine_task = replace(task, image=image)
    lines, checkpoint = runs.twin_train(fine_task)
    assert runs.losses(lines) != runs.losses(runs.twin_train(task)[0])
    with Board.connect(emulated_pico.port) as board:
        told, learnt = runs.board_train(board, fine_task)
    assert len(runs.losses(told)) == 100 and runs.telemetry(told) == runs.telemetry(lines)
    assert learnt == checkpoint
    check_memory(fine_task, told)
