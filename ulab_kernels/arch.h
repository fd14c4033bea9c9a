// What depends on the processor: which of two equal ways a kernel takes, and where its code lies.
#ifndef ST_ARCH_H
#define ST_ARCH_H

// For what holds an innermost loop: inlined, it would run short of registers.
#define ST_HOT __attribute__((noinline)) ST_IN_RAM

// For what runs once for many elements: small, and on its own, so that its arrays do not lie on the
// stack beside those of others.
#define ST_ONCE __attribute__((noinline))

// The firmware copies these to RAM, where no cache misses. Elsewhere there is no such place.
#ifdef ST_RAM_SECTION
#define ST_IN_RAM __attribute__((section(ST_RAM_SECTION)))
#else
#define ST_IN_RAM
#endif

// Cortex-M0 and M0+.
#if defined(__ARM_ARCH_6M__)
#define ST_ARMV6M 1
#else
#define ST_ARMV6M 0
#endif

// Whether convolutions go by lanes.h where the image gives them scratch. Tests set it elsewhere
// too.
#ifndef ST_LANES
#define ST_LANES ST_ARMV6M
#endif

#endif
