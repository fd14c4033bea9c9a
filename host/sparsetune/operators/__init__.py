"""The operators that can be run and trained through: one file for each family."""

from . import conv, elementwise, pool, reshape, softmax
from .kind import Kind

KINDS: dict[str, Kind] = {
    **conv.KINDS,
    **pool.KINDS,
    **elementwise.KINDS,
    **reshape.KINDS,
    **softmax.KINDS,
}
