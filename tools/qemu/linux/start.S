// Programs without a C library under Linux on Cortex-M and on RISC-V, which qemu-arm and
// qemu-riscv32 run. Linux leaves argc, argv[0], ... on the stack: int start_main(int *arguments).
// int32_t linux_call(number, six arguments), see linux.h.

    .text
    .global _start
    .global linux_call

#if defined(__arm__)

    .syntax unified
    .thumb
    .thumb_func
_start:
    mov     r0, sp
    bl      start_main
    movs    r7, #1              // exit
    svc     0

    .thumb_func
    .type   linux_call, %function
linux_call:
    push    {r4, r5, r7, lr}
    mov     r7, r0
    mov     r0, r1
    mov     r1, r2
    mov     r2, r3
    ldr     r3, [sp, #16]       // the others lie on the caller's stack
    ldr     r4, [sp, #20]
    ldr     r5, [sp, #24]
    svc     0
    pop     {r4, r5, r7, pc}

#else

_start:
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    mv      a0, sp
    call    start_main
    li      a7, 93              // exit
    ecall

linux_call:
    mv      a7, a0
    mv      a0, a1
    mv      a1, a2
    mv      a2, a3
    mv      a3, a4
    mv      a4, a5
    mv      a5, a6
    ecall
    ret

#endif
