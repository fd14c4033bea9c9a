// Turns a region of Thumb code (instructions reached by direct branches from one entry) into the source of one JavaScript function. Registers and flags live in local variables;
// cycles are counted exactly as rp2040js counts them.
//
// The function is called as region(block, cycles, limit) and returns the new cycle count; executed
// instructions are added to R[20]. It runs only blocks that end at or before `limit`, the next moment at which anything else can happen; so
// alarms and interrupts come between the same two instructions as in the interpreter.
//
// Flags: N is fn < 0, Z is fz === 0, C is fc (0 or 1), V is fv < 0.
import { C, N, Region, V, Z, endsBlock, highestCost, listed, usualCost } from './region.mjs';

const RAM = 0x20000000, FLASH = 0x10000000;

/** How a condition reads after a compare or subtraction of fa and fb, and from the flags. */
const AFTER_COMPARE = [
  'fa===fb', 'fa!==fb', '(fa>>>0)>=(fb>>>0)', '(fa>>>0)<(fb>>>0)', '(fa-fb|0)<0', '(fa-fb|0)>=0',
  null, null, '(fa>>>0)>(fb>>>0)', '(fa>>>0)<=(fb>>>0)', 'fa>=fb', 'fa<fb', 'fa>fb', 'fa<=fb',
];
const FROM_FLAGS = [
  'fz===0', 'fz!==0', 'fc!==0', 'fc===0', 'fn<0', 'fn>=0', 'fv<0', 'fv>=0',
  'fc!==0&&fz!==0', 'fc===0||fz===0', '(fn<0)===(fv<0)', '(fn<0)!==(fv<0)',
  '(fn<0)===(fv<0)&&fz!==0', '(fn<0)!==(fv<0)||fz===0',
];

class RegionWriter {
  constructor(region, memory) {
    this.memory = memory;
    this.region = region;
    this.numbers = new Map(region.leaders.map((pc, index) => [pc, index]));
    this.lines = [];
    this.used = new Set();
    this.written = new Set();
  }

  r(number) {
    this.used.add(number);
    return `r${number}`;
  }

  /** The variable of a register that is about to be assigned. */
  w(number) {
    this.written.add(number);
    return this.r(number);
  }

  emit(text) {
    this.lines.push(text);
  }

  get source() {
    this.region.blocks.forEach((body, index) => this.block(body, index));
    const registers = [...this.used].sort((a, b) => a - b);
    const load = registers.map((n) => `let r${n}=R[${n}];`).join('');
    const store = [...this.written].map((n) => `R[${n}]=r${n};`).join('');
    return `return function(b,cy,lim){${load}
let fn=R[16],fz=R[17],fc=R[18],fv=R[19],ni=R[20],fa=0,fb=0,fr=0,t=0,i=0,pc=0;
L:for(;;)switch(b){
${this.lines.join('\n')}
}
${store}R[16]=fn;R[17]=fz;R[18]=fc;R[19]=fv;R[20]=ni;R[15]=pc;return cy;}`;
  }

  block(body, index) {
    const [start] = body[0];
    const [last, { op, size, target }] = body[body.length - 1];
    this.number = index;
    this.spent = 0; // cycles of this block so far that are not yet in cy,
    this.count = 0; // and instructions that are not yet in ni
    this.left = body.reduce((sum, [, instruction]) => sum + highestCost(instruction), 0);
    this.loopStart = (op === 'branch' || op === 'jump') && target === start ? start : null;
    const loops = this.loopStart !== null;
    this.emit(`case ${index}:${loops ? 'for(;;){' : ''}`);
    this.emit(`if(cy+${this.left}>lim){pc=${start};break L;}`);
    for (const [pc, instruction] of body) this.instruction(pc, instruction);
    if (!endsBlock({ op })) this.fallThrough(last + size);
    if (loops) this.emit('}');
  }

  /** Adds what this block has taken so far, and this many cycles of the instruction at hand. */
  pay(cycles = null) {
    const [more, one] = cycles === null ? [0, 0] : [cycles, 1];
    return `cy=cy+${this.spent + more}|0;ni=ni+${this.count + one}|0;`;
  }

  fallThrough(pc) {
    this.emit(this.pay());
    const isNextCase = this.loopStart === null && this.numbers.get(pc) === this.number + 1;
    if (!isNextCase) this.goTo(pc);
  }

  /** Continues at pc: in this function where it has a block there, else by leaving. */
  goTo(pc) {
    const number = this.numbers.get(pc);
    if (pc === this.loopStart) this.emit('continue;');
    else if (number === undefined) this.emit(`pc=${pc};break L;`);
    else this.emit(`b=${number};continue L;`);
  }

