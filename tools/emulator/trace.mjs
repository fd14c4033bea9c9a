// node trace.mjs --bootrom FILE --firmware FILE [--script FILE] [--cycles N]
//   [--core reference|stock] [--time]
// Runs the fast core beside the interpreter in emulated time, with the same serial input for both,
// and compares registers, cycles and time at random moments and all of RAM now and then.
// With --time: runs one core alone and prints how fast it is.
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import { CortexM0Core } from './node_modules/rp2040js/dist/esm/cortex-m0-core.js';
import { Chip } from './chip.mjs';
import { FastCore } from './fast_core.mjs';
import { ReferenceCore } from './reference_core.mjs';
import { parseFirmware } from './uf2.mjs';
import { UsbSerial } from './usb_serial.mjs';

const { values: options } = parseArgs({
  options: {
    bootrom: { type: 'string' },
    firmware: { type: 'string' },
    cycles: { type: 'string', default: '100000000' },
    core: { type: 'string', default: 'reference' },
    script: { type: 'string' },
    time: { type: 'boolean', default: false },
  },
});

class CountingStockCore extends CortexM0Core {
  instructions = 0;
  executeInstruction() {
    this.instructions++;
    return super.executeInstruction();
  }
}
const CORES = { reference: ReferenceCore, stock: CountingStockCore, fast: FastCore };

/** A host that types a script as soon as the board is connected. */
class ScriptedHost {
  constructor(script) {
    this.script = Buffer.from(script);
    this.heard = '';
    this.connected = false;
    this.writableNeedDrain = false;
  }

  read() {
    if (!this.connected) return null;
    const rest = this.script;
    this.script = Buffer.alloc(0);
    return rest.length ? rest : null;
  }

  write(bytes) {
    this.heard += Buffer.from(bytes).toString('latin1');
  }

  connect() {
    this.connected = true;
    this.serial.feed();
  }
}

function makeChip(Core, script) {
  const flash = new Uint8Array(2 * 1024 * 1024).fill(0xff);
  const file = new Uint8Array(fs.readFileSync(options.firmware));
  for (const { offset, bytes } of parseFirmware(file, options.firmware)) flash.set(bytes, offset);
  const bootrom = new Uint32Array(4096);
  new Uint8Array(bootrom.buffer).set(fs.readFileSync(options.bootrom));
  const hooks = { flashChanged() {}, reset() {}, bootsel() {}, fault: console.error };
  const chip = new Chip({ flash, bootrom, hooks, Core });
  const host = new ScriptedHost(script);
  host.serial = new UsbSerial(chip.usbCtrl, host, () => host.connect());
  chip.host = host;
  return chip;
}

function advance(chip, nanos) {
  while (chip.clock.nanos < nanos) {
    if (!chip.core.waiting) chip.run(Math.max(1, (nanos - chip.clock.nanos) / 8));
    else if (!chip.clock.nextAlarm) return false;
    else chip.clock.tick(Math.ceil(chip.clock.nanosToNextAlarm / 8) * 8);
  }
  return true;
}

function describe(chip) {
  const { core, clock } = chip;
  const registers = [...core.registers].map((value) => value.toString(16));
  registers[15] = (core.PC & ~1).toString(16); // the stock core leaves bit 0 set in handlers
  const counted = `${core.cycles} cycles, ${core.instructions} instructions`;
  return `${clock.nanos} ns, ${counted}, ${registers.join(' ')}`;
}

function sameRam(a, b) {
  return Buffer.compare(a.sram, b.sram) === 0 && Buffer.compare(a.flash, b.flash) === 0;
}

function differ(fast, slow, checks) {
  if (describe(fast) !== describe(slow)) return true;
  return checks % 5000 === 0 && !sameRam(fast, slow);
}

function compare(script) {
  const fast = makeChip(FastCore, script);
  const slow = makeChip(CORES[options.core], script);
  let seed = 1, checks = 0, awake = true;
  while (awake && fast.core.cycles < Number(options.cycles)) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const step = 1 + ((seed >>> 8) % (checks++ % 2 ? 3000 : 60));
    awake = advance(fast, fast.clock.nanos + 8 * step);
    advance(slow, fast.clock.nanos);
    if (!differ(fast, slow, checks)) continue;
    console.log(`difference at comparison ${checks}:\n${describe(fast)}\n${describe(slow)}`);
    return 1;
  }
  const same = sameRam(fast, slow) && fast.host.heard === slow.host.heard;
  const verdict = same ? 'identical' : 'RAM differs';
  console.log(`${verdict}: ${fast.core.cycles} cycles, ${checks} checks`);
  console.log(`the board said ${JSON.stringify(fast.host.heard.slice(-300))}`);
  return same ? 0 : 1;
}

function time(script) {
  const chip = makeChip(CORES[options.core], script);
  const start = process.cpuUsage().user;
  while (chip.core.cycles < Number(options.cycles) && advance(chip, chip.clock.nanos + 1e6));
  const seconds = (process.cpuUsage().user - start) / 1e6;
  const speed = chip.core.cycles / seconds / 1e6;
  console.log(`${options.core}: ${speed.toFixed(0)} million emulated cycles a CPU second`);
  return 0;
}

const script = options.script ? fs.readFileSync(options.script) : '\r';
process.exit(options.time ? time(script) : compare(script));
