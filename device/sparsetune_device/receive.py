"""Receive a file, or a ROMFS image, over the serial line.

The host starts receive_file() or receive_rom() in the raw REPL, waits for `=ready`, and
then sends frames. All integers are little-endian:

    "ST"  u16 sequence  u16 length  u32 crc32(sequence, length, data)  data

The board answers in lines of text:

    =ready CHUNK WINDOW    send frames of CHUNK bytes, at most WINDOW of them unanswered
    +N                     frames 0..N-1 have arrived whole
    -N                     a frame was damaged: send again from frame N
    =done                  all is stored and its SHA-256 is right
    !REASON                given up, and nothing half-written is left

With a window of two the next frame travels while this one is dealt with.

The board never waits for ever: when the line goes quiet it gives up by itself. A file
arrives as PATH.part, which becomes PATH only when it is whole. The first block of a ROMFS
image, which holds its header, is erased first and written last, so that half an image
never mounts.

Nothing here knows the host, and everything that belongs to a real board (stdin, its
timer, the flash partition) is behind `open_line` and `rom_device`.
"""

import binascii
import hashlib
import os
import struct
import sys
import time

CHUNK = 4096
WINDOW = 2
PAGE = 256
GROUP = 16  # blocks of CHUNK bytes; flash chips erase 64 KB in the time of three or four blocks
FEW = 4  # of a group's blocks: erasing each takes less time than erasing the group
MAGIC = b"ST"
IDLE_MS = 10000  # between frames: the host is gone
GAP_MS = 2000  # inside a frame: bytes were lost
QUIET_MS = 100  # the rest of a damaged frame has passed
MAX_FAULTS = 20  # damaged frames in a row


class Stop(Exception):
    """The transfer ends here; the text is what the host is told."""


# ------------------------------------------------------------------------------------
# The line


def open_line():
    """Return the fastest line that this firmware has."""
    try:
        import sparsetune_link
    except ImportError:
        return Line()
    return FastLine(sparsetune_link)


class FastLine:
    """The board's USB port through the firmware's own module (boards/*/link.c)."""

    def __init__(self, link):
        import micropython

        self._intr = micropython.kbd_intr
        self._link = link
        self._intr(-1)  # the data may contain any byte

    def close(self):
        """Give the terminal back as it was."""
        self._link.release()
        self._intr(3)

    def readinto(self, view, ms):
        """Fill `view`. Returns False when that takes longer than `ms` milliseconds."""
        return self._link.readinto(view, ms) == len(view)

    def drain(self, quiet_ms):
        """Throw away what comes in until nothing has come for `quiet_ms`."""
        scrap = bytearray(1)
        while self._link.readinto(scrap, quiet_ms):
            pass

    def say(self, text):
        """Send one line of text."""
        print(text)


class Line:
    """The board's own stdin and stdout, with reads that end: for any MicroPython.

    sys.stdin.buffer.readinto() runs at C speed, but has no timeout. A timer supplies one:
    once the deadline has passed it types the interrupt character, on a second terminal
    that exists for just that moment, and the read ends with KeyboardInterrupt. In between
    the interrupt character is off, because the data may contain any byte.
    """

    def __init__(self):
        import select

        import micropython
        from machine import Timer

        self._intr = micropython.kbd_intr
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)
        self._deadline = None
        self._interrupter = _interrupter()  # now: a timer's callback may find no memory
        self._intr(-1)
        try:
            self._timer = Timer(-1)
        except ValueError:  # ports without virtual timers
            self._timer = Timer(3)
        self._timer.init(period=100, callback=self._tick)

    def close(self):
        """Give the terminal back as it was."""
        self._timer.deinit()
        os.dupterm(None)
        self._intr(3)

    def _tick(self, timer):
        if self._deadline is None or time.ticks_diff(self._deadline, time.ticks_ms()) > 0:
            return
        self._deadline = None
        self._intr(3)
        os.dupterm(self._interrupter)
        # The interrupt is raised at the next branch: this must stay the last line.
        os.dupterm_notify(None)

    def readinto(self, view, ms):
        """Fill `view`. Returns False when that takes longer than `ms` milliseconds."""
        try:
            self._deadline = time.ticks_add(time.ticks_ms(), ms)
            sys.stdin.buffer.readinto(view)
            self._deadline = None
            return True
        except KeyboardInterrupt:
            os.dupterm(None)
            self._intr(-1)
            return False

    def drain(self, quiet_ms):
        """Throw away what comes in until nothing has come for `quiet_ms`."""
        while self._poll.poll(quiet_ms):
            sys.stdin.buffer.read(1)

    def say(self, text):
        """Send one line of text."""
        print(text)


