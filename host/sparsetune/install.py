"""The kernels and the device package for a board with stock MicroPython, sent to its file system.

Nothing is expected of the board but MicroPython: pieces of files travel as code of the raw REPL. A
file gets its name when it is whole; while files are replaced the package has no __init__, so that
what a broken-off installation leaves is no package of any version, and the next one mends it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from . import __version__
from .board import LESS_RAM, Board, BoardInfo
from .board_files import check_room, removals
from .boardspec import board_names
from .errors import SparsetuneError
from .firmware_file import OLDEST, version_number
from .image import Image
from .native import FLAVOURS, PACKAGE, check_core, device_files, native_module
from .push import check_rom
from .transfer import FILE_IMAGE, ROM_IMAGE

LIB = "/lib"
KERNELS_FILE = f"{LIB}/sparsetune_kernels.mpy"
PACKAGE_FOLDER = f"{LIB}/{PACKAGE}"
# Of the heap: code and objects of the package, what a run has beside its buffers, and its samples'
# labels; measured on the emulated Pico, tests/test_stock.py holds it.
PACKAGE_RAM = 50 * 1024
PACKAGE_LEAST = 36 * 1024  # of these, what no run does without
PIECE = 768  # bytes of a line
LINES = 8  # that are sent, and compiled on the board, at a time
HASHED_S = 60.0  # for hashing all files
FOLDERS = 4  # blocks: two of each of these folders
MOVES = 2  # that littlefs moves things with

_DIGESTS = """
def _st_digests(paths):
    import binascii, hashlib
    view = memoryview(bytearray(1024))
    for path in paths:
        sha = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while n := file.readinto(view):
                    sha.update(view[:n])
            print(binascii.hexlify(sha.digest()).decode())
        except OSError:
            print("-")
_st_digests({paths!r})
"""
_REMOVE = """
import os
for _st_path in {paths!r}:
    try:
        os.remove(_st_path)
    except OSError:
        pass
"""
_ABANDON = """
try:
    _st_file.close()
except (NameError, OSError):
    pass
"""
_BEGIN = """
import os
for _st_path in {folders!r}:
    try:
        os.mkdir(_st_path)
    except OSError:
        pass
from binascii import a2b_base64 as _st_bytes
_st_file = open({part!r}, "wb")
"""
_END = "import os\nos.rename({part!r}, {path!r})"
_SIZES = """
def _st_sizes(paths):
    import os
    info = os.statvfs("/")
    print(info[1], info[3])
    for path in paths:
        try:
            print(os.stat(path)[6])
        except OSError:
            print(0)
_st_sizes({paths!r})
del _st_sizes
"""

# In the second line what the heap may still grow by, at most: the first has a part of that.
_FREE = """
import gc
gc.collect()
print(gc.mem_free())
try:
    import esp32
    print(sum(heap[1] for heap in esp32.idf_heap_info(esp32.HEAP_DATA)))
except (ImportError, AttributeError):
    print(0)
"""


@dataclass(frozen=True)
class Coming:
    """What is pushed to a board when it is ready. image: the model's. files: sizes by path, of
    others. replace: whether other files in the board's ROMFS may go."""

    image: Image | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    replace: bool = False

    def all_files(self, info: BoardInfo) -> dict[str, int]:
        """With the image, where that is a file."""
        if self.image is None or info.romfs_bytes:
            return dict(self.files)
        return {**self.files, FILE_IMAGE: len(self.image.data)}


NOTHING = Coming()


