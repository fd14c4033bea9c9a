# USER_C_MODULES for Make ports (unix, qemu).
SPARSETUNE_DIR := $(USERMOD_DIR)
SRC_USERMOD_C += $(SPARSETUNE_DIR)/bind_micropython.c
SRC_USERMOD_LIB_C += $(filter-out $(SPARSETUNE_DIR)/bind_%.c $(SPARSETUNE_DIR)/simd_%.c,$(wildcard $(SPARSETUNE_DIR)/*.c))
CFLAGS_USERMOD += -I$(SPARSETUNE_DIR) -fwrapv
