"""Runs an image: inference and training steps over one arena and one state buffer."""

import gc
import struct

import sparsetune_kernels as kernels

HAS_HEAP = hasattr(gc, "mem_free")  # MicroPython; CPython looks after itself

# How run() uses this many cores (st_cores_t): two where the chip has them and nobody else uses the
# second, else one. The result is the same, bit for bit.
CORES = {1: 0, 2: 1}

# Byte offsets in the control block, the first bytes of the state buffer (st_control_t).
LABEL, LOSS, PREDICTED, RATE, SEED, UPDATE = 0, 4, 8, 12, 20, 28


def collect():
    """Of a heap of a few KB nothing may be left lying; CPython would only lose time."""
    if HAS_HEAP:
        gc.enable()  # a gc.disable() outlives a soft reset, and training would run out of memory
        gc.collect()


def _no_room(need):
    free = "%d are free" % gc.mem_free() if HAS_HEAP else "too few are free"
    return "the image needs %d bytes of RAM, %s: plan again with a smaller --ram" % (need, free)


class Engine:
    """arena: everything that lives within a step, but for what the plan puts into slower memory,
    cold. state: what is learnt. store: flash, for what is learnt and has no room in the state.
    All are allocated here, once; a step allocates no buffer. cores: 1, or 2 for both of the chip's.
    Raises ValueError for others, and where there is too little RAM. is_broken: a step failed on
    the way, and the state may hold half of its update. begin: the operator that a step begins with:
    0, or image.cut_at where what the front makes of the sample stands in its place already."""

    def __init__(self, image, cores=2):
        if cores not in CORES:
            raise ValueError("cores: choose 1 or 2")
        self.image = image
        self.how = 2 * CORES[cores]
        self.is_broken = False
        self.begin = 0
        collect()
        try:
            self.arena = bytearray(image.arena_bytes)
            self.cold = bytearray(image.cold_bytes)
            self.state = image.initial_state()
        except MemoryError:
            need = image.arena_bytes + image.cold_bytes + image.state_bytes
            raise ValueError(_no_room(need))
        self.store = b""
        self.sample = memoryview(self.arena)[image.input_at : image.input_at + image.input_bytes]
        end = image.target_at + (image.target_bytes if image.has_vectors else 0)
        self.target = memoryview(self.arena)[image.target_at : end]
        self.output = memoryview(self.arena)[image.output_at : image.output_at + image.output_bytes]

    def cut(self):
        """Where the tensor stands that the frozen front hands to the rest: a view. Raises
        ValueError where the image has none."""
        image = self.image
        if not image.cut_at:
            raise ValueError("nothing in front of the trained layers stays the same, or several "
                             "tensors cross there: train fewer layers, or leave out the cache")
        at = image.cut_ref & 0x1FFFFFFF
        view = memoryview(self.cold if image.cut_ref >> 29 == 3 else self.arena)
        if image.cut_at >= image.ops or at + image.cut_bytes > len(view):
            raise ValueError("the image is damaged: push it again")
        return view[at : at + image.cut_bytes]

    def _run(self, begin, end, training):
        """Operators [begin, end) of the program; returns how many cores did them."""
        how = self.how + training
        try:
            return kernels.run(self.image.data, self.state, self.arena, self.cold, self.store,
                               begin, end, how)
        except ValueError:
            self.is_broken = True
            raise

    def cores(self):
        """How many cores work on a run, as a run of nothing tells."""
        return self._run(0, 0, 0)

    def infer(self):
        """Runs the forward pass on what stands in self.sample; the result is in self.output."""
        self._run(0, self.image.forward_ops, 0)

    def run_front(self):
        """What lies in front of the trained layers, on what stands in self.sample (see cut)."""
        self._run(0, self.image.cut_at, 1)

    def measure(self, label):
        """The forward pass and the loss on self.sample, without learning: (loss in units of
        1/65536, answer), see step."""
        struct.pack_into("<i", self.state, LABEL, label)
        self._run(0, self.image.loss_ops, 1)
        return struct.unpack_from("<2i", self.state, LOSS)

    def step(self, label, rate, seed):
        """One training step on self.sample (see begin) and, where it is a vector, self.target.
        label: its class, else 0. rate: (mantissa, exponent) of the
        learning rate. seed: of the stochastic rounding, another one each step.

        Returns (loss in units of 1/65536, answer), both from before the update. The answer is the
        predicted class; of a loss on targets: 1 if every output was on the right side.
        """
        return self._step_until(self.image.ops, label, rate, seed)

    def begin_step(self, label, rate, seed):
        """The part of a step that ends with the loss: nothing is learnt yet. Returns as step."""
        return self._step_until(self.image.loss_ops, label, rate, seed)

    def finish_step(self):
        """The other part, right behind it."""
        self._run(self.image.loss_ops, self.image.ops, 1)

    def _step_until(self, end, label, rate, seed):
        struct.pack_into("<i", self.state, LABEL, label)
        struct.pack_into("<IiI", self.state, RATE, rate[0], rate[1], seed)
        self._run(self.begin, end, 1)
        return struct.unpack_from("<2i", self.state, LOSS)
