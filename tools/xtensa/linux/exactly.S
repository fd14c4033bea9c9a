// For tests: st_requantize_exactly as a compiler might make it, with a loop in it, whose registers
// no function must leave as they were.

    .text
    .align 4
    .global bare_exactly
bare_exactly:
    entry   a1, 32
    movi    a8, 3
    loop    a8, .Lagain
    mov     a10, a2
    mov     a11, a3
    mov     a12, a4
.Lagain:
    call8   st_requantize_exactly
    mov     a2, a10
    retw
