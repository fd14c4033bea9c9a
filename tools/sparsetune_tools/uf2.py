"""UF2 for the RP2040's boot loader: 512-byte blocks, each with 256 bytes of flash."""

from __future__ import annotations

import struct

FLASH_BASE = 0x10000000
PAYLOAD = 256
RP2040_FAMILY = 0xE48BFF56
FAMILY_ID_PRESENT = 0x2000
MAGIC_START = (0x0A324655, 0x9E5D5157)
MAGIC_END = 0x0AB16F30


def to_uf2(image: bytes, base: int = FLASH_BASE) -> bytes:
    """The UF2 file that writes `image` to flash from address `base` on."""
    image += bytes(-len(image) % PAYLOAD)
    count = len(image) // PAYLOAD
    blocks = []
    for number in range(count):
        at = number * PAYLOAD
        head = struct.pack("<8I", *MAGIC_START, FAMILY_ID_PRESENT, base + at, PAYLOAD,
                           number, count, RP2040_FAMILY)
        payload = image[at:at + PAYLOAD].ljust(476, b"\0")
        blocks.append(head + payload + struct.pack("<I", MAGIC_END))
    return b"".join(blocks)
