// The core at speed: code that runs often is translated to JavaScript region by region (see
// translator.mjs), everything else is interpreted by rp2040js. Same results, same cycles.
import { ReferenceCore } from './reference_core.mjs';
import { translate } from './translator.mjs';

const NANOS_PER_CYCLE = 8;
const HOT = 24; // how often an address is arrived at before it is translated
const NEVER = 255; // in heat: do not translate
const MAX_TRANSLATIONS = 100; // of one address: beyond, data lies among its instructions
const ROM_BYTES = 0x4000, RAM_BYTES = 264 * 1024;
const FLASH = 0x10000000, RAM = 0x20000000;
const LINE = 64; // RAM is watched for writes to code in lines of this size
const NAMES = ['c', 'R', 'D', 'MW', 'MH', 'MSH', 'MB', 'MSB', 'FW', 'FH', 'FSH', 'FB', 'FSB'];

export class FastCore extends ReferenceCore {
  constructor(rp2040) {
    super(rp2040);
    // r0...r15, the flags as the translator keeps them, instructions of this burst
    const state = new Int32Array(21);
    state.set(this.registers);
    this.state = state;
    this.registers = new Uint32Array(state.buffer, 0, 16);
    this.N = this.Z = this.C = this.V = false;
    // What regions and their callbacks tell each other.
    this.extra = 0; // cycles of the last peripheral access beyond those of memory
    this.limit = 0;
    this.leave = false;
    this.burstStart = 0; // emulated time at the start of the burst
    this.burstCycles = this.burstInstructions = 0; // of the burst, up to the access to a peripheral
  }

  // The stock core's flags, backed by the state that regions use.
  get N() { return this.state[16] < 0; }
  set N(value) { if (this.state) this.state[16] = value ? -1 : 0; }
  get Z() { return this.state[17] === 0; }
  set Z(value) { if (this.state) this.state[17] = value ? 0 : 1; }
  get C() { return this.state[18] !== 0; }
  set C(value) { if (this.state) this.state[18] = value ? 1 : 0; }
  get V() { return this.state[19] < 0; }
  set V(value) { if (this.state) this.state[19] = value ? -1 : 0; }

  get done() {
    const { cycles, instructions } = super.done;
    return {
      cycles: cycles + this.burstCycles,
      instructions: instructions + this.burstInstructions,
    };
  }

  /** Called when the chip has its memories; nothing is translated before. */
  attachMemory(sram, flash) {
    this.flashBytes = flash.length;
    this.dirty = new Uint8Array(RAM_BYTES / LINE); // lines of RAM that hold translated code
    this.views = [sram, flash].map(viewsOf);
    this.slots = new Int32Array((ROM_BYTES + flash.length + RAM_BYTES) / 2); // 0: not translated
    this.heat = new Uint8Array(this.slots.length);
    this.translations = new Map(); // entry address -> how often it was translated
    this.functions = [null]; // per slot: the region's function, the number of the block, the region
    this.blocks = [0];
    this.owners = [null];
    this.regions = new Set();

    this.memory = {
      fetch: (address) => this.rp2040.readUint16(address),
      isCode: (address) => this.slotIndex(address) >= 0,
      constantAt: (address) => this.constantAt(address),
      flashBytes: flash.length,
    };
  }

  slotIndex(address) {
    const inFlash = address - FLASH, inRam = address - RAM;
    if (inFlash >= 0 && inFlash < this.flashBytes) return (ROM_BYTES + inFlash) >>> 1;
    if (inRam >= 0 && inRam < RAM_BYTES) return (ROM_BYTES + this.flashBytes + inRam) >>> 1;
    return address >= 0 && address < ROM_BYTES ? address >>> 1 : -1;
  }

  constantAt(address) {
    const inFlash = address >= FLASH && address < FLASH + this.flashBytes;
    return inFlash || address < ROM_BYTES ? this.rp2040.readUint32(address) | 0 : null;
  }

  /** Runs translated code from the current instruction for at most `cycles`; returns how many.
   * arrived: whether a jump led here; only such addresses are worth a translation of their own. */
  burst(cycles, arrived) {
    const { state, slots, functions, blocks } = this;
    this.burstStart = this.rp2040.clock.nanosCounter;
    this.limit = cycles;
    this.leave = false;
    state[20] = 0;
    let done = 0;
    for (;;) {
      const index = this.slotIndex(state[15]);
      if (index < 0) break;
      const slot = slots[index];
      if (slot === 0 && !((arrived || done > 0) && this.warm(index))) break;
      const before = done;
      done = functions[slots[index]](blocks[slots[index]], done, this.limit);
      if (this.leave || done === before) break;
    }
    this.cycles += done;
    this.instructions += state[20];
    return done;
  }

