# MULUH and MULSH for the core of QEMU, which has them not: put in front of what was compiled for an
# ESP32-S3. All registers are as they were, but for the result. Nothing interrupts a program here, so
# that what lies below its stack is free. Between the labels stands what is not counted.

    .macro  upper_product is_signed, to, a, b
    addi    a1, a1, -128
upper_from_\@:
    s32i    \a, a1, 0
    s32i    \b, a1, 4
    s32i    a2, a1, 8
    s32i    a3, a1, 12
    s32i    a4, a1, 16
    s32i    a5, a1, 20
    s32i    a6, a1, 24
    s32i    a7, a1, 28
    l32i    a2, a1, 0
    l32i    a3, a1, 4
    extui   a4, a2, 16, 16
    extui   a5, a3, 16, 16
    mul16u  a6, a2, a3
    extui   a6, a6, 16, 16
    mul16u  a7, a4, a3
    add     a6, a6, a7
    mul16u  a7, a2, a5
    extui   a3, a6, 0, 16
    add     a7, a7, a3
    extui   a6, a6, 16, 16
    extui   a7, a7, 16, 16
    mul16u  a4, a4, a5
    add     a4, a4, a6
    add     a4, a4, a7
    .if     \is_signed
    l32i    a3, a1, 4
    srai    a5, a2, 31
    and     a5, a5, a3
    sub     a4, a4, a5
    srai    a5, a3, 31
    and     a5, a5, a2
    sub     a4, a4, a5
    .endif
    s32i    a4, a1, 32
    l32i    a2, a1, 8
    l32i    a3, a1, 12
    l32i    a4, a1, 16
    l32i    a5, a1, 20
    l32i    a6, a1, 24
    l32i    a7, a1, 28
    l32i    \to, a1, 32
    addi    a1, a1, 64
    addi    a1, a1, 64
upper_to_\@:
    .endm

    .macro  mulsh to, a, b
    upper_product 1, \to, \a, \b
    .endm

    .macro  muluh to, a, b
    upper_product 0, \to, \a, \b
    .endm

