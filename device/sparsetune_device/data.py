"""Samples and their targets in one file (docs/FORMAT.md), read one at a time."""

import os
import struct
from array import array

import sparsetune_kernels as kernels

from .checkpoint import measure

MAGIC = b"STDA"
VERSION = 2
HEADER_BYTES = 36
FEW = 65536  # samples whose numbers fit two bytes


class Samples:
    """An open sample file. Raises ValueError when it does not fit the image."""

    trailer = 0  # bytes behind the samples

    def __init__(self, path, image):
        self.file = open(path, "rb")
        header = self.file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES or header[:4] != MAGIC:
            raise ValueError("%s is not a sample file: push it again" % path)
        version, self.count, self.sample_bytes, outputs = struct.unpack_from("<4I", header, 4)
        self.target_bytes, self.targets_at, self.samples_at, self.crc = struct.unpack_from(
            "<4I", header, 20
        )
        if version != VERSION:
            raise ValueError("%s has format %d, this is %d" % (path, version, VERSION))
        has = (self.sample_bytes, self.target_bytes)
        takes = (self.takes(image), image.target_bytes)
        if has != takes or outputs > image.outputs:
            text = "samples of %d bytes, targets of %d, %d classes; the model takes %d, %d and %d"
            raise ValueError(text % (has + (outputs,) + takes + (image.outputs,)))
        size = self.samples_at - HEADER_BYTES + self.count * self.sample_bytes
        if measure(self.file) != (size + self.trailer, self.crc):
            raise ValueError("%s is damaged or cut short: push it again" % path)
        self.has_labels = not image.has_vectors
        if self.has_labels:  # class numbers are few bytes: they stay in RAM
            self.file.seek(self.targets_at)
            self.labels = self.file.read(self.count * self.target_bytes)

    def takes(self, image):
        """Bytes of a sample that the image takes."""
        return image.input_bytes

    def load(self, index, sample, target):
        """Reads sample `index` into a buffer of sample_bytes, and its target, where it is a vector,
        into another one; returns its class number, 0 where it has none."""
        label = self.load_target(index, target)
        self._read(self.samples_at, index, sample)
        return label

    def load_target(self, index, target):
        """The same without the sample."""
        if not self.has_labels:
            self._read(self.targets_at, index, target)
        return self._label(index)

    def _read(self, base, index, into):
        self.file.seek(base + index * len(into))
        if self.file.readinto(into) != len(into):
            raise ValueError("the sample file ends in sample %d: push it again" % index)

    def _label(self, index):
        size = self.target_bytes
        if not self.has_labels or not size:
            return 0
        label = self.labels[index * size]
        return label if size == 1 else label + 256 * self.labels[index * size + 1]

    def close(self):
        self.file.close()


def cache_of(path):
    """Where the cache of a sample file lies (cache.py)."""
    return path + ".cache"


def forget(path):
    """Deletes the cache of a sample file, if there is one."""
    try:
        os.remove(cache_of(path))
    except OSError:
        pass


class Order:
    """The order of an epoch: a permutation that depends on seed and epoch alone. It takes two
    bytes of RAM a sample, of more than FEW samples four."""

    def __init__(self, count, seed):
        self.seed = seed
        self.order = array("H" if count <= FEW else "I", range(count))

    def shuffle(self, epoch):
        order = self.order
        seed = kernels.random(self.seed, epoch)
        for i in range(len(order)):
            order[i] = i
        for i in range(len(order) - 1, 0, -1):
            j = kernels.random(seed, i) % (i + 1)
            order[i], order[j] = order[j], order[i]
