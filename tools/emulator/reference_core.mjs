// rp2040js's core with the flags of six instructions put right: a register shift by 0 leaves C
// alone (and LSLS by more than 32 clears it); V of ADCS and SBCS counts the carry as a third term.
// Interpreter of FastCore for whatever is not translated, and its reference in trace.mjs.
import { CortexM0Core } from './node_modules/rp2040js/dist/esm/cortex-m0-core.js';

const SEV = 0xbf40;
const LSLS = 2, LSRS = 3, ASRS = 4, ADCS = 5, SBCS = 6, RORS = 7;

/** {result, carry} of a shift by 1...255. */
function shift(operation, value, count) {
  const wide = count >= 32;
  switch (operation) {
    case LSLS:
      return { result: wide ? 0 : value << count, carry: count > 32 ? 0 : value >>> (32 - count) };
    case LSRS:
      return { result: wide ? 0 : value >>> count, carry: count > 32 ? 0 : value >>> (count - 1) };
    case ASRS:
      return { result: value >> (wide ? 31 : count), carry: value >> (wide ? 31 : count - 1) };
    default: {
      const result = (value >>> (count & 31)) | (value << (32 - (count & 31)));
      return { result, carry: result >>> 31 };
    }
  }
}

export class ReferenceCore extends CortexM0Core {
  instructions = 0; // executed so far

  /** What was done before the instruction at hand. */
  get done() {
    return { cycles: this.cycles, instructions: this.instructions };
  }

  executeInstruction() {
    // As the stock core does first; an interrupt that comes in between has to wait one instruction.
    if (this.interruptsUpdated && this.checkForInterrupts()) this.waiting = false;
    const again = this.interruptsUpdated;
    this.interruptsUpdated = false;
    const opcode = this.readUint16(this.PC & ~1);
    const operation = (opcode >>> 6) & 15;
    if (opcode === SEV) this.rp2040.second?.sendEvent();
    const ours = opcode >>> 10 === 0x10 && operation >= LSLS && operation <= RORS;
    const cycles = ours ? this.corrected(opcode, operation) : super.executeInstruction();
    this.interruptsUpdated ||= again;
    this.instructions++;
    return cycles;
  }

  corrected(opcode, operation) {
    const destination = opcode & 7;
    const left = this.registers[destination];
    const right = this.registers[(opcode >>> 3) & 7];
    let result = left;
    if (operation === ADCS) result = this.addWithCarry(left, right);
    else if (operation === SBCS) result = this.addWithCarry(left, ~right >>> 0);
    else if (right & 0xff) result = this.shiftWithCarry(operation, left, right & 0xff);
    this.N = (result | 0) < 0;
    this.Z = (result | 0) === 0;
    this.registers[destination] = result;
    this.PC += 2;
    this.cycles++;
    return 1;
  }

  addWithCarry(left, right) {
    const sum = left + right + (this.C ? 1 : 0);
    this.C = sum > 0xffffffff;
    this.V = ((left ^ sum) & (right ^ sum)) < 0;
    return sum;
  }

  shiftWithCarry(operation, value, count) {
    const { result, carry } = shift(operation, value, count);
    this.C = !!(carry & 1);
    return result;
  }
}