  /** Counts an arrival at an address; translates what is hot. Returns whether it is translated. */
  warm(index) {
    if (this.heat[index] === NEVER) return false;
    if (++this.heat[index] < HOT) return false;
    this.heat[index] = 0;
    return this.translateAt(this.state[15] & ~1, index);
  }

  translateAt(entry, index) {
    const count = (this.translations.get(entry) ?? 0) + 1;
    this.translations.set(entry, count);
    const region = count > MAX_TRANSLATIONS ? null : translate(entry, this.memory);
    if (!region) {
      this.heat[index] = NEVER;
      return false;
    }
    this.install(region);
    return true;
  }

  install(region) {
    const values = [this, this.state, this.dirty, ...this.views.flat()];
    region.run = new Function(...NAMES, region.source)(...values);
    region.source = null;
    region.low = Math.min(...region.touched);
    region.high = Math.max(...region.touched);
    this.regions.add(region);
    region.slots = region.leaders.map((leader, block) => this.addSlot(region, leader, block));
    for (const address of region.touched) {
      if (address >= RAM) this.dirty[Math.floor((address - RAM) / LINE)] = 1;
    }
  }

  /** Gives a block's address its slot; the first block of a region takes it from another one. */
  addSlot(region, leader, block) {
    const index = this.slotIndex(leader);
    if (this.slots[index] !== 0) return index;
    this.slots[index] = this.functions.length;
    this.functions.push(region.run);
    this.blocks.push(block);
    this.owners.push(region);
    return index;
  }

  // --- callbacks of regions ---

  ioRead(address, bytes, cycles) {
    const { rp2040 } = this;
    const where = address >>> 0;
    this.beginIo(cycles);
    let value;
    if (bytes === 4) value = rp2040.readUint32(where) | 0;
    else value = bytes === 2 ? rp2040.readUint16(where) : rp2040.readUint8(where);
    this.endIo(where, false);
    return value;
  }

  ioWrite(address, value, bytes, cycles, instructions) {
    const { rp2040 } = this;
    const where = address >>> 0;
    this.beginIo(cycles);
    this.burstCycles = cycles;
    this.burstInstructions = instructions;
    if (bytes === 4) rp2040.writeUint32(where, value >>> 0);
    else if (bytes === 2) rp2040.writeUint16(where, value >>> 0);
    else rp2040.writeUint8(where, value >>> 0);
    this.burstCycles = this.burstInstructions = 0;
    this.endIo(where, true);
  }

  /** Peripherals see the time at which the instruction starts, as with the interpreter. */
  beginIo(cycles) {
    this.rp2040.clock.nanosCounter = this.burstStart + cycles * NANOS_PER_CYCLE;
  }

  endIo(address, write) {
    const { clock } = this.rp2040;
    this.extra = this.cyclesIO(address, write) - 1;
    if (clock.nextAlarm) {
      const alarm = Math.ceil((clock.nextAlarm.nanos - this.burstStart) / NANOS_PER_CYCLE);
      if (alarm < this.limit) this.limit = alarm;
    }
    this.leave = this.interruptsUpdated || this.waiting || this.rp2040.stopRequested;
    clock.nanosCounter = this.burstStart;
  }

  /** A store has hit a line of RAM that translated code was read from. */
  codeWritten(address, bytes = 4) {
    const lineOf = (where) => Math.floor((where - RAM) / LINE);
    const first = lineOf(address), last = lineOf(address + bytes - 1);
    this.forget(RAM + first * LINE, RAM + (last + 1) * LINE);
    this.dirty.fill(0, first, last + 1);
    this.leave = true;
  }

  /** Drops all regions that read code or constants from these addresses. */
  forget(start, end) {
    for (const region of this.regions) {
      if (region.low >= end || region.high < start) continue;
      if (region.touched.some((address) => address >= start && address < end)) this.drop(region);
    }
  }

  drop(region) {
    this.regions.delete(region);
    for (const index of region.slots) {
      const slot = this.slots[index];
      if (this.owners[slot] !== region) continue;
      this.slots[index] = 0;
      this.functions[slot] = this.owners[slot] = null;
    }
  }
}

function viewsOf(bytes) {
  const { buffer, byteOffset, length } = bytes;
  return [
    new Int32Array(buffer, byteOffset, length / 4),
    new Uint16Array(buffer, byteOffset, length / 2),
    new Int16Array(buffer, byteOffset, length / 2),
    bytes,
    new Int8Array(buffer, byteOffset, length),
  ];
}