def make_ready(board: Board, coming: Coming = NOTHING, flavour: str | None = None) -> None:
    """Sees that the board has kernels and device package of this version, and sends what is missing
    or different where these are files. flavour: of the kernels; without it, the fastest beside
    which the image has room in RAM, and without that whichever the board has. Raises
    SparsetuneError, where RAM, ROMFS or files have no room for what is coming before anything is
    sent."""
    info, image = board.identify(), coming.image
    if image is not None and info.romfs_bytes:
        check_rom(board, {ROM_IMAGE: image.data}, coming.replace)
    if info.is_frozen:
        return
    check_core(info.mpy, info.machine, board.port)
    _check_ways(board, info)
    board.soft_reset()  # modules of old files would stay loaded
    modules = _modules(board, info, (flavour,) if flavour else FLAVOURS)
    package = _package(info)
    found = _digests(board, [KERNELS_FILE, *package])
    module = _choose(board, modules, found[KERNELS_FILE], image)
    if image is not None and not info.romfs_bytes:
        _check_ram(board, len(module), image)
    missing = _differing({KERNELS_FILE: module, **package}, found)
    if missing:
        _install(board, {**missing, **_mark(package)}, coming.all_files(info), image)
        info = board.identify()
        _check_ways(board, info)
        if not info.has_kernels or info.device_version != __version__:
            raise SparsetuneError(
                f"{info.machine} does not load what was sent to {LIB}: reset it and try again, or "
                "flash the sparsetune firmware"
            )


def _check_ways(board: Board, info: BoardInfo) -> None:
    """Raises SparsetuneError where files elsewhere would be taken for ours: `import` looks at the
    root first."""
    for path in (info.kernels_file, info.device_file):
        if path and not path.startswith(f"{LIB}/"):
            name, _, inside = path.lstrip("/").partition("/")
            raise SparsetuneError(
                f"/{name} on the board hides what belongs to {LIB}: remove it "
                f"({board.removal(f'/{name}', is_folder=bool(inside))})"
            )


def board_of(board: Board, name: str) -> str:
    """The board description that suits: `name`, or where the board's firmware is stock, what is
    described beside it as NAME_stock."""
    stock = f"{name}_stock"
    if stock not in board_names() or board.identify().is_frozen:
        return name
    print(f"stock firmware: planned for board {stock}")
    return stock


def _modules(board: Board, info: BoardInfo, flavours: Iterable[str]) -> list[bytes]:
    name = f"the board on {board.port} ({info.machine}, MicroPython {info.micropython})"
    version = version_number(info.micropython)
    if version is not None and version[:2] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise SparsetuneError(
            f"{name} is too old: flash MicroPython {oldest} or newer, or the sparsetune firmware"
        )
    return [native_module(info.mpy, flavour, name) for flavour in flavours]


def _package(info: BoardInfo) -> dict[str, bytes]:
    """By path on the board; what says that all is whole comes last."""
    files = device_files(info.mpy).items()
    paths = {f"{PACKAGE_FOLDER}/{name}": data for name, data in files}
    mark = _mark(paths)
    return {**{path: data for path, data in paths.items() if path not in mark}, **mark}


def _choose(board: Board, modules: list[bytes], found: str, image: Image | None) -> bytes:
    """found: digest of the module that is on the board."""
    if image is None:
        there = (module for module in modules if _sha256(module) == found)
        return next(there, modules[0])
    free = int(board.exec(_FREE).split()[0])
    free -= PACKAGE_RAM + image.arena_bytes + image.state_bytes + len(image.data)
    whole = [module for module in modules[:2] if len(module) <= free]
    return whole[0] if whole else modules[min(1, len(modules) - 1)]


def _check_ram(board: Board, module: int, image: Image) -> None:
    """Raises SparsetuneError where RAM can never hold kernels (`module` bytes), package, image and
    its buffers. What `plan` promises is closer; here no board may be refused that has room."""
    free = sum(map(int, board.exec(_FREE).split()))
    buffers, size = image.arena_bytes + image.state_bytes, len(image.data)
    lacking = module + PACKAGE_LEAST + buffers + size - free
    if lacking > 0:
        raise SparsetuneError(
            f"the board has too little RAM for this image: {size:,} bytes, which it reads whole, "
            f"{buffers:,} of buffers, and kernels and device package; "
            f"{free:,} are free, {lacking:,} or more are missing: {LESS_RAM}"
        )


