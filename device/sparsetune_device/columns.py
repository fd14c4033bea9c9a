"""Layers that stay in flash: brings the weights of the channels that a step trains into RAM.

A layer's table in the state says for each input channel where its column of weights lies: nowhere
(as it came, in the image), in one of the layer's slots in the state, or in the store in flash
(ulab_kernels/columns.h). What was trained stays in its slot until another channel needs it.
"""

import struct
from array import array

import sparsetune_kernels as kernels

IN_STATE = 1 << 29
IN_STORE = 4  # upper three bits of a reference
PAGE = 256
OFFSET = 0x1FFFFFFF
NOWHERE = 7
FREE = 0xFFFF


def open_columns(engine, flash, settings, reads_only=False):
    """(the layers that stay in flash, the store where the plan needs one, else None). flash: an
    object like rp2.Flash, or None for what the board has. settings: of the checkpoint whose columns
    are wanted, or empty. reads_only: see Store.recover."""
    image = engine.image
    columns = [Columns(layer, image, engine.state) for layer in image.layers if layer.has_columns]
    if not any(layer.layer.count > layer.layer.slots for layer in columns):
        return columns, None
    from .store import Store, find_flash  # RAM for its code only where it is needed

    flash = flash or find_flash()
    if flash is None:
        raise ValueError("this firmware has no room in flash for trained channels: flash "
                         "sparsetune's own, or plan again with --no-store")
    layers = {layer.layer.operator: layer for layer in columns}
    run = settings.get("store")
    store = Store(flash, layers, run, settings.get("generation", 0))
    for layer in columns:
        layer.store = store
    engine.store = store.data
    if run is not None:
        store.recover(reads_only)
    return columns, store


class Records:
    """Which records in the store are those of a layer's channels. A record is known by its first
    page; 0, where a sector's directory is, stands for none."""

    def __init__(self, channels):
        self.newest = array("H", [0] * channels)
        self.saved = array("H", [0] * channels)  # those that the last checkpoint knows

    def found(self, channel, ref):
        """The store has a newer record of a channel."""
        self.newest[channel] = (ref & OFFSET) // PAGE
        if self.ref(channel) >> 29 != 1:  # what is in RAM is newer still
            self.set_ref(channel, ref)

    def moved(self, channel, offset, ref):
        """A record was copied."""
        page = offset // PAGE
        if self.saved[channel] == page:
            self.saved[channel] = (ref & OFFSET) // PAGE
        if self.newest[channel] == page:
            self.found(channel, ref)

    def needs(self, channel, offset):
        """Whether a record is the newest of its channel, or the one that the checkpoint knows."""
        page = offset // PAGE
        return self.newest[channel] == page or self.saved[channel] == page

    def is_known(self, channel):
        """Whether the newest record must stay when a newer one is written, or there is none."""
        return self.newest[channel] == self.saved[channel]

    def checkpointed(self):
        """The newest records are those that the checkpoint knows. Returns how many."""
        self.saved[:] = self.newest
        return sum(1 for page in self.newest if page)

    def begin_search(self):
        self.newest = array("H", [0] * len(self.newest))
        self.saved = array("H", [0] * len(self.newest))  # generations, until it has ended

    def search(self, channel, ref, generation):
        """A record that was found: the highest generation counts, of equal ones the last."""
        if channel < len(self.newest) and generation >= self.saved[channel]:
            self.saved[channel] = generation
            self.found(channel, ref)

    def lost(self):
        """Channels that should be in the store, and are not."""
        newest = self.newest
        return sum(
            1 for i in range(len(newest)) if not newest[i] and self.ref(i) >> 29 == IN_STORE
        )


class Columns(Records):
    """The slots of one layer. state: the engine's. store: None, or where columns go that must leave
    their slot (store.Store)."""

    def __init__(self, layer, image, state):
        super().__init__(layer.in_channels)
        self.layer = layer
        self.image = image
        self.state = state
        self.view = memoryview(state)
        at = layer.channels_at
        self.wanted = self.view[at : at + 2 * layer.chosen]  # the policy writes it
        self.table = self.view[layer.table_at : layer.table_at + 4 * layer.in_channels]
        self.store = None
        self.taps = layer.column_bytes // layer.out_channels
        self.owner = array("H", [FREE] * layer.slots)  # channel in each slot
        self.next = 0  # slot that is given away next
        for channel in range(layer.in_channels):
            ref = self.ref(channel)
            if ref >> 29 == 1:
                self.owner[self._slot_of(ref)] = channel

    def bring(self):
        """Makes room in RAM for the channels that the policy has chosen, and fills it. Returns
        whether any had to be brought."""
        wanted, table, moved = self.wanted, self.table, False
        for i in range(self.layer.chosen):
            channel = wanted[2 * i] | wanted[2 * i + 1] << 8
            if table[4 * channel + 3] >> 5 != 1:  # the upper bits alone: no step allocates
                self._fill(self._free_slot(), channel)
                moved = True
        return moved

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
        self.set_ref(channel, self.store.put(self.layer.operator, channel, column))

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
            column = self.store.get(self.ref(channel), layer.column_bytes)
            self.view[at : at + layer.column_bytes] = column
        self.owner[slot] = channel
        self.set_ref(channel, IN_STATE | at)

    def _at(self, slot):
        return self.layer.pool_at + slot * self.layer.column_bytes

    def _slot_of(self, ref):
        return ((ref & OFFSET) - self.layer.pool_at) // self.layer.column_bytes

    def in_store(self, channel):
        """The column of a channel that lies in the store, else None."""
        ref = self.ref(channel)
        return self.store.get(ref, self.layer.column_bytes) if ref >> 29 == IN_STORE else None

    def ref(self, channel):
        return struct.unpack_from("<I", self.state, self.layer.table_at + 4 * channel)[0]

    def set_ref(self, channel, ref):
        struct.pack_into("<I", self.state, self.layer.table_at + 4 * channel, ref)
