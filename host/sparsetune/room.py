"""What a training run may take of a board, and whether a plan fits in. How many samples do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsetune_device.checkpoint import HEADER_BYTES as CHECKPOINT_HEAD

from .boardspec import BoardSpec
from .compile import compile_image
from .data import HEADER_BYTES
from .errors import SparsetuneError
from .graph import Graph
from .image import Layout, parse_image
from .littlefs import BLOCK, MARGIN, OWN_BLOCKS, blocks_of, capacity
from .memory import NOTHING, Beside, RamUse, predict
from .plan import LayerPlan, UpdatePlan

CHECKPOINT_TEXT = 512  # of a checkpoint's settings, at most
TARGETS_PAD = 3  # behind the targets of a sample file, at most


def checkpoints_blocks(state_bytes: int) -> int:
    """Blocks of the file system for a checkpoint and its follower."""
    return 2 * blocks_of(CHECKPOINT_HEAD + state_bytes + CHECKPOINT_TEXT)


def free_blocks(spec: BoardSpec, state_bytes: int) -> int:
    """Blocks of the board's file system beside its own and checkpoints."""
    return spec.filesystem_bytes // BLOCK - OWN_BLOCKS - MARGIN - checkpoints_blocks(state_bytes)


def files_room(spec: BoardSpec, state_bytes: int) -> int:
    """Bytes of samples, with their targets, for which the board's file system has room where
    nothing else is on it."""
    return max(0, capacity(free_blocks(spec, state_bytes)) - HEADER_BYTES - TARGETS_PAD)


def beyond_files(
    spec: BoardSpec, state_bytes: int, samples: int, each: int, others: int = 0
) -> str:
    """Why samples of `each` bytes, files of `others` bytes and checkpoints do not fit the board's
    file system; empty where they do."""
    room = max(0, files_room(spec, state_bytes) - others)
    if samples * each <= room:
        return ""
    return (
        f"{samples:,} samples take {samples * each:,} bytes, the board's file system has room for "
        f"{room // each:,} of them"
    )


@dataclass(frozen=True)
class Room:
    """ram: bytes of the heap that may be used. samples: that are trained on. store_bytes: of flash
    for trained channels. Slower RAM beside the heap is the board's. beside: what the run has
    beside. sample_bytes: of each sample in the board's file system; 0 where none are put there."""

    spec: BoardSpec
    ram: int
    samples: int
    store_bytes: int = 0
    beside: Beside = NOTHING
    sample_bytes: int = 0

    def use(self, layout: Layout) -> RamUse:
        return predict(parse_image(layout.image), self.samples, self.spec, self.beside)

    def compile(self, graph: Graph, plan: UpdatePlan, rate: str = "0.005") -> Layout:
        """With scratch for the faster kernels where that fits, without where only that does."""
        layout = self._compile(graph, plan, rate)
        if plan.scratch and not self.holds(layout):
            lean = self._compile(graph, replace(plan, scratch=False), rate)
            return lean if self.holds(lean) else layout
        return layout

    def _compile(self, graph: Graph, plan: UpdatePlan, rate: str) -> Layout:
        """In the fast RAM alone where that does; else the buffers that are touched least go to the
        slower one."""
        layout = compile_image(graph, plan, rate)
        if self.short(layout) <= 0 or not self.spec.slow_ram_bytes:
            return layout
        return compile_image(graph, plan, rate, max(0, self.ram - self.use(layout).package))

    @property
    def total(self) -> int:
        """Bytes of both memories."""
        return self.ram + self.spec.slow_ram_bytes

    def short(self, layout: Layout) -> int:
        """Bytes by which it takes more than is there, 0 or less where it fits."""
        use = self.use(layout)
        return max(use.used - self.total, use.fast - self.ram)

    def holds(self, layout: Layout) -> bool:
        return self.short(layout) <= 0

    def takes(self, graph: Graph, plan: UpdatePlan) -> bool:
        """Whether it can be compiled and fits."""
        try:
            return self.holds(self.compile(graph, plan))
        except SparsetuneError:
            return False


def with_residual(graph: Graph, plan: UpdatePlan, room: Room) -> UpdatePlan:
    """The plan with 8 more bits of each trained weight, as far as they have room: a byte of RAM
    each, of layers next to the output first. Layers in flash have none. The rate is to be found
    anew then."""
    if plan.residual:
        return plan
    try:
        free = _spare(room, room.use(room.compile(graph, plan)))
    except SparsetuneError:
        return plan
    layers = []
    for layer in reversed(plan.layers):
        more = _residual_bytes(graph, layer)
        is_fine = 0 < more <= free
        free -= more if is_fine else 0
        layers.append(replace(layer, coarse=not is_fine))
    if all(layer.coarse for layer in layers):
        return plan
    return replace(plan, layers=tuple(reversed(layers)), residual=True, rate="")


def _spare(room: Room, use: RamUse) -> int:
    """Bytes by which the state may grow: in RAM, and as checkpoints beside the samples."""
    ram = room.total - use.used
    if not room.sample_bytes:
        return ram
    files = files_room(room.spec, use.state) - room.samples * room.sample_bytes
    return min(ram, files // 2 - BLOCK)


def _residual_bytes(graph: Graph, layer: LayerPlan) -> int:
    """0 where the layer can have none."""
    if layer.slots or not layer.channels:
        return 0
    return (graph.tensor(graph.operator(layer.operator).inputs[1]).size + 3) & ~3
