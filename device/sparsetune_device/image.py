"""The compiled image (docs/FORMAT.md), opened without copying where the file system allows."""

import binascii
import struct

import sparsetune_kernels as kernels

MAGIC = b"STIM"
CRC_FROM = 16
LOSSES = ("softmax", "bce", "mse", "autoencoder")
ABSENT = 0xFFFFFFFF
LAYER_BYTES = 64


class Layer:
    """Where one trained layer lives in the state buffer (byte offsets)."""

    def __init__(self, words):
        self.operator, self.in_channels, self.out_channels, self.chosen = words[:4]
        self.channels_at = words[4]
        self.table_at, self.pool_at, self.slots, self.base_at, self.column_bytes = words[9:14]
        self.count = words[14]  # channels that learn in all

    @property
    def has_columns(self):
        """Whether it stays in flash but for the columns of some channels."""
        return self.table_at != ABSENT

    @property
    def is_sparse(self):
        """Whether a step trains only some of the input channels."""
        return self.channels_at != ABSENT


class Image:
    """data: any buffer, kept as it is. Raises ValueError when it is no image of this version."""

    def __init__(self, data):
        self.data = data
        if len(data) < 192 or bytes(data[:4]) != MAGIC:
            raise ValueError("not a sparsetune image: build and push it again")
        version, size, crc = struct.unpack_from("<3I", data, 4)
        if version != kernels.abi():
            raise ValueError("image format %d, firmware runs %d" % (version, kernels.abi()))
        if size > len(data) or crc != _crc(data, size):
            raise ValueError("the image is damaged: push it again")
        self.crc = crc
        self._read_header(struct.unpack_from("<14I", data, CRC_FROM))
        self.macs = struct.unpack_from("<2I", data, 180)  # of a step, where they are counted
        self.rate = struct.unpack_from("<Ii", data, 72)
        task = struct.unpack_from("<5I", data, 128)
        self.has_vectors = task[0] in (1, 2)  # targets are vectors, not class numbers
        self.loss = LOSSES[task[0]] if task[0] < len(LOSSES) else ""
        self.target_at, self.target_bytes, self.loss_ops, self.cold_bytes = task[1:]
        # The operator behind the frozen front, 0 if there is none; what crosses there.
        self.cut_at, self.cut_ref, self.cut_bytes = struct.unpack_from("<3I", data, 164)
        self.has_velocity = data[176] & 1  # what momentum and accumulation need

    def _read_header(self, words):
        self.ops, self.forward_ops, self.arena_bytes, self.state_bytes = words[1:5]
        self.init_at, self.init_bytes = words[5:7]
        self.input_at, self.input_bytes, self.output_at, self.output_bytes = words[7:11]
        self.outputs = words[11]
        self.layers = [
            Layer(struct.unpack_from("<16I", self.data, words[12] + LAYER_BYTES * i))
            for i in range(words[13])
        ]

    def initial_state(self):
        """A new state buffer: weights and biases as the model came."""
        state = bytearray(self.state_bytes)
        state[: self.init_bytes] = self.data[self.init_at : self.init_at + self.init_bytes]
        return state


def _crc(data, size):
    """Checksum of everything behind the checksum itself."""
    return binascii.crc32(memoryview(data)[CRC_FROM:size]) & 0xFFFFFFFF


def open_image(path):
    """The image in a file: in place where it lies in flash (ROMFS), else read into RAM."""
    with open(path, "rb") as file:
        try:
            data = memoryview(file)
        except TypeError:
            data = file.read()
    return Image(data)
