"""What the frozen front makes of each sample, kept in a file: later epochs begin behind it.

In a sample's first visit the front runs by itself, and the one tensor that it hands on (the image
says where it stands) is written behind those of other samples. From then on it is read into its
place, and the step begins there: the same numbers, so the same step bit for bit. The file is
beside the samples, not in RAM, which plans fill, and outlives a reset. It grows at its end alone:
what littlefs writes into the middle of a file costs all that lies behind (docs/FORMAT.md).
"""

import binascii
import os
import struct
from array import array

from .data import cache_of
from .telemetry import event_line

MAGIC = b"STCC"
VERSION = 1
HEADER = "<4s4I"  # magic, version, CRC words of image and samples, bytes of a tensor
HEADER_BYTES = 20
RECORD_BYTES = 8  # number of the sample, CRC of number and tensor; the tensor follows
POINTERS = 8  # bytes of a block that littlefs takes for itself, at most on average
MARGIN = 2  # blocks left free: a file system filled to the last block fails late


def room_for(path, kept_free):
    """Bytes that a file beside `path` may take, with so many left for others."""
    if not hasattr(os, "statvfs"):
        return 1 << 29
    info = os.statvfs(path.rsplit("/", 1)[0] or "/")
    each = info[0]
    return (info[3] - MARGIN - (kept_free + each - 1) // each) * (each - POINTERS)


class Cache:
    """data: path of the sample file that `samples` reads. most: samples that it may hold.
    kept_free: bytes of the file system that are not its own, for checkpoints. What an earlier run
    left is used if it is of this image and these samples, else deleted. Raises ValueError where the
    image has no place between front and rest."""

    def __init__(self, data, engine, samples, most, kept_free):
        self.path = cache_of(data)
        self.engine = engine
        self.samples = samples
        self.tensor = engine.cut()
        self.each = RECORD_BYTES + len(self.tensor)
        self.head = struct.pack(HEADER, MAGIC, VERSION, engine.image.crc, samples.crc,
                                len(self.tensor))
        self.record = bytearray(RECORD_BYTES)
        self.number = memoryview(self.record)[:4]
        # Which record is whose, counted from 1; 0: none.
        self.place = array("H" if samples.count < 65535 else "I", [0] * samples.count)
        self.written = self.used = 0
        self.file = None
        self._look()
        self.room = self.records + max(0, room_for(data, kept_free)) // self.each
        self.most = min(most, samples.count)
        self.is_growing = not self._is_complete()
        self._open()

    def _is_complete(self):
        return self.held >= self.most or self.records >= self.room

    # The file ---------------------------------------------------------------------------------

    def _look(self):
        """Finds what is whole of an earlier run's; deletes a file that is another's, or torn."""
        self.records = self.held = 0
        self.is_new = True
        for i in range(len(self.place)):
            self.place[i] = 0
        try:
            with open(self.path, "rb") as file:
                if file.read(HEADER_BYTES) == self.head and self._find(file):
                    self.is_new = False
                    return
        except OSError:
            return
        os.remove(self.path)
        self._look()

    def _find(self, file):
        """Whether the file is made of whole records. Those that are damaged are nobody's."""
        record, tensor = self.record, self.tensor
        while True:
            size = file.readinto(record)
            if size != RECORD_BYTES or file.readinto(tensor) != len(tensor):
                return not size
            self.records += 1
            number, crc = struct.unpack("<2I", record)
            if number < len(self.place) and crc == self._crc() and not self.place[number]:
                self.place[number] = self.records
                self.held += 1

    def _crc(self):
        """Of what stands in `number` and `tensor`."""
        return binascii.crc32(self.tensor, binascii.crc32(self.number)) & 0xFFFFFFFF

    def _open(self):
        """To write while it grows, then to read."""
        if not self.is_growing:
            self.file = open(self.path, "rb") if self.held else None
            return
        self.file = open(self.path, "ab")
        if self.is_new:
            self.file.write(self.head)

    def _is_full(self):
        """There is less room than the file system told: what it has is used, no more is written."""
        self.is_growing = False
        self.close()
        self._look()
        self._open()

    def flush(self):
        """What was written outlives a reset from here on."""
        if self.is_growing and self.file:
            try:
                self.file.flush()
            except OSError:
                self._is_full()

    def close(self):
        file, self.file = self.file, None
        if file:
            try:
                file.close()
            except OSError:
                pass  # a full file system: what is whole is found when it is opened again

    # A step -----------------------------------------------------------------------------------

    def load(self, index):
        """Brings sample `index` into the engine, as far as it is known, and its target; returns its
        class number."""
        engine, samples = self.engine, self.samples
        if self.place[index] and not self.is_growing:
            self._read(index)
            engine.begin = engine.image.cut_at
            self.used += 1
            return samples.load_target(index, engine.target)
        label = samples.load(index, engine.sample, engine.target)
        engine.begin = 0
        if self.is_growing and not self.place[index]:
            engine.run_front()
            if self._add(index):
                engine.begin = engine.image.cut_at
            else:  # the sample is no longer there
                samples.load(index, engine.sample, engine.target)
        return label

    def _read(self, index):
        self.file.seek(HEADER_BYTES + (self.place[index] - 1) * self.each + RECORD_BYTES)
        if self.file.readinto(self.tensor) != len(self.tensor):
            raise ValueError("%s was cut short: train again" % self.path)

    def _add(self, index):
        """Writes the tensor behind the others. Returns whether it could; else it is gone."""
        struct.pack_into("<I", self.record, 0, index)
        struct.pack_into("<I", self.record, 4, self._crc())
        try:
            self.file.write(self.record)
            self.file.write(self.tensor)
        except OSError:
            self._is_full()
            return False
        self.records += 1
        self.place[index] = self.records
        self.held += 1
        self.written += 1
        if self._is_complete():
            self.flush()
            if not self.is_growing:  # it was full
                return False
            self.is_growing = False
            self.close()
            self._open()
        return True

    def tell(self, out):
        """samples: in the cache. written: by this run, and bytes of them. used: steps that began
        behind the front."""
        size = self.written * self.each
        told = {"samples": self.held, "written": self.written, "bytes": size, "used": self.used}
        out(event_line("cache", **told))
