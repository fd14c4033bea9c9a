"""What the import leaves out changes no byte of the output."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from machine import Machine
from small_models import Net
from sparsetune.litert import predict
from sparsetune.tflite import parse_tflite

CASES = list(itertools.product(((0, 1), (1, 0), (1, 1), (2, 2), (0, 2)), ("conv", "depthwise")))


@pytest.mark.parametrize("pads, kind", CASES)
@pytest.mark.parametrize("stride", [1, 2])
def test_pad_becomes_part_of_the_convolution(
    pads: tuple[int, int], kind: str, stride: int
) -> None:
    net = Net((1, 9, 7, 3), zero=-19, seed=4)
    net.conv(4, 1, zero=11)
    net.pad(((0, 0), pads, pads[::-1], (0, 0)))
    if kind == "conv":
        net.conv(5, 3, stride=stride, same=False)
    else:
        net.depthwise(2, 3, stride=stride, same=False)
    model = net.to_bytes()
    assert [op.kind for op in parse_tflite(model).operators][1:] != ["PAD"]
    assert len(parse_tflite(model).operators) == 2
    x = net.sample()
    np.testing.assert_array_equal(Machine(model).infer(x), predict(model, x)[0].ravel())
