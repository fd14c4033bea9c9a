@ Start of the ROM: exception vectors, then the fixed words that firmware looks functions up by
@ (RP2040 datasheet, "Bootrom Contents": magic at 0x10, tables at 0x14, 0x16, 0x18).
    .syntax unified
    .cpu cortex-m0plus
    .thumb

    .section .vectors, "ax"
    .word 0x20041f00            @ initial stack: below the 256 bytes that boot2 is copied to
    .word rom_start + 1
    .word rom_fault + 1         @ NMI
    .word rom_fault + 1         @ HardFault
    .byte 'M', 'u', 1, 2        @ magic, ROM version 2: the oldest one with double precision
    .hword function_table
    .hword data_table
    .hword rom_table_lookup + 1

    .macro rom_function first, second, target
    .byte \first, \second
    .hword \target + 1
    .endm

    .macro rom_datum first, second, target
    .byte \first, \second
    .hword \target
    .endm

    .align 2
function_table:
    rom_function 'P', '3', rom_popcount32
    rom_function 'R', '3', rom_reverse32
    rom_function 'L', '3', rom_clz32
    rom_function 'T', '3', rom_ctz32
    rom_function 'M', 'S', rom_memset
    rom_function 'S', '4', rom_memset
    rom_function 'M', 'C', rom_memcpy
    rom_function 'C', '4', rom_memcpy
    rom_function 'U', 'B', rom_reset_to_usb_boot
    rom_function 'D', 'T', rom_debug_trampoline
    rom_function 'D', 'E', rom_debug_trampoline_end
    rom_function 'W', 'V', rom_wait_for_vector
    rom_function 'I', 'F', rom_nothing      @ connect_internal_flash
    rom_function 'E', 'X', rom_nothing      @ flash_exit_xip: reads never leave XIP mode here
    rom_function 'F', 'C', rom_nothing      @ flash_flush_cache: there is no cache
    rom_function 'C', 'X', rom_nothing      @ flash_enter_cmd_xip
    rom_function 'R', 'E', rom_flash_range_erase
    rom_function 'R', 'P', rom_flash_range_program
    .hword 0

data_table:
    rom_datum 'C', 'R', copyright
    rom_datum 'G', 'R', revision
    rom_datum 'S', 'F', soft_float_table
    rom_datum 'S', 'D', soft_double_table
    .hword 0

copyright:
    .asciz "sparsetune boot ROM for the emulated Pico"
    .align 2
revision:
    .word 1

@ void *rom_table_lookup(uint16_t *table, uint32_t code): the entry for code, or 0.
    .text
    .thumb_func
    .global rom_table_lookup
rom_table_lookup:
    ldrh r2, [r0]
    cmp r2, #0
    beq 2f
    cmp r2, r1
    beq 1f
    adds r0, #4
    b rom_table_lookup
1:  ldrh r0, [r0, #2]
    bx lr
2:  movs r0, #0
    bx lr
