"""Operators that move data: bit for bit LiteRT's, whatever is moved where."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gradient_cases import SIZES, ZEROS
from small_models import Net
from sparsetune.errors import SparsetuneError
from sparsetune.operators.shape import Axis, merged
from sparsetune.tflite import parse_tflite
from test_kernels import assert_bit_exact, draws


def random_tensor(rng: Any, rank: int = 4) -> Net:
    shape = (1, *(int(n) for n in rng.choice(SIZES, rank - 1)))
    return Net(shape, int(rng.choice(ZEROS)), int(rng.integers(1 << 30)))


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_transpose(rank: int) -> None:
    rng = np.random.default_rng(rank)
    for order in itertools.permutations(range(1, rank)):
        net = random_tensor(rng, rank) if rank < 5 else Net((1, 3, 4, 10))
        if rank == 5:
            net.reshape((1, 3, 4, 2, 5))
        net.transpose((0, *order))
        net.reshape((1, int(np.prod(net.shapes[net.at]))))
        assert_bit_exact(net)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concatenation(axis: int) -> None:
    for rng in draws(axis + 100, 10):
        net = random_tensor(rng)
        first = net.at
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            shape = net.shapes[first]
            q = net.q[first]
            if axis in (3, -1):
                net.at = first
                channels = int(rng.choice(SIZES))
                parts.append(net.conv(channels, zero=q.zero, scale=float(q.scale[0])))
            else:
                net.at = first
                wide = [(0, 0)] * 4
                wide[axis] = (1, int(rng.integers(0, 3)))
                parts.append(net.pad(wide))
            assert len(net.shapes[net.at]) == len(shape)
        net.at = first
        net.concat(parts, axis)
        assert_bit_exact(net)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_split(axis: int) -> None:
    for parts in (1, 2, 3):
        for rng in draws(10 * axis + parts, 5):
            shape = [1, *(int(n) for n in rng.choice(SIZES, 3))]
            shape[axis] *= parts
            net = Net(tuple(shape), int(rng.choice(ZEROS)))
            found = net.split(parts, axis)
            net.at = found[-1]
            net.concat(found[:1], 1)
            assert_bit_exact(net)


def test_slice_and_strided_slice() -> None:
    for rng in draws(7, 40):
        net = random_tensor(rng)
        shape = net.shapes[net.at]
        begin = [int(rng.integers(0, n)) for n in shape]
        ends = [int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, shape, strict=True)]
        if rng.integers(2):
            sizes = [e - b if rng.integers(3) else -1 for b, e in zip(begin, ends, strict=True)]
            net.slice(begin, sizes)
        else:
            negative = [b - n if rng.integers(2) else b for b, n in zip(begin, shape, strict=True)]
            masks = int(rng.integers(16)), int(rng.integers(16)), 0
            net.strided_slice(negative, ends, [1, *rng.integers(1, 4, 3).tolist()], masks)
        assert_bit_exact(net)


def test_strided_slice_that_drops_an_axis() -> None:
    net = Net((1, 5, 6, 3), zero=3)
    net.strided_slice((0, 2, 1, 0), (1, 3, 6, 3), (1, 1, 2, 1), (0, 0, 0b0010))
    assert net.shapes[net.at] == (1, 3, 3)
    assert_bit_exact(net)


def test_pad_of_any_axis() -> None:
    for rng in draws(8, 20):
        net = random_tensor(rng)
        net.pad([(0, 0), *(tuple(rng.integers(0, 4, 2).tolist()) for _ in range(3))])
        assert_bit_exact(net)


def test_axes_that_lie_in_one_piece_become_one() -> None:
    whole = [Axis(2, 0, 1, 2, 15), Axis(3, 0, 1, 3, 5), Axis(5, 0, 1, 5, 1)]
    assert merged(whole)[-1] == Axis(30, 0, 1, 30, 1)
    assert merged(whole)[:-1] == (Axis(1, 0, 1, 1, 0),) * 3
    cut = [Axis(2, 0, 1, 2, 10), Axis(3, 1, 1, 2, 5), Axis(5, 0, 1, 5, 1)]
    assert merged(cut)[-2:] == (Axis(2, 0, 1, 2, 10), Axis(15, 5, 1, 10, 1))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda net: net.strided_slice((0, 0, 4, 0), (1, 5, 0, 3), (1, 1, -1, 1)), "stride -1"),
        (lambda net: net.transpose((1, 0, 2, 3)), "batch"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(damage: Any, message: str) -> None:
    net = Net((1, 5, 6, 3))
    damage(net)
    net.conv(2, 1) if len(net.shapes[net.at]) == 4 else None
    with pytest.raises(SparsetuneError, match=message):
        parse_tflite(net.to_bytes())
