// Analysis of a region of Thumb code before it is translated: which instructions belong to it,
// where its blocks start, what they cost, and which flags somebody still reads.
import { decode } from './decoder.mjs';

const MAX_INSTRUCTIONS = 160;
export const N = 8, Z = 4, C = 2, V = 1;
const ALL = N | Z | C | V;

/** Flags that an instruction sets. */
const SETS = {
  ands: N | Z, eors: N | Z, orrs: N | Z, bics: N | Z, mvns: N | Z, tst: N | Z, muls: N | Z,
  movs: N | Z, lslImm: N | Z | C, lsrImm: N | Z | C, asrImm: N | Z | C,
  lsls: N | Z | C, lsrs: N | Z | C, asrs: N | Z | C, rors: N | Z | C,
  adds: ALL, subs: ALL, cmp: ALL, cmn: ALL, rsbs: ALL, adcs: ALL, sbcs: ALL,
};
const SHIFTS = new Set(['lsls', 'lsrs', 'asrs', 'rors']);
const COMPARES = new Set(['cmp', 'subs', 'rsbs']);
const ENDS = new Set(['call', 'callRegister', 'return', 'jumpRegister', 'jump', 'popPc']);
/** Instructions in whose place or after which the region may be left for the interpreter. */
const MAY_LEAVE = new Set([
  'load', 'store', 'literal', 'push', 'pop', 'loadMultiple', 'storeMultiple',
]);
/** Flags read by the conditions EQ/NE, CS/CC, MI/PL, VS/VC, HI/LS, GE/LT, GT/LE. */
const CONDITION_READS = [Z, C, N, V, C | Z, N | V, N | V | Z];
const READS_ONLY_V = 3;

/** A region: its code by address, its leaders (addresses where blocks start, in order), its blocks
 * (lists of [address, instruction]) and what is known about its flags. */
export class Region {
  constructor(entry, memory) {
    Object.assign(this, explore(entry, memory));
    this.blocks = blocksOf(this);
    this.fused = fusedBranches(this.blocks);
    this.liveAfter = liveFlags(this.code, this.fused);
  }

  /** Every address whose contents the translation depends on. */
  get touched() {
    const touched = [];
    for (const [pc, { op, size, address }] of this.code) {
      touched.push(pc, pc + size - 1);
      if (op === 'literal') touched.push(address);
    }
    return touched;
  }
}

export const endsBlock = ({ op }) => ENDS.has(op);

/** The numbers of the low registers in the list of an instruction. */
export function listed(list) {
  return [0, 1, 2, 3, 4, 5, 6, 7].filter((n) => list & (1 << n));
}

/** Cycles of an instruction; a branch counts as not taken, a load or store as to memory. */
export function usualCost({ op, list }) {
  switch (op) {
    case 'load': case 'store': case 'literal': return 2;
    case 'push': case 'pop': case 'storeMultiple': case 'loadMultiple':
      return 1 + listed(list).length;
    case 'popPc': return 3 + listed(list).length;
    case 'barrier': case 'call': return 3;
    case 'jump': case 'return': case 'callRegister': case 'jumpRegister': return 2;
    default: return 1;
  }
}

export function highestCost(instruction) {
  return usualCost(instruction) + (instruction.op === 'branch' ? 1 : 0);
}

/** Follows direct branches from the entry. What the translator cannot do is left out. */
function explore(entry, { fetch, isCode }) {
  const code = new Map(), leaders = new Set([entry]), queue = [entry];
  const visit = (target) => {
    if (!leaders.has(target)) queue.push(target);
    leaders.add(target);
  };
  while (queue.length) {
    for (let pc = queue.shift(); code.size < MAX_INSTRUCTIONS && isCode(pc); ) {
      if (code.has(pc)) {
        leaders.add(pc);
        break;
      }
      const instruction = decode(pc, fetch);
      const next = pc + instruction.size;
      successors(pc, instruction, next).forEach(visit);
      if (instruction.op === 'other') break;
      code.set(pc, instruction);
      if (endsBlock(instruction)) break;
      pc = next;
    }
  }
  return { code, leaders: [...leaders].filter((pc) => code.has(pc)).sort((a, b) => a - b) };
}

/** Where new blocks start because of an instruction. */
function successors(pc, { op, target }, next) {
  if (op === 'jump') return [target];
  if (op === 'branch') return target <= pc ? [target, next] : [target];
  return op === 'call' || op === 'callRegister' || op === 'other' ? [next] : [];
}

/** The instructions from each leader up to the next one. */
function blocksOf({ code, leaders }) {
  const starts = new Set(leaders);
  return leaders.map((start) => {
    const body = [];
    for (let pc = start; code.has(pc); ) {
      const instruction = code.get(pc);
      body.push([pc, instruction]);
      pc += instruction.size;
      if (endsBlock(instruction) || starts.has(pc)) break;
    }
    return body;
  });
}

/** Branches whose condition can be put as a comparison of the operands of the last compare. The
 * value tells whether the region may be left in between, so the flags are needed all the same. */
function fusedBranches(blocks) {
  const fused = new Map();
  for (const body of blocks) {
    let compared = false, exposed = false;
    for (const [pc, { op, condition }] of body) {
      if (op === 'branch' && compared && condition >> 1 !== READS_ONLY_V) fused.set(pc, exposed);
      if (op in SETS) compared = COMPARES.has(op);
      exposed = !(op in SETS) && (exposed || MAY_LEAVE.has(op));
    }
  }
  return fused;
}

/** Which flags can still be read after each instruction. Flags that are dead may be left stale. */
function liveFlags(code, fused) {
  const liveBefore = new Map();
  const before = (pc) => (code.has(pc) ? (liveBefore.get(pc) ?? 0) : ALL);
  const after = (pc, { op, size, target }) => {
    if (op === 'jump') return before(target);
    if (op === 'branch') return before(target) | before(pc + size);
    return ENDS.has(op) ? ALL : before(pc + size);
  };
  const backwards = [...code].sort(([a], [b]) => b - a);
  for (let changed = true; changed; ) {
    changed = false;
    for (const [pc, instruction] of backwards) {
      const read = fused.get(pc) === false ? 0 : reads(instruction);
      const live = (after(pc, instruction) & ~overwrites(instruction)) | read;
      changed ||= live !== (liveBefore.get(pc) ?? 0);
      liveBefore.set(pc, live);
    }
  }
  return (pc) => after(pc, code.get(pc));
}

/** Flags set for certain: a shift by a register that holds 0 keeps C. */
function overwrites({ op, imm }) {
  const keepsCarry = SHIFTS.has(op) || (op === 'lslImm' && imm === 0);
  return (SETS[op] ?? 0) & ~(keepsCarry ? C : 0);
}

function reads({ op, condition }) {
  if (op === 'branch') return CONDITION_READS[condition >> 1];
  return op === 'adcs' || op === 'sbcs' ? C : 0;
}
