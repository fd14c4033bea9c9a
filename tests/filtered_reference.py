"""Filtered gradients (CVPR 2023, Efficient On-device Training via Gradient Filtering) in float64,
from what a patch's values are defined to be: the judge of ulab_kernels/patch.c."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference as ref
from gradients import Reference
from machine import Array
from sparsetune.graph import Graph, Operator
from sparsetune.plan import LayerPlan, UpdatePlan

Passed = list[tuple[int, Array]]


def members(first: float, size: int, patches: int, length: int) -> Array:
    """[patches, length]: 1 where an element of an axis belongs to a patch."""
    at = np.arange(length)[None] - first
    number = np.arange(patches)[:, None]
    return ((at >= number * size) & (at < (number + 1) * size)).astype(float)


def output_members(w: ref.Window, axis: int, size: int) -> Array:
    return members(0, size, -(-w.out[axis] // size), w.out[axis])


def input_members(w: ref.Window, axis: int, size: int, length: int) -> Array:
    """Of as many inputs as the patch's windows step over, around the middle of these windows; half
    an element more or less goes to where the map begins."""
    seen = [
        o * w.stride[axis] - w.pad[axis] + k * w.dilation[axis]
        for o in range(size)
        for k in range(w.kernel[axis])
    ]
    steps = size * w.stride[axis]
    first = np.trunc((min(seen) + max(seen)) / 2 - (steps - 1) / 2)
    return members(first, steps, -(-w.out[axis] // size), length)


class Filter:
    """The patches of one convolution. size: of rows and columns, or of each."""

    def __init__(
        self, w: ref.Window, size: int | tuple[int, int], shape: tuple[int, ...]
    ) -> None:
        sizes = (size, size) if isinstance(size, int) else size
        self.rows, self.columns = (output_members(w, axis, sizes[axis]) for axis in (0, 1))
        self.in_rows, self.in_columns = (
            input_members(w, axis, sizes[axis], shape[axis]) for axis in (0, 1)
        )

    def sums(self, dy: Array) -> Array:
        """[rows, columns, channels]: of the outputs' errors."""
        return np.einsum("ph,hwc,qw->pqc", self.rows, dy, self.columns)

    def means(self, x: Array) -> Array:
        return np.einsum("ph,hwc,qw->pqc", self.in_rows, x, self.in_columns) / self._counts

    def spread(self, shares: Array) -> Array:
        """To each input its part of what its patch gets."""
        parts = shares / self._counts
        return np.einsum("ph,pqc,qw->hwc", self.in_rows, parts, self.in_columns)

    @property
    def _counts(self) -> Array:
        return np.outer(self.in_rows.sum(1), self.in_columns.sum(1))[:, :, None]


def conv_backward(
    dy: Array, means: Array, weights: Array, f: Filter
) -> tuple[Array, Array, Array]:
    """weights [out, kernel_h, kernel_w, in / groups]; all taps get the same gradient."""
    groups = means.shape[2] // weights.shape[3]
    sums = f.sums(dy)
    parts = zip(
        *(np.split(sums, groups, 2), np.split(means, groups, 2), np.split(weights, groups)),
        strict=True,
    )
    shares, d_weights = [], []
    for some_sums, some_means, some_weights in parts:
        shares.append(some_sums @ some_weights.sum(axis=(1, 2)))
        each = np.einsum("pqo,pqi->oi", some_sums, some_means)[:, None, None]
        d_weights.append(np.broadcast_to(each, some_weights.shape).copy())
    return f.spread(np.concatenate(shares, 2)), np.concatenate(d_weights), dy.sum(axis=(0, 1))


def depthwise_backward(
    dy: Array, means: Array, weights: Array, f: Filter
) -> tuple[Array, Array, Array]:
    """weights [1, kernel_h, kernel_w, in * multiplier]."""
    multiplier = weights.shape[3] // means.shape[2]
    sums = f.sums(dy)
    products = sums * weights.sum(axis=(0, 1, 2))
    shares = products.reshape(*products.shape[:2], -1, multiplier).sum(axis=3)
    each = (sums * np.repeat(means, multiplier, axis=2)).sum(axis=(0, 1))
    return f.spread(shares), np.broadcast_to(each, weights.shape).copy(), dy.sum(axis=(0, 1))


class FilteredReference(Reference):
    """Of a plan's filtered layers. What forward keeps is int8, so that means are rounded."""

    def __init__(
        self, graph: Graph, values: dict[int, Array], label: int | Array, plan: UpdatePlan
    ) -> None:
        self.plan = plan
        super().__init__(graph, values, label)

    def _layer(self, op: Operator) -> LayerPlan | None:
        """What is planned of a layer that has patches."""
        layer = self.plan.layer(op.index)
        return layer if layer and layer.patch > 1 else None

    def _means(self, op: Operator, f: Filter) -> Array:
        tensor = self.graph.tensor(op.inputs[0])
        means = f.means(self.values[tensor.index][0].astype(float))
        return np.asarray((np.floor(means + 0.5) - tensor.zero_point) * tensor.scale)

    def _conv_2d(self, op: Operator, dy: Array) -> Passed:
        exact = super()._conv_2d(op, dy)
        layer = self._layer(op)
        return self._filtered(op, layer, (dy, exact), (0, conv_backward)) if layer else exact

    def _depthwise_conv_2d(self, op: Operator, dy: Array) -> Passed:
        exact = super()._depthwise_conv_2d(op, dy)
        layer = self._layer(op)
        return self._filtered(op, layer, (dy, exact), (3, depthwise_backward)) if layer else exact

    def _filtered(
        self, op: Operator, layer: LayerPlan, known: tuple[Array, Passed], kind: tuple[int, Any]
    ) -> Passed:
        """known: dy and what would be passed on exactly. kind: axis of the weights' scales, and how
        the gradients are made."""
        (dy, exact), (axis, backward) = known, kind
        weights = self._weights(op, axis)
        window = self._window(op, weights.shape[1:3])
        size = (1, layer.patch**2) if layer.wide else layer.patch
        f = Filter(window, size, self.graph.tensor(op.inputs[0]).shape[1:])
        passed = self._trainable(op, backward(dy[0], self._means(op, f), weights, f))
        return exact if layer.weights_only else passed
