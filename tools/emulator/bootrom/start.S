    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .text

    .global rom_start
    .thumb_func
rom_start:
    bl rom_boot
    b .

@ void rom_jump(entry, stack, return_address): never returns.
    .global rom_jump
    .thumb_func
rom_jump:
    msr msp, r1
    mov lr, r2
    bx r0

@ (sin, cos) of one double come back in r0-r3, which C cannot express.
    .global rom_dsincos
    .thumb_func
rom_dsincos:
    push {r4, r5, r6, r7, lr}
    sub sp, #4
    movs r4, r0
    movs r5, r1
    bl rom_dsin
    movs r6, r0
    movs r7, r1
    movs r0, r4
    movs r1, r5
    bl rom_dcos
    movs r2, r0
    movs r3, r1
    movs r0, r6
    movs r1, r7
    add sp, #4
    pop {r4, r5, r6, r7, pc}

@ Deprecated compare that answers in the condition flags.
    .global rom_fcmp_flags
    .thumb_func
rom_fcmp_flags:
    push {r0, r1, r2, lr}
    bl rom_fcmp
    cmp r0, #0
    pop {r0, r1, r2, pc}

    .global rom_dcmp_flags
    .thumb_func
rom_dcmp_flags:
    push {r0, r1, r2, r3, r4, lr}
    bl rom_dcmp
    cmp r0, #0
    pop {r0, r1, r2, r3, r4, pc}
