// Programs without a C library under Linux on Xtensa, which qemu-xtensa runs.

    .text

// The kernel leaves argc, argv[0], ... on the stack: int start_main(int *arguments).
    .align 4
    .global _start
_start:
    movi    a0, 0
    mov     a10, a1
    addi    a1, a1, -64
    movi    a2, -16
    and     a1, a1, a2
    call8   start_main
    movi    a2, 118             // exit
    mov     a6, a10
    syscall

// int32_t linux_call(number, six arguments): number in a2, arguments in a6, a3, a4, a5, a8, a9.
    .align 4
    .global linux_call
linux_call:
    entry   a1, 32
    mov     a10, a6
    mov     a6, a3
    mov     a3, a4
    mov     a4, a5
    mov     a5, a10
    mov     a8, a7
    l32i    a9, a1, 32          // the seventh lies on the caller's stack
    syscall
    retw
