// node bare_call.mjs BOOTROM: calls functions of a program without an operating system on the
// emulated core and counts, for tests and benches. Each line of input is JSON:
//   {"write": [address, base64]}        into RAM or flash; answers {}
//   {"read": [address, count]}          answers {"data": base64}
//   {"call": address, "args": [...]}    up to four; answers {"result": r0, "cycles", "instructions"}
//   {"marks": 0}                        answers {"marks": [[tag, cycles], ...]}, see mark_port.mjs
//   {"profile": 0}                      answers {"profile": [[address, cycles], ...]} since the start
// With --count as the second argument instructions and the profile are counted, six times slower.
// Cycles are those between the call and the return: emulated, XIP cache not modelled.
import readline from 'node:readline';
import { bareChip, fail } from './bare_chip.mjs';
import { ReferenceCore } from './reference_core.mjs';

const RETURN = 0x30000000; // nothing lies there, so nothing is translated there
const STACK = 0x20041000;
const FLASH = 0x10000000;
const KEPT = [4, 5, 6, 7, 8, 9, 10, 11]; // registers that a call leaves as they were (AAPCS)
const LIMIT = 4e9; // cycles: what runs longer is taken to hang

const counting = process.argv[3] === '--count';
const { chip, flash } = bareChip(process.argv[2], counting ? { Core: ReferenceCore } : {});

const profile = new Map();

function place(address) {
  const inFlash = address < 0x20000000;
  return [inFlash ? flash : chip.sram, address - (inFlash ? FLASH : 0x20000000)];
}

const kept = (register) => (0xc0de0000 + register) >>> 0;

function checkRegisters({ registers, SP }) {
  const lost = KEPT.filter((register) => registers[register] !== kept(register));
  if (lost.length) fail(`r${lost.join(', r')} came back changed`);
  if (SP >>> 0 !== STACK) fail('the stack pointer came back changed');
}

function call(address, args) {
  const { core } = chip;
  core.registers.set(args.map((value) => value >>> 0));
  for (const register of KEPT) core.registers[register] = kept(register);
  core.SP = STACK;
  core.LR = RETURN | 1;
  core.PC = address & ~1;
  let cycles = 0;
  let instructions = 0;
  while (core.PC !== RETURN && cycles < LIMIT) {
    const done = core.burst && !counting ? core.burst(1_000_000, true) : 0;
    if (done) {
      cycles += done;
    } else {
      const { PC } = core;
      const taken = core.executeInstruction();
      cycles += taken;
      instructions++;
      if (counting) profile.set(PC, (profile.get(PC) ?? 0) + taken);
    }
  }
  if (cycles >= LIMIT) fail('does not return');
  checkRegisters(core);
  return { result: core.registers[0], cycles, ...(counting ? { instructions } : {}) };
}

const commands = {
  profile() {
    return { profile: [...profile] };
  },
  marks() {
    return { marks: chip.marks.take().map(({ tag, cycles }) => [tag, cycles]) };
  },
  write([address, data]) {
    const [memory, at] = place(address);
    memory.set(Buffer.from(data, 'base64'), at);
    return {};
  },
  read([address, count]) {
    const [memory, at] = place(address);
    return { data: Buffer.from(memory.slice(at, at + count)).toString('base64') };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const [name] = Object.keys(asked);
  const answer = name === 'call' ? call(asked.call, asked.args ?? []) : commands[name](asked[name]);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
