# Native module: make -f natmod.mk ARCH=armv6m MPY_DIR=<micropython tree> BUILD=<folder>
MOD = sparsetune_kernels
KERNELS := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VPATH = $(KERNELS)
# mpy_ld.py takes no object without symbols, which another processor's assembly would be.
ASSEMBLY = $(if $(filter armv6m,$(ARCH)),$(KERNELS)*.S)
SRC = $(filter-out bind_cpython.c bind_core1.c simd_%,$(notdir $(wildcard $(KERNELS)*.c $(ASSEMBLY)))) methods.def.h
LINK_RUNTIME = 1
# A native module has no place for tables of addresses, which switches may turn into.
CFLAGS_EXTRA += -O2 -fwrapv -I$(KERNELS) -fno-jump-tables -fno-tree-switch-conversion
ifeq ($(ARCH),xtensawin)
# For Xtensa mpy_ld.py takes what lies at the same place of two object files for one: it gets one.
BUILD ?= build
JOINED := $(patsubst %.c,$(BUILD)/%.o,$(filter %.c,$(SRC)))
SRC = methods.def.h
SRC_O = $(BUILD)/joined.o
endif
include $(MPY_DIR)/py/dynruntime.mk
$(BUILD)/joined.o: $(JOINED)
	$(Q)$(CROSS)ld -r --no-relax -T $(KERNELS)natmod_join.ld -o $@ $^
