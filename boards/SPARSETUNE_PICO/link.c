// sparsetune_link: the USB serial port for programs that move much data, or must not wait.
//
//   readinto(buffer, ms)  fills the buffer, or gives up after ms milliseconds; returns the bytes
//                         read. Any byte is data, Ctrl-C too. Ten times as fast as
//                         sys.stdin.buffer.readinto, which asks the USB stack for each byte.
//   release()             gives the port back to the REPL, which hears nothing since the first
//                         readinto.
//   room()                bytes that print takes now without waiting for the host.
//
// Other boards and stock firmware have no such module; the device package does without it there.
#include <stdbool.h>

#include "py/mphal.h"
#include "py/obj.h"
#include "py/ringbuf.h"
#include "py/runtime.h"
#include "shared/tinyusb/mp_usbd.h"
#ifndef NO_QSTR // the collector of names has no path to TinyUSB
#include "tusb.h"
#endif

#define DTR 1u
#define NAP_MS 1

// While the REPL's buffer looks full, the USB stack leaves what arrives in its own buffer, from
// where it is read as a whole: byte by byte is what costs time. When that is full too, the host
// waits; nothing is lost. Should nobody release it, the REPL reads one buffer of scrap.
static bool taken;

// Hands over what the REPL's buffer holds, then keeps it full; returns the bytes moved.
static size_t take(uint8_t *to, size_t count) {
    size_t there = MIN(ringbuf_avail(&stdin_ringbuf), count);
    ringbuf_memcpy_get_internal(&stdin_ringbuf, to, there);
    if (ringbuf_avail(&stdin_ringbuf) == 0) {
        stdin_ringbuf.iget = 0;
        stdin_ringbuf.iput = stdin_ringbuf.size - 1;
        taken = true;
    }
    return there;
}

static size_t read_usb(uint8_t *to, size_t count, mp_uint_t ms) {
    mp_uint_t start = mp_hal_ticks_ms();
    size_t done = 0;
    while (done < count) {
        mp_usbd_task();
        size_t n = tud_cdc_read(to + done, count - done);
        done += n;
        if (n == 0) {
            if (mp_hal_ticks_ms() - start >= ms) {
                break;
            }
            MICROPY_INTERNAL_WFE(NAP_MS);
        }
    }
    return done;
}

static mp_obj_t link_readinto(mp_obj_t buffer_in, mp_obj_t ms_in) {
    mp_buffer_info_t buffer;
    mp_get_buffer_raise(buffer_in, &buffer, MP_BUFFER_WRITE);
    mp_uint_t ms = mp_obj_get_int(ms_in);
    size_t done = taken ? 0 : take(buffer.buf, buffer.len);
    if (taken) {
        done += read_usb((uint8_t *)buffer.buf + done, buffer.len - done, ms);
    }
    return MP_OBJ_NEW_SMALL_INT(done);
}
static MP_DEFINE_CONST_FUN_OBJ_2(link_readinto_obj, link_readinto);

static mp_obj_t link_release(void) {
    if (taken) {
        stdin_ringbuf.iget = stdin_ringbuf.iput = 0;
        taken = false;
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(link_release_obj, link_release);

// Without a program at the port, what is printed is dropped at once. A host that sleeps is still
// one: MicroPython's print would wait for it without end.
static mp_obj_t link_room(void) {
    bool has_program = tud_cdc_get_line_state() & DTR;
    return MP_OBJ_NEW_SMALL_INT(has_program ? tud_cdc_write_available() : CFG_TUD_CDC_TX_BUFSIZE);
}
static MP_DEFINE_CONST_FUN_OBJ_0(link_room_obj, link_room);

static const mp_rom_map_elem_t link_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_sparsetune_link)},
    {MP_ROM_QSTR(MP_QSTR_readinto), MP_ROM_PTR(&link_readinto_obj)},
    {MP_ROM_QSTR(MP_QSTR_release), MP_ROM_PTR(&link_release_obj)},
    {MP_ROM_QSTR(MP_QSTR_room), MP_ROM_PTR(&link_room_obj)},
};
static MP_DEFINE_CONST_DICT(link_globals, link_globals_table);

const mp_obj_module_t sparsetune_link_module = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&link_globals,
};
MP_REGISTER_MODULE(MP_QSTR_sparsetune_link, sparsetune_link_module);
