"""Earlier samples among the new ones, against forgetting: a small buffer in a file of its own.

The host makes it of earlier data, or a run leaves behind some of what it trained on (keep). Its
samples are stored as they came, or as the frozen front hands them on, whichever is smaller;
the latter are of use to the same image alone. The file is a sample file with a few words more
(docs/FORMAT.md).
"""

import struct

import sparsetune_kernels as kernels

from .data import HEADER_BYTES, Samples

NAME = "replay.dat"
MORE = "<4I"  # behind the header: CRC words of image (0: samples as they came) and of the last
MORE_BYTES = 16  # samples that went in; of how many samples it is a choice; 0
RESIDUE = 0x2144DF1C  # CRC of anything with its own CRC behind it
DUE, WHICH, KEPT = 77017, 77023, 77029  # set the draws apart from each other and from a step's seed


def path_of(data):
    """Where the buffer lies, beside a sample file."""
    return data[: data.rfind("/") + 1] + NAME


def _targets_at(header):
    return struct.unpack_from("<I", header, 24)[0]


class Earlier(Samples):
    """The open buffer. Raises ValueError where it does not fit the image."""

    def __init__(self, path, image):
        self.image_crc = self.last = self.seen = 0
        self._read_more(path)
        super().__init__(path, image)
        if not self.count:
            raise ValueError("there are no earlier samples in %s: push some" % path)
        self.seen = max(self.seen, self.count)

    def _read_more(self, path):
        try:
            with open(path, "rb") as file:
                header = file.read(HEADER_BYTES + MORE_BYTES)
        except OSError:
            raise ValueError("there are no earlier samples in %s: push some, or leave some with "
                             "keep in the run before" % path)
        if len(header) == HEADER_BYTES + MORE_BYTES and _targets_at(header) > HEADER_BYTES:
            self.image_crc, self.last, self.seen, _ = struct.unpack_from(MORE, header, HEADER_BYTES)
            self.trailer = 4

    def takes(self, image):
        if self.image_crc not in (0, image.crc):
            raise ValueError("the earlier samples were stored for another image: push them again, "
                             "or train with replay=0")
        return image.cut_bytes if self.image_crc else image.input_bytes


class Replay:
    """Which steps take an earlier sample, and which one: hangs on seed and step alone. percent: of
    the steps, 0 to 100."""

    def __init__(self, path, engine, percent, seed):
        self.engine = engine
        self.samples = Earlier(path, engine.image)
        self.percent = percent
        self.due = kernels.random(seed, DUE)
        self.which = kernels.random(seed, WHICH)
        is_latent = self.samples.image_crc
        self.begin = engine.image.cut_at if is_latent else 0
        self.into = engine.cut() if is_latent else engine.sample

    def is_due(self, step):
        return kernels.random(self.due, step) % 100 < self.percent

    def load(self, step):
        """Brings the step's earlier sample into the engine; returns its class number."""
        engine = self.engine
        engine.begin = self.begin
        number = kernels.random(self.which, step) % self.samples.count
        return self.samples.load(number, self.into, engine.target)

    def own_before(self, step):
        """How many of the steps before this one took a sample of the run's own."""
        return sum(1 for i in range(step) if not self.is_due(i))
