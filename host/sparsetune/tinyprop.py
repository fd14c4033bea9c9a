"""TinyProp's policy as text: how many channels of an error tensor stay, by how large its errors are
and by how far it is from the loss (2308.09201, section III; ulab_kernels/select_errors.h)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .errors import SparsetuneError

ONE = 1 << 15  # of the kernel's shares
COUNT_ALONE = "1:1:1"  # all channels stay


@dataclass(frozen=True)
class TinyProp:
    """Shares of the channels that stay, 0 <= least <= most <= 1: of a sample without error, and of
    the one whose errors are the largest of late. damping: what both are multiplied by for each
    layer with weights between theirs and the loss, in (0, 1]. 1, 1, 1 only has effort counted."""

    least: Fraction
    most: Fraction
    damping: Fraction

    def shares(self, depth: int) -> tuple[int, int]:
        """(least, most - least) in 1/32768, `depth` layers in front of the last one."""
        least, most = (
            round(ONE * share * self.damping**depth) for share in (self.least, self.most)
        )
        return least, most - least


def parse_tinyprop(text: str) -> TinyProp | None:
    """LEAST:MOST:DAMPING, decimal numbers; None for an empty text. Raises SparsetuneError."""
    if not text:
        return None
    try:
        least, most, damping = (Fraction(part) for part in text.split(":"))
    except (ValueError, ZeroDivisionError):
        least, most, damping = Fraction(0), Fraction(0), Fraction(0)
    if not (0 <= least <= most <= 1 and 0 < damping <= 1):
        raise SparsetuneError(
            f"tinyprop {text}: give LEAST:MOST:DAMPING, shares of the channels from 0 to 1 and "
            "what a layer multiplies them by, above 0, such as 0.05:0.5:0.9"
        )
    return TinyProp(least, most, damping)
