"""What was learnt, in a file that survives resets: written beside the old one, then renamed."""

import binascii
import os
import struct

from .engine import HAS_HEAP, collect
from .telemetry import parse

MAGIC = b"STCK"
RESERVE = 2048  # bytes of heap that opening and writing a file takes
PIECE = 1024 if HAS_HEAP else 1 << 18  # of a file, that is read at a time
VERSION = 1
HEADER = "<4s6I4x"  # magic, version, image crc, steps done, bytes of state, crc, of settings
HEADER_BYTES = 32
OLD = ".old"
PULLED = ".pulled"  # a list of the checkpoints that the host has


def save(path, image, state, steps, settings="", discard=False):
    """Writes the state and the run's settings (text); a power cut at any moment leaves the old
    file or the new one (on FAT perhaps as PATH.part: see rename). Where the file system is full,
    the run before makes room, if it was pulled or discard says that it may go."""
    try:
        _write(path, image, state, steps, settings.encode())
    except OSError:
        if not exists(path + OLD):
            raise
        if not (discard or is_pulled(path, path + OLD)):
            raise ValueError("the file system is full, and nobody has pulled %s%s: pull it, or "
                             "train with discard=1" % (path, OLD))
        os.remove(path + OLD)
        _write(path, image, state, steps, settings.encode())


def _write(path, image, state, steps, settings):
    part = path + ".part"
    crc = binascii.crc32(settings, binascii.crc32(state)) & 0xFFFFFFFF
    head = (MAGIC, VERSION, image.crc, steps, len(state), crc, len(settings))
    with open(part, "wb") as file:
        file.write(struct.pack(HEADER, *head))
        file.write(state)
        file.write(settings)
    if hasattr(os, "sync"):
        os.sync()
    rename(part, path)


def exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


class Keeper:
    """Saves a run's checkpoints. The first one moves that of an earlier run to PATH.old, or, if
    what lies there already was not pulled, or else has learnt for longer, takes its place: a run
    that was broken off soon must not cost what a long one learnt. Raises ValueError where a run
    would cost what nobody has pulled; discard says that it may go."""

    def __init__(self, path, resumed, discard=False):
        if not (resumed or discard or is_pulled(path, path) or is_pulled(path, path + OLD)):
            raise ValueError("%s and %s%s hold what was learnt and not pulled: pull the first, or "
                             "train with discard=1" % (path, path, OLD))
        self.path = path
        self.discard = discard
        self.is_first = not resumed
        self.saved = None  # steps in the checkpoint that this run wrote last
        self.reserve = bytearray(RESERVE)  # too little of it shows before there is much to lose

    def save(self, image, state, steps, settings):
        self.reserve = None
        collect()
        self._save(image, state, steps, settings)
        collect()
        self.reserve = bytearray(RESERVE)

    def _save(self, image, state, steps, settings):
        if self.is_first:
            self.is_first = False
            self._set_aside()
        save(self.path, image, state, steps, settings, self.discard)
        self.saved = steps

    def _set_aside(self):
        path, old = self.path, self.path + OLD
        if _worth(path, path) > _worth(path, old):
            rename(path, old)


def is_pulled(path, name):
    """Whether nothing would be lost with the file `name`, PATH or PATH.old: the host has it
    (mark_pulled), or it holds no checkpoint."""
    crc = _head(name)[5]
    return not crc or crc in _pulled(path)


def _worth(path, name):
    """What is worth more is kept."""
    return not is_pulled(path, name), _head(name)[3]


def mark_pulled(path, name):
    """Notes that the host has what lies in `name`, PATH or PATH.old."""
    here = [_head(path)[5], _head(path + OLD)[5]]
    known = [crc for crc in here if crc in _pulled(path)] + [_head(name)[5]]
    with open(path + PULLED, "wb") as file:
        file.write(struct.pack("<%dI" % len(known), *known))


def _pulled(path):
    """Checksums of what the host has."""
    try:
        with open(path + PULLED, "rb") as file:
            data = file.read()
    except OSError:
        return ()
    return struct.unpack("<%dI" % (len(data) // 4), data[: len(data) // 4 * 4])


def _head(path):
    """The fields of HEADER; no steps and checksum 0 where there is no checkpoint."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError:
        header = b""
    if len(header) < HEADER_BYTES or header[:4] != MAGIC:
        return MAGIC, VERSION, 0, -1, 0, 0, 0
    return struct.unpack(HEADER, header)


def rename(old, new):
    """Also over a file: at once, but for FAT, whose driver in MicroPython removes that one first.
    Where power goes right then, what is in `old` is whole, and stays under that name."""
    getattr(os, "replace", os.rename)(old, new)  # CPython's rename refuses it on Windows


def load(path, image, state):
    """Fills the state from a file and returns (steps done, settings of the run). Raises ValueError
    when there is no such file, or it is damaged or of another image; the state is then as it was.
    """
    if not exists(path):
        raise ValueError("there is no checkpoint %s: train first" % path)
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES)
        length, body_crc = measure(file)
    if len(header) < HEADER_BYTES or header[:4] != MAGIC:
        raise ValueError("%s is not a checkpoint" % path)
    _, version, image_crc, steps, size, crc, more = struct.unpack(HEADER, header)
    if version != VERSION or image_crc != image.crc or size != len(state):
        raise ValueError("%s belongs to another image: train from the start" % path)
    if length != size + more or crc != body_crc:
        raise ValueError("%s is damaged: train from the start" % path)
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES)
        file.readinto(state)
        return steps, file.read().decode()


def settings_of(path):
    """The run's settings in a checkpoint, of whatever image; empty where there are none."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES or header[:4] != MAGIC:
                return {}
            file.seek(HEADER_BYTES + struct.unpack(HEADER, header)[4])
            return (parse(file.read().decode()) or ("", {}))[1]
    except OSError:
        return {}


def measure(file):
    """(bytes, checksum) of the rest of a file, in pieces: there is no RAM for all of it."""
    buffer = bytearray(PIECE)
    length, crc = 0, 0
    n = file.readinto(buffer)
    while n:
        length += n
        crc = binascii.crc32(buffer if n == len(buffer) else buffer[:n], crc)
        n = file.readinto(buffer)
    return length, crc & 0xFFFFFFFF
