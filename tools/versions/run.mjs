// Runs a script in one version of MicroPython, as its project publishes it for web browsers: the same virtual
// machine as a board's, but no native code. For sparsetune_tools/versions.py, which answers calls of the kernels.
//
//   node run.mjs VERSION FOLDER      FOLDER: files for its file system, main.py among them
//
// To standard output go messages, each a line of JSON, and behind it as many bytes as its `bytes` says; to each with
// `call` one comes back likewise on standard input.

import fs from "node:fs";
import path from "node:path";

const [version, folder] = process.argv.slice(2);
const { loadMicroPython } = await import(`micropython-${version}`);

function send(message, bytes = new Uint8Array()) {
  const line = Buffer.from(JSON.stringify({ ...message, bytes: bytes.length }) + "\n");
  const whole = Buffer.concat([line, bytes]);
  for (let at = 0; at < whole.length; ) at += fs.writeSync(1, whole, at);
}

function receive(count) {
  const bytes = Buffer.alloc(count);
  for (let at = 0; at < count; ) {
    const more = fs.readSync(0, bytes, at, count - at);
    if (!more) throw new Error("nobody answers");
    at += more;
  }
  return bytes;
}

function receiveLine() {
  const bytes = [];
  for (let byte; (byte = receive(1)[0]) !== 10; ) bytes.push(byte);
  return Buffer.from(bytes).toString();
}

const micropython = await loadMicroPython({
  heapsize: 8 << 20,
  linebuffer: true,
  stdout: (line) => send({ line }),
  stderr: (line) => send({ line }),
});

// The kernels' buffers go through a file, which is all that both sides can read.
const BUFFERS = "/buffers";
micropython.registerJsModule("bridge", {
  call(name, given) {
    send({ call: name, given: JSON.parse(given) }, micropython.FS.readFile(BUFFERS));
    const answer = receiveLine();
    micropython.FS.writeFile(BUFFERS, receive(JSON.parse(answer).bytes));
    return answer;
  },
});

function copy(from, to) {
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [path.join(from, entry.name), `${to}/${entry.name}`];
    if (entry.isDirectory()) {
      micropython.FS.mkdir(target);
      copy(source, target);
    } else micropython.FS.writeFile(target, fs.readFileSync(source));
  }
}

copy(folder, "");
try {
  micropython.runPython("import sys\nsys.path.insert(0, '/')\nimport main");
} catch (error) {
  fs.writeSync(2, `${error.message}\n`); // else Node shows the source that it arose in
  process.exit(1);
}
