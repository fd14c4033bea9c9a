// What a Pico does after reset: run boot2 from flash, or wait in BOOTSEL mode without a valid one.
#include <stdint.h>

#define WATCHDOG_SCRATCH ((volatile uint32_t *)0x4005800c)
#define WATCHDOG_BOOT_MAGIC 0xb007c0d3u
#define FLASH ((const uint8_t *)0x10000000)
#define BOOT2 ((uint8_t *)0x20041f00)
#define BOOT2_SIZE 256

void rom_reset_to_usb_boot(uint32_t led_mask, uint32_t disable_mask);
void rom_jump(uint32_t entry, uint32_t stack, uint32_t return_address);

// CRC-32 as the datasheet gives it for boot2: polynomial 0x04c11db7, not reflected, no final xor.
static uint32_t crc32(const uint8_t *data, uint32_t count)
{
    uint32_t crc = 0xffffffffu;
    for (uint32_t i = 0; i < count; i++) {
        crc ^= (uint32_t)data[i] << 24;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc << 1) ^ (crc & 0x80000000u ? 0x04c11db7u : 0);
        }
    }
    return crc;
}

// watchdog_reboot(pc, sp) leaves an entry point in the scratch registers, guarded by a magic word.
static void boot_from_scratch(void)
{
    volatile uint32_t *scratch = WATCHDOG_SCRATCH;
    uint32_t entry = scratch[7];
    uint32_t guard = scratch[5] ^ entry;
    if (scratch[4] == WATCHDOG_BOOT_MAGIC && guard == -WATCHDOG_BOOT_MAGIC) {
        scratch[4] = 0;
        rom_jump(entry | 1, scratch[6], 0);
    }
}

void rom_boot(void)
{
    boot_from_scratch();
    for (uint32_t i = 0; i < BOOT2_SIZE; i++) {
        BOOT2[i] = FLASH[i];
    }
    uint32_t stored = *(const uint32_t *)(BOOT2 + BOOT2_SIZE - 4);
    if (crc32(BOOT2, BOOT2_SIZE - 4) == stored) {
        // A zero return address tells boot2 to enter the firmware through its vector table.
        rom_jump((uint32_t)BOOT2 | 1, (uint32_t)BOOT2, 0);
    }
    rom_reset_to_usb_boot(0, 0);
}
