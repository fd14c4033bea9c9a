"""The training run: read a sample, choose channels, step, tell. Change it as you like.

Everything it says goes through `out`, one line at a time (telemetry.py).
"""

import gc
import struct

if hasattr(gc, "threshold"):  # MicroPython
    # Else what imports leave behind parts a heap of hundreds of KB, and no large buffer fits.
    threshold = gc.threshold()
    gc.threshold(16384)

try:
    import sparsetune_kernels as kernels

    from .channels import make_policy, steps_of
    from .checkpoint import OLD, Keeper, is_pulled, load, settings_of
    from .clock import now_us, since_us
    from .data import Order, Samples, forget
    from .engine import HAS_HEAP, UPDATE, Engine, collect
    from .image import open_image
    from .schedule import Schedule, parse_rate, rate_text
    from .telemetry import event_line, hex_events, parse, step_line
    from .teller import Teller, open_teller
finally:  # what has no room is not imported
    if hasattr(gc, "threshold"):
        gc.threshold(threshold)  # the user's, or none
        del threshold

CHECKPOINT_MORE = 1024  # bytes of a checkpoint beside the state, at most
WINDOW = 64  # steps over which the running accuracy is taken
COLLECT_EVERY = 8  # steps between garbage collections: each takes 15 ms and more of a Pico


class Accuracy:
    """Share of right answers over the last WINDOW steps, in units of 1/65536."""

    def __init__(self):
        self.ring = bytearray(WINDOW)
        self.steps = 0
        self.right = 0

    def add(self, is_right):
        at = self.steps % WINDOW
        self.right += is_right - self.ring[at]
        self.ring[at] = is_right
        self.steps += 1
        return self.right * 65536 // min(self.steps, WINDOW)


class Memory:
    """Heap figures; MicroPython only, where RAM is what counts. Elsewhere nothing is said.

    free is looked at just before each collection, when the heap is fullest."""

    def __init__(self):
        self.free_min = None

    def look(self):
        if HAS_HEAP:
            free = gc.mem_free()
            self.free_min = free if self.free_min is None else min(self.free_min, free)
            gc.collect()

    def tell(self, engine, out):
        if self.free_min is None:
            return
        heap = gc.mem_free() + gc.mem_alloc()
        arena, state = len(engine.arena), len(engine.state)
        out(event_line("mem", free=self.free_min, heap=heap, arena=arena, state=state))


COUNTS_RIGHT = ("softmax", "bce")  # losses for which an answer is right or wrong
# What a run hangs on, as a checkpoint keeps it; numbers with a point are text.
DEFAULTS = {
    "steps": 200,  # until which it trains
    "rate": "",  # the learning rate: what the image suggests
    "seed": 1,  # of all that is random
    "policy": "cyclic",  # a class with choose(), or the name of one: channels.py
    "hold": 0,  # steps for which its channels stay, or "epoch"; 0: as it says, else 1, or HOLD
    "schedule": "cosine",  # of the rate: schedule.py
    "warmup": 0,  # steps in which it rises first
    "cache": 0,  # of how many samples a file keeps what the frozen front makes of them: cache.py
    "replay": 0,  # percent of the steps that take an earlier sample: replay.py
    "keep": 0,  # samples of this run that are left for later ones: reservoir.py
    "augment": "",  # how each sample is changed a little: augment.py
    "momentum": "0",  # below 1
    "accumulate": 1,  # samples that a step is made of
    "standardise": "0",  # quantisation steps by which each filter moves; all three: momentum.py
    "decay": "0",  # of weights: decay.py
    "skip": "",  # steps end with their loss below this share of the largest error: effort.py
    "effort": 0,  # percent of the steps that go on behind their loss: worth.py; 0: all
}
HOLD = 8  # steps with the same channels, where others must leave RAM for flash


