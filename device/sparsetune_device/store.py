"""A log of columns in NOR flash: what was learnt and has no room in RAM (docs/FORMAT.md).

Sectors are filled in turn, round and round, so that all wear alike. The sector behind the one that
is being filled is always erased; before one is, what is still needed of it is copied. A power cut
leaves every record whole or unreadable, and the newest of each channel is found again.
"""

import binascii
import struct
from array import array

from .telemetry import event_line

SECTOR, PAGE, ENTRY = 4096, 256, 16
ENTRIES = PAGE // ENTRY  # of a sector's first page: its head, then one for each record
PAGES = SECTOR // PAGE
MAGIC = b"STLG"
HEAD = "<4sHHII"  # magic, run, check, number of the sector in the log, times it was erased
RECORD = "<4HII"  # operator, channel, first page, generation; checksums: of column, of entry
IN_STORE = 4 << 29
LAST = 0xFFFF  # run and generation, uint16
CROWDED = 0.9  # share of the pages that may be needed before a checkpoint must free some
BLANK = b"\xff" * PAGE


def find_flash():
    """The flash that the firmware leaves for it, or None; an object like rp2.Flash."""
    try:
        import rp2
        from sparsetune_board import STORE_BYTES
    except ImportError:
        return None
    whole = rp2.Flash()
    size = whole.ioctl(4, 0) * whole.ioctl(5, 0)
    return rp2.Flash(start=size - STORE_BYTES, len=STORE_BYTES) if STORE_BYTES else None


def pages_of(column_bytes):
    """That a record takes: whole ones."""
    return (column_bytes + PAGE - 1) // PAGE


