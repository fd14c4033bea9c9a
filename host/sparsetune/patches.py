"""Gradient filtering (CVPR 2023, Efficient On-device Training via Gradient Filtering): the maps of
a convolution cut into patches, of which its gradients see one value each."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass, replace

from .errors import SparsetuneError
from .geometry import Geometry
from .program import Const

MOST = 256  # elements of a patch: ulab_kernels/patch.h


@dataclass(frozen=True)
class Patches:
    """st_patches_t: see ulab_kernels/patch.h."""

    h: int
    w: int
    c: int
    rows: int
    columns: int
    patch_h: int
    patch_w: int
    top: int
    left: int

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def smallest(self) -> int:
        """Fewest elements of the map that a patch has."""
        rows = _fewest(self.top, self.patch_h, self.rows, self.h)
        return rows * _fewest(self.left, self.patch_w, self.columns, self.w)

    def const(self) -> Const:
        return Const(struct.pack("<9i", *astuple(self)))


@dataclass(frozen=True)
class Filtering:
    """How a layer's gradients are filtered. outputs: patches of size x size; inputs: those that the
    windows of these outputs lie over. geometry: of the gradients, a position for each patch."""

    outputs: Patches
    inputs: Patches
    geometry: Geometry


def filtering_of(g: Geometry, size: int, wide: bool = False) -> Filtering:
    """Of a convolution and patches of size x size outputs, or of one row and as many. Raises
    SparsetuneError for what the kernels do not take."""
    if size * g.stride_h * size * g.stride_w > MOST:
        raise SparsetuneError(
            f"patches of {size} are {size * g.stride_h}x{size * g.stride_w} inputs large, at most "
            f"{MOST} are supported: choose smaller ones"
        )
    high, broad = (1, size * size) if wide else (size, size)
    rows, columns = -(-g.out_h // high), -(-g.out_w // broad)
    outputs = Patches(g.out_h, g.out_w, g.out_c, rows, columns, high, broad, 0, 0)
    steps = high * g.stride_h, broad * g.stride_w
    begins = (
        _begin(g.kernel_h, g.dilation_h, g.stride_h, g.pad_h),
        _begin(g.kernel_w, g.dilation_w, g.stride_w, g.pad_w),
    )
    tops = [
        _in_reach(*axis)
        for axis in zip(begins, steps, (rows, columns), (g.in_h, g.in_w), strict=True)
    ]
    inputs = Patches(g.in_h, g.in_w, g.in_c, rows, columns, *steps, *tops)
    return Filtering(outputs, inputs, _reduced(g, rows, columns))


def kept_positions(g: Geometry, size: int, wide: bool = False) -> int:
    """Of which the input is kept for the weights' gradient, without groups: those of the map, or
    its patches."""
    return g.in_positions if size == 1 else filtering_of(g, size, wide).inputs.count


def _reduced(g: Geometry, rows: int, columns: int) -> Geometry:
    """All taps of a window of more than one lie at one place: dilation 0. Each weight so meets the
    one value of its patch, and the input the sum of all."""
    apart = int(g.kernel_h * g.kernel_w == 1)
    maps = {"in_h": rows, "in_w": columns, "out_h": rows, "out_w": columns}
    strides = {"stride_h": 1, "stride_w": 1, "pad_h": 0, "pad_w": 0}
    return replace(g, **maps, **strides, dilation_h=apart, dilation_w=apart)


def _begin(kernel: int, dilation: int, stride: int, pad: int) -> int:
    """Where on the input's axis the first patch begins, so that the windows' middle is its own;
    half an element is rounded towards 0. With SAME padding it is 0."""
    return int(((kernel - 1) * dilation + 1 - stride - 2 * pad) / 2)


def _in_reach(begin: int, patch: int, patches: int, length: int) -> int:
    """The same, moved so that the first patch and the last have an element each."""
    last = length - 1 - (patches - 1) * patch
    if last < 1 - patch:
        raise SparsetuneError("a layer pads its map so far that a patch lies outside: choose 1")
    return max(1 - patch, min(begin, last))


def _fewest(begin: int, patch: int, patches: int, length: int) -> int:
    ends = (begin + i * patch for i in range(patches))
    return min(min(at + patch, length) - max(at, 0) for at in ends)
