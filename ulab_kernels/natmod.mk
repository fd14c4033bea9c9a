# Native module: make -f natmod.mk ARCH=armv6m FLAVOUR=small MPY_DIR=<micropython tree> BUILD=<folder>
# FLAVOUR: full, all ways of all kernels, as fast as they go; small, one way of each, in little RAM;
# head, of these what inference and training of a last layer take.
MOD = sparsetune_kernels
FLAVOUR ?= full
BUILD ?= build
KERNELS := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VPATH = $(KERNELS)
# Of other processors or of CPython.
NOT_OURS = bind_cpython.c bind_core1.c simd_% $(if $(filter xtensawin armv7emsp,$(ARCH)),,%mac16.c)
SOURCES = $(filter-out $(NOT_OURS),$(notdir $(wildcard $(KERNELS)*.c)))
LINK_RUNTIME = 1
CFLAGS_EXTRA += -fwrapv -I$(KERNELS) -fno-tree-switch-conversion
ifeq ($(FLAVOUR),full)
# mpy_ld.py takes no object without symbols, which another processor's assembly would be.
ASSEMBLY_xtensawin = xtensa
ASSEMBLY = $(notdir $(wildcard $(KERNELS)$(or $(ASSEMBLY_$(ARCH)),$(ARCH))_*.S))
SRC = $(SOURCES) $(ASSEMBLY) methods.def.h
# A native module has no place for tables of addresses, which switches may turn into.
CFLAGS_EXTRA += -O2 -fno-jump-tables
else
# All files as one: what nobody calls is left out, and what all use is there once.
SRC = $(MOD)_all.c methods.def.h
CFLAGS_EXTRA += -Os -fwhole-program -DST_SMALL=1 $(if $(filter head,$(FLAVOUR)),-DST_HEAD=1)
# Found by trying: what makes code faster and larger at -Os too.
CFLAGS_EXTRA += -fno-tree-loop-im -fno-move-loop-invariants -fno-expensive-optimizations \
	-fno-guess-branch-probability -fno-web -frename-registers -fno-strict-aliasing
# Thumb's tables are of offsets.
CFLAGS_EXTRA += $(if $(filter armv6m,$(ARCH)),,-fno-jump-tables)
endif
ifeq ($(ARCH),xtensawin)
# For Xtensa mpy_ld.py takes what lies at the same place of two object files for one: it gets one.
JOINED := $(patsubst %.c,$(BUILD)/%.o,$(filter %.c,$(SRC))) $(ASSEMBLY:%.S=$(BUILD)/%.o)
SRC = methods.def.h
SRC_O = $(BUILD)/joined.o
endif
ifeq ($(ARCH),rv32imc)
# The C library's memcpy would be a second one (natmod_libc.c); the rest nobody calls.
override LIBM_PATH =
endif
include $(MPY_DIR)/py/dynruntime.mk
$(BUILD)/joined.o: $(JOINED)
	$(Q)$(CROSS)ld -r --no-relax -T $(KERNELS)natmod_join.ld -o $@ $^
$(MOD)_all.c: $(KERNELS)natmod.mk
	@printf '#include "%s"\n' $(SOURCES) > $@
