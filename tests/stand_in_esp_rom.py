"""A stand-in for the boot loader in the ROM of an Espressif chip, on a PTY.

It speaks the serial protocol that esptool documents ("Serial Protocol"): SLIP frames, commands
with a status, first as the ROM, then, once the stub flasher was sent, as that. Behind it is a
bytearray for the flash. What it proves about a real chip is that esptool, as we call it, does all
that it has to do; lines, resets and flash times of a real chip it has not.

    python stand_in_esp_rom.py --chip-id 9 [--flash FILE] [--log FILE]
        [--silent | --bad-flash | --locked | --leaves COMMAND [--after SECONDS]]

It prints the name of its port. --flash: what flash holds, written after the commands that begin and
end a change. --log: the names of all commands, a line each.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from own_port import own_port

FLASH_BYTES = 8 * 1024 * 1024
FLASH_ID = 0x1740EF  # Winbond, 8 MB
SECTOR = 4096

ESC, END = 0xDB, 0xC0
OK, FAILED, INVALID = b"\x00\x00", b"\x01\x07", b"\x01\x05"

# Registers of the SPI controller, by their end: esptool asks the flash for its size through them.
SPI_CMD = {9: 0x60002000, 5: 0x60002000}
SPI_W0 = 0x58


def frames(master: int) -> Iterator[bytes]:
    """The SLIP frames that arrive."""
    frame, escaped, inside = bytearray(), False, False
    while True:
        for byte in os.read(master, 4096):
            if byte == END:
                if inside and frame:
                    yield bytes(frame)
                frame.clear()
                inside = True
            elif escaped:
                frame.append({0xDC: END, 0xDD: ESC}[byte])
                escaped = False
            elif byte == ESC:
                escaped = True
            else:
                frame.append(byte)


def slip(data: bytes) -> bytes:
    return b"\xc0" + data.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class Rom:
    """The chip: its commands, and the state that they change."""

    def __init__(self, options: argparse.Namespace, master: int) -> None:
        self.options = options
        self.master = master
        self.flash = bytearray(b"\x5a" * FLASH_BYTES)
        self.registers: dict[int, int] = {}
        self.is_stub = False
        self.at = 0
        self.inflate = zlib.decompressobj()

    # The wire -----------------------------------------------------------------------

    def serve(self) -> None:
        for frame in frames(self.master):
            if self.options.silent:
                continue
            direction, command, size, check = struct.unpack_from("<BBHI", frame)
            data = frame[8:]
            if direction != 0 or len(data) != size:
                continue
            self.obey(command, data, check)

    def obey(self, command: int, data: bytes, check: int) -> None:
        name = COMMANDS.get(command, hex(command))
        if self.options.log:
            with open(self.options.log, "a") as log:
                log.write(name + "\n")
        if name == self.options.leaves:
            time.sleep(self.options.after)
            sys.exit()
        method = getattr(self, name, None)
        if method is None or (name in STUB_ONLY and not self.is_stub):
            self.answer(command, INVALID)
            return
        if name in ("mem_data", "flash_data", "flash_defl_data") and check != checksum(data[16:]):
            self.answer(command, FAILED)
            return
        result = method(data)
        value, payload = result if isinstance(result, tuple) else (0, result or b"")
        self.answer(command, payload + OK, value)
        if name == "sync":
            for _ in range(7):
                self.answer(command, OK, value)
        if name == "mem_end" and struct.unpack("<I", data[4:8])[0]:
            self.is_stub = True
            os.write(self.master, slip(b"OHAI"))
        if self.options.flash and name in WRITES:
            Path(self.options.flash).write_bytes(self.flash)

    def answer(self, command: int, payload: bytes, value: int = 0) -> None:
        if not self.is_stub:
            payload += bytes(2)  # the ROM's status is two bytes longer
        head = struct.pack("<BBHI", 1, command, len(payload), value)
        os.write(self.master, slip(head + payload))

    # Commands; each returns its payload, or (value, payload) ---------------------------

    def sync(self, data: bytes) -> tuple[int, bytes]:
        return (0 if self.is_stub else 0x20120707), b""

    def get_security_info(self, data: bytes) -> bytes:
        flags = 4 if self.options.locked else 0
        return struct.pack("<I8BII", flags, *bytes(8), self.options.chip_id, 0)

    def read_reg(self, data: bytes) -> tuple[int, bytes]:
        (address,) = struct.unpack("<I", data)
        command = SPI_CMD.get(self.options.chip_id, 0)
        if address == command:
            return 0, b""  # it is done
        if address == command + SPI_W0:
            return FLASH_ID, b""
        return self.registers.get(address, 0), b""

    def write_reg(self, data: bytes) -> None:
        address, value = struct.unpack_from("<II", data)
        self.registers[address] = value

    def mem_begin(self, data: bytes) -> None:
        pass

    def mem_data(self, data: bytes) -> None:
        pass

    def mem_end(self, data: bytes) -> None:
        pass

    def spi_attach(self, data: bytes) -> None:
        pass

    def spi_set_params(self, data: bytes) -> None:
        pass

    def change_baudrate(self, data: bytes) -> None:
        pass

    def erase_flash(self, data: bytes) -> None:
        self.flash[:] = b"\xff" * FLASH_BYTES

    def flash_begin(self, data: bytes) -> None:
        size, _, _, self.at = struct.unpack_from("<4I", data)
        self._erase(size)

    def flash_defl_begin(self, data: bytes) -> None:
        self.flash_begin(data)
        self.inflate = zlib.decompressobj()

    def _erase(self, size: int) -> None:
        first, last = self.at // SECTOR * SECTOR, -(-(self.at + size) // SECTOR) * SECTOR
        self.flash[first:last] = b"\xff" * (last - first)

    def flash_data(self, data: bytes) -> None:
        self._program(data[16:])

    def flash_defl_data(self, data: bytes) -> None:
        self._program(self.inflate.decompress(data[16:]))

    def _program(self, data: bytes) -> None:
        """As NOR flash does: bits only fall."""
        old = self.flash[self.at : self.at + len(data)]
        new = bytes(a & b for a, b in zip(old, data, strict=True))
        if self.options.bad_flash:
            new = bytes([new[0] & 0x7F, *new[1:]])
        self.flash[self.at : self.at + len(data)] = new
        self.at += len(data)

    def flash_end(self, data: bytes) -> None:
        pass

    def flash_defl_end(self, data: bytes) -> None:
        pass

    def spi_flash_md5(self, data: bytes) -> bytes:
        at, size = struct.unpack_from("<II", data)
        digest = hashlib.md5(self.flash[at : at + size])
        return digest.digest() if self.is_stub else digest.hexdigest().encode()


COMMANDS = {
    0x02: "flash_begin",
    0x03: "flash_data",
    0x04: "flash_end",
    0x05: "mem_begin",
    0x06: "mem_end",
    0x07: "mem_data",
    0x08: "sync",
    0x09: "write_reg",
    0x0A: "read_reg",
    0x0B: "spi_set_params",
    0x0D: "spi_attach",
    0x0F: "change_baudrate",
    0x10: "flash_defl_begin",
    0x11: "flash_defl_data",
    0x12: "flash_defl_end",
    0x13: "spi_flash_md5",
    0x14: "get_security_info",
    0xD0: "erase_flash",
}
STUB_ONLY = {"erase_flash"}
WRITES = {"erase_flash", "flash_begin", "flash_end", "flash_defl_begin", "flash_defl_end"}


def checksum(data: bytes) -> int:
    value = 0xEF
    for byte in data:
        value ^= byte
    return value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chip-id", type=int, default=9)
    parser.add_argument("--flash")
    parser.add_argument("--log")
    parser.add_argument("--silent", action="store_true", help="no answer: not in its boot loader")
    parser.add_argument("--leaves", help="the port goes when this command comes")
    parser.add_argument("--after", type=float, default=0, help="s, until it is gone")
    parser.add_argument("--bad-flash", action="store_true", help="a bit of each block is lost")
    parser.add_argument("--locked", action="store_true", help="secure download mode")
    options = parser.parse_args()
    with own_port() as (master, path):
        print(path, flush=True)
        Rom(options, master).serve()


if __name__ == "__main__":
    main()
