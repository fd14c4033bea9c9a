"""The operators that can be run and trained through: one file for each family."""

from . import conv, elementwise, lookup, pool, reshape, resize, shape, softmax
from .kind import Kind

KINDS: dict[str, Kind] = {
    **conv.KINDS,
    **pool.KINDS,
    **lookup.KINDS,
    **elementwise.KINDS,
    **reshape.KINDS,
    **resize.KINDS,
    **shape.KINDS,
    **softmax.KINDS,
}
