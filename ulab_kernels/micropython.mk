# USER_C_MODULES for Make ports (unix, qemu).
SPARSETUNE_DIR := $(USERMOD_DIR)
SRC_USERMOD_C += $(SPARSETUNE_DIR)/bind_micropython.c
SRC_USERMOD_LIB_C += $(filter-out $(SPARSETUNE_DIR)/bind_%.c $(SPARSETUNE_DIR)/simd_%.c,$(wildcard $(SPARSETUNE_DIR)/*.c))
# What arch.h takes for a Cortex-M0+ has its loops in assembly; for others the files are empty.
SRC_USERMOD_LIB_ASM += $(wildcard $(SPARSETUNE_DIR)/armv6m_*.S)
CFLAGS_USERMOD += -I$(SPARSETUNE_DIR) -fwrapv
