// An RP2040 with our boot ROM, a flash chip that can be erased and programmed, and a reset that
// keeps what a real reset keeps: flash, SRAM and the watchdog's scratch registers.
import { RP2040 } from 'rp2040js';
import { FastCore } from './fast_core.mjs';
import { MarkPort } from './mark_port.mjs';
import { SecondCore } from './second_core.mjs';

const ROM_END = 0x4000;
const SECTOR = 4096;
const RAM = 0x20000000;
const XIP_START = 0x10000000;
const XIP_END = 0x14000000;

const NANOS_PER_CYCLE = 8; // 125 MHz

// Typical times of the Pico's flash chip (W25Q16JV data sheet). They are counted, not waited for.
const BLOCK = 65536;
const SECTOR_ERASE_NANOS = 45e6;
const BLOCK_ERASE_NANOS = 150e6;
const PAGE = 256;
const PAGE_PROGRAM_NANOS = 0.4e6;

const TURN = 200; // cycles that one core runs before the other one, where both do

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

export class Chip extends RP2040 {
  /** @param {{flash: Uint8Array, bootrom: Uint32Array, hooks: object, previous?: Chip}} parts
   * hooks: flashChanged(offset, count), reset(), bootsel(), fault(message). cores: 1 or 2. */
  constructor({ flash, bootrom, hooks, previous, Core = FastCore, cores = 1 }) {
    super();
    this.logger = quiet;
    this.hooks = hooks;
    this.stopRequested = false; // set by hooks: leave run() after this instruction
    this.flashNanos = 0; // what erasing and programming would have taken
    this.useFlash(flash);
    this.bootrom.set(bootrom);
    this.core = new Core(this);
    this.core.reset();
    this.core.attachMemory?.(this.sram, flash);
    this.marks = new MarkPort(this);
    this.peripherals[MarkPort.BASE] = this.marks;
    this.second = new SecondCore(this, cores === 2);
    this.onBreak = (code) => this.trap(code);
    this.watchdog.onWatchdogTrigger = () => hooks.reset();
    if (previous) this.inherit(previous);
  }

  /** Whether nothing goes on until something wakes the first core. */
  get isAsleep() {
    return this.core.waiting && !this.second.isBusy;
  }

  /** Executes about this many cycles; returns early when the cores sleep or must stop. */
  run(cycles) {
    if (!this.second.isBusy) return this.runFirst(cycles);
    const { clock } = this;
    const end = clock.nanosCounter + cycles * NANOS_PER_CYCLE;
    while (clock.nanosCounter < end && this.second.isBusy && !this.stopRequested) {
      const begin = clock.nanosCounter;
      if (this.core.waiting) clock.tick(TURN * NANOS_PER_CYCLE);
      else this.runFirst(TURN);
      this.second.run((clock.nanosCounter - begin) / NANOS_PER_CYCLE);
    }
  }

  /** The first core alone, until the second one starts. */
  runFirst(cycles) {
    const { core, clock, second } = this;
    const wasBusy = second.isBusy;
    const end = clock.nanosCounter + cycles * NANOS_PER_CYCLE;
    let arrived = true;
    const goesOn = () => !core.waiting && !this.stopRequested && second.isBusy === wasBusy;
    while (clock.nanosCounter < end && goesOn()) {
      if (core.burst && !core.interruptsUpdated) {
        const done = core.burst(this.cyclesUntil(end), arrived);
        if (done) clock.tick(done * NANOS_PER_CYCLE);
        if (!goesOn()) return;
      }
      const { PC } = core;
      clock.tick(core.executeInstruction() * NANOS_PER_CYCLE);
      arrived = core.PC - PC !== 2 && core.PC - PC !== 4;
    }
  }

  /** Cycles until this time or until the next alarm, at the instruction that reaches it. */
  cyclesUntil(end) {
    const { nextAlarm, nanosCounter } = this.clock;
    const until = nextAlarm ? Math.min(end, nextAlarm.nanos) : end;
    return Math.ceil((until - nanosCounter) / NANOS_PER_CYCLE);
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

  readUint32(address) {
    this.mustAlign(address, 4);
    return super.readUint32(address);
  }

  readUint16(address) {
    this.mustAlign(address, 2);
    return super.readUint16(address);
  }

  /** A Cortex-M0+ has no loads and stores across words; rp2040js gives their values. */
  mustAlign(address, bytes) {
    if (address & (bytes - 1)) {
      const [at, pc] = [address, this.core.PC].map((a) => (a >>> 0).toString(16));
      this.hooks.fault(`${bytes} bytes at ${at}, which is not aligned (near ${pc})`);
    }
  }

  /** Stores to the XIP window do not reach a real flash chip either. */
  writeUint32(address, value) {
    this.mustAlign(address, 4);
    const unsigned = address >>> 0;
    if (unsigned >= XIP_START && unsigned < XIP_END) return;
    super.writeUint32(address, value);
    this.watchCode(unsigned);
  }

  writeUint16(address, value) {
    this.mustAlign(address, 2);
    super.writeUint16(address, value);
    this.watchCode(address >>> 0);
  }

  writeUint8(address, value) {
    super.writeUint8(address, value);
    this.watchCode(address >>> 0);
  }

  /** Stores that did not come from translated code may still change translated code. */
  watchCode(address) {
    if (this.core.dirty?.[(address - RAM) >>> 6]) this.core.codeWritten(address);
  }

  /** BKPT n: a boot ROM function that the emulator performs, or a stop of the firmware itself. */
  trap(code) {
    const { core, hooks } = this;
    const [r0, r1, r2] = core.registers;
    if (core.PC >= ROM_END) return hooks.fault(`BKPT ${code} at 0x${(core.PC - 2).toString(16)}`);
    if ((code === 1 || code === 2) && this.second.runsFromFlash) {
      return hooks.fault('flash was to be written while the second core runs from it');
    }
    if (code === 1) return this.eraseFlash(r0, r1);
    if (code === 2) return this.programFlash(r0, r1, r2);
    if (code === 3) return hooks.bootsel();
    return hooks.fault('the firmware faulted before it had set its vector table');
  }

  eraseFlash(offset, count) {
    const end = Math.min(offset + count, this.flash.length);
    this.flash.fill(0xff, offset - (offset % SECTOR), end);
    this.flashNanos += eraseNanos(offset, end);
    this.flashWritten(offset, end - offset);
  }

  /** Programming only clears bits, as in a NOR flash. */
  programFlash(offset, source, count) {
    const end = Math.min(offset + count, this.flash.length);
    for (let i = offset; i < end; i++) this.flash[i] &= this.readUint8(source + i - offset);
    this.flashNanos += Math.ceil((end - offset) / PAGE) * PAGE_PROGRAM_NANOS;
    this.flashWritten(offset, end - offset);
  }

  flashWritten(offset, count) {
    this.core.forget?.(XIP_START + offset, XIP_START + offset + count);
    this.hooks.flashChanged(offset, count);
  }
}

/** As the boot ROM erases: whole blocks where they fit, else sectors. */
function eraseNanos(offset, end) {
  let nanos = 0;
  for (let at = offset; at < end; ) {
    const isBlock = at % BLOCK === 0 && end - at >= BLOCK;
    nanos += isBlock ? BLOCK_ERASE_NANOS : SECTOR_ERASE_NANOS;
    at += isBlock ? BLOCK : SECTOR;
  }
  return nanos;
}
