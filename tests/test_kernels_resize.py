"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR: bit for bit LiteRT's."""

from __future__ import annotations

import pytest
from gradient_cases import RESIZINGS, SIZES, random_map
from small_models import Net
from sparsetune.errors import SparsetuneError
from sparsetune.tflite import parse_tflite
from test_kernels import assert_bit_exact, draws

KINDS = ("BILINEAR", "NEAREST_NEIGHBOR")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resizing", RESIZINGS)
def test_resize(kind: str, resizing: tuple[bool, bool]) -> None:
    for rng in draws(len(kind) + 2 * resizing[0] + resizing[1], 60):
        net = random_map(rng)
        size = tuple(int(n) for n in rng.choice((*SIZES, 2, 25, 64), 2))
        net.resize(kind, size, *resizing)
        assert_bit_exact(net)


def test_what_reads_behind_the_last_row_is_refused() -> None:
    """TFLite's step of 1/1024 of a row is too coarse there: its own kernel reads outside."""
    net = Net((1, 2, 2, 1))
    net.resize("BILINEAR", (700, 2))
    with pytest.raises(SparsetuneError, match="enlarges 2 rows"):
        parse_tflite(net.to_bytes())
