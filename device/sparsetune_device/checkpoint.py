"""What was learnt, in a file that survives resets: written beside the old one, then renamed."""

import binascii
import os
import struct

MAGIC = b"STCK"
VERSION = 1
HEADER = "<4s5I8x"  # magic, version, image crc, steps done, state bytes, state crc
HEADER_BYTES = 32
OLD = ".old"


def save(path, image, state, steps):
    """Writes the state; a power cut at any moment leaves the old file or the new one. Where the
    file system is full, the run before (set_aside) makes room."""
    try:
        _write(path, image, state, steps)
    except OSError:
        if not _exists(path + OLD):
            raise
        os.remove(path + OLD)
        _write(path, image, state, steps)


def set_aside(path):
    """Keeps the checkpoint of an earlier run as PATH.old before a new run begins."""
    if _exists(path):
        if _exists(path + OLD):
            os.remove(path + OLD)
        os.rename(path, path + OLD)


def _exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _write(path, image, state, steps):
    part = path + ".part"
    crc = binascii.crc32(state) & 0xFFFFFFFF
    with open(part, "wb") as file:
        file.write(struct.pack(HEADER, MAGIC, VERSION, image.crc, steps, len(state), crc))
        file.write(state)
    if hasattr(os, "sync"):
        os.sync()
    os.rename(part, path)


def load(path, image, state):
    """Fills the state from a file and returns the steps done. Raises ValueError when the file is
    damaged or belongs to another image; the state is then unchanged."""
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES)
        length, body_crc = _measure(file)
    if len(header) < HEADER_BYTES or header[:4] != MAGIC:
        raise ValueError("%s is not a checkpoint" % path)
    _, version, image_crc, steps, size, crc = struct.unpack(HEADER, header)
    if version != VERSION or image_crc != image.crc or size != len(state):
        raise ValueError("%s belongs to another image: train from the start" % path)
    if length != size or crc != body_crc:
        raise ValueError("%s is damaged: train from the start" % path)
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES)
        file.readinto(state)
    return steps


def _measure(file):
    """(bytes, checksum) of the rest of a file, in pieces: there is no RAM for a second state."""
    length, crc = 0, 0
    piece = file.read(512)
    while piece:
        length += len(piece)
        crc = binascii.crc32(piece, crc)
        piece = file.read(512)
    return length, crc & 0xFFFFFFFF
