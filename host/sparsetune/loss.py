"""The losses: what training starts from (ulab_kernels/softmax.h, losses.h)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from .backward import Backward
from .errors import SparsetuneError
from .graph import Tensor
from .lowering import Lowering
from .numerics import rate, softmax_scaling
from .program import Buffer, Code, Const, Flag
from .tables import rescale
from .task import task_of


def lower_target(low: Lowering) -> None:
    """Makes room for the target of a sample, in front of the forward pass."""
    loss, y = low.graph.loss_name, low.graph.tensor(low.graph.logits)
    if loss in ("mse", "bce"):
        low.target = low.program.target = Buffer("target", y.size)
    elif loss == "autoencoder":
        low.target = _input_as_target(low, y)


def _input_as_target(low: Lowering, y: Tensor) -> Buffer:
    """The sample itself, in the numbers of the output."""
    x, source = low.graph.tensor(low.graph.input), low.values[low.graph.input]
    target = Buffer("target", y.size)
    table = Const(rescale(x, y).tobytes())
    op = low.graph.operators[0]
    low.emit(Code.LOOKUP, op, table, source, y.size, target, flags=Flag.TRAINING_ONLY)
    return target


def differentiate_loss(back: Backward) -> None:
    """Appends the loss and its gradient."""
    task_of(back.graph)
    _LOSSES[back.graph.loss_name](back)


def _softmax(back: Backward) -> None:
    logits, last = back.graph.tensor(back.graph.logits), back.graph.last
    beta = last.options["beta"] if last.kind == "SOFTMAX" else 1.0
    if beta != 1.0 or logits.size != logits.shape[-1]:
        raise SparsetuneError(
            "training needs one row of class scores and a SOFTMAX with beta 1: "
            f"this model has shape {logits.shape}, beta {beta}"
        )
    params = Const(struct.pack("<5i", 1, logits.size, *softmax_scaling(beta, logits.scale)))
    out, flags = back.error_out(logits.index, None, -30, logits.size)
    words = (params, back.low.values[logits.index], _smoothing(back, logits.size))
    back.emit(Code.LOSS, last, *words, *out, flags=flags)


def _smoothing(back: Backward, classes: int) -> int:
    """What label smoothing gives to each class (1512.00567, section 7), Q30."""
    return int(back.low.plan.smoothing / classes * 2**30)


def _mse(back: Backward) -> None:
    """Mean of (y - t)^2; gradient 2 (y - t) / n, both in real units."""
    y = back.graph.tensor(back.graph.logits)
    mantissa, exponent = rate(2 * y.scale / y.size)
    loss_mantissa, loss_exponent = rate(65536 * y.scale**2 / y.size)
    shift = min(max(-loss_exponent, 0), 62)
    params = struct.pack("<4i", y.size, mantissa >> 1, loss_mantissa, shift)
    _on_targets(back, Code.MSE, params, exponent + 1)


def _bce(back: Backward) -> None:
    """Mean over the outputs of -ln p of the target; gradient p - t, t smoothed towards 1/2."""
    z = back.graph.tensor(back.graph.logits)
    real = z.scale * (np.arange(-128, 128) - z.zero_point)
    p = 1 / (1 + np.exp(-real))
    # 1 - p from the other side: near 1 the difference would lose its digits.
    half = back.low.plan.smoothing / 2
    gradients = np.stack([p - half, half - 1 / (1 + np.exp(real))]) / z.size
    losses = np.stack([np.logaddexp(0, real), np.logaddexp(0, -real)]) / z.size
    words = np.concatenate([gradients.ravel() * 2**30, losses.ravel() * 65536])
    tables = np.minimum(np.round(words), 2**31 - 1).astype("<i4").tobytes()
    _on_targets(back, Code.BCE, struct.pack("<2i", z.size, z.zero_point) + tables, -30)


def _on_targets(back: Backward, code: Code, params: bytes, exponent: int) -> None:
    y = back.graph.tensor(back.graph.logits)
    out, flags = back.error_out(y.index, None, exponent, y.size)
    words = (Const(params), back.low.values[y.index], back.low.target)
    back.emit(code, back.graph.last, *words, *out, flags=flags)


_LOSSES: dict[str, Callable[[Backward], None]] = {
    "softmax": _softmax,
    "mse": _mse,
    "autoencoder": _mse,
    "bce": _bce,
}

