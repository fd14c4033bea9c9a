@ Functions that the emulator itself performs: BKPT n inside the ROM calls it, see traps in chip.mjs.
    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .text

    .macro rom_entry name
    .global \name
    .thumb_func
\name:
    .endm

rom_entry rom_flash_range_erase         @ (offset, count, block_size, block_cmd)
    bkpt #1
    bx lr

rom_entry rom_flash_range_program       @ (offset, data, count)
    bkpt #2
    bx lr

rom_entry rom_reset_to_usb_boot         @ the emulator shows the BOOTSEL folder and stops the core
    bkpt #3
    b .

rom_entry rom_fault                     @ a fault before the firmware has set its own vectors
    bkpt #4
    b .

rom_entry rom_wait_for_vector           @ where core 1 would wait; there is no core 1
    wfi
    b rom_wait_for_vector

rom_entry rom_debug_trampoline          @ a debugger calls r7 from here
    blx r7
rom_entry rom_debug_trampoline_end
    bkpt #5
rom_entry rom_nothing
    bx lr
