@ The two tables that pico_float and pico_double copy, in the datasheet's order. The arithmetic is
@ libgcc's, so results are IEEE 754 with denormals, where the real ROM flushes them to zero.
    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .section .rodata.float_tables, "a"

    .macro functions names:vararg
    .irp name, \names
    .word \name
    .endr
    .endm

    .align 2
    @ the byte two before each table is its number of entries
    .hword 0, 32
    .global soft_float_table
soft_float_table:
    functions __aeabi_fadd, __aeabi_fsub, __aeabi_fmul, __aeabi_fdiv
    functions rom_fcmp, rom_fcmp_flags, rom_fsqrt
    functions rom_f2int, rom_f2fix, rom_f2uint, rom_f2ufix
    functions __aeabi_i2f, rom_fix2f, __aeabi_ui2f, rom_ufix2f
    functions rom_fcos, rom_fsin, rom_ftan, rom_fsincos, rom_fexp, rom_fln
    functions rom_fcmp, rom_fatan2
    functions __aeabi_l2f, rom_fix642f, __aeabi_ul2f, rom_ufix642f
    functions rom_f2int64, rom_f2fix64, rom_f2uint64, rom_f2ufix64
    functions __aeabi_f2d

    .hword 0, 32
    .global soft_double_table
soft_double_table:
    functions __aeabi_dadd, __aeabi_dsub, __aeabi_dmul, __aeabi_ddiv
    functions rom_dcmp, rom_dcmp_flags, rom_dsqrt
    functions rom_d2int, rom_d2fix, rom_d2uint, rom_d2ufix
    functions __aeabi_i2d, rom_fix2d, __aeabi_ui2d, rom_ufix2d
    functions rom_dcos, rom_dsin, rom_dtan, rom_dsincos, rom_dexp, rom_dln
    functions rom_dcmp, rom_datan2
    functions __aeabi_l2d, rom_fix642d, __aeabi_ul2d, rom_ufix642d
    functions rom_d2int64, rom_d2fix64, rom_d2uint64, rom_d2ufix64
    functions __aeabi_d2f
