// A Pico board: flash, chip, USB serial, and what power, resets and BOOTSEL do to them.
import { BootselFolder } from './bootsel.mjs';
import { Chip } from './chip.mjs';
import { Runner } from './runner.mjs';
import { UsbSerial } from './usb_serial.mjs';

export class Board {
  /** @param {{flash: FlashFile, bootrom: Uint32Array, stream: Duplex, bootselPath: string,
   * cores: number, report: (event: object) => void}} parts */
  constructor(parts) {
    Object.assign(this, parts);
    this.chip = null;
    this.runner = new Runner(() => this.sayReady());
    this.bootsel = new BootselFolder(this.bootselPath, (pieces) => this.flashAndReboot(pieces));
    this.finished = { busy: 0, instructions: 0, nanos: 0, flash: 0 }; // before the last reset
    this.stream.on('readable', () => this.serialChanged());
    this.stream.on('drain', () => this.serialChanged());
  }

  powerOn() {
    this.bootsel.hide();
    this.startChip(null);
  }

  powerOff() {
    this.retire();
    this.bootsel.hide();
  }

  /** A reset by the watchdog or by command: flash, SRAM and scratch registers stay. */
  reset() {
    const previous = this.chip;
    this.retire();
    this.bootsel.hide();
    this.startChip(previous);
    this.report({ event: 'reset' });
  }

  enterBootsel() {
    this.retire();
    this.bootsel.show();
    this.report({ event: 'bootsel', folder: this.bootselPath });
  }

  flashAndReboot(pieces) {
    this.flash.install(pieces);
    this.report({ event: 'flashed', blocks: pieces.length });
    this.powerOn();
  }

  startChip(previous) {
    const hooks = {
      flashChanged: (offset, count) => this.flash.save(offset, count),
      reset: () => this.later(() => this.reset()),
      bootsel: () => this.later(() => this.enterBootsel()),
      fault: (message) => this.report({ event: 'fault', message }),
    };
    const { flash, bootrom, stream, cores } = this;
    this.chip = new Chip({ flash: flash.data, bootrom, hooks, previous, cores });
    this.connected = false;
    this.serial = new UsbSerial(this.chip.usbCtrl, stream, () => {
      this.connected = true;
      this.report({ event: 'connected' });
    });
    this.runner.start(this.chip);
  }

  /** The first time that the chip waits for the host alone: its REPL is there. */
  sayReady() {
    if (this.connected) this.report({ event: 'ready' });
    this.connected = false;
  }

  /** Hooks are called in mid-instruction: stop the chip there, act when it has returned. */
  later(action) {
    const { chip } = this;
    chip.stopRequested = true;
    setImmediate(() => chip === this.chip && action());
  }

  retire() {
    this.runner.stop();
    if (!this.chip) return;
    this.finished = this.counters();
    this.chip = null;
    this.serial = null;
  }

  serialChanged() {
    if (!this.serial) return;
    this.serial.completeSends();
    this.serial.feed();
    this.runner.wake();
  }

  /** Since power-on. busy: core cycles without sleep; nanos: emulated time, sleep included; flash:
   * nanoseconds that a flash chip would have taken beside that. */
  counters() {
    const { busy, instructions, nanos, flash } = this.finished;
    const { chip } = this;
    if (!chip) return this.finished;
    return {
      busy: busy + chip.core.cycles,
      instructions: instructions + chip.core.instructions,
      nanos: nanos + chip.clock.nanos,
      flash: flash + chip.flashNanos,
    };
  }

  /** See MarkPort. */
  takeMarks() {
    return this.chip ? this.chip.marks.take() : [];
  }
}
