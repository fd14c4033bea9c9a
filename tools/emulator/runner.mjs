// Runs a chip: flat out while it computes, in step with the wall clock while it sleeps.
const SLICE_MS = 4; // how long the event loop (serial, control) waits for us at most
const SLICE_CYCLES = 20_000;
const NANOS_PER_CYCLE = 8;
const SHORTEST_WAIT_MS = 2; // timers of the host are no finer; shorter sleeps are saved up

export class Runner {
  /** onIdle is called when the chip sleeps with nothing of its own to wake it. */
  constructor(onIdle) {
    this.onIdle = onIdle;
    this.chip = null;
    this.timer = null;
    this.owedMs = 0; // emulated sleep that the wall clock has not paid for yet
    this.sleep = null; // {since, nanos} while a host timer waits for the chip's next alarm
    this.step = () => this.slice();
  }

  start(chip) {
    this.stop();
    this.chip = chip;
    this.owedMs = 0;
    this.next = setImmediate(this.step);
  }

  stop() {
    this.chip = null;
    this.cancelSleep();
    clearImmediate(this.next);
  }

  /** Something arrived from outside: a sleeping chip gets its time and continues at once. */
  wake() {
    if (!this.sleep) return;
    this.endSleep();
    this.next = setImmediate(this.step);
  }

  slice() {
    const end = performance.now() + SLICE_MS;
    while (this.chip && !this.chip.stopRequested && performance.now() < end) {
      if (this.chip.isAsleep) {
        if (!this.skipSleep()) return;
      } else {
        this.chip.run(SLICE_CYCLES);
      }
    }
    if (this.chip && !this.chip.stopRequested) this.next = setImmediate(this.step);
  }

  /** Jumps to the next alarm, or returns false after arranging to be called again then. */
  skipSleep() {
    const { clock } = this.chip;
    const nanos = clock.nextAlarm ? clock.nanosToNextAlarm : Infinity;
    if (this.owedMs + nanos / 1e6 < SHORTEST_WAIT_MS) {
      this.owedMs += nanos / 1e6;
      clock.tick(roundUp(nanos));
      return true;
    }
    this.beginSleep(nanos);
    return false;
  }

  beginSleep(nanos) {
    this.sleep = { since: performance.now(), nanos };
    if (nanos === Infinity) return this.onIdle();
    const wait = Math.max(0, this.owedMs + nanos / 1e6);
    this.timer = setTimeout(() => this.wake(), Math.min(wait, 0x7fffffff));
  }

  /** Moves emulated time on by what passed on the wall, but not beyond the chip's next alarm. */
  endSleep() {
    const { since, nanos } = this.sleep;
    const passed = performance.now() - since;
    const allowed = Math.min(nanos, Math.max(0, passed - this.owedMs) * 1e6);
    this.owedMs = Math.max(-SHORTEST_WAIT_MS, this.owedMs + allowed / 1e6 - passed);
    this.cancelSleep();
    this.chip.clock.tick(roundUp(allowed));
  }

  cancelSleep() {
    clearTimeout(this.timer);
    this.sleep = null;
  }
}

/** Time stays a whole number of cycles, so that cycle counts do. */
function roundUp(nanos) {
  return Math.ceil(nanos / NANOS_PER_CYCLE) * NANOS_PER_CYCLE;
}
