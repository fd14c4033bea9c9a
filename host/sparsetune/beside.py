"""What a run has beside its samples: the cache of what the frozen front makes of them, earlier
samples against forgetting. What that takes, before anything is sent."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from sparsetune_device.cache import HEADER_BYTES as CACHE_HEAD
from sparsetune_device.cache import RECORD_BYTES
from sparsetune_device.data import HEADER_BYTES
from sparsetune_device.engine import Engine
from sparsetune_device.image import Image as DeviceImage
from sparsetune_device.replay import MORE, MORE_BYTES, RESIDUE

from .boardspec import BoardSpec
from .cores import in_parts
from .data import MAGIC, VERSION, Dataset, sample_file, target_bytes
from .errors import SparsetuneError
from .image import Image
from .littlefs import blocks_of, capacity
from .room import free_blocks

SHARE = 0.25  # of the steps that take an earlier sample
SAMPLES = 200  # earlier samples that are sent


@dataclass(frozen=True)
class CacheRoom:
    """samples: whose tensors have room, of `of`. each: bytes of one in the file."""

    samples: int
    of: int
    each: int

    def __str__(self) -> str:
        return (
            f"cache {self.samples:,} of {self.of:,} samples have room: {self.each:,} bytes each "
            "for what the frozen front makes of them"
        )


def cache_room(spec: BoardSpec, image: Image, samples: int, *others: int) -> CacheRoom:
    """Beside `samples` samples and files of `others` bytes."""
    sample_bytes = image.input_bytes + image.task.target_bytes
    each = RECORD_BYTES + image.cut_bytes
    left = free_blocks(spec, image.state_bytes)
    left -= sum(blocks_of(size) for size in (HEADER_BYTES + samples * sample_bytes, *others))
    room = max(0, capacity(left) - CACHE_HEAD) // each
    return CacheRoom(min(samples, room), samples, each)


def check_cut(image: Image) -> None:
    """Raises SparsetuneError where there is nothing to cache."""
    if not image.cut_at:
        raise SparsetuneError(
            "nothing in front of the trained layers stays the same, or several tensors cross "
            "there: train fewer layers, or leave out --cache"
        )


def stored_bytes(image: Image) -> int:
    """Of an earlier sample with its target: as it came, or as the frozen front hands it on."""
    is_latent = 0 < image.cut_bytes < image.input_bytes
    return (image.cut_bytes if is_latent else image.input_bytes) + image.task.target_bytes


def replay_bytes(image: Image, samples: int) -> int:
    """Of a buffer of so many earlier samples, at most: their targets end at a whole word."""
    return HEADER_BYTES + MORE_BYTES + 3 + samples * stored_bytes(image) + 4


def replay_file(data: Dataset, image: Image, most: int, seed: int) -> bytes:
    """The buffer of earlier samples (docs/FORMAT.md): at most so many of `data`, in an order that
    `seed` draws."""
    some = data.part(np.random.default_rng(seed).permutation(len(data))[:most])
    if not 0 < image.cut_bytes < image.input_bytes:
        return sample_file(some, image.task)
    targets = target_bytes(some, image.task)
    targets += bytes(-len(targets) % 4)
    body = struct.pack(MORE, image.crc, 0, len(data), 0) + targets + _latents(some, image)
    task, targets_at = image.task, HEADER_BYTES + MORE_BYTES
    sizes = (len(some), image.cut_bytes, task.outputs, task.target_bytes)
    words = (VERSION, *sizes, targets_at, targets_at + len(targets), RESIDUE)
    return MAGIC + struct.pack("<8I", *words) + body + struct.pack("<I", zlib.crc32(body))


def _latents(data: Dataset, image: Image) -> bytes:
    """What the frozen front makes of the samples, by the C that the board runs."""

    def run(part: range) -> bytes:
        engine = Engine(DeviceImage(image.data))
        cut, made = engine.cut(), []
        for i in part:
            engine.sample[:] = data.x[i].tobytes()
            engine.run_front()
            made.append(bytes(cut))
        return b"".join(made)

    return b"".join(in_parts(len(data), run))
