// Windows of registers on the stack, and jumps across frames.

    .text

// void port_spill_windows(void): what all callers hold in registers lies on the stack afterwards.
    .align 4
    .global port_spill_windows
port_spill_windows:
    entry   a1, 32
    movi    a10, 12
    call8   .Ldeeper
    retw

// More calls than there are windows, of which each older one must make room.
    .align 4
.Ldeeper:
    entry   a1, 32
    beqz    a2, 1f
    addi    a10, a2, -1
    call8   .Ldeeper
1:  retw

// int setjmp(words): 0-3 the caller's a0-a3, 4-7 its a4-a7, 8 the return address, 9 the stack
// pointer, 10 where a4-a7 are saved. Below a frame lie a0-a3 of its caller; a4-a7 of that, which
// called by call8, lie below the frame of its own caller.
    .align 4
    .global setjmp
setjmp:
    entry   a1, 48
    movi    a10, 12
    call8   .Ldeeper
    addi    a3, a1, -16
    l32i    a4, a3, 0
    l32i    a5, a3, 4
    l32i    a6, a3, 8
    l32i    a7, a3, 12
    s32i    a4, a2, 0
    s32i    a5, a2, 4
    s32i    a6, a2, 8
    s32i    a7, a2, 12
    addi    a3, a5, -16
    l32i    a3, a3, 4
    addi    a3, a3, -32
    l32i    a4, a3, 0
    l32i    a5, a3, 4
    l32i    a6, a3, 8
    l32i    a7, a3, 12
    s32i    a4, a2, 16
    s32i    a5, a2, 20
    s32i    a6, a2, 24
    s32i    a7, a2, 28
    s32i    a0, a2, 32
    s32i    a1, a2, 36
    s32i    a3, a2, 40
    movi    a2, 0
    retw

// void longjmp(words, value): puts all that back where a return from setjmp will find it.
    .align 4
    .global longjmp
longjmp:
    entry   a1, 48
    mov     a4, a2
    mov     a5, a3
    movi    a10, 12
    call8   .Ldeeper
    l32i    a6, a4, 36
    addi    a7, a6, -16
    l32i    a8, a4, 0
    s32i    a8, a7, 0
    l32i    a8, a4, 4
    s32i    a8, a7, 4
    l32i    a8, a4, 8
    s32i    a8, a7, 8
    l32i    a8, a4, 12
    s32i    a8, a7, 12
    l32i    a7, a4, 40
    l32i    a8, a4, 16
    s32i    a8, a7, 0
    l32i    a8, a4, 20
    s32i    a8, a7, 4
    l32i    a8, a4, 24
    s32i    a8, a7, 8
    l32i    a8, a4, 28
    s32i    a8, a7, 12
    l32i    a0, a4, 32
    mov     a2, a5
    movi    a8, 1
    moveqz  a2, a8, a5          // never 0
    mov     a1, a6
    retw
