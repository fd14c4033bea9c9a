"""Labelled samples in one file (docs/FORMAT.md), read one at a time."""

import struct
from array import array

import sparsetune_kernels as kernels

from .checkpoint import measure

MAGIC = b"STDA"
VERSION = 1
HEADER_BYTES = 32


class Samples:
    """An open sample file. Raises ValueError when it does not fit the image."""

    def __init__(self, path, image):
        self.file = open(path, "rb")
        header = self.file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES or header[:4] != MAGIC:
            raise ValueError("%s is not a sample file: push it again" % path)
        version, self.count, self.sample_bytes = struct.unpack_from("<3I", header, 4)
        self.classes, labels_at, self.samples_at, crc = struct.unpack_from("<4I", header, 16)
        if version != VERSION:
            raise ValueError("%s has format %d, this is %d" % (path, version, VERSION))
        if self.sample_bytes != image.input_bytes or self.classes > image.classes:
            raise ValueError(
                "samples of %d bytes and %d classes, the model takes %d bytes and %d classes"
                % (self.sample_bytes, self.classes, image.input_bytes, image.classes)
            )
        size = self.samples_at - HEADER_BYTES + self.count * self.sample_bytes
        if measure(self.file) != (size, crc):
            raise ValueError("%s is damaged or cut short: push it again" % path)
        self.file.seek(labels_at)
        self.labels = self.file.read(self.count)

    def load(self, index, into):
        """Reads sample `index` into a buffer of sample_bytes; returns its label."""
        self.file.seek(self.samples_at + index * self.sample_bytes)
        if self.file.readinto(into) != self.sample_bytes:
            raise ValueError("the sample file ends in sample %d: push it again" % index)
        return self.labels[index]

    def close(self):
        self.file.close()


class Order:
    """The order of an epoch: a permutation that depends on seed and epoch alone."""

    def __init__(self, count, seed):
        self.seed = seed
        self.order = array("H", range(count))

    def shuffle(self, epoch):
        order = self.order
        seed = kernels.random(self.seed, epoch)
        for i in range(len(order)):
            order[i] = i
        for i in range(len(order) - 1, 0, -1):
            j = kernels.random(seed, i) % (i + 1)
            order[i], order[j] = order[j], order[i]