def room_of(store_bytes, sizes):
    """Pages that can be filled in any case with records of these sizes (in pages): a record lies in
    one sector, one sector is being filled, one is erased."""
    free = min(ENTRIES, PAGES) - 1
    largest = max(sizes)
    of_a_sector = free - free % largest if min(sizes) == largest else free - (largest - 1)
    return max(0, of_a_sector) * (store_bytes // SECTOR - 2)


def _crc(data):
    return binascii.crc32(data) & 0xFFFFFFFF


def _head_check(run, number, erases):
    return _crc(struct.pack("<HII", run, number, erases)) & 0xFFFF


class Store:
    """layers: the Columns whose records it keeps, by operator. run, generation: of the checkpoint
    to go on from (recover); a new run makes all that lies there dead.

    Every record carries the generation that it was written in; a checkpoint ends one. So a
    checkpoint finds what it knew, and nothing later; until the next one that is kept.
    """

    def __init__(self, flash, layers, run=None, generation=0):
        self.flash = flash
        self.data = memoryview(flash) if not hasattr(flash, "data") else memoryview(flash.data)
        self.layers = layers
        self.sectors = len(self.data) // SECTOR
        self.page = bytearray(PAGE)
        self.erases = array("I", [0] * self.sectors)
        self.sector, self.number, highest = self._scan()
        self.run = highest + 1 if run is None else run
        if self.run > LAST:
            for sector in range(self.sectors):
                self._erase(sector)
            self.run = 1
        self.generation = generation
        self.entry = ENTRIES  # of the sector that is being filled: none yet
        self.next_page = PAGES
        self.written = 0
        sizes = [pages_of(layer.layer.column_bytes) for layer in layers.values()]
        self.crowded = int(CROWDED * room_of(len(self.data), sizes))
        self.needed = 0  # pages

    # What lies there --------------------------------------------------------------------------

    def _head(self, sector):
        """(run, number, erases), or None where no sector of a log begins."""
        magic, run, check, number, erases = struct.unpack_from(HEAD, self.data, sector * SECTOR)
        good = magic == MAGIC and check == _head_check(run, number, erases)
        return (run, number, erases) if good else None

    def _scan(self):
        """(newest sector, its number, highest run); counts how often each was erased."""
        newest, at, run, most = 0, self.sectors - 1, 0, 0
        for sector in range(self.sectors):
            head = self._head(sector)
            self.erases[sector] = head[2] if head else 0
            most = max(most, self.erases[sector])
            run = max(run, head[0] if head else 0)
            if head and head[1] > newest:
                newest, at = head[1], sector
        for sector in range(self.sectors):  # erased, and not yet written: as worn as any
            if newest and not self._head(sector):
                self.erases[sector] = most
        return at, newest, run

    def has_run(self, run):
        """Whether records of that run lie there."""
        heads = (self._head(sector) for sector in range(self.sectors))
        return any(head and head[0] == run for head in heads)

    def records(self, sector):
        """(layer, channel, offset, generation, entry) of the whole records of this run in a
        sector."""
        head = self._head(sector)
        if not head or head[0] != self.run:
            return
        base = sector * SECTOR
        for entry in range(1, ENTRIES):
            at = base + ENTRY * entry
            operator, channel, page, generation, crc, check = struct.unpack_from(
                RECORD, self.data, at
            )
            layer = self.layers.get(operator)
            if layer is None or check != _crc(self.data[at : at + ENTRY - 4]):
                continue
            offset, size = base + page * PAGE, layer.layer.column_bytes
            if page * PAGE + size <= SECTOR and crc == _crc(self.data[offset : offset + size]):
                yield layer, channel, offset, generation, entry

    def recover(self, reads_only=False):
        """Finds the records that the checkpoint knew. reads_only: leaves the flash as it is; else
        later ones are struck out, and the next generation begins. Raises ValueError where a column
        that the checkpoint knows of is gone."""
        self._find()
        behind = (self.sector + 1) % self.sectors
        if not reads_only and self._is_needed(behind):
            # Power went while its records were being copied: all that the newest sector holds are
            # copies, and they are not all there.
            self._erase(self.sector)
            self.sector = (self.sector - 1) % self.sectors
            self.number -= 1
            self._find()
        missing = sum(layer.lost() for layer in self.layers.values())
        if missing:
            raise ValueError("%d trained channels are no more in flash, a later run took their "
                             "place: train from the start" % missing)
        if not reads_only:
            for sector in range(self.sectors):
                for _, _, _, generation, entry in self.records(sector):
                    if generation > self.generation:
                        self._write(sector * SECTOR, bytes(ENTRY), ENTRY * entry)
            self.checkpointed()

    def _find(self):
        """Of each channel the record of the highest generation that the checkpoint knew."""
        for layer in self.layers.values():
            layer.begin_search()
        for i in range(1, self.sectors + 1):  # within a generation the newest last
            for layer, channel, offset, generation, _ in self.records(
                (self.sector + i) % self.sectors
            ):
                if generation <= self.generation:
                    layer.search(channel, IN_STORE | offset, generation)
        for layer in self.layers.values():
            layer.checkpointed()

    def _is_needed(self, sector):
        """Whether it holds a record that some channel needs."""
        return any(layer.needs(channel, offset)
                   for layer, channel, offset, _, _ in self.records(sector))

    def checkpointed(self):
        """What is newest now is what a checkpoint knows, until the next one."""
        self.generation = min(self.generation + 1, LAST)
        self.needed = 0
        for layer in self.layers.values():
            self.needed += layer.checkpointed() * pages_of(layer.layer.column_bytes)

    def is_crowded(self):
        """Whether a checkpoint should free what the last one needed."""
        return self.needed > self.crowded

    # Writing ----------------------------------------------------------------------------------

    def put(self, operator, channel, column):
        """Writes a column (a memoryview in RAM) and returns the reference to it."""
        layer, pages = self.layers[operator], pages_of(len(column))
        for _ in range(self.sectors):
            if self.entry < ENTRIES and self.next_page + pages <= PAGES:
                if layer.is_known(channel):
                    self.needed += pages
                ref = self._append(layer, channel, column, self.generation)
                layer.found(channel, ref)
                return ref
            self._next_sector()
        raise ValueError("the store in flash is full: plan again with fewer channels")

    def tell(self, out):
        """columns: written by this run. erases: of sectors since the store is in use; most: of the
        one that was erased most often."""
        erases = self.erases
        out(event_line("store", columns=self.written, erases=sum(erases), most=max(erases)))

    def get(self, ref, size):
        at = ref & 0x1FFFFFFF
        return self.data[at : at + size]

    def _append(self, layer, channel, column, generation):
        base, page, size = self.sector * SECTOR, self.next_page, len(column)
        for at in range(0, size, PAGE):
            self._write(base + page * PAGE + at, column[at : at + PAGE], 0)
        head = (layer.layer.operator, channel, page, generation)
        entry = struct.pack("<4HI", *head, _crc(column))
        entry += struct.pack("<I", _crc(entry))
        self._write(base, entry, ENTRY * self.entry)
        self.entry += 1
        self.next_page += pages_of(size)
        ref = IN_STORE | (base + page * PAGE)
        self.written += 1
        return ref

    def _write(self, offset, data, within):
        """Programs a page; what is not written stays as it was (ones take any value later)."""
        page = self.page
        page[:] = BLANK
        page[within : within + len(data)] = data
        self.flash.writeblocks(offset // SECTOR, page, offset % SECTOR)

    def _next_sector(self):
        """Goes on in the sector that is erased, and erases the one behind it."""
        self.sector = (self.sector + 1) % self.sectors
        self._erase(self.sector)  # already done but at a run's first
        self.number += 1
        numbers = (self.run, self.number, self.erases[self.sector])
        head = struct.pack(HEAD, MAGIC, numbers[0], _head_check(*numbers), *numbers[1:])
        self._write(self.sector * SECTOR, head, 0)
        self.entry = self.next_page = 1
        old = (self.sector + 1) % self.sectors
        for layer, channel, offset, generation, _ in self.records(old):
            if layer.needs(channel, offset):
                column = self.data[offset : offset + layer.layer.column_bytes]
                ref = self._append(layer, channel, column, generation)
                layer.moved(channel, offset, ref)
        self._erase(old)

    def _erase(self, sector):
        """Unless it is erased already."""
        base = sector * SECTOR
        for at in range(base, base + SECTOR, PAGE):
            if self.data[at : at + PAGE] != BLANK:
                self.flash.ioctl(6, sector)
                self.erases[sector] += 1
                return
