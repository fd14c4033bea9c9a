"""LiteRT as the judge: figures that DATA.md publishes, and one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shared_tasks import CIFAR_MODEL, KWS_MODEL, cifar_task, kws_task, shared_folder
from sparsetune import litert

MODEL = Path(litert.__file__).parent / "models" / "digits_int8.tflite"
SHARED = shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no ../shared here")


@needs_shared
def test_kws_reference_outputs_are_the_golden_ones() -> None:
    assert SHARED is not None
    golden = np.load(SHARED / "golden/litert_ref__mlcommons__kws_ref_model.npz")
    np.testing.assert_array_equal(
        litert.predict(SHARED / KWS_MODEL, golden["x"]), golden["y0"].reshape(-1, 12)
    )


@needs_shared
def test_microphone_shift_costs_a_good_part_of_the_accuracy() -> None:
    assert SHARED is not None
    before, after = (_whole_accuracy(SHARED, shifted) for shifted in (False, True))
    assert before == pytest.approx(449 / 500)
    assert 0.4 <= after <= 0.7


@needs_shared
def test_kws_sets_are_split_by_seed_and_saturate() -> None:
    assert SHARED is not None
    sets = kws_task(SHARED)
    assert sets["x_train"].shape == (400, 49, 10, 1) and len(sets["y_test"]) == 100
    assert sets["x_train"].dtype == np.int8 and sets["x_train"].min() == -128
    assert not np.array_equal(sets["y_test"], kws_task(SHARED, seed=1)["y_test"])


@needs_shared
def test_cifar_jpegs_fit_the_model() -> None:
    pytest.importorskip("PIL", reason="SKIP: Pillow is not installed")
    assert SHARED is not None
    sets = cifar_task(SHARED, train=20, test=100)
    assert sets["x_train"].shape == (20, 32, 32, 3) and sets["x_train"].dtype == np.int8
    # DATA.md: 384 of 500 of these JPEGs are right.
    assert litert.litert_accuracy(SHARED / CIFAR_MODEL, sets["x_test"], sets["y_test"]) > 0.6


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 4 + b"TFL3" + b"\xff" * 64])
def test_what_is_no_model_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(litert.LiteRTError) as caught:
        litert.open_interpreter(content)
    assert "\n" not in str(caught.value)


def test_missing_file_wrong_shape_dtype_and_labels_are_named() -> None:
    x = np.zeros((2, 16, 16, 1), np.int8)
    with pytest.raises(litert.LiteRTError, match="no such model"):
        litert.predict("nowhere.tflite", x)
    with pytest.raises(litert.LiteRTError, match="input is \\(16, 16, 1\\)"):
        litert.predict(MODEL, x[:, :8])
    with pytest.raises(litert.LiteRTError, match="input is int8"):
        litert.predict(MODEL, x.astype(np.float32))
    with pytest.raises(litert.LiteRTError, match="2 samples but 1 labels"):
        litert.litert_accuracy(MODEL, x, np.zeros(1, np.uint8))


def _whole_accuracy(folder: Path, shifted: bool) -> float:
    sets = kws_task(folder, shifted)
    x = np.concatenate([sets["x_train"], sets["x_test"]])
    y = np.concatenate([sets["y_train"], sets["y_test"]])
    return litert.litert_accuracy(folder / KWS_MODEL, x, y)


def broken_import(error: ImportError, cause: BaseException | None = None) -> Callable[[str], None]:
    """importlib.import_module where an import fails so."""

    def load(name: str) -> None:
        raise error from cause

    return load


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("no", name="ai_edge_litert"), "is not installed: pip install"),
        (ModuleNotFoundError("No numpy", name="numpy"), "cannot be loaded .No numpy.: "),
        (ImportError("init failed"), "cannot be loaded .init failed.: "),
    ],
)
def test_what_keeps_litert_from_being_loaded_is_told(
    error: ImportError, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert.importlib, "import_module", broken_import(error))
    monkeypatch.setattr(litert, "_PACKAGES", ("ai_edge_litert",))
    with pytest.raises(litert.LiteRTError, match=told):
        litert.open_interpreter(b"")


def test_ctrl_c_while_litert_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in C makes an ImportError of it."""
    loading = broken_import(ImportError("init failed"), KeyboardInterrupt())
    monkeypatch.setattr(litert.importlib, "import_module", loading)
    with pytest.raises(KeyboardInterrupt):
        litert.open_interpreter(b"")
