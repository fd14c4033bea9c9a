"""Layers that stay in flash: brings the weights of the channels that a step trains into RAM.

A layer's table in the state says for each input channel where its column of weights lies: nowhere
(as it came, in the image), in one of the layer's slots in the state, or in the store in flash
(ulab_kernels/columns.h). What was trained stays in its slot until another channel needs it.
"""

import struct
from array import array

import sparsetune_kernels as kernels

IN_STATE = 1 << 29
NOWHERE = 7  # upper three bits of a reference
FREE = 0xFFFF


class Columns:
    """The slots of one layer. state: the engine's. store: None, or where columns go that must leave
    their slot (an object with put(layer, channel, column) and get(ref))."""

    def __init__(self, layer, image, state, store=None):
        self.layer = layer
        self.image = image
        self.state = state
        self.view = memoryview(state)
        at = layer.channels_at
        self.wanted = self.view[at : at + 2 * layer.chosen]  # the policy writes it
        self.table = self.view[layer.table_at : layer.table_at + 4 * layer.in_channels]
        self.store = store
        self.taps = layer.column_bytes // layer.out_channels
        self.owner = array("H", [FREE] * layer.slots)  # channel in each slot
        self.next = 0  # slot that is given away next
        for channel in range(layer.in_channels):
            ref = self._ref(channel)
            if ref >> 29 == 1:
                self.owner[self._slot_of(ref)] = channel

    def bring(self):
        """Makes room in RAM for the channels that the policy has chosen, and fills it."""
        wanted, table = self.wanted, self.table
        for i in range(self.layer.chosen):
            channel = wanted[2 * i] | wanted[2 * i + 1] << 8
            if table[4 * channel + 3] >> 5 != 1:  # the upper bits alone: no step allocates
                self._fill(self._free_slot(), channel)

    def _free_slot(self):
        """A slot that no chosen channel owns, emptied."""
        while self._is_wanted(self.owner[self.next]):
            self.next = (self.next + 1) % self.layer.slots
        slot = self.next
        self.next = (slot + 1) % self.layer.slots
        if self.owner[slot] != FREE:
            self._leave(slot)
        return slot

    def _is_wanted(self, channel):
        wanted = self.wanted
        for i in range(self.layer.chosen):
            if wanted[2 * i] | wanted[2 * i + 1] << 8 == channel:
                return True
        return False

    def _leave(self, slot):
        if self.store is None:
            raise ValueError("no room for more trained channels: use --policy static")
        at = self._at(slot)
        column, channel = self.view[at : at + self.layer.column_bytes], self.owner[slot]
        self._set_ref(channel, self.store.put(self.layer.operator, channel, column))

    def _fill(self, slot, channel):
        layer, at = self.layer, self._at(slot)
        if self.table[4 * channel + 3] >> 5 == NOWHERE:
            for tap in range(self.taps):
                begin = layer.base_at + tap * layer.in_channels + channel
                kernels.gather(
                    self.state, at + tap * layer.out_channels,
                    self.image.data, begin, self.taps * layer.in_channels, layer.out_channels,
                )
        else:
            column = self.store.get(self._ref(channel), layer.column_bytes)
            self.view[at : at + layer.column_bytes] = column
        self.owner[slot] = channel
        self._set_ref(channel, IN_STATE | at)

    def _at(self, slot):
        return self.layer.pool_at + slot * self.layer.column_bytes

    def _slot_of(self, ref):
        return ((ref & 0x1FFFFFFF) - self.layer.pool_at) // self.layer.column_bytes

    def _ref(self, channel):
        return struct.unpack_from("<I", self.state, self.layer.table_at + 4 * channel)[0]

    def _set_ref(self, channel, ref):
        struct.pack_into("<I", self.state, self.layer.table_at + 4 * channel, ref)