  leave(pc) {
    return `{${this.pay()}pc=${pc};break L;}`;
  }

  instruction(pc, instruction) {
    this.pc = pc;
    this.next = pc + instruction.size;
    this.live = this.region.liveAfter(pc);
    this[instruction.op](instruction);
    this.spent += usualCost(instruction);
    this.count += 1;
    this.left -= usualCost(instruction);
  }

  operand({ b, imm }) {
    return b === undefined ? `${imm}` : this.r(b);
  }

  // --- flags ---

  logicFlags(value) {
    if (this.live & N) this.emit(`fn=${value};`);
    if (this.live & Z) this.emit(`fz=${value};`);
  }

  addFlags() {
    this.logicFlags('fr');
    if (this.live & C) this.emit('fc=(fr>>>0)<(fa>>>0)?1:0;');
    if (this.live & V) this.emit('fv=(fa^fr)&(fb^fr);');
  }

  subtractFlags() {
    this.logicFlags('fr');
    if (this.live & C) this.emit('fc=(fa>>>0)>=(fb>>>0)?1:0;');
    if (this.live & V) this.emit('fv=(fa^fb)&(fa^fr);');
  }

  // --- arithmetic ---

  adds(x) {
    this.emit(`fa=${this.r(x.a)};fb=${this.operand(x)};fr=fa+fb|0;${this.w(x.d)}=fr;`);
    this.addFlags();
  }

  cmn(x) {
    this.emit(`fa=${this.r(x.a)};fb=${this.operand(x)};fr=fa+fb|0;`);
    this.addFlags();
  }

  subs(x) {
    this.emit(`fa=${this.r(x.a)};fb=${this.operand(x)};fr=fa-fb|0;${this.w(x.d)}=fr;`);
    this.subtractFlags();
  }

  cmp(x) {
    this.emit(`fa=${this.r(x.a)};fb=${this.operand(x)};fr=fa-fb|0;`);
    this.subtractFlags();
  }

  rsbs(x) {
    this.emit(`fa=0;fb=${this.r(x.a)};fr=0-fb|0;${this.w(x.d)}=fr;`);
    this.subtractFlags();
  }

  adcs(x) {
    this.addWithCarry(x, this.r(x.b));
  }

  sbcs(x) {
    this.addWithCarry(x, `~${this.r(x.b)}`);
  }

  addWithCarry(x, right) {
    this.emit(`fa=${this.r(x.a)};fb=${right};t=(fa>>>0)+(fb>>>0)+fc;fr=t|0;${this.w(x.d)}=fr;`);
    this.logicFlags('fr');
    if (this.live & C) this.emit('fc=t>4294967295?1:0;');
    if (this.live & V) this.emit('fv=(fa^fr)&(fb^fr);');
  }

  /** ADD without flags; the stack pointer has no low bits. */
  add(x) {
    const align = x.d === 13 ? '&~3' : '|0';
    this.emit(`${this.w(x.d)}=${this.r(x.a)}+${wrap(this.operand(x))}${align};`);
  }

  mov(x) {
    this.emit(`${this.w(x.d)}=${this.r(x.b)}${x.d === 13 ? '&~3' : ''};`);
  }

  movs(x) {
    this.emit(`${this.w(x.d)}=${x.imm};`);
    this.logicFlags(`${x.imm}`);
  }

  constant(x) {
    this.emit(`${this.w(x.d)}=${x.value};`);
  }

  logic(x, expression) {
    this.emit(`${this.w(x.d)}=${expression};`);
    this.logicFlags(this.r(x.d));
  }

  ands(x) { this.logic(x, `${this.r(x.a)}&${this.r(x.b)}`); }
  eors(x) { this.logic(x, `${this.r(x.a)}^${this.r(x.b)}`); }
  orrs(x) { this.logic(x, `${this.r(x.a)}|${this.r(x.b)}`); }
  bics(x) { this.logic(x, `${this.r(x.a)}&~${this.r(x.b)}`); }
  mvns(x) { this.logic(x, `~${this.r(x.b)}`); }
  muls(x) { this.logic(x, `Math.imul(${this.r(x.a)},${this.r(x.b)})`); }

  tst(x) {
    this.emit(`fr=${this.r(x.a)}&${this.r(x.b)};`);
    this.logicFlags('fr');
  }

  sxth(x) { this.emit(`${this.w(x.d)}=${this.r(x.b)}<<16>>16;`); }
  sxtb(x) { this.emit(`${this.w(x.d)}=${this.r(x.b)}<<24>>24;`); }
  uxth(x) { this.emit(`${this.w(x.d)}=${this.r(x.b)}&65535;`); }
  uxtb(x) { this.emit(`${this.w(x.d)}=${this.r(x.b)}&255;`); }

