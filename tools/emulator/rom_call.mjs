// node rom_call.mjs BOOTROM < calls: runs boot ROM functions on the emulated core, for tests.
// Each line of input is JSON: [table, key, [r0, r1, r2, r3]]. Tables: "function" (key: two
// letters), "float" and "double" (key: byte offset in the table). Prints [r0, r1, r2, r3] after each call.
import fs from 'node:fs';
import { bareChip, fail } from './bare_chip.mjs';

const RETURN = 0x20000000; // a spot in RAM that no ROM code lies at
const STACK = 0x20040000;

const { chip } = bareChip(process.argv[2]);

function call(address, args) {
  const { core } = chip;
  core.registers.set(args.map((value) => value >>> 0));
  core.SP = STACK;
  core.LR = RETURN | 1;
  core.PC = address & ~1;
  while (core.PC !== RETURN) core.executeInstruction();
  return [...core.registers.subarray(0, 4)];
}

function lookup(tableAt, name) {
  const code = name.charCodeAt(0) | (name.charCodeAt(1) << 8);
  const [address] = call(chip.readUint16(0x18), [chip.readUint16(tableAt), code, 0, 0]);
  return address || fail(`the ROM has no ${name}`);
}

function find(table, key) {
  if (table === 'function') return lookup(0x14, key);
  return chip.readUint32(lookup(0x16, table === 'float' ? 'SF' : 'SD') + key);
}

for (const line of fs.readFileSync(0, 'utf8').trim().split('\n')) {
  const [table, key, args] = JSON.parse(line);
  console.log(JSON.stringify(call(find(table, key), args)));
}
