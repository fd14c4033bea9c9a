// A port at 0xe0000000 that notes what was done so far whenever a program writes to it; where
// larger Cortex-Ms have their trace port, and a real RP2040 has nothing. Benches alone write to it:
// on the board `machine.mem32[0xe0000000] = tag`, and here nobody reads a clock.
import { BasePeripheral } from './node_modules/rp2040js/dist/esm/peripherals/peripheral.js';

export class MarkPort extends BasePeripheral {
  static BASE = 0xe0000; // as rp2040js numbers its peripherals

  constructor(chip) {
    super(chip, 'MARKS');
    this.list = [];
  }

  writeUint32(offset, tag) {
    this.list.push({ tag: tag >>> 0, ...this.rp2040.core.done });
  }

  /** [{tag, cycles, instructions}], of the chip since its last reset; forgotten by this call. */
  take() {
    return this.list.splice(0);
  }
}
