# MicroPython's own qemu port on a Cortex-M4 with floats of 32 bits, which loads armv7emsp modules:
# MicroPython 1.25 has boards for cores without.
QEMU_ARCH = arm
QEMU_MACHINE = mps2-an386

CFLAGS += -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
CFLAGS += -DQEMU_SOC_MPS2
CFLAGS += -DMICROPY_HW_MCU_NAME='"Cortex-M4F"'

LDSCRIPT = mcu/arm/mps2.ld

SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o floats.o
# The port starts with floats off.
LDFLAGS += -Wl,--wrap=uart_init

MPY_CROSS_FLAGS += -march=armv7emsp

$(BUILD)/floats.o: $(BOARD_DIR)/floats.c
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<
