"""What a training run takes of a board's RAM, in bytes, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass

from sparsetune_device.data import FEW
from sparsetune_device.main import COLLECT_EVERY

from .boardspec import BoardSpec
from .image import ABSENT, Image, LayerRecord
from .task import Task

# Bytes of MicroPython's objects, 32 bits a word, and of what is left to collect after COLLECT_EVERY
# steps; counted on runs of the emulated Pico, which tests/test_training.py holds against them.
LAYER = 424  # of each trained layer
CHOICE = 448  # of one that trains some of its channels: its policy's objects, and what they leave
VISITED = 300  # where some channels train: visited.py, and what its event leaves
CHOICES = 800  # of the policies in choices.py
IN_FLASH = 930  # where layers stay in flash: columns.py
TAKING_TURNS = 1600  # where their channels take turns: store.py
CACHE = 3400  # of a cache of the frozen front: cache.py, its open file
REPLAY = 2600  # of earlier samples: replay.py, their open file
KEEP = 4000  # of leaving some behind, when all else is done: reservoir.py, its open files
AUGMENT = 704  # where samples are augmented: augment.py
VELOCITY = 500  # where there are velocities: momentum.py
DECAY = 1040  # where weights decay: decay.py
EFFORT = 900  # where effort is counted or steps may be skipped: effort.py
SKIP = 500  # what these steps leave beside
WORTH = 600  # where so many of 100 steps are not skipped: worth.py
EPOCH = 288  # left by telling that an epoch is over


@dataclass(frozen=True)
class Beside:
    """What a run has beside its samples. cache: whether the front's is cached. replay: earlier
    samples that it draws from. keep: samples that it leaves for later runs. augment: whether it
    augments them. skip: whether steps may be skipped; worth: by the share of those that are not.
    chooses: by one of the policies whose code is brought in. decay: whether weights decay."""

    cache: bool = False
    replay: int = 0
    keep: int = 0
    augment: bool = False
    skip: bool = False
    chooses: bool = False
    worth: bool = False
    decay: bool = False


NOTHING = Beside()


@dataclass(frozen=True)
class RamUse:
    """Bytes of the MicroPython heap. data: labels and the order of an epoch; package: the Python
    objects of the device package itself (measured; what does not hang on the plan is from the board
    description); image: where the board has no ROMFS, from which it would be read in place; cold:
    the part of the arena in slower memory, on boards that have two."""

    arena: int
    state: int
    data: int
    package: int
    heap: int
    image: int = 0
    cold: int = 0

    @property
    def free(self) -> int:
        """What gc.mem_free() is expected to say at the run's peak."""
        return self.heap - self.used

    @property
    def used(self) -> int:
        return self.fast + self.cold + self.state + self.data + self.image

    @property
    def fast(self) -> int:
        """What lies in the faster of two memories: the arena is the first that a run allocates
        behind Python's objects. The rest does where there is room."""
        return self.arena + self.package


def predict(image: Image, samples: int, spec: BoardSpec, beside: Beside = NOTHING) -> RamUse:
    """RAM of training `image` on `samples` samples on the given board."""
    orders = max(sum(_order_bytes(layer) for layer in image.layers), _tree_bytes(image.layers))
    data = _of_samples(image.task, samples, beside) + orders
    package = _of_package(samples, spec, beside) + _objects(image.layers)
    package += VELOCITY * image.has_velocity + SKIP * beside.skip
    package += WORTH * beside.worth + DECAY * beside.decay
    package += EFFORT * (image.macs != (0, 0) or beside.skip)
    in_ram, heap = 0 if spec.romfs_bytes else len(image.data), spec.heap_bytes + spec.slow_ram_bytes
    sizes = (image.arena_bytes, image.state_bytes, data, package, heap)
    return RamUse(*sizes, in_ram, image.cold_bytes)


def fixed_bytes(task: Task, samples: int, spec: BoardSpec, beside: Beside = NOTHING) -> int:
    """What a run takes beside arena and state, whatever trains."""
    return _of_samples(task, samples, beside) + _of_package(samples, spec, beside)


def _of_samples(task: Task, samples: int, beside: Beside) -> int:
    """Of each sample its place in the order, in the cache, and its label."""
    label = task.target_bytes if task.has_classes else 0
    number = 2 if samples <= FEW else 4
    each = number * (1 + beside.cache) + label
    return each * samples + label * beside.replay + 4 * beside.keep


def _of_package(samples: int, spec: BoardSpec, beside: Beside) -> int:
    """Python objects of no layer, and what epochs of few samples leave."""
    used = CACHE * beside.cache + REPLAY * (beside.replay > 0) + KEEP * (beside.keep > 0)
    used += AUGMENT * beside.augment + CHOICES * beside.chooses
    return spec.package_bytes + used + EPOCH * ((COLLECT_EVERY - 1) // max(1, samples))


def _objects(layers: tuple[LayerRecord, ...]) -> int:
    """Bytes of the Python objects that these layers take."""
    in_flash = [layer for layer in layers if layer.table_at != ABSENT]
    choices = sum(layer.channels_at != ABSENT for layer in layers)
    turns = any(layer.count > layer.slots for layer in in_flash)
    fixed = VISITED * (choices > 0) + IN_FLASH * bool(in_flash) + TAKING_TURNS * turns
    return LAYER * len(layers) + CHOICE * choices + fixed


def _tree_bytes(layers: tuple[LayerRecord, ...]) -> int:
    """What the policy `importance` draws with, where it can: it has no orders."""
    return max((4 * layer.count for layer in layers if layer.scores_at != ABSENT), default=0)


def _order_bytes(layer: LayerRecord) -> int:
    """Bytes of the policy's order of channels, and of what columns.py knows of a layer."""
    order = 2 * layer.count if layer.channels_at != ABSENT else 0
    known = 2 * (2 * layer.in_channels + layer.slots) if layer.table_at != ABSENT else 0
    return order + known
