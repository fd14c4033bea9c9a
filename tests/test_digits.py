"""The demo's model and data: the model is valid, good on the normal case, lost on the changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="SKIP: scikit-learn is not installed (extra: demo)")

from sparsetune import digits
from sparsetune.litert import litert_accuracy, open_interpreter, predict

MODEL = Path(digits.__file__).parent / "models" / "digits_int8.tflite"


def facts() -> dict[str, object]:
    return json.loads(MODEL.with_suffix(".json").read_text())


def nearest_neighbour_accuracy(sets: digits.Sets) -> float:
    """A model-free judge of a data set: does the closest adapt sample carry the right label?"""
    train, test = (
        sets[name].reshape(len(sets[name]), -1).astype(np.float64) for name in ("x_train", "x_test")
    )
    distance = (train**2).sum(1) - 2 * test @ train.T
    return float(np.mean(sets["y_train"][distance.argmin(axis=1)] == sets["y_test"]))


def test_model_file_is_the_one_its_note_describes() -> None:
    content = MODEL.read_bytes()
    assert content[4:8] == b"TFL3"
    assert len(content) < 60_000
    assert hashlib.sha256(content).hexdigest() == facts()["sha256"]


def test_model_takes_and_gives_int8() -> None:
    interpreter = open_interpreter(MODEL)
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert (source["dtype"], tuple(source["shape"])) == (np.int8, (1, 16, 16, 1))
    assert (sink["dtype"], tuple(sink["shape"])) == (np.int8, (1, 10))
    assert sink["quantization"] == (1 / 256, -128)


def test_bias_scales_are_input_scale_times_weight_scale() -> None:
    interpreter = open_interpreter(MODEL)
    tensors = {t["index"]: t for t in interpreter.get_tensor_details()}
    weighted = [op for op in interpreter._get_ops_details() if len(op["inputs"]) == 3]
    assert len(weighted) == 8
    for op in weighted:
        x, w, b = (tensors[int(i)]["quantization_parameters"] for i in op["inputs"])
        np.testing.assert_array_equal(b["scales"], x["scales"] * w["scales"])
        assert not w["zero_points"].any() and not b["zero_points"].any()


def test_normal_case_is_learnt_and_int8_loses_at_most_a_point() -> None:
    sets = digits.normal_sets()
    accuracy = litert_accuracy(MODEL, sets["x_test"], sets["y_test"])
    # A nearest neighbour on the same split is the floor: a trained CNN must not be far below.
    assert accuracy >= nearest_neighbour_accuracy(sets) - 0.02
    note = facts()
    assert accuracy == pytest.approx(note["normal_accuracy_int8"], abs=1e-4)
    assert accuracy >= float(str(note["normal_accuracy_float"])) - 0.01


@pytest.mark.parametrize("seed", [0, 1])
def test_changed_case_is_much_worse_but_learnable(seed: int) -> None:
    normal, changed = digits.normal_sets(), digits.changed_sets(seed)
    before = litert_accuracy(MODEL, changed["x_test"], changed["y_test"])
    assert before <= litert_accuracy(MODEL, normal["x_test"], normal["y_test"]) - 0.4
    assert nearest_neighbour_accuracy(changed) >= before + 0.4


def test_sets_do_not_overlap_and_labels_are_digits() -> None:
    normal, changed = digits.normal_sets(), digits.changed_sets()
    assert len(normal["x_train"]) == digits.PRETRAIN_COUNT
    assert len(changed["x_train"]) == digits.ADAPT_COUNT
    raw, labels = digits.load()
    seen, unseen = digits.pool_split(len(labels))
    assert not set(seen) & set(unseen)
    # What is adapted to and held out is made of the unseen images, each used once.
    pictures = digits.photograph(raw[unseen], digits.CHANGED)
    expected = sorted((np.rint(p) - 128).astype(np.int8).tobytes() for p in pictures)
    used = np.concatenate([changed["x_train"], changed["x_test"]])
    assert sorted(p.tobytes() for p in used) == expected
    for sets in (normal, changed):
        assert sets["x_test"].dtype == np.int8 and sets["y_test"].dtype == np.uint8
        assert set(sets["y_test"]) == set(range(10))


def test_seed_chooses_the_split() -> None:
    first, again, other = (digits.changed_sets(seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["x_train"], again["x_train"])
    assert not np.array_equal(first["y_train"], other["y_train"])


def test_saved_sets_can_be_loaded(tmp_path: Path) -> None:
    saved = np.load(digits.save_changed_sets(tmp_path / "demo.npz", seed=3))
    for name, values in digits.changed_sets(3).items():
        np.testing.assert_array_equal(saved[name], values)


def test_camera_turn_of_a_quarter_is_rot90() -> None:
    raw, _ = digits.load()
    upright = digits.photograph(raw[:5], digits.NORMAL)
    turned = digits.photograph(raw[:5], digits.Camera(turn=90))
    np.testing.assert_allclose(turned, np.rot90(upright, 1, axes=(1, 2)), atol=1e-3)


def test_adapt_count_out_of_range_is_one_line() -> None:
    with pytest.raises(digits.DigitsError, match="must be 1 to 896"):
        digits.changed_sets(adapt=897)


def test_predict_keeps_the_models_own_numbers() -> None:
    x = digits.normal_sets()["x_test"][:3]
    scores = predict(MODEL, x)
    assert scores.shape == (3, 10) and scores.dtype == np.int8
    np.testing.assert_allclose((scores.astype(int) + 128).sum(axis=1), 256, atol=4)