def _interrupter():
    """A terminal on which someone keeps pressing Ctrl-C (see Line)."""
    import io

    class Interrupter(io.IOBase):
        def readinto(self, buf):
            buf[0] = 3
            return 1

        def write(self, buf):
            return len(buf)

        def ioctl(self, request, argument):
            return 0

    return Interrupter()


# ------------------------------------------------------------------------------------
# Where the data goes


class FileTarget:
    """A file that arrives as PATH.part and is renamed when it is whole."""

    def __init__(self, path, size):
        self.path = path
        self.part = path + ".part"
        _make_folders(path)
        _remove(self.part)  # of a board that lost its power
        _make_room(path, size)
        self._file = open(self.part, "wb")  # noqa: SIM115 - closed by finish or abort

    def write(self, index, view):
        """Store frame `index`; frames come in order."""
        self._file.write(view)

    def finish(self, size, digest):
        """Check what the file system holds, then give the file its name."""
        self._file.close()
        if file_digest(self.part) != digest:
            raise Stop("the file read back differs from what was sent: try again")
        os.rename(self.part, self.path)

    def abort(self):
        """Leave no trace."""
        try:
            self._file.close()  # on a full file system what is still to be written has no room
        finally:
            _remove(self.part)


class RomTarget:
    """The ROMFS partition: frame 0 is block 1, and the last frame is block 0.

    Blocks are gathered in RAM and written a group at a time, because erasing is most of what
    flash takes; blocks that are the same already are left alone.
    """

    def __init__(self, size, device=None):
        self._device = device or rom_device()
        if rom_size(self._device) < size:
            room = rom_size(self._device)
            raise Stop(f"the ROMFS partition holds {room} bytes: choose a smaller model")
        self._blocks = size // CHUNK
        self._unit = CHUNK // self._device.ioctl(5, 0)
        self._group, self._gathered = _group_buffer()
        self._old = bytearray(CHUNK)
        _unmount_rom()
        self._erase_first()

    def _erase_first(self):
        for block in range(self._unit):
            self._device.ioctl(6, block)

    def write(self, index, view):
        """Take frame `index`; erases what was there."""
        block = (index + 1) % self._blocks
        if block == 0:  # its place is erased already; its first page is the very last
            self._device.writeblocks(0, view[PAGE:], PAGE)
            self._device.writeblocks(0, view[:PAGE], 0)
            return
        at = block % self._group * CHUNK
        self._gathered[at : at + CHUNK] = view
        if at + CHUNK == len(self._gathered) or block == self._blocks - 1:
            self._write_group(block - block % self._group, at + CHUNK)

    def _write_group(self, first, size):
        """Write the first `size` gathered bytes to the blocks from `first` on."""
        changed = [at for at in range(0, size, CHUNK) if not self._holds(first, at)]
        size = min(len(self._gathered), rom_size(self._device) - first * CHUNK)
        if len(changed) > FEW:
            self._device.writeblocks(first * self._unit, self._gathered[:size])
        else:
            for at in changed:
                block = first + at // CHUNK
                self._device.writeblocks(block * self._unit, self._gathered[at : at + CHUNK])
        _blank(self._gathered)

    def _holds(self, first, at):
        """Whether the flash holds the gathered block at `at` already."""
        self._device.readblocks((first + at // CHUNK) * self._unit, self._old)
        return self._gathered[at : at + CHUNK] == self._old

    def finish(self, size, digest):
        """Check the flash itself, then mount it."""
        if rom_digest(size, self._device) != digest:
            raise Stop("the flash reads back differently: it may be worn out")
        _mount_rom(self._device)

    def abort(self):
        """Without its first block the image does not mount, and it may be there already."""
        self._erase_first()


def _group_buffer():
    """Return (blocks, a view of a buffer for as many); one block where RAM is short."""
    try:
        buffer = bytearray(GROUP * CHUNK)
    except MemoryError:
        buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    _blank(view)
    return len(buffer) // CHUNK, view


def _blank(view):
    """Make `view`, of whole blocks, what erased flash is."""
    blank = b"\xff" * CHUNK
    for at in range(0, len(view), CHUNK):
        view[at : at + CHUNK] = blank


def rom_device():
    """Return the block device of the ROMFS partition, or raise Stop."""
    try:
        import vfs

        device = vfs.rom_ioctl(2, 0)
    except (ImportError, AttributeError, OSError):
        device = None
    if not hasattr(device, "writeblocks"):
        raise Stop("this firmware has no ROMFS partition: flash the sparsetune firmware")
    return device


def rom_size(device):
    """Return the size of a block device in bytes."""
    return device.ioctl(4, 0) * device.ioctl(5, 0)


def rom_digest(size, device=None):
    """Return the SHA-256 of the first `size` bytes of the ROMFS partition, in hex."""
    device = device or rom_device()
    blocks = CHUNK // device.ioctl(5, 0)
    buf = bytearray(CHUNK)
    sha = hashlib.sha256()
    for i in range(size // CHUNK):
        device.readblocks(i * blocks, buf)
        sha.update(buf)
    return _hex(sha)


def file_digest(path):
    """Return the SHA-256 of a file in hex, or "" when there is no such file."""
    sha = hashlib.sha256()
    buf = bytearray(CHUNK)
    view = memoryview(buf)
    try:
        with open(path, "rb") as file:
            n = file.readinto(buf)
            while n:
                sha.update(view[:n])
                n = file.readinto(buf)
    except OSError:
        return ""
    return _hex(sha)


def _hex(sha):
    return binascii.hexlify(sha.digest()).decode()


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass


def _folder(path):
    return path[: path.rfind("/")] or "/"


def _make_folders(path):
    end = path.find("/", 1)
    while end > 0:
        try:
            os.mkdir(path[:end])
        except OSError:  # it is there; if not, opening the file says so
            pass
        end = path.find("/", end + 1)


def _make_room(path, size):
    """Raise Stop when `size` bytes do not fit; drop the old file where only that helps."""
    if _free_bytes(path) >= size:
        return
    old = 0
    try:
        old = os.stat(path)[6]
    except OSError:
        pass
    room = _free_bytes(path) + old
    if room < size:
        raise Stop(f"the file system has room for {room} bytes: remove files from it")
    os.remove(path)


def _free_bytes(path):
    info = os.statvfs(_folder(path))
    # A block or two go to metadata: a file system filled to the last block fails late.
    return info[0] * max(0, info[3] - 2)


def _unmount_rom():
    try:
        import vfs

        vfs.umount("/rom")
    except (ImportError, OSError):
        pass


def _mount_rom(device):
    try:
        import vfs
    except ImportError:
        return
    vfs.mount(vfs.VfsRom(device), "/rom")


# ------------------------------------------------------------------------------------
# The transfer


def _read_frame(line, view):
    """Read one frame into `view`. Returns (sequence, length), or None when damaged."""
    head = bytearray(10)
    head_view = memoryview(head)
    if not line.readinto(head_view[:2], IDLE_MS):
        raise Stop("the line went quiet")
    if head[0] == 13 and head[1] == 3:  # what a host sends to get the prompt back
        raise Stop("interrupted")
    if not line.readinto(head_view[2:], GAP_MS):
        return None
    sequence, length, crc = struct.unpack("<HHI", head_view[2:])
    if head[:2] != MAGIC or length > CHUNK or not line.readinto(view[:length], GAP_MS):
        return None
    if binascii.crc32(view[:length], binascii.crc32(head_view[2:6])) != crc:
        return None
    return sequence, length


def _receive_frames(line, target, size):
    """Store the frames of `size` bytes in order, asking again for damaged ones."""
    view = memoryview(bytearray(CHUNK))
    count = (size + CHUNK - 1) // CHUNK
    done = 0
    faults = 0
    while done < count:
        frame = _read_frame(line, view)
        if frame is not None and frame[0] < done:  # our answer was lost: answer again
            line.say(f"+{done}")
        elif frame is None or frame != (done, min(CHUNK, size - done * CHUNK)):
            faults += 1
            if faults > MAX_FAULTS:
                raise Stop("too many damaged frames: check the cable")
            line.drain(QUIET_MS)
            line.say(f"-{done}")
        else:
            target.write(done, view[: frame[1]])
            done += 1
            faults = 0
            line.say(f"+{done}")


def receive(line, make_target, size, digest):
    """Receive `size` bytes with the SHA-256 `digest` (hex) into make_target().

    Tells the host how it ended; closes `line` in every case.
    """
    target = None
    end = "!interrupted"
    try:
        target = make_target()
        line.say(f"=ready {CHUNK} {WINDOW}")
        _receive_frames(line, target, size)
        target.finish(size, digest)
        target = None
        end = "=done"
    except Stop as reason:
        end = f"!{reason}"
    except OSError as error:
        end = f"!file system error {error}"
    except KeyboardInterrupt:
        pass
    finally:
        try:
            if target is not None:
                target.abort()
        except OSError as error:
            end = f"!file system error {error}"
        finally:
            line.close()
    line.say(end)


def receive_file(path, size, digest):
    """Receive a file of `size` bytes (see receive)."""
    receive(open_line(), lambda: FileTarget(path, size), size, digest)


def receive_rom(size, digest):
    """Receive a ROMFS image of `size` bytes, a multiple of CHUNK (see receive)."""
    receive(open_line(), lambda: RomTarget(size), size, digest)
