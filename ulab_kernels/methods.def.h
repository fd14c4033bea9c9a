// The one method table of the module `sparsetune_kernels`: firmware module, native .mpy and
// CPython extension are all made from it.
//
// ST_METHOD(name, qstr, signature): one letter an argument.
//   r  anything with the buffer protocol    w  a writable buffer    i  an int, taken modulo 2^32

// run(image, state, arena, cold, store, begin, end, how) -> int: runs operators [begin, end) of the
// program. how: 1 if training, and twice st_cores_t: which cores (cores.h). Returns how many did.
ST_METHOD(run, MP_QSTR_run, "rwwwriii")
// gather(to, to_at, from, from_at, step, count): to[to_at + i] = from[from_at + i * step], bytes.
ST_METHOD(gather, MP_QSTR_gather, "wiriii")
// augment(sample, params, seed) -> 0: a sample augmented in place (augment.h).
ST_METHOD(augment, MP_QSTR_augment, "wri")
// decay(state, at, fractions_at, count, mantissa, shift, seed): the int8 weights from `at` on, and
// their fractions (0xffffffff: none), shrink by the share mantissa * 2^-shift (decay.h).
ST_METHOD(decay, MP_QSTR_decay, "wiiiiii")
// shuffle(order, count, seed): uint16 order[count] becomes a permutation of 0 ... count - 1.
ST_METHOD(shuffle, MP_QSTR_shuffle, "wii")
// draw(state, scores_at, count, channels_at, chosen, tree, seed): `chosen` of `count` channels, by
// the scores in the state, into the list there (choice.h). tree: scratch, 4 * count bytes.
ST_METHOD(draw, MP_QSTR_draw, "wiiiiwi")
// mark(state, bits_at, count, channels_at, chosen) -> int: sets the chosen channels' bits; how many
// of them were not set before.
ST_METHOD(mark, MP_QSTR_mark, "wiiii")
// random(seed, counter) -> int in [0, 2^30): a pure function of its arguments.
ST_METHOD(random, MP_QSTR_random, "ii")
// abi() -> int: the version of the image format that this module runs.
ST_METHOD(abi, MP_QSTR_abi, "")