def _mark(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What goes before anything is replaced, and comes back last."""
    return {path: data for path, data in files.items() if "__init__" in path}


def _digests(board: Board, paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files on the board, in hex; "-" where there is none."""
    paths = list(paths)
    told = board.exec(_DIGESTS.format(paths=paths), HASHED_S).split()
    return dict(zip(paths, told, strict=True))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _differing(files: Mapping[str, bytes], found: Mapping[str, str]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if found[path] != _sha256(data)}


def _install(
    board: Board, files: Mapping[str, bytes], later: Mapping[str, int], image: Image | None
) -> None:
    """later: sizes of the files that come then; image: that they are for."""
    marks = [f"{PACKAGE_FOLDER}/__init__{end}" for end in (".py", ".mpy")]
    files = {path: files[path] for path in sorted(files, key=lambda path: path in marks)}
    going = [*marks, *map(_part_of, files)]  # the latter are of an installation that broke off
    taken = _check_room(board, files, going)
    if later:
        check_room(board, later, image, taken)
    print(f"sending to the board: {len(files)} files, {sum(map(len, files.values())):,} bytes")
    board.exec(_REMOVE.format(paths=going))
    for path, data in files.items():
        try:
            _write(board, path, data)
        except BaseException:
            with contextlib.suppress(SparsetuneError):
                board.exec(_ABANDON + _REMOVE.format(paths=[_part_of(path)]))
            raise
    board.soft_reset()


def _check_room(board: Board, files: Mapping[str, bytes], going: Iterable[str]) -> int:
    """Blocks that `files` will take more than what they replace. Raises SparsetuneError where the
    file system cannot take them one after the other. going: what is removed first."""
    paths = sorted({*going, *files, *map(_other, files)})
    block, free, *sizes = map(int, board.exec(_SIZES.format(paths=paths)).split())
    there = {path: _blocks(size, block) for path, size in zip(paths, sizes, strict=True)}
    freed = sum(there.pop(path) for path in going if path in there)
    new = {path: _blocks(len(data), block) for path, data in files.items()}
    lacking = FOLDERS + MOVES - freed + _peak(new, there) - free
    if lacking > 0:
        more = removals(board, paths)
        raise SparsetuneError(
            f"the board's file system has no room for kernels and device package: "
            f"{lacking * block:,} bytes are missing; remove what is in the way{':' * bool(more)}",
            *more,
        )
    replaced = freed + sum(there.get(one, 0) for path in new for one in (path, _other(path)))
    return sum(new.values()) - replaced + (0 if replaced else FOLDERS + MOVES)


def _blocks(size: int, block: int) -> int:
    """That a file takes; in each, littlefs has two pointers of its own on average."""
    return -(-size // (block - 8))


def _peak(new: Mapping[str, int], there: Mapping[str, int]) -> int:
    """The most blocks taken while new files come, one after the other: each is beside what it
    replaces until it is whole."""
    taken = most = 0
    for path, blocks in new.items():
        most = max(most, taken + blocks)
        taken += blocks - there.get(path, 0) - there.get(_other(path), 0)
    return most


def _part_of(path: str) -> str:
    """What it is called until it is whole."""
    return path + ".part"


def _other(path: str) -> str:
    """The same module as source, or compiled: one would hide the other."""
    return path[:-3] + ".mpy" if path.endswith(".py") else path[:-4] + ".py"


def _write(board: Board, path: str, data: bytes) -> None:
    part, folders = _part_of(path), [LIB, PACKAGE_FOLDER]
    board.exec(_BEGIN.format(folders=folders, part=part))
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    for at in range(0, len(pieces), LINES):
        texts = map(base64.b64encode, pieces[at : at + LINES])
        board.exec("\n".join(f"_st_file.write(_st_bytes({text!r}))" for text in texts))
    board.exec("_st_file.close()")
    if _differing({part: data}, _digests(board, [part])):
        raise SparsetuneError(f"{path} arrived damaged on the board: check the cable, try again")
    board.exec(_REMOVE.format(paths=[_other(path)]))
    board.exec(_END.format(part=part, path=path))
