"""The compiled image (docs/FORMAT.md), opened without copying where the file system allows."""

import binascii
import struct

import sparsetune_kernels as kernels

MAGIC = b"STIM"
CRC_FROM = 16
LOSSES = ("softmax", "bce", "mse", "autoencoder")
ABSENT = 0xFFFFFFFF
LAYER_BYTES = 80


class Layer:
    """Where one trained layer lives in the state buffer (byte offsets). data: the image; init_at:
    where in it the state's beginning is."""

    def __init__(self, words, data, init_at):
        self.data = data
        self.init_at = init_at
        self.operator, self.in_channels, self.out_channels, self.chosen = words[:4]
        self.channels_at = words[4]
        self.table_at, self.pool_at, self.slots, self.base_at, self.column_bytes = words[9:14]
        self.count = words[14]  # channels that learn in all
        self.visited_at, self.scores_at = words[15:17]
        self.weights_bytes = words[6]

    @property
    def has_columns(self):
        """Whether it stays in flash but for the columns of some channels."""
        return self.table_at != ABSENT

    @property
    def is_sparse(self):
        """Whether a step trains only some of the input channels."""
        return self.channels_at != ABSENT

    @property
    def channel_bytes(self):
        """Weights of an input channel."""
        return self.column_bytes if self.has_columns else self.weights_bytes // self.in_channels

    def write_first(self, state):
        """The channels that a new state has in its list: those with the largest weights."""
        at, size = self.channels_at, 2 * self.chosen
        state[at : at + size] = self.data[self.init_at + at : self.init_at + at + size]


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
            Layer(struct.unpack_from("<20I", self.data, words[12] + LAYER_BYTES * i), self.data,
                  self.init_at)
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
            # At once: read() lets a buffer grow, and may need the space of two.
            data = bytearray(file.seek(0, 2))
            file.seek(0)
            file.readinto(data)
    return Image(data)
