// USB-CDC between the chip and a byte stream, with back-pressure both ways. rp2040js's own USBCDC
// enumerates the device; its data path is replaced, because it answers an idle OUT transfer with
// empty packets (each costs the firmware an interrupt) and drops bytes when its FIFO is full.
import { USBCDC } from 'rp2040js';

const EP0_IN_BUFFER_CONTROL = 0x80;
const EP15_OUT_BUFFER_CONTROL = 0xfc;
const AVAILABLE = 1 << 10;
const FULL = 1 << 15;
const LENGTH = 0x3ff;
const SECOND_BUFFER = 64;
const SEND_NANOS = 10_000; // how long a packet is on the wire, as in rp2040js

export class UsbSerial {
  /** stream: a Duplex. onConnected is called when the firmware has been enumerated. */
  constructor(usb, stream, onConnected) {
    this.usb = usb;
    this.stream = stream;
    this.toBoard = Buffer.alloc(0);
    this.readSize = 0; // bytes the board has room for in the OUT transfer that waits
    this.heldIn = []; // IN transfers that wait for the stream to drain
    this.sendAlarm = usb.rp2040.clock.createAlarm(() => this.completeSends());
    this.cdc = new USBCDC(usb);
    this.cdc.onDeviceConnected = onConnected;
    usb.onEndpointRead = (endpoint, size) => this.armRead(endpoint, size);
    const stock = usb.DPRAMUpdated.bind(usb);
    usb.DPRAMUpdated = (offset, value) => this.startSend(offset, value) || stock(offset, value);
  }

  armRead(endpoint, size) {
    if (endpoint !== this.cdc.outEndpoint) return;
    this.readSize = size;
    this.feed();
  }

  /** Hands waiting bytes to a waiting OUT transfer; without either, the device is NAKed. */
  feed() {
    if (!this.readSize) return false;
    if (!this.toBoard.length) this.toBoard = this.stream.read() ?? this.toBoard;
    if (!this.toBoard.length) return false;
    const packet = this.toBoard.subarray(0, Math.min(this.readSize, 64));
    this.toBoard = this.toBoard.subarray(packet.length);
    this.readSize = 0;
    this.usb.endpointReadDone(this.cdc.outEndpoint, packet);
    return true;
  }

  /** Takes over IN transfers of the serial endpoint; returns false for all others. */
  startSend(offset, value) {
    const endpoint = (offset - EP0_IN_BUFFER_CONTROL) >> 3;
    const isControl = offset >= EP0_IN_BUFFER_CONTROL && offset <= EP15_OUT_BUFFER_CONTROL;
    const isIn = isControl && !(offset & 4);
    if (!isIn || endpoint !== this.cdc.inEndpoint || !(value & AVAILABLE)) return false;
    this.heldIn.push({ offset, endpoint });
    this.sendAlarm.schedule(SEND_NANOS);
    return true;
  }

  /** Finishes IN transfers unless the stream is full; then the device waits for its host. */
  completeSends() {
    while (this.heldIn.length && !this.stream.writableNeedDrain) this.complete(this.heldIn.shift());
  }

  complete({ offset, endpoint }) {
    const view = this.usb.rp2040.usbDPRAMView;
    const control = view.getUint32(offset, true);
    const start = this.usb.getEndpointBufferOffset(endpoint, false);
    this.deliver(start, control);
    if ((control >>> 16) & AVAILABLE) this.deliver(start + SECOND_BUFFER, control >>> 16);
    const both = (AVAILABLE | FULL) * 0x10001;
    view.setUint32(offset, control & ~both, true);
    this.usb.indicateBufferReady(endpoint, false);
  }

  deliver(start, control) {
    const bytes = this.usb.rp2040.usbDPRAM.slice(start, start + (control & LENGTH));
    if (bytes.length) this.stream.write(bytes);
  }
}
