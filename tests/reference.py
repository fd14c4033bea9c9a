"""The operators in float64, from their definitions: the judge of our integer gradients.

Tensors are [height, width, channels] (one sample), weights as TFLite stores them. A backward
function takes dy and what forward took, and returns the gradients in the order of the inputs.
test_reference.py holds all of this against finite differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Window:
    """How a kernel slides: (vertical, horizontal) of each; pad counts rows and columns in front."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    out: tuple[int, int]

    @property
    def taps(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1])]

    def frame(self) -> tuple[int, int]:
        """Size of the smallest padded input that all taps fall into."""
        return tuple(
            (self.out[a] - 1) * self.stride[a] + (self.kernel[a] - 1) * self.dilation[a] + 1
            for a in (0, 1)
        )  # type: ignore[return-value]

    def seen_by(self, tap: tuple[int, int]) -> tuple[slice, slice]:
        """The places of a padded input that this tap reads, one for each output position."""
        return tuple(
            slice(
                tap[a] * self.dilation[a],
                tap[a] * self.dilation[a] + (self.out[a] - 1) * self.stride[a] + 1,
                self.stride[a],
            )
            for a in (0, 1)
        )  # type: ignore[return-value]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(vertical, horizontal), which may be given as one number where they are equal."""
    return (value, value) if isinstance(value, int) else value


def window_of(
    shape: tuple[int, ...],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    dilation: int | tuple[int, int],
    same: bool,
) -> Window:
    """TFLite's geometry: SAME gives ceil(in / stride), its odd row of padding behind."""
    kernels, strides, dilations = pair(kernel), pair(stride), pair(dilation)
    outs, pads = [], []
    for size, k, s, d in zip(shape, kernels, strides, dilations, strict=False):
        span = (k - 1) * d + 1
        out = -(-size // s) if same else (size - span) // s + 1
        outs.append(out)
        pads.append(max(0, (out - 1) * s + span - size) // 2 if same else 0)
    return Window(kernels, strides, dilations, tuple(pads), tuple(outs))  # type: ignore[arg-type]


def _padded(x: Array, w: Window) -> Array:
    """x in a frame of zeros that is large enough for all taps, and for all of x."""
    height, width = (max(f, w.pad[a] + x.shape[a]) for a, f in enumerate(w.frame()))
    frame = np.zeros((height, width, x.shape[2]))
    frame[w.pad[0] : w.pad[0] + x.shape[0], w.pad[1] : w.pad[1] + x.shape[1]] = x
    return frame


def _unpadded(frame: Array, w: Window, shape: tuple[int, ...]) -> Array:
    return frame[w.pad[0] : w.pad[0] + shape[0], w.pad[1] : w.pad[1] + shape[1]]


def conv(x: Array, weights: Array, bias: Array, w: Window) -> Array:
    """weights [out, kernel_h, kernel_w, in]."""
    frame = _padded(x, w)
    y = np.zeros((*w.out, weights.shape[0])) + bias
    for tap in w.taps:
        y += frame[w.seen_by(tap)] @ weights[:, tap[0], tap[1], :].T
    return y


def conv_backward(dy: Array, x: Array, weights: Array, w: Window) -> tuple[Array, Array, Array]:
    frame = _padded(x, w)
    d_frame, d_weights = np.zeros_like(frame), np.zeros(weights.shape)
    for tap in w.taps:
        seen = w.seen_by(tap)
        d_frame[seen] += dy @ weights[:, tap[0], tap[1], :]
        d_weights[:, tap[0], tap[1], :] = np.einsum("hwo,hwi->oi", dy, frame[seen])
    return _unpadded(d_frame, w, x.shape), d_weights, dy.sum(axis=(0, 1))


def grouped_conv_backward(
    dy: Array, x: Array, weights: Array, w: Window
) -> tuple[Array, Array, Array]:
    """Each group by itself; weights [out, kernel_h, kernel_w, in / groups]."""
    groups = x.shape[2] // weights.shape[3]
    parts = [
        conv_backward(*part, w)
        for part in zip(
            np.split(dy, groups, 2), np.split(x, groups, 2), np.split(weights, groups), strict=True
        )
    ]
    dx, d_weights, d_bias = zip(*parts, strict=True)
    return np.concatenate(dx, 2), np.concatenate(d_weights), np.concatenate(d_bias)


def depthwise(x: Array, weights: Array, bias: Array, w: Window) -> Array:
    """weights [1, kernel_h, kernel_w, in * multiplier]: output channel c reads c // multiplier."""
    repeated = np.repeat(_padded(x, w), weights.shape[3] // x.shape[2], axis=2)
    y = np.zeros((*w.out, weights.shape[3])) + bias
    for tap in w.taps:
        y += repeated[w.seen_by(tap)] * weights[0, tap[0], tap[1], :]
    return y


def depthwise_backward(
    dy: Array, x: Array, weights: Array, w: Window
) -> tuple[Array, Array, Array]:
    multiplier = weights.shape[3] // x.shape[2]
    repeated = np.repeat(_padded(x, w), multiplier, axis=2)
    d_repeated, d_weights = np.zeros_like(repeated), np.zeros(weights.shape)
    for tap in w.taps:
        seen = w.seen_by(tap)
        d_repeated[seen] += dy * weights[0, tap[0], tap[1], :]
        d_weights[0, tap[0], tap[1], :] = (dy * repeated[seen]).sum(axis=(0, 1))
    height, width = repeated.shape[:2]
    d_frame = d_repeated.reshape(height, width, x.shape[2], multiplier).sum(axis=3)
    return _unpadded(d_frame, w, x.shape), d_weights, dy.sum(axis=(0, 1))


def dense(x: Array, weights: Array, bias: Array) -> Array:
    """x [rows, in], weights [out, in]."""
    return x @ weights.T + bias


def dense_backward(dy: Array, x: Array, weights: Array) -> tuple[Array, Array, Array]:
    return dy @ weights, dy.T @ x, dy.sum(axis=0)


def _members(shape: tuple[int, ...], w: Window) -> Array:
    """How many elements of the input each window holds, [out_h, out_w, 1]."""
    inside = _padded(np.ones((shape[0], shape[1], 1)), w)
    return sum(inside[w.seen_by(tap)] for tap in w.taps)


def average_pool(x: Array, w: Window) -> Array:
    frame = _padded(x, w)
    return sum(frame[w.seen_by(tap)] for tap in w.taps) / _members(x.shape, w)


def average_pool_backward(dy: Array, x: Array, w: Window) -> Array:
    d_frame = np.zeros_like(_padded(x, w))
    for tap in w.taps:
        d_frame[w.seen_by(tap)] += dy / _members(x.shape, w)
    return _unpadded(d_frame, w, x.shape)


def max_pool_backward(dy: Array, x: Array, w: Window) -> Array:
    """x: as stored, so that the first of equals is found as the forward pass finds it."""
    frame = np.full(_padded(x, w).shape, -np.inf)
    _unpadded(frame, w, x.shape)[:] = x
    best = np.max([frame[w.seen_by(tap)] for tap in w.taps], axis=0)
    d_frame, left = np.zeros(frame.shape), np.ones(dy.shape, bool)
    for tap in w.taps:
        wins = left & (frame[w.seen_by(tap)] == best)
        d_frame[w.seen_by(tap)] += np.where(wins, dy, 0.0)
        left &= ~wins
    return _unpadded(d_frame, w, x.shape)


def resize_matrix(size: int, out: int, options: dict[str, Any], nearest: bool) -> Array:
    """[out, size]: the share of each input row in each output row, in exact real numbers."""
    align, half = options.get("alignCorners"), options.get("halfPixelCenters")
    scale = (size - 1) / (out - 1) if align and out > 1 else size / out
    at = (np.arange(out) + 0.5) * scale if half else np.arange(out) * scale
    if nearest:
        return np.eye(size)[(np.floor(at + 0.5) if align else np.floor(at)).astype(int)]
    at = (at - 0.5 if half else at).clip(0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(size)))


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """dy summed over the axes along which a tensor of `shape` was broadcast."""
    full = (1,) * (dy.ndim - len(shape)) + shape
    axes = tuple(i for i, n in enumerate(full) if n == 1)
    return dy.sum(axis=axes, keepdims=True).reshape(shape)


def slope(kind: str, x: Array, alpha: float = 0.0) -> Array:
    """Derivative of a function of one value, from its definition."""
    if kind == "LOGISTIC":
        return 1 / (1 + np.exp(-x)) * (1 - 1 / (1 + np.exp(-x)))
    if kind == "TANH":
        return 1 / np.cosh(x) ** 2
    if kind == "LEAKY_RELU":
        return np.where(x < 0, alpha, 1.0)
    assert kind == "HARD_SWISH"  # x min(max(x + 3, 0), 6) / 6
    return np.where(x >= 3, 1.0, np.where(x <= -3, 0.0, (2 * x + 3) / 6))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dy: Array, y: Array) -> Array:
    """y: what softmax gave. Jacobian: diag(y) - y y'."""
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True))


