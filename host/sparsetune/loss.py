"""The loss that training starts from: softmax cross-entropy on the logits."""

from __future__ import annotations

import struct

from .backward import Backward
from .errors import SparsetuneError
from .numerics import softmax_scaling
from .program import Code, Const


def differentiate_loss(back: Backward) -> None:
    """Appends the loss and its gradient."""
    logits = back.graph.tensor(back.graph.logits)
    last = back.graph.last
    beta = last.options["beta"] if last.kind == "SOFTMAX" else 1.0
    if beta != 1.0 or logits.size != logits.shape[-1]:
        raise SparsetuneError(
            "training needs one row of class scores and a SOFTMAX with beta 1: "
            f"this model has shape {logits.shape}, beta {beta}"
        )
    params = Const(struct.pack("<5i", 1, logits.size, *softmax_scaling(beta, logits.scale)))
    out, flags = back.error_out(logits.index, None, -30, logits.size)
    back.emit(Code.LOSS, last, params, back.low.values[logits.index], *out, flags=flags)
