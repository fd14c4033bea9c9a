#ifndef PORT_SETJMP_H
#define PORT_SETJMP_H

typedef int jmp_buf[12];

int setjmp(jmp_buf to) __attribute__((returns_twice));
void longjmp(jmp_buf from, int value) __attribute__((noreturn));

#endif
