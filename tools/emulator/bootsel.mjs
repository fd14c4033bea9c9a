// The BOOTSEL drive as a plain folder: it exists while the board waits for a UF2 file.
import fs from 'node:fs';
import path from 'node:path';
import { parseUf2 } from './uf2.mjs';

const POLL_MS = 100;
const INFO = 'UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: RPI-RP2\n';

export class BootselFolder {
  /** onFlash(pieces) is called once a complete UF2 file lies in the folder. */
  constructor(folder, onFlash) {
    this.folder = folder;
    this.onFlash = onFlash;
    this.timer = null;
    this.lastSeen = null;
  }

  show() {
    fs.mkdirSync(this.folder, { recursive: true });
    fs.writeFileSync(path.join(this.folder, 'INFO_UF2.TXT'), INFO);
    this.timer = setInterval(() => this.poll(), POLL_MS);
  }

  hide() {
    clearInterval(this.timer);
    this.lastSeen = null;
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  /** Acts on a file one poll after it was complete: the copying program may still set its times. */
  poll() {
    const found = this.completeFile();
    if (found && found.name === this.lastSeen) return this.onFlash(found.pieces);
    this.lastSeen = found?.name ?? null;
  }

  completeFile() {
    const names = fs.existsSync(this.folder) ? fs.readdirSync(this.folder) : [];
    for (const name of names.filter((each) => each.toLowerCase().endsWith('.uf2'))) {
      const pieces = parseUf2(fs.readFileSync(path.join(this.folder, name)));
      if (pieces) return { name, pieces };
    }
    return null;
  }
}
