"""What a training run takes of a board's RAM, in bytes, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass

from .boardspec import BoardSpec
from .image import ABSENT, Image, LayerRecord


@dataclass(frozen=True)
class RamUse:
    """Bytes of the MicroPython heap. data: labels and the order of an epoch; package: the Python
    objects of the device package itself (measured, from the board description)."""

    arena: int
    state: int
    data: int
    package: int
    heap: int

    @property
    def free(self) -> int:
        """What gc.mem_free() is expected to say at the run's peak."""
        return self.heap - self.used

    @property
    def used(self) -> int:
        return self.arena + self.state + self.data + self.package


def predict(image: Image, samples: int, spec: BoardSpec) -> RamUse:
    """RAM of training `image` on `samples` samples on the given board."""
    orders = sum(_order_bytes(layer) for layer in image.layers)
    labels = image.task.target_bytes if image.task.has_classes else 0
    data = (2 + labels) * samples + orders  # two bytes of order for each sample, and its label
    return RamUse(image.arena_bytes, image.state_bytes, data, spec.package_bytes, spec.heap_bytes)


def _order_bytes(layer: LayerRecord) -> int:
    """Bytes of the policy's order of channels, and of what columns.py knows of a layer."""
    order = 2 * layer.count if layer.channels_at != ABSENT else 0
    known = 2 * (layer.in_channels + layer.slots) if layer.table_at != ABSENT else 0
    return order + known
