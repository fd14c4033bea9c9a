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
RECORD = "<4HII"  # operator, channel, first page, bytes, checksums: of the column, of the entry
IN_STORE = 4 << 29
BLANK = b"\xff" * PAGE


def find_flash():
    """The flash behind the file system, or None: as an object with the methods of rp2.Flash."""
    try:
        import os

        import rp2
    except ImportError:
        return None
    whole = rp2.Flash()
    size = whole.ioctl(4, 0) * whole.ioctl(5, 0)
    files = os.statvfs("/")
    used = files[1] * files[2]
    return rp2.Flash(start=used, len=size - used) if used < size else None


def _crc(data):
    return binascii.crc32(data) & 0xFFFFFFFF


def _head_check(run, number, erases):
    return _crc(struct.pack("<HII", run, number, erases)) & 0xFFFF


class Store:
    """layers: the Columns whose records it keeps, by operator. run: that of the records to go on
    with; None for a new run, to which all that lies there is dead."""

    def __init__(self, flash, layers, run=None):
        self.flash = flash
        self.data = memoryview(flash) if not hasattr(flash, "data") else memoryview(flash.data)
        self.layers = layers
        self.sectors = len(self.data) // SECTOR
        self.page = bytearray(PAGE)
        self.erases = array("I", [0] * self.sectors)
        self.sector, self.number, last_run = self._scan()
        self.run = (last_run + 1) & 0xFFFF if run is None else run
        self.entry = ENTRIES  # of the sector that is being filled: none yet
        self.next_page = PAGES
        self.written = 0

    # What lies there --------------------------------------------------------------------------

    def _head(self, sector):
        """(run, number, erases), or None where no sector of a log begins."""
        magic, run, check, number, erases = struct.unpack_from(HEAD, self.data, sector * SECTOR)
        good = magic == MAGIC and check == _head_check(run, number, erases)
        return (run, number, erases) if good else None

    def _scan(self):
        """(newest sector, its number, its run); counts how often each was erased."""
        newest, at, run, most = 0, self.sectors - 1, 0, 0
        for sector in range(self.sectors):
            head = self._head(sector)
            self.erases[sector] = head[2] if head else 0
            most = max(most, self.erases[sector])
            if head and head[1] > newest:
                run, newest, at = head[0], head[1], sector
        for sector in range(self.sectors):  # erased, and not yet written: as worn as any
            if newest and not self._head(sector):
                self.erases[sector] = most
        return at, newest, run

    def records(self, sector):
        """(operator, channel, offset, bytes) of the whole records in a sector of this run."""
        head = self._head(sector)
        if not head or head[0] != self.run:
            return
        base = sector * SECTOR
        for at in range(base + ENTRY, base + PAGE, ENTRY):
            operator, channel, page, size, crc, check = struct.unpack_from(RECORD, self.data, at)
            if check != _crc(self.data[at : at + ENTRY - 4]):
                continue
            offset = base + page * PAGE
            if page * PAGE + size <= SECTOR and crc == _crc(self.data[offset : offset + size]):
                yield operator, channel, offset, size

    def recover(self):
        """Finds the newest record of each channel again. Raises ValueError where a column that the
        checkpoint knows of is gone."""
        self._find()
        behind = (self.sector + 1) % self.sectors
        if self._is_needed(behind):
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

    def _find(self):
        for i in range(1, self.sectors + 1):  # the newest last
            for operator, channel, offset, size in self.records((self.sector + i) % self.sectors):
                layer = self.layers.get(operator)
                if layer and size == layer.layer.column_bytes:
                    layer.found(channel, IN_STORE | offset)

    def _is_needed(self, sector):
        """Whether it holds the newest record of any channel."""
        for operator, channel, offset, _ in self.records(sector):
            if operator in self.layers and self.layers[operator].is_newest(channel, offset):
                return True
        return False

    # Writing ----------------------------------------------------------------------------------

    def put(self, operator, channel, column):
        """Writes a column (a memoryview in RAM) and returns the reference to it."""
        need = (len(column) + PAGE - 1) // PAGE
        for _ in range(self.sectors):
            if self.entry < ENTRIES and self.next_page + need <= PAGES:
                return self._append(operator, channel, column)
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

    def _append(self, operator, channel, column):
        base, page, size = self.sector * SECTOR, self.next_page, len(column)
        for at in range(0, size, PAGE):
            self._write(base + page * PAGE + at, column[at : at + PAGE], 0)
        entry = struct.pack("<4HI", operator, channel, page, size, _crc(column))
        entry += struct.pack("<I", _crc(entry))
        self._write(base, entry, ENTRY * self.entry)
        self.entry += 1
        self.next_page += (size + PAGE - 1) // PAGE
        ref = IN_STORE | (base + page * PAGE)
        self.layers[operator].found(channel, ref)
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
        for operator, channel, offset, size in self.records(old):
            layer = self.layers.get(operator)
            if layer and layer.is_newest(channel, offset):
                self._append(operator, channel, self.data[offset : offset + size])
        self._erase(old)

    def _erase(self, sector):
        """Unless it is erased already."""
        base = sector * SECTOR
        for at in range(base, base + SECTOR, PAGE):
            if self.data[at : at + PAGE] != BLANK:
                self.flash.ioctl(6, sector)
                self.erases[sector] += 1
                return
