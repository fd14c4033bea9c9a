@ Bit and memory functions. None touches r12: the SDK's float wrappers keep their return
@ address there while they call clz32.
    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .text

    .macro rom_entry name
    .align 2
    .global \name
    .thumb_func
\name:
    .endm

rom_entry rom_popcount32
    movs r1, #0
    cmp r0, #0
    beq 2f
1:  subs r2, r0, #1             @ x & (x - 1) drops the lowest set bit
    ands r0, r2
    adds r1, #1
    cmp r0, #0
    bne 1b
2:  movs r0, r1
    bx lr

rom_entry rom_reverse32
    movs r1, #1                 @ the marker bit leaves after 32 shifts
    b 2f
1:  adcs r1, r1
    bcs 3f
2:  lsrs r0, r0, #1
    b 1b
3:  movs r0, r1
    bx lr

rom_entry rom_clz32
    movs r1, #32
    lsrs r2, r0, #16
    beq 1f
    movs r0, r2
    subs r1, #16
1:  lsrs r2, r0, #8
    beq 2f
    movs r0, r2
    subs r1, #8
2:  lsrs r2, r0, #4
    beq 3f
    movs r0, r2
    subs r1, #4
3:  lsrs r2, r0, #2
    beq 4f
    movs r0, r2
    subs r1, #2
4:  lsrs r2, r0, #1
    beq 5f
    subs r1, #2
    movs r0, r1
    bx lr
5:  subs r0, r1, r0
    bx lr

rom_entry rom_ctz32
    cmp r0, #0
    beq 1f
    push {r4, lr}
    negs r1, r0
    ands r0, r1                 @ the lowest set bit alone
    bl rom_clz32
    movs r1, #31
    subs r0, r1, r0
    pop {r4, pc}
1:  movs r0, #32
    bx lr

@ void *memset(void *to, uint8_t value, uint32_t count)
rom_entry rom_memset
    push {r0, r4, r5, lr}
    uxtb r1, r1
    lsls r3, r1, #8
    orrs r1, r3
    lsls r3, r1, #16
    orrs r1, r3
1:  lsls r3, r0, #30            @ single bytes up to a word boundary
    beq 2f
    subs r2, #1
    bcc 6f
    strb r1, [r0]
    adds r0, #1
    b 1b
2:  movs r3, r1
    movs r4, r1
    movs r5, r1
    subs r2, #16
    bcc 4f
3:  stmia r0!, {r1, r3, r4, r5}
    subs r2, #16
    bcs 3b
4:  adds r2, #16
    beq 6f
5:  strb r1, [r0]
    adds r0, #1
    subs r2, #1
    bne 5b
6:  pop {r0, r4, r5, pc}

@ void *memcpy(void *to, const void *from, uint32_t count)
rom_entry rom_memcpy
    push {r0, r4, r5, r6, r7, lr}
    movs r3, r0
    eors r3, r1
    lsls r3, r3, #30
    bne 4f                      @ never word aligned together: byte by byte
1:  lsls r3, r0, #30            @ single bytes up to a word boundary
    beq 2f
    subs r2, #1
    bcc 7f
    ldrb r3, [r1]
    strb r3, [r0]
    adds r1, #1
    adds r0, #1
    b 1b
2:  subs r2, #16
    bcc 3f
    ldmia r1!, {r4, r5, r6, r7}
    stmia r0!, {r4, r5, r6, r7}
    b 2b
3:  adds r2, #16
8:  lsrs r3, r2, #2
    beq 4f
    ldmia r1!, {r4}
    stmia r0!, {r4}
    subs r2, #4
    b 8b
4:  cmp r2, #0
    beq 7f
    movs r4, #0
5:  ldrb r3, [r1, r4]
    strb r3, [r0, r4]
    adds r4, #1
    cmp r4, r2
    bne 5b
7:  pop {r0, r4, r5, r6, r7, pc}
