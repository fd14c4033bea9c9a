// A chip that runs nothing by itself: whoever made it calls functions on its core.
import fs from 'node:fs';
import { Chip } from './chip.mjs';

export const fail = (message) => {
  throw new Error(message);
};

// bootrom: path of the image. more: other options of Chip. Flash is erased.
export function bareChip(bootrom, more = {}) {
  const words = new Uint32Array(4096);
  new Uint8Array(words.buffer).set(fs.readFileSync(bootrom));
  const flash = new Uint8Array(2 * 1024 * 1024).fill(0xff);
  const hooks = { flashChanged() {}, reset() {}, bootsel() {}, fault: fail };
  return { chip: new Chip({ flash, bootrom: words, hooks, ...more }), flash };
}