def train(image, data, *, save_to=None, save_every=100, resume=False, discard=False, flash=None,
          cores=2, out=None, **settings):
    """Trains until settings["steps"] steps are done.

    image, data: paths. save_to: checkpoint path, written every save_every steps (0: at the end
    only), at the end and when interrupted, but not after a step that failed halfway. resume: go on
    from that checkpoint, with its run's settings where none are given; without it, the checkpoint
    of an earlier run is kept as PATH.old. discard: what earlier runs learnt may go, though nobody
    has pulled it. flash: where trained channels go that have no room in RAM, see store.py (what the
    board has); it has room for one run's. cores: 1, or 2 for both of an RP2040's where nobody else
    uses the second one (engine.py). out: takes the lines (a Teller, which does not wait for a host
    that has stopped reading). settings: those of DEFAULTS; None is as if it were not given.
    """
    collect()
    out = out or open_teller()
    memory = Memory()
    # Its reserve, while the heap is whole.
    keeper = Keeper(save_to, resume, discard) if save_to else None
    engine = Engine(open_image(image), cores)
    first, stored = load(save_to, engine.image, engine.state) if resume else (0, "")
    settings = merge(settings, stored)
    steps = settings["steps"]
    if first >= steps:
        raise ValueError("all %d steps are done: ask for more (--steps)" % steps)
    known = settings.pop("data", 0), settings.pop("since", 0)
    run = Run(engine, Samples(data, engine.image), settings, flash)
    run.add_front(data, settings)
    run.begin_at(first, *known)
    if run.store and keeper and not (resume or discard):
        refuse_to_lose(run.store, save_to)
    run.tell_start(first, out)
    settings = None
    collect()  # what the set-up left behind
    memory.look()
    memory.tell(engine, out)
    try:
        run.until(steps, memory, keeper, save_every, out)
    finally:
        if isinstance(out, Teller):
            out.last_lines()
        run.close()
        if keeper and run.step > first and not engine.is_broken:
            run.save(keeper)
            out(event_line("saved", path=save_to, step=run.step))
    memory.look()
    memory.tell(engine, out)
    if run.store:
        run.store.tell(out)
    if run.cache:
        run.cache.tell(out)
    if run.effort:
        run.effort.tell(out)
    if run.settings["keep"]:
        keep_some(data, run, out)
    out(event_line("done", steps=run.step))


def refuse_to_lose(store, path):
    """Raises ValueError where a checkpoint needs columns that a new run would write over."""
    for name in (path, path + OLD):
        run = settings_of(name).get("store")
        if run is not None and store.has_run(run) and not is_pulled(path, name):
            raise ValueError("an earlier run's channels are in the flash that this one would write "
                             "to: pull %s, then train with discard=1" % name)


def check_kept(data, image):
    """Raises ValueError where what is there already could not be added to."""
    from .reservoir import open_earlier

    earlier = open_earlier(data, image)
    if earlier:
        earlier.close()


def keep_some(data, run, out):
    """Leaves some of what the run trained on for later runs."""
    from .reservoir import Reservoir  # RAM for its code only where it is needed

    Reservoir(data, run, run.settings["keep"]).keep(out)


def merge(given, stored):
    """What is given, else what a checkpoint holds, else the defaults. Of skip and effort, which are
    two rules, one that is given takes the place of the other in the checkpoint."""
    for name in given:
        if name not in DEFAULTS:
            raise ValueError("train() takes no %s: choose among %s"
                             % (name, ", ".join(sorted(DEFAULTS))))
    settings = dict(DEFAULTS)
    settings.update((parse(stored) or ("", {}))[1])
    if given.get("skip") or given.get("effort"):
        settings.update(skip="", effort=0)
    settings.update((name, value) for name, value in given.items() if value is not None)
    for name in ("rate", "momentum", "decay", "skip", "standardise"):
        settings[name] = str(settings[name])
    return settings


