// The inner loop of the weight gradients of some channels, whose values at a position are the bytes
// of one or two words: each error that is not zero is multiplied by all of them.
#ifndef ST_ADD_WORDS_H
#define ST_ADD_WORDS_H

#include <stdint.h>

#define ST_WORD_VALUES 4  // of a word
#define ST_WORDS_VALUES 7 // of two, the last byte of which is 0

// dy: errors of one position behind the other, dy_step apart, of the first output channel. x: one
// or two words a position, of values plus 128.
// sums: of an output channel four or seven, of its errors times (value - zero); the sum of its
// errors stands at `room`, in the place of a seventh one if that is 6, and the next channel's sums
// behind it.
typedef struct {
    const int16_t *dy;
    const uint32_t *x;
    int32_t *sums;
    int32_t dy_step, positions, words, out_channels;
    int32_t zero, room;
} st_add_words_t;

void st_add_words(const st_add_words_t *job);

#endif
