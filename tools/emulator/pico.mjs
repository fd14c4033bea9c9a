// node pico.mjs --flash FILE --bootrom FILE --bootsel DIR [--firmware FILE]
//   [--cores 2] --serial DESCRIPTOR --control DESCRIPTOR    (sockets: serial bytes, JSON lines of control)
// Started by tools/sparsetune_tools/emulate.py, which owns the PTY.
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import readline from 'node:readline';
import { parseArgs } from 'node:util';
import { Board } from './board.mjs';
import { FlashFile } from './flash_file.mjs';
import { parseFirmware } from './uf2.mjs';

const { values: options } = parseArgs({
  options: {
    flash: { type: 'string' },
    bootrom: { type: 'string' },
    bootsel: { type: 'string' },
    firmware: { type: 'string' },
    cores: { type: 'string', default: '1' },
    serial: { type: 'string' },
    control: { type: 'string' },
  },
});

function readBootrom(file) {
  const words = new Uint32Array(4096);
  new Uint8Array(words.buffer).set(fs.readFileSync(file));
  return words;
}

const openSocket = (fd) => new net.Socket({ fd: Number(fd), readable: true, writable: true });

function makeBoard(report) {
  const flash = new FlashFile(options.flash);
  if (options.firmware) {
    const file = new Uint8Array(fs.readFileSync(options.firmware));
    flash.install(parseFirmware(file, path.basename(options.firmware)));
  }
  const stream = openSocket(options.serial);
  const bootrom = readBootrom(options.bootrom);
  const cores = Number(options.cores);
  return new Board({ flash, bootrom, stream, bootselPath: options.bootsel, cores, report });
}

function obey(board, command, report) {
  if (command.do === 'on') board.powerOn();
  if (command.do === 'off') board.powerOff();
  if (command.do === 'reset') board.reset();
  if (command.do === 'bootsel') board.enterBootsel();
  const marks = command.do === 'marks' ? { marks: board.takeMarks() } : {};
  report({ reply: command.id, counters: board.counters(), ...marks });
}

function main() {
  const control = openSocket(options.control);
  const report = (message) => control.write(JSON.stringify(message) + '\n');
  const board = makeBoard(report);
  const lines = readline.createInterface({ input: control });
  lines.on('line', (line) => obey(board, JSON.parse(line), report));
  lines.on('close', () => {
    board.powerOff(); // our parent is gone
    process.exit(0);
  });
  board.powerOn();
}

try {
  main();
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
