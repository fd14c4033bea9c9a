// ARMv6-M Thumb instructions as plain objects {op, ...operands, size}, for the translator.
// Whatever the translator does not handle is {op: 'other'}: the interpreter executes that.

const ALU = ['ands', 'eors', 'lsls', 'lsrs', 'asrs', 'adcs', 'sbcs', 'rors',
  'tst', 'rsbs', 'cmp', 'cmn', 'orrs', 'muls', 'bics', 'mvns'];
const EXTEND = ['sxth', 'sxtb', 'uxth', 'uxtb'];
const REVERSE = ['rev', 'rev16', null, 'revsh'];
const LOAD_STORE = [
  { op: 'store', bytes: 4 }, { op: 'store', bytes: 2 }, { op: 'store', bytes: 1 },
  { op: 'load', bytes: 1, signed: true }, { op: 'load', bytes: 4 }, { op: 'load', bytes: 2 },
  { op: 'load', bytes: 1 }, { op: 'load', bytes: 2, signed: true },
];
const other = { op: 'other' };

/** Decodes the instruction at pc; fetch(address) reads a halfword. */
export function decode(pc, fetch) {
  const code = fetch(pc);
  if (code >>> 11 === 0b11101 || code >>> 12 === 0b1111) {
    return { size: 4, ...decodeWide(pc, code, fetch(pc + 2)) };
  }
  return { size: 2, ...decodeNarrow(pc, code) };
}

function decodeWide(pc, first, second) {
  if (first >>> 11 === 0b11110 && (second & 0xd000) === 0xd000) {
    const sign = (first >>> 10) & 1;
    const i1 = 1 ^ sign ^ ((second >>> 13) & 1);
    const i2 = 1 ^ sign ^ ((second >>> 11) & 1);
    const high = (-sign << 24) | (i1 << 23) | (i2 << 22) | ((first & 0x3ff) << 12);
    return { op: 'call', target: pc + 4 + (high | ((second & 0x7ff) << 1)) };
  }
  const isBarrier = first === 0xf3bf && second >>> 4 >= 0x8f4 && second >>> 4 <= 0x8f6;
  return isBarrier ? { op: 'barrier' } : other;
}

function decodeNarrow(pc, code) {
  const low = code & 7, mid = (code >>> 3) & 7, third = (code >>> 6) & 7, top = (code >>> 8) & 7;
  const imm5 = (code >>> 6) & 31, imm8 = code & 0xff;
  switch (code >>> 11) {
    case 0: return { op: 'lslImm', d: low, a: mid, imm: imm5 };
    case 1: return { op: 'lsrImm', d: low, a: mid, imm: imm5 || 32 };
    case 2: return { op: 'asrImm', d: low, a: mid, imm: imm5 || 32 };
    case 3: {
      const b = code & 0x400 ? { imm: third } : { b: third };
      return { op: code & 0x200 ? 'subs' : 'adds', d: low, a: mid, ...b };
    }
    case 4: return { op: 'movs', d: top, imm: imm8 };
    case 5: return { op: 'cmp', a: top, imm: imm8 };
    case 6: return { op: 'adds', d: top, a: top, imm: imm8 };
    case 7: return { op: 'subs', d: top, a: top, imm: imm8 };
    case 8: return code & 0x400 ? decodeHigh(code) : decodeAlu(code);
    case 9: return { op: 'literal', d: top, address: ((pc + 4) & ~3) + 4 * imm8 };
    case 10: case 11:
      return { ...LOAD_STORE[(code >>> 9) & 7], d: low, a: mid, b: third };
    case 12: return { op: 'store', bytes: 4, d: low, a: mid, imm: 4 * imm5 };
    case 13: return { op: 'load', bytes: 4, d: low, a: mid, imm: 4 * imm5 };
    case 14: return { op: 'store', bytes: 1, d: low, a: mid, imm: imm5 };
    case 15: return { op: 'load', bytes: 1, d: low, a: mid, imm: imm5 };
    case 16: return { op: 'store', bytes: 2, d: low, a: mid, imm: 2 * imm5 };
    case 17: return { op: 'load', bytes: 2, d: low, a: mid, imm: 2 * imm5 };
    case 18: return { op: 'store', bytes: 4, d: top, a: 13, imm: 4 * imm8 };
    case 19: return { op: 'load', bytes: 4, d: top, a: 13, imm: 4 * imm8 };
    case 20: return { op: 'constant', d: top, value: (pc & ~3) + 4 + 4 * imm8 };
    case 21: return { op: 'add', d: top, a: 13, imm: 4 * imm8 };
    case 22: case 23: return decodeMisc(code);
    case 24: return decodeStoreMultiple(code);
    case 25: return { op: 'loadMultiple', a: top, list: imm8, writeBack: !(imm8 & (1 << top)) };
    case 26: case 27: return decodeBranch(pc, code);
    case 28: return { op: 'jump', target: pc + 4 + (((code & 0x7ff) << 21) >> 20) };
    default: return other;
  }
}

function decodeAlu(code) {
  const op = ALU[(code >>> 6) & 15], d = code & 7, b = (code >>> 3) & 7;
  if (op === 'rsbs') return { op: 'rsbs', d, a: b };
  return { op, d, a: d, b };
}

/** Instructions on all sixteen registers, where reading PC is left to the interpreter. */
function decodeHigh(code) {
  const d = ((code >>> 4) & 8) | (code & 7), b = (code >>> 3) & 15;
  const operation = (code >>> 8) & 3;
  if (b === 15) return other;
  if (operation === 3) {
    if (code & 7) return other;
    return { op: code & 0x80 ? 'callRegister' : 'return', b };
  }
  if (operation === 2) return d === 15 ? { op: 'jumpRegister', b } : { op: 'mov', d, b };
  if (d === 15) return other;
  return operation === 0 ? { op: 'add', d, a: d, b } : { op: 'cmp', a: d, b };
}

function decodeMisc(code) {
  const d = code & 7, b = (code >>> 3) & 7;
  switch ((code >>> 8) & 15) {
    case 0: return { op: 'add', d: 13, a: 13, imm: (code & 0x80 ? -4 : 4) * (code & 0x7f) };
    case 2: return { op: EXTEND[(code >>> 6) & 3], d, b };
    case 4: case 5: return { op: 'push', list: code & 0xff, link: !!(code & 0x100) };
    case 10: return REVERSE[(code >>> 6) & 3] ? { op: REVERSE[(code >>> 6) & 3], d, b } : other;
    case 12: case 13: return { op: code & 0x100 ? 'popPc' : 'pop', list: code & 0xff };
    case 15: return code === 0xbf00 ? { op: 'nop' } : other;
    default: return other;
  }
}

function decodeStoreMultiple(code) {
  const a = (code >>> 8) & 7;
  return code & (1 << a) ? other : { op: 'storeMultiple', a, list: code & 0xff };
}

function decodeBranch(pc, code) {
  const condition = (code >>> 8) & 15;
  if (condition >= 14) return other;
  return { op: 'branch', condition, target: pc + 4 + (((code & 0xff) << 24) >> 23) };
}
