// The flash image in a file, written through at every erase and program: it survives anything.
import fs from 'node:fs';

export const FLASH_SIZE = 2 * 1024 * 1024;

export class FlashFile {
  constructor(path) {
    this.data = new Uint8Array(FLASH_SIZE).fill(0xff);
    if (fs.existsSync(path)) this.data.set(fs.readFileSync(path).subarray(0, FLASH_SIZE));
    this.file = fs.openSync(path, fs.existsSync(path) ? 'r+' : 'w+');
    this.save(0, FLASH_SIZE);
  }

  save(offset, count) {
    fs.writeSync(this.file, this.data, offset, count, offset);
  }

  /** Writes pieces as the boot loader does: whole sectors are erased, the rest stays. */
  install(pieces) {
    const erased = new Set();
    for (const { offset, bytes } of pieces) {
      for (let at = offset - (offset % 4096); at < offset + bytes.length; at += 4096) {
        if (!erased.has(at)) this.data.fill(0xff, at, at + 4096);
        erased.add(at);
      }
      this.data.set(bytes, offset);
    }
    this.save(0, FLASH_SIZE);
  }
}
