// XTENSA_GNU_CONFIG plugin for Debian's compiler and binutils of the ESP8266: the options that an
// ESP32-S3 has in common with QEMU's core de233_fpu. WITH_MULH=1 adds MULUH and MULSH, which the
// S3 has and the core of QEMU has not. xtensa-dynconfig.h (binutils) says what each name means.
#define XCHAL_HAVE_BE 0
#define XCHAL_HAVE_DENSITY 1
#define XCHAL_HAVE_CONST16 0
#define XCHAL_HAVE_ABS 1
#define XCHAL_HAVE_ADDX 1
#define XCHAL_HAVE_L32R 1
#define XSHAL_USE_ABSOLUTE_LITERALS 0
#define XSHAL_HAVE_TEXT_SECTION_LITERALS 1
#define XCHAL_HAVE_MAC16 1
#define XCHAL_HAVE_MUL16 1
#define XCHAL_HAVE_MUL32 1
#define XCHAL_HAVE_MUL32_HIGH WITH_MULH
#define XCHAL_HAVE_DIV32 1
#define XCHAL_HAVE_NSA 1
#define XCHAL_HAVE_MINMAX 1
#define XCHAL_HAVE_SEXT 1
#define XCHAL_HAVE_LOOPS 1
#define XCHAL_HAVE_THREADPTR 1
#define XCHAL_HAVE_RELEASE_SYNC 1
#define XCHAL_HAVE_S32C1I 1
#define XCHAL_HAVE_BOOLEANS 1
#define XCHAL_HAVE_CLAMPS 1
#define XCHAL_HAVE_DEPBITS 0
#define XCHAL_HAVE_EXCLUSIVE 0
#define XCHAL_HAVE_XEA3 0
#define XCHAL_HAVE_WIDE_BRANCHES 0
#define XCHAL_HAVE_PREDICTED_BRANCHES 0

// Floats of 32 bits.
#define XCHAL_HAVE_FP 1
#define XCHAL_HAVE_FP_DIV 1
#define XCHAL_HAVE_FP_RECIP 1
#define XCHAL_HAVE_FP_SQRT 1
#define XCHAL_HAVE_FP_RSQRT 1
#define XCHAL_HAVE_FP_POSTINC 1

// Calls turn a window of 64 registers.
#define XCHAL_HAVE_WINDOWED 1
#define XCHAL_NUM_AREGS 64
#define XTHAL_ABI_WINDOWED 0
#define XTHAL_ABI_CALL0 1
#define XSHAL_ABI XTHAL_ABI_WINDOWED

// What neither compiler nor assembler decides by.
#define XCHAL_ICACHE_SIZE 0
#define XCHAL_DCACHE_SIZE 0
#define XCHAL_ICACHE_LINESIZE 4
#define XCHAL_DCACHE_LINESIZE 4
#define XCHAL_ICACHE_LINEWIDTH 2
#define XCHAL_DCACHE_LINEWIDTH 2
#define XCHAL_DCACHE_IS_WRITEBACK 0
#define XCHAL_HAVE_MMU 0
#define XCHAL_HAVE_DEBUG 1
#define XCHAL_NUM_IBREAK 2
#define XCHAL_NUM_DBREAK 2
#define XCHAL_DEBUGLEVEL 6
#define XCHAL_MAX_INSTRUCTION_SIZE 3
#define XCHAL_INST_FETCH_WIDTH 4
#define XCHAL_M_STAGE 2
#define XTENSA_MARCH_LATEST 260003
#define XTENSA_MARCH_EARLIEST 260003

#define XTENSA_CONFIG_DEFINITION
#include <stddef.h>
#include "xtensa-dynconfig.h"

// By these names the tools find their parts.
XTENSA_CONFIG_INSTANCE_LIST;

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)
#undef XTENSA_CONFIG_ENTRY
#define XTENSA_CONFIG_ENTRY(name) "__" #name "=" TEXT(name)
const char *const xtensa_config_strings[] = {XTENSA_CONFIG_ENTRY_LIST, NULL};
int plugin_is_GPL_compatible;
