// What depends on the processor: which of two equal ways a kernel takes, and where its code lies.
#ifndef ST_ARCH_H
#define ST_ARCH_H

// Where code lies in RAM and that is dear (flavours small and head of native modules, natmod.mk):
// kernels go one way, the one of least code. Conditions ask it, so that the compiler sees both.
#ifndef ST_SMALL
#define ST_SMALL 0
#endif

// Whether operators that training of a last layer does not need are left out (operators.def.h).
#ifndef ST_HEAD
#define ST_HEAD 0
#endif

// In front of a loop: n rounds of it in one.
#if ST_SMALL
#define ST_UNROLL(n)
#else
#define ST_UNROLL(n) ST_PRAGMA(GCC unroll n)
#define ST_PRAGMA(text) _Pragma(#text)
#endif

// For what holds an innermost loop: inlined, it would run short of registers.
#if ST_SMALL
#define ST_HOT __attribute__((noinline, optimize("O2")))
#define ST_HOT_IF_SMALL ST_HOT // there are faster ways elsewhere, and it is rarely run
#else
#define ST_HOT __attribute__((noinline)) ST_IN_RAM
#define ST_HOT_IF_SMALL
#endif

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
#define ST_CORTEX_M0 1
#else
#define ST_CORTEX_M0 0
#endif

// Whether the loops of armv6m_*.S are there.
#define ST_ARMV6M (ST_CORTEX_M0 && !ST_SMALL)

// Whether convolutions go by lanes.h where the image gives them scratch. Tests set it elsewhere
// too.
#ifndef ST_LANES
#define ST_LANES ST_ARMV6M
#endif

// Whether the loops of xtensa_*.S are there: for an ESP32 or S3. An S2 has neither loops nor MAC16.
// Benches set it to 0 to count the portable kernels.
#ifndef ST_XTENSA_MAC16
#if defined(__XTENSA__) && !ST_SMALL && __XCHAL_HAVE_MAC16 && __XCHAL_HAVE_LOOPS &&                \
    __XCHAL_HAVE_MINMAX && __XCHAL_HAVE_CLAMPS && __XCHAL_HAVE_SEXT && __XCHAL_HAVE_MUL16 &&       \
    __XCHAL_HAVE_MUL32
#define ST_XTENSA_MAC16 1
#else
#define ST_XTENSA_MAC16 0
#endif
#endif

// Whether there is MULSH, the upper half of a product; C has it everywhere.
#if defined(__XTENSA__) && !__XCHAL_HAVE_MUL32_HIGH
#define ST_MULSH 0
#else
#define ST_MULSH 1
#endif

// Whether there is SMLAD, two products of int16 and a sum: Cortex-M4, M7, and an RP2350's M33.
#if defined(__thumb__) && defined(__ARM_FEATURE_DSP) && !ST_SMALL
#define ST_SMLAD 1
#else
#define ST_SMLAD 0
#endif

// Whether convolutions go by mac16.h where the image gives them scratch. Tests set it elsewhere
// too.
#ifndef ST_MAC16
#define ST_MAC16 (ST_XTENSA_MAC16 || ST_SMLAD)
#endif

#endif
