"""Some of what a run trained on, left in the buffer of earlier samples for later runs (replay.py).

A reservoir (Vitter 1985, algorithm R): of all samples that ever went in, each is in the buffer with
the same chance. Which ones is a matter of seed and order alone, so that it is drawn at the end of a
run, and the file is written once.
"""

import binascii
import os
import struct
from array import array

import sparsetune_kernels as kernels

from .checkpoint import exists, rename
from .data import HEADER_BYTES, MAGIC, VERSION, Samples
from .replay import KEPT, MORE, MORE_BYTES, RESIDUE, Earlier, path_of
from .telemetry import event_line


def open_earlier(data, image):
    """The buffer beside a sample file, or None. Raises ValueError where it does not fit."""
    path = path_of(data)
    return Earlier(path, image) if exists(path) else None


def draw(most, old, seen, order, seed):
    """Which samples the buffer holds when those of `order` have gone into one that had `old`
    samples of `seen`: numbers below `old` are its own, others order's, plus `old`."""
    chosen = array("I", range(min(most, old)))
    for i in range(len(order)):
        if len(chosen) < most:
            chosen.append(old + order[i])
        else:
            place = kernels.random(seed, i) % (seen + i + 1)
            if place < most:
                chosen[place] = old + order[i]
    return chosen


class Reservoir:
    """data: path of the samples. run: one that has ended. most: samples that the buffer holds."""

    def __init__(self, data, run, most):
        self.path = path_of(data)
        self.engine = run.engine
        self.samples = Samples(data, run.engine.image)
        self.old = open_earlier(data, run.engine.image)
        old = (self.old.count, self.old.seen) if self.old else (0, 0)
        trained_on = self._trained_on(run)
        seed = kernels.random(run.seed, KEPT + old[1])
        self.chosen = draw(most, *old, trained_on, seed)
        self.seen = old[1] + len(trained_on)
        image = run.engine.image
        is_smaller = image.cut_at and image.cut_bytes < image.input_bytes
        self.is_latent = is_smaller or (self.old and self.old.image_crc)
        self.crc = 0

    def _trained_on(self, run):
        """Numbers of the samples that the run visited: all, or those of its last epoch."""
        count = run.samples.count
        epoch, end = divmod(run.own - 1, count)
        run.order.shuffle(epoch)
        if run.own - run.since >= count:
            return run.order.order
        begin = max(0, run.since - epoch * count)
        return memoryview(run.order.order)[begin : end + 1]

    def keep(self, out):
        """Writes the buffer, unless these samples went in before. A power cut leaves the old one or
        the new one. Raises ValueError where there is no room: then the old one stays."""
        is_known = self.old and self.old.last == self.samples.crc
        if is_known or not len(self.chosen):
            count = self.old.count if self.old else 0
            out(event_line("kept", samples=count, seen=count and self.old.seen, bytes=0))
            return self._close()
        part = self.path + ".part"
        try:
            size = self._write(part)
        except OSError:
            os.remove(part)
            raise ValueError("the file system has no room for %d earlier samples: keep fewer"
                             % len(self.chosen))
        finally:
            self._close()
        rename(part, self.path)
        out(event_line("kept", samples=len(self.chosen), seen=self.seen, bytes=size))

    def _close(self):
        self.samples.close()
        if self.old:
            self.old.close()

    def _write(self, path):
        image = self.engine.image
        each = image.cut_bytes if self.is_latent else image.input_bytes
        targets_at = HEADER_BYTES + MORE_BYTES
        samples_at = targets_at + (len(self.chosen) * image.target_bytes + 3) // 4 * 4
        head = (VERSION, len(self.chosen), each, image.outputs, image.target_bytes)
        with open(path, "wb") as file:
            file.write(MAGIC + struct.pack("<8I", *head, targets_at, samples_at, RESIDUE))
            self.crc = 0
            crc = image.crc if self.is_latent else 0
            self._put(file, struct.pack(MORE, crc, self.samples.crc, self.seen, 0))
            for number in self.chosen:
                self._put(file, self._target(number))
            self._put(file, bytes(-len(self.chosen) * image.target_bytes % 4))
            for number in self.chosen:
                self._put(file, self._sample(number))
            file.write(struct.pack("<I", self.crc))
        return samples_at + len(self.chosen) * each + 4

    def _put(self, file, data):
        self.crc = binascii.crc32(data, self.crc) & 0xFFFFFFFF
        if file.write(data) != len(data):
            raise OSError("full")

    def _source(self, number):
        """(sample file, number in there)"""
        count = self.old.count if self.old else 0
        return (self.old, number) if number < count else (self.samples, number - count)

    def _target(self, number):
        samples, i = self._source(number)
        label = samples.load_target(i, self.engine.target)
        if not samples.has_labels:
            return self.engine.target
        size = samples.target_bytes
        return struct.pack("<H", label)[:size]

    def _sample(self, number):
        samples, i = self._source(number)
        engine = self.engine
        was_latent = samples is self.old and self.old.image_crc
        into = engine.cut() if was_latent else engine.sample
        samples.load(i, into, engine.target)
        if self.is_latent and not was_latent:
            engine.run_front()
            return engine.cut()
        return into