class Run:
    """The state of a training run beside the engine's own."""

    def __init__(self, engine, samples, settings, flash=None):
        self.engine = engine
        self.samples = samples
        self.seed = seed = settings["seed"]
        self.policy = make_policy(settings["policy"], engine.image.layers, seed)
        self.effort = open_effort(engine, settings)
        rate = parse_rate(settings["rate"]) if settings["rate"] else engine.image.rate
        self.rate = rate
        self.groups = open_groups(engine, settings)
        if self.groups:
            rate = self.groups.rate(rate)
        steps, warmup = settings["steps"], settings["warmup"]
        self.rates = Schedule(settings["schedule"], rate, steps, warmup)
        self.order = Order(samples.count, seed)
        kept = {name: settings.pop(name) for name in ("store", "generation") if name in settings}
        self.columns, self.store = open_columns(engine, flash, kept)
        hold = steps_of(settings["hold"], self.policy, samples.count)
        self.hold = hold or (HOLD if self.store else 1)
        self.visited = open_visited(engine)
        self.augment = open_augment(settings["augment"], engine.image.data)
        self.decay = open_decay(engine, settings, self.policy)
        if self.decay and rate[0]:
            self.decay.shift(rate)  # what it refuses, before the first step
        if self.groups:
            self.hold = self.groups.hold(settings["hold"], self.hold)
        self.accuracy = Accuracy()
        self.counts_right = engine.image.loss in COUNTS_RIGHT
        self.settings = {k: v for k, v in settings.items() if isinstance(v, (int, str))}
        self.settings.setdefault("policy", "class")
        self.epoch = -1
        self.step = 0
        self.own = 0  # steps that took a sample of this run's, not an earlier one
        self.cache = self.replay = None

    def add_front(self, data, settings):
        """What makes use of the place where the frozen front ends. data: path of the samples. RAM
        for code only where it is needed."""
        engine = self.engine
        if settings["keep"]:
            check_kept(data, engine.image)
        if settings["replay"]:
            from .replay import Replay, path_of

            self.replay = Replay(path_of(data), engine, settings["replay"], self.seed)
        if settings["cache"]:
            if self.augment:
                raise ValueError("what the front makes of augmented samples is not cached: leave "
                                 "out augment, or cache")
            from .cache import Cache

            free = 2 * (len(engine.state) + CHECKPOINT_MORE)
            self.cache = Cache(data, engine, self.samples, settings["cache"], free)
        else:
            forget(data)

    def tell_start(self, first, out):
        engine, told = self.engine, dict(self.settings)
        told.update(rate=rate_text(self.rate), cores=engine.cores())
        told.update(image=engine.image.crc, samples=self.samples.count, first=first)
        out(event_line("start", **told))

    def close(self):
        """Files that are open while it runs."""
        self.samples.close()
        if self.cache:
            self.cache.close()
        if self.replay:
            self.replay.samples.close()

    def begin_at(self, step, data=0, since=0):
        """data: CRC of the samples that the checkpoint has been learning from, since so many."""
        self.step = step
        self.own = self.replay.own_before(step) if self.replay else step
        self.since = since if data == self.samples.crc else self.own

    def until(self, steps, memory, keeper, save_every, out):
        start = now_us()
        while self.step < steps:
            if keeper and self.store and self.store.is_crowded():
                self.save(keeper)
            own = self.own
            loss, right = self.one_step()
            accuracy = self.accuracy.add(right) if self.counts_right else None
            # From line to line: a step's time includes telling, saving and collecting.
            us, start = since_us(start), now_us()
            out(step_line(loss, accuracy, us))
            if self.step % COLLECT_EVERY == 0:
                out(event_line("at", step=self.step, steps=steps))  # for who begins to listen now
                memory.look()
                self.tell_visited(out)
            if self.own > own and self.own % self.samples.count == 0:
                out(event_line("epoch", n=self.own // self.samples.count))
                if self.effort and self.step < steps:
                    self.effort.tell(out)
            if keeper and save_every and self.step % save_every == 0:
                self.save(keeper)
        self.tell_visited(out)

    def tell_visited(self, out):
        if self.visited:
            self.visited.tell(self.step, out)

    def save(self, keeper):
        if keeper.saved == self.step:
            return
        collect()  # a file takes a few KB of buffers: not on top of garbage, and given back
        store = self.store  # by these two the columns in flash are found again
        known = {"store": store.run, "generation": store.generation} if store else {}
        if self.settings["keep"]:
            known.update(data=self.samples.crc, since=self.since)
        settings = event_line("run", **self.settings, **known)
        if self.cache:
            self.cache.flush()
        keeper.save(self.engine.image, self.engine.state, self.step, settings)
        if store:
            store.checkpointed()
        collect()

    def bring(self):
        """Columns of the chosen channels into RAM. That allocates: it happens between steps."""
        moved = False
        for columns in self.columns:
            moved |= columns.bring()
        if moved:
            collect()

    def one_step(self):
        """Returns (loss in units of 1/65536, 1 if the answer was right else 0)."""
        engine = self.engine
        if self.replay and self.replay.is_due(self.step):
            label = self.replay.load(self.step)
        else:
            label = self.load_own()
        self.policy.choose(self.step // self.hold, engine.state)
        if self.visited:
            self.visited.mark(engine.state)
        self.bring()
        if self.groups:
            self.groups.begin(self.step)
        seed = kernels.random(self.seed, self.step)
        if self.augment and not engine.begin:
            kernels.augment(engine.sample, self.augment, seed)
        rate = self.rates.rate(self.step)
        loss, answer = (self.effort or engine).step(label, rate, seed)
        # No branch lies between what the kernels learnt and this: at the next one MicroPython will
        # raise a Ctrl-C that came meanwhile.
        self.step += 1
        engine.is_broken = self.decay is not None
        try:
            if self.decay:
                self.decay.after(self.step, rate)
        except KeyboardInterrupt:
            if self.decay:
                self.decay.after(self.step, rate)
            raise
        return loss, is_right(engine.image, label, answer)

    def load_own(self):
        """Brings the next sample of the epoch into the engine; returns its class number."""
        engine = self.engine
        epoch, at = divmod(self.own, self.samples.count)
        if epoch != self.epoch:
            self.epoch = epoch
            self.order.shuffle(epoch)
        self.own += 1
        index = self.order.order[at]
        if self.cache:
            return self.cache.load(index)
        engine.begin = 0
        return self.samples.load(index, engine.sample, engine.target)


def open_decay(engine, settings, policy):
    """See decay.py, whose code takes RAM only where weights decay."""
    if not parse_rate(settings["decay"], "decay")[0]:
        return None
    from .decay import Decay

    return Decay(engine, settings["decay"], settings["seed"], policy)


def open_groups(engine, settings):
    """See momentum.py, whose code takes RAM only where it is asked for."""
    names = "accumulate", "momentum", "standardise"
    asked = [settings[name] for name in names]
    if asked[0] == 1 and not any(parse_rate(asked[i], names[i])[0] for i in (1, 2)):
        # A checkpoint may hold those of a run that had some; its velocities move weights once.
        struct.pack_into("<2I", engine.state, UPDATE, 0, 0)
        return None
    from .momentum import Groups

    if asked[0] > settings["steps"]:
        raise ValueError("accumulate %d: no group of so many samples ends within %d steps"
                         % (asked[0], settings["steps"]))
    return Groups(engine, *asked)


def is_right(image, label, answer):
    """1 if the engine's answer was right, else 0."""
    return int(answer == (label if image.loss == "softmax" else 1))


def tell_columns(image, checkpoint, flash=None, out=print):
    """Tells every trained column that a checkpoint has in flash, as hexadecimal int8."""
    engine = Engine(open_image(image))
    for layer in load_trained(engine, checkpoint, flash):
        for channel in range(layer.layer.in_channels):
            column = layer.in_store(channel)
            if column is not None:
                for line in hex_events("column", column, op=layer.layer.operator, channel=channel):
                    out(line)


def open_effort(engine, settings):
    """See effort.py, whose code takes RAM only where effort is counted, or steps are skipped."""
    skip, percent = settings["skip"], settings["effort"]
    if not (engine.image.macs[1] or skip or percent):
        return None
    from .effort import Effort, make_rule

    return Effort(engine, make_rule(skip, percent), settings["accumulate"])


def open_columns(engine, flash, settings, reads_only=False):
    """See columns.py, whose code takes RAM only where a layer stays in flash."""
    if not any(layer.has_columns for layer in engine.image.layers):
        return (), None
    from .columns import open_columns

    return open_columns(engine, flash, settings, reads_only)


def open_augment(text, image):
    """See augment.py, whose code takes RAM only where samples are augmented."""
    if not text:
        return None
    from .augment import open_augment

    return open_augment(text, image)


def open_visited(engine):
    """What counts visited weights, where a step trains only some of a layer's."""
    layers = engine.image.layers
    if not any(layer.is_sparse for layer in layers):
        return None
    from .visited import Visited

    return Visited(layers, engine.state)


def load_trained(engine, checkpoint, flash=None):
    """Brings what was learnt into the engine; returns its layers that stay in flash."""
    settings = (parse(load(checkpoint, engine.image, engine.state)[1]) or ("", {}))[1]
    settings.setdefault("store", 0)  # a run without one
    return open_columns(engine, flash, settings, reads_only=True)[0]


def evaluate(image, data, checkpoint=None, outputs=False, flash=None, out=print):
    """Runs the model over all samples and tells the mean loss and how many it got right.

    checkpoint: path of what was learnt, else the model as it came. outputs: also tell the raw
    output of every sample, as hexadecimal int8. flash: as for train.
    """
    engine, samples = open_trained(image, data, checkpoint, flash)
    correct, loss = measure_samples(engine, samples, range(samples.count), outputs, out)
    samples.close()
    out(eval_line(correct, loss, samples.count))


def open_trained(image, data, checkpoint=None, flash=None):
    """(engine with what was learnt, samples), ready for measure_samples; see evaluate."""
    engine = Engine(open_image(image))
    if checkpoint:
        load_trained(engine, checkpoint, flash)
    return engine, Samples(data, engine.image)


def measure_samples(engine, samples, numbers, outputs, out):
    """(right answers, sum of the losses) over the samples with these numbers; see evaluate."""
    correct, loss = 0, 0
    for i in numbers:
        label = samples.load(i, engine.sample, engine.target)
        if outputs:
            engine.infer()
            for line in hex_events("output", engine.output, n=i):
                out(line)
            samples.load(i, engine.sample, engine.target)  # inference may have written over it
        sample_loss, answer = engine.measure(label)
        correct += is_right(engine.image, label, answer)
        loss += sample_loss
    return correct, loss


def eval_line(correct, loss, count):
    return event_line("eval", correct=correct, total=count, loss=loss // count)