  rev(x) {
    this.emit(`t=${this.r(x.b)};${this.w(x.d)}=t<<24|(t&65280)<<8|t>>>8&65280|t>>>24;`);
  }

  rev16(x) {
    this.emit(`t=${this.r(x.b)};${this.w(x.d)}=(t&0xff00ff)<<8|t>>>8&0xff00ff;`);
  }

  revsh(x) {
    this.emit(`t=${this.r(x.b)};${this.w(x.d)}=t<<24>>16|t>>>8&255;`);
  }

  nop() {}
  barrier() {}

  // --- shifts ---

  lslImm(x) {
    if (x.imm && this.live & C) this.emit(`fc=${this.r(x.a)}>>>${32 - x.imm}&1;`);
    this.logic(x, x.imm ? `${this.r(x.a)}<<${x.imm}` : this.r(x.a));
  }

  lsrImm(x) {
    if (this.live & C) this.emit(`fc=${this.r(x.a)}>>>${x.imm - 1}&1;`);
    this.logic(x, x.imm === 32 ? '0' : `${this.r(x.a)}>>>${x.imm}|0`);
  }

  asrImm(x) {
    if (this.live & C) this.emit(`fc=${this.r(x.a)}>>>${x.imm - 1}&1;`);
    this.logic(x, `${this.r(x.a)}>>${Math.min(x.imm, 31)}`);
  }

  shiftBy(x, carry, result) {
    this.emit(`fa=${this.r(x.a)};t=${this.r(x.b)}&255;`);
    if (this.live & C) this.emit(`if(t!==0)fc=${carry};`);
    this.logic(x, result);
  }

  lsls(x) { this.shiftBy(x, 't>32?0:fa>>>32-t&1', 't>31?0:fa<<t'); }
  lsrs(x) { this.shiftBy(x, 't>32?0:fa>>>t-1&1', 't>31?0:fa>>>t|0'); }
  asrs(x) { this.shiftBy(x, '(t>32?fa>>31:fa>>t-1)&1', 't>31?fa>>31:fa>>t'); }
  rors(x) { this.shiftBy(x, 'fa>>>(t-1&31)&1', 'fa>>>(t&31)|fa<<(32-t&31)'); }

  // --- memory ---

  address(x) {
    if (x.b === undefined && x.imm === 0) return this.r(x.a);
    return `${this.r(x.a)}+${this.operand(x)}|0`;
  }

  literal(x) {
    const value = this.memory.constantAt(x.address);
    if (value !== null) this.emit(`${this.w(x.d)}=${value};`);
    else this.load({ d: x.d, a: null, bytes: 4, at: `${x.address}` });
  }

  load(x) {
    const view = { 4: 'W', 2: x.signed ? 'SH' : 'H', 1: x.signed ? 'SB' : 'B' }[x.bytes];
    const index = this.index(x.bytes);
    const d = this.w(x.d);
    const spare = 32 - 8 * x.bytes;
    const sign = x.signed ? `<<${spare}>>${spare}` : '|0';
    this.emit(`t=${x.at ?? this.address(x)};${index(RAM)}
if(i<${ramUnits(x.bytes)})${d}=M${view}[i];else{${index(FLASH)}
if(i<${this.memory.flashBytes / x.bytes})${d}=F${view}[i];
else{${d}=c.ioRead(t,${x.bytes},cy+${this.spent}|0)${sign};${this.afterIo()}}}`);
  }

  store(x) {
    const view = { 4: 'W', 2: 'H', 1: 'B' }[x.bytes];
    const line = { 4: 4, 2: 5, 1: 6 }[x.bytes];
    this.emit(`t=${this.address(x)};${this.index(x.bytes)(RAM)}
if(i<${ramUnits(x.bytes)}){M${view}[i]=${this.r(x.d)};
if(D[i>>>${line}]!==0)${this.afterCodeWrite(x.bytes, x)}}
else{c.ioWrite(t,${this.r(x.d)},${x.bytes},cy+${this.spent}|0,ni+${this.count}|0);${this.afterIo()}}`);
  }

  /** i = index of address t in a memory; out of range where t is misaligned or elsewhere. */
  index(bytes) {
    const rotate = { 4: 'i=(i>>>2|i<<30)>>>0;', 2: 'i=(i>>>1|i<<31)>>>0;', 1: 'i>>>=0;' }[bytes];
    return (base) => `i=t-${base}|0;${rotate}`;
  }

  /** A peripheral may have changed the cost, the next alarm, or asked for an interrupt. */
  afterIo() {
    return `cy=cy+c.extra|0;lim=c.limit;
if(c.leave||cy+${this.spent + this.left}>lim){${this.pay(2)}pc=${this.next};break L;}`;
  }

