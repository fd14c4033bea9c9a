// The RP2040's second core: the boot ROM that waits for it behind the mailbox, and, if it is there,
// the core itself, which then runs beside the first one. Without it words are taken and never
// answered, but for that of a reset.
import { RPSIO } from './node_modules/rp2040js/dist/esm/sio.js';
import { RPPPB } from './node_modules/rp2040js/dist/esm/peripherals/ppb.js';

const [CPUID, STATUS, WRITE, READ] = [0x00, 0x50, 0x54, 0x58];
const VALID = 1, READY = 2; // bits of STATUS; there is always room
const OWN = (at) => at >= 0x60 && at < 0x100; // of each core: divider, interpolators
const PSM = 0x40010;
const [FLASH, FLASH_END] = [0x10000000, 0x20000000];
const FORCED_OFF = 1 << 16; // PSM: the second core
const STACKS = 0x20040000; // the small banks, of both cores' stacks; MicroPython's heap lies below
const MAILBOX_IRQ = [15, 16];
const COMMANDS = [0, 0, 1]; // then vector table, stack, entry: any words

const STATE_AFTER_RESET = {
  ...{ waiting: false, eventRegistered: false, interruptsUpdated: false, PM: false, IPSR: 0 },
  ...{ pendingInterrupts: 0, enabledInterrupts: 0, currentMode: 0 },
};

export class SecondCore {
  constructor(chip, isThere) {
    this.chip = chip;
    this.isThere = isThere;
    this.cpu = null; // what the second core is of, while it runs
    this.owed = 0; // cycles that it has run too far
    this.boxes = [[], []]; // words for the first core, for the second
    this.commands = 0; // that the boot ROM has taken
    this.words = [];
    chip.sio = this.mailboxOf(chip.sio, 0);
    this.watchReset(chip.peripherals[PSM]);
  }

  get isBusy() {
    return this.cpu !== null && !this.cpu.core.waiting;
  }

  /** Which nobody may do who writes to flash meanwhile. */
  get runsFromFlash() {
    const pc = this.cpu?.core.PC >>> 0;
    return this.isBusy && pc >= FLASH && pc < FLASH_END;
  }

  /** The single-cycle IO block as one core sees it. */
  mailboxOf(sio, number) {
    const view = Object.create(sio);
    view.readUint32 = (at) => {
      if (at === CPUID) return number;
      if (at === STATUS) return READY | (this.boxes[number].length ? VALID : 0);
      return at === READ ? this.take(number) : sio.readUint32(at);
    };
    view.writeUint32 = (at, value) => {
      if (at === WRITE) this.send(1 - number, value);
      else if (at !== STATUS) sio.writeUint32(at, value);
    };
    return view;
  }

  take(number) {
    const word = this.boxes[number].shift() ?? 0;
    this.tell(number);
    return word;
  }

  send(number, word) {
    if (number === 1 && !this.cpu) return this.boot(word);
    this.boxes[number].push(word);
    this.tell(number);
  }

  /** A core's interrupt is on while there are words for it. */
  tell(number) {
    const core = number ? this.cpu?.core : this.chip.core;
    core?.setInterrupt(MAILBOX_IRQ[number], this.boxes[number].length > 0);
  }

  watchReset(psm) {
    const write = psm.writeUint32.bind(psm);
    psm.writeUint32 = (offset, value) => {
      const wasOff = psm.frceOff & FORCED_OFF;
      write(offset, value);
      const isOff = psm.frceOff & FORCED_OFF;
      this.isOff = isOff;
      if (isOff) this.switchOff();
      else if (wasOff) this.send(0, 0);
    };
  }

  switchOff() {
    this.cpu = null;
    this.commands = 0;
    this.words = [];
    this.boxes[1] = [];
  }

  /** What the boot ROM does with a word: an echo, and the program when all have come. */
  boot(word) {
    if (!this.isThere || this.isOff) return;
    const at = this.commands;
    const fits = at >= COMMANDS.length || word === COMMANDS[at];
    this.commands = fits ? at + 1 : 0;
    if (fits && at >= COMMANDS.length) this.words.push(word);
    this.send(0, word);
    if (this.words.length === 3) this.start(...this.words);
  }

  start(vectors, stack, entry) {
    this.kept ??= this.makeCpu(); // with what it has translated
    Object.assign(this.kept.core, STATE_AFTER_RESET);
    Object.assign(this.kept.core, { VTOR: vectors, SP: stack, PC: entry & ~1 });
    this.cpu = this.kept;
  }

  makeCpu() {
    const { chip } = this;
    const cpu = Object.create(chip); // the same memories, peripherals and clock
    const own = new RPSIO(cpu);
    const shared = this.mailboxOf(chip.sio, 1);
    cpu.core = new chip.core.constructor(cpu);
    cpu.ppb = new RPPPB(cpu, 'PPB');
    cpu.sio = {
      readUint32: (at) => (OWN(at) ? own : shared).readUint32(at),
      writeUint32: (at, value) => (OWN(at) ? own : shared).writeUint32(at, value),
    };
    cpu.core.attachMemory?.(chip.sram, chip.flash);
    return cpu;
  }

  /** For about so many cycles, at the time that the first core has come to. */
  run(cycles) {
    let left = cycles - this.owed;
    while (left > 0 && this.isBusy) {
      const { core } = this.cpu;
      const done = core.burst && !core.interruptsUpdated ? core.burst(left, true) : 0;
      left -= done || core.executeInstruction();
      if (core.SP >>> 0 < STACKS) this.overruns(core.SP >>> 0);
    }
    this.owed = this.isBusy ? -left : 0;
  }

  /** Nothing stops it on the chip. */
  overruns(at) {
    this.chip.hooks.fault(`the second core's stack has come to 0x${at.toString(16)}`);
    this.switchOff();
  }

  /** SEV: an event for both cores. */
  sendEvent() {
    if (!this.cpu) return;
    for (const core of [this.chip.core, this.cpu.core]) {
      if (core.waiting) core.waiting = false;
      else core.eventRegistered = true;
    }
  }
}