def cross_entropy(logits: Array, label: int) -> float:
    """-ln softmax(logits)[label] of one row."""
    return float(np.log(np.exp(logits - logits.max()).sum()) - (logits[label] - logits.max()))


def cross_entropy_backward(logits: Array, label: int) -> Array:
    return softmax(logits) - np.eye(len(logits))[label]


def clamp_passes(y: Array, lo: float, hi: float) -> Array:
    """Where a clamp to [lo, hi] that gave y lets the gradient through."""
    return (y > lo) & (y < hi)


# Operators that move elements: each takes its inputs, its constants and TFLite's options, and
# returns its outputs. -1 stands for what is filled in.


def _strided_slice(x: list[Array], constants: list[Array], options: dict[str, Any]) -> list[Array]:
    begin, end, step = ([int(n) for n in c.ravel()] for c in constants)
    masks = [options[name] for name in ("beginMask", "endMask", "shrinkAxisMask")]
    index = tuple(
        b
        if masks[2] >> i & 1
        else slice(None if masks[0] >> i & 1 else b, None if masks[1] >> i & 1 else e, s)
        for i, (b, e, s) in enumerate(zip(begin, end, step, strict=True))
    )
    return [x[0][index]]


def _slice(x: list[Array], constants: list[Array], options: dict[str, Any]) -> list[Array]:
    spans = zip(*(c.ravel().tolist() for c in constants), strict=True)
    return [x[0][tuple(slice(b, None if n < 0 else b + n) for b, n in spans)]]


def _split_v(x: list[Array], constants: list[Array], options: dict[str, Any]) -> list[Array]:
    return np.split(x[0], np.cumsum(constants[0].ravel())[:-1], int(constants[1].ravel()[0]))


MOVES: dict[str, Any] = {
    "TRANSPOSE": lambda x, c, o: [x[0].transpose(c[0].ravel())],
    "CONCATENATION": lambda x, c, o: [np.concatenate(x, o["axis"])],
    "SPLIT": lambda x, c, o: np.split(x[0], o["numSplits"], int(c[0].ravel()[0])),
    "SPLIT_V": _split_v,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "PAD": lambda x, c, o: [np.pad(x[0], c[0], constant_values=-1)],
    "PADV2": lambda x, c, o: [np.pad(x[0], c[0], constant_values=-1)],
}
