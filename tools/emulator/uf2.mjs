// Reading firmware files: UF2 blocks for the RP2040, or a raw image for the start of flash.
const MAGIC_START = 0x0a324655;
const MAGIC_SECOND = 0x9e5d5157;
const MAGIC_END = 0x0ab16f30;
const RP2040_FAMILY = 0xe48bff56;
const NOT_MAIN_FLASH = 1;
const FLASH_START = 0x10000000;

/** The pieces {offset, bytes} of a UF2 file, or null where it is no complete UF2 for an RP2040. */
export function parseUf2(file) {
  const pieces = [];
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  let total = 0;
  for (let at = 0; at + 512 <= file.length; at += 512) {
    const word = (index) => view.getUint32(at + 4 * index, true);
    if (word(0) !== MAGIC_START || word(1) !== MAGIC_SECOND) return null;
    if (view.getUint32(at + 508, true) !== MAGIC_END) return null;
    if (word(2) & NOT_MAIN_FLASH || word(7) !== RP2040_FAMILY) continue;
    total = word(6);
    pieces.push({ offset: word(3) - FLASH_START, bytes: file.slice(at + 32, at + 32 + word(4)) });
  }
  return total > 0 && pieces.length === total ? pieces : null;
}

/** The pieces of a .uf2 or .bin file. Throws an Error with one line where it is neither. */
export function parseFirmware(file, name) {
  if (!name.toLowerCase().endsWith('.uf2')) return [{ offset: 0, bytes: file }];
  const pieces = parseUf2(file);
  if (!pieces) throw new Error(`${name} is not a complete UF2 file for the RP2040`);
  return pieces;
}