  /** Leaves after a store to translated code, which may be this very region. */
  afterCodeWrite(bytes, instruction) {
    const paid = this.pay(usualCost(instruction));
    return `{c.codeWritten(t,${bytes});${paid}pc=${this.next};break L;}`;
  }

  push(x) {
    const registers = x.link ? [...listed(x.list), 14] : listed(x.list);
    this.emit(`t=${this.r(13)}-${4 * registers.length}|0;`);
    this.storeAll(registers);
    this.emit(`${this.w(13)}=t;`);
    this.guardWritten(registers.length, x);
  }

  storeMultiple(x) {
    const registers = listed(x.list);
    this.emit(`t=${this.r(x.a)};`);
    this.storeAll(registers);
    this.emit(`${this.w(x.a)}=t+${4 * registers.length}|0;`);
    this.guardWritten(registers.length, x);
  }

  storeAll(registers) {
    this.emit(`${this.index(4)(RAM)}if(i>${ramUnits(4) - registers.length})${this.leave(this.pc)}`);
    registers.forEach((n, k) => this.emit(`MW[i+${k}]=${this.r(n)};`));
  }

  guardWritten(count, x) {
    this.emit(`if(D[i>>>4]!==0||D[i+${count - 1}>>>4]!==0)`);
    this.emit(this.afterCodeWrite(4 * count, x));
  }

  /** POP with PC; an exception return is left to the interpreter. */
  popPc(x) {
    this.pop(x, true);
  }

  pop(x, withPc = false) {
    const registers = listed(x.list);
    const count = registers.length + (withPc ? 1 : 0);
    this.emit(`t=${this.r(13)};${this.index(4)(RAM)}`);
    this.emit(`if(i>${ramUnits(4) - count})${this.leave(this.pc)}`);
    if (withPc) this.emit(`pc=MW[i+${registers.length}];if(pc>>>28===15)${this.leave(this.pc)}`);
    registers.forEach((n, k) => this.emit(`${this.w(n)}=MW[i+${k}];`));
    this.emit(`${this.w(13)}=t+${4 * count}|0;`);
    if (withPc) this.emit(`pc&=~1;${this.pay(usualCost(x))}break L;`);
  }

  loadMultiple(x) {
    const registers = listed(x.list);
    const from = (view) => registers.map((n, k) => `${this.w(n)}=${view}[i+${k}];`).join('');
    const lastInFlash = this.memory.flashBytes / 4 - registers.length;
    this.emit(`t=${this.r(x.a)};${this.index(4)(RAM)}`);
    this.emit(`if(i<=${ramUnits(4) - registers.length}){${from('MW')}}`);
    this.emit(`else{${this.index(4)(FLASH)}`);
    this.emit(`if(i>${lastInFlash})${this.leave(this.pc)}${from('FW')}}`);
    if (x.writeBack) this.emit(`${this.w(x.a)}=t+${4 * registers.length}|0;`);
  }

  // --- control flow ---

  branch(x) {
    const test = (this.region.fused.has(this.pc) ? AFTER_COMPARE : FROM_FLAGS)[x.condition];
    this.emit(`if(${test}){${this.pay(2)}`);
    this.goTo(x.target);
    this.emit('}');
  }

  jump(x) {
    this.emit(this.pay(2));
    this.goTo(x.target);
  }

  call(x) {
    this.emit(`${this.w(14)}=${this.next | 1};${this.pay(3)}pc=${x.target};break L;`);
  }

  callRegister(x) {
    this.emit(`pc=${this.r(x.b)}&~1;${this.w(14)}=${this.next | 1};`);
    this.emit(`${this.pay(2)}break L;`);
  }

  jumpRegister(x) {
    this.emit(`pc=${this.r(x.b)}&~1;${this.pay(2)}break L;`);
  }

  /** BX; an exception return is left to the interpreter. */
  return(x) {
    this.emit(`pc=${this.r(x.b)};if(pc>>>28===15)${this.leave(this.pc)}`);
    this.emit(`pc&=~1;${this.pay(2)}break L;`);
  }
}

const wrap = (text) => (text.startsWith('-') ? `(${text})` : text);
const ramUnits = (bytes) => (264 * 1024) / bytes;

/** Translates the region at entry, or returns null where the interpreter has to begin.
 * memory: {fetch(address), isCode(address), constantAt(address), flashBytes}.
 * The answer: the function's source, its blocks' addresses in order, and all addresses it read. */
export function translate(entry, memory) {
  const region = new Region(entry, memory);
  if (!region.code.has(entry)) return null;
  const { source } = new RegionWriter(region, memory);
  return { source, leaders: region.leaders, touched: region.touched };
}
