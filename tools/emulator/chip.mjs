// An RP2040 with our boot ROM, a flash chip that can be erased and programmed, and a reset that
// keeps what a real reset keeps: flash, SRAM and the watchdog's scratch registers.
import { RP2040 } from 'rp2040js';

const ROM_END = 0x4000;
const SECTOR = 4096;
const XIP_START = 0x10000000;
const XIP_END = 0x14000000;

const NANOS_PER_CYCLE = 8; // 125 MHz

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

export class Chip extends RP2040 {
  /** @param {{flash: Uint8Array, bootrom: Uint32Array, hooks: object, previous?: Chip}} parts
   * hooks: flashChanged(offset, count), reset(), bootsel(), fault(message). */
  constructor({ flash, bootrom, hooks, previous }) {
    super();
    this.logger = quiet;
    this.hooks = hooks;
    this.stopRequested = false; // set by hooks: leave run() after this instruction
    this.useFlash(flash);
    this.bootrom.set(bootrom);
    this.core.reset();
    this.onBreak = (code) => this.trap(code);
    this.watchdog.onWatchdogTrigger = () => hooks.reset();
    if (previous) this.inherit(previous);
  }

  /** Executes about this many cycles; returns early when the core sleeps or must stop. */
  run(cycles) {
    const { core, clock } = this;
    const end = clock.nanos + cycles * NANOS_PER_CYCLE;
    while (clock.nanos < end && !core.waiting && !this.stopRequested) {
      clock.tick(core.executeInstruction() * NANOS_PER_CYCLE);
    }
  }

  get watchdog() {
    return this.peripherals[0x40058];
  }

  /** Replaces the stock 16 MB of flash, which every stock reset would erase. */
  useFlash(flash) {
    this.flash = flash;
    this.flash16 = new Uint16Array(flash.buffer, flash.byteOffset, flash.length / 2);
    this.flashView = new DataView(flash.buffer, flash.byteOffset, flash.length);
  }

  inherit(previous) {
    this.sram.set(previous.sram);
    this.watchdog.scratchData.set(previous.watchdog.scratchData);
    this.watchdog.reason = previous.watchdog.reason;
  }

  /** Stores to the XIP window do not reach a real flash chip either. */
  writeUint32(address, value) {
    const unsigned = address >>> 0;
    if (unsigned >= XIP_START && unsigned < XIP_END) return;
    super.writeUint32(address, value);
  }

  /** BKPT n: a boot ROM function that the emulator performs, or a stop of the firmware itself. */
  trap(code) {
    const { core, hooks } = this;
    const [r0, r1, r2] = core.registers;
    if (core.PC >= ROM_END) return hooks.fault(`BKPT ${code} at 0x${(core.PC - 2).toString(16)}`);
    if (code === 1) return this.eraseFlash(r0, r1);
    if (code === 2) return this.programFlash(r0, r1, r2);
    if (code === 3) return hooks.bootsel();
    return hooks.fault('the firmware faulted before it had set its vector table');
  }

  eraseFlash(offset, count) {
    const end = Math.min(offset + count, this.flash.length);
    this.flash.fill(0xff, offset - (offset % SECTOR), end);
    this.flashWritten(offset, end - offset);
  }

  /** Programming only clears bits, as in a NOR flash. */
  programFlash(offset, source, count) {
    const end = Math.min(offset + count, this.flash.length);
    for (let i = offset; i < end; i++) this.flash[i] &= this.readUint8(source + i - offset);
    this.flashWritten(offset, end - offset);
  }

  flashWritten(offset, count) {
    this.hooks.flashChanged(offset, count);
  }
}
