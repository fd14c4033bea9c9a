"""The float64 reference against finite differences: nothing else judges the judge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference as ref
from reference import Array

STEP = 1e-5


def finite_difference(f: Callable[[], Array], x: Array, dy: Array) -> Array:
    """Gradient of sum(f() * dy) with respect to x, which f reads."""
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + STEP
        above = (f() * dy).sum()
        x[i] = kept - STEP
        gradient[i] = (above - (f() * dy).sum()) / (2 * STEP)
        x[i] = kept
    return gradient


def check(f: Callable[[], Array], inputs: list[Array], gradients: list[Array], dy: Array) -> None:
    for x, gradient in zip(inputs, gradients, strict=True):
        np.testing.assert_allclose(gradient, finite_difference(f, x, dy), atol=1e-7, rtol=1e-6)


WINDOWS = [
    (shape, kernel, stride, dilation, same)
    for shape in ((1, 1), (5, 4), (6, 7))
    for kernel in ((1, 1), (2, 2), (3, 1), (5, 3))
    for stride in (1, 2, (2, 1), (1, 3))
    for dilation in (1, (1, 2), 2)
    for same in (True, False)
    if same or all((kernel[a] - 1) * ref.pair(dilation)[a] < shape[a] for a in (0, 1))
]


def windows() -> list[tuple[tuple[int, int], ref.Window]]:
    return [(shape, ref.window_of(shape, *rest)) for shape, *rest in WINDOWS]


def test_conv() -> None:
    rng = np.random.default_rng(1)
    for shape, w in windows():
        x, weights, bias = (
            rng.normal(size=(*shape, 2)),
            rng.normal(size=(3, *w.kernel, 2)),
            rng.normal(size=3),
        )
        dy = rng.normal(size=(*w.out, 3))
        gradients = ref.conv_backward(dy, x, weights, w)
        check(lambda: ref.conv(x, weights, bias, w), [x, weights, bias], list(gradients), dy)  # noqa: B023


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise(multiplier: int) -> None:
    rng = np.random.default_rng(2)
    for shape, w in windows():
        channels = 2 * multiplier
        x, weights = rng.normal(size=(*shape, 2)), rng.normal(size=(1, *w.kernel, channels))
        bias, dy = rng.normal(size=channels), rng.normal(size=(*w.out, channels))
        gradients = ref.depthwise_backward(dy, x, weights, w)
        check(lambda: ref.depthwise(x, weights, bias, w), [x, weights, bias], list(gradients), dy)  # noqa: B023


def test_dense() -> None:
    rng = np.random.default_rng(3)
    x, weights, bias = rng.normal(size=(2, 5)), rng.normal(size=(4, 5)), rng.normal(size=4)
    dy = rng.normal(size=(2, 4))
    gradients = ref.dense_backward(dy, x, weights)
    check(lambda: ref.dense(x, weights, bias), [x, weights, bias], list(gradients), dy)


def test_average_pool() -> None:
    rng = np.random.default_rng(4)
    for shape, w in windows():
        if w.dilation != (1, 1):
            continue
        x, dy = rng.normal(size=(*shape, 2)), rng.normal(size=(*w.out, 2))
        gradients = [ref.average_pool_backward(dy, x, w)]
        check(lambda: ref.average_pool(x, w), [x], gradients, dy)  # noqa: B023


def test_softmax() -> None:
    rng = np.random.default_rng(5)
    x, dy = rng.normal(size=(3, 6)) * 2, rng.normal(size=(3, 6))
    check(lambda: ref.softmax(x), [x], [ref.softmax_backward(dy, ref.softmax(x))], dy)


def test_cross_entropy() -> None:
    logits = np.random.default_rng(6).normal(size=8) * 3
    for label in range(8):
        gradient = ref.cross_entropy_backward(logits, label)
        check(
            lambda k=label: np.array(ref.cross_entropy(logits, k)),
            [logits],
            [gradient],
            np.array(1.0),
        )
        assert ref.cross_entropy(logits, label) == pytest.approx(
            -np.log(ref.softmax(logits)[label])
        )


def test_clamp_passes_where_it_has_a_slope() -> None:
    x = np.linspace(-3, 9, 25) + 0.1
    y = np.clip(x, 0, 6)
    slope = (np.clip(x + STEP, 0, 6) - np.clip(x - STEP, 0, 6)) / (2 * STEP)
    np.testing.assert_array_equal(ref.clamp_passes(y, 0, 6), slope > 0.5)


def test_the_check_itself_notices_a_wrong_gradient() -> None:
    rng = np.random.default_rng(7)
    w = ref.window_of((4, 4), (3, 3), 2, 1, True)
    x, weights, dy = (
        rng.normal(size=(4, 4, 1)),
        rng.normal(size=(1, 3, 3, 1)),
        rng.normal(size=(2, 2, 1)),
    )
    wrong = ref.conv_backward(dy, x, weights[:, ::-1], w)[0]
    with pytest.raises(AssertionError):
        check(lambda: ref.conv(x, weights, np.zeros(1), w), [x], [wrong], dy)
