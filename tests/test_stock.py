"""A board with stock MicroPython: what it lacks is sent to it, then it trains as the twin does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runs
import shared_tasks
from sparsetune import native
from sparsetune.board import Board, BoardInfo
from sparsetune.boardspec import load_spec
from sparsetune.errors import SparsetuneError
from sparsetune.install import KERNELS_FILE, PACKAGE_FOLDER, PACKAGE_RAM, Coming, make_ready
from sparsetune.memory import predict
from sparsetune.monitor import read_steps
from sparsetune.native import Abi, device_files, native_module
from sparsetune.plan import default_plan
from sparsetune_tools import device_package, firmware, natmod
from sparsetune_tools.emulated_pico import EmulatedPico
from test_native_module import kws_of
from test_training import RAM_TOLERANCE

SHARED = shared_tasks.shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="the folder with shared data is missing")
PICO_MPY = 6 | 3 << 8 | 4 << 10  # py/persistentcode.c: version 6.3, armv6m
# Of garbage that pico_stock.toml counts: it is kept where one of some words of the kernels' code,
# which look like addresses, is that of it. Any change of the device package may turn it.
KEPT_BY_CHANCE = 1280


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    for flavour in natmod.FLAVOURS:
        natmod.build("armv6m", flavour=flavour)
    device_package.compile_package()


@pytest.fixture
def pico() -> Iterator[EmulatedPico]:
    with EmulatedPico(firmware.build("stock").folder / "firmware.uf2") as board:
        yield board


# What suits which board -------------------------------------------------------------------


def test_abi_of_board_and_file() -> None:
    assert Abi.of_board(PICO_MPY) == Abi(6, 3, "armv6m")
    assert Abi.of_file(native_module(PICO_MPY, "small", "it")) == Abi(6, 3, "armv6m")
    # Above that MicroPython tells since 1.27 which extensions a RISC-V core has; ours needs none.
    assert Abi.of_board(1 << 16 | 11 << 10 | 3 << 8 | 6) == Abi(6, 3, "rv32imc")


def test_a_larger_arm_core_takes_what_there_is() -> None:
    """MicroPython's rule: a core loads the code of smaller ones of its kind."""
    pico2 = 6 | 3 << 8 | 7 << 10
    assert Abi.of_board(pico2).runs() == ("armv7emsp", "armv7em", "armv7m", "armv6m")
    assert Abi.of_file(native_module(pico2, "full", "it")).arch in Abi.of_board(pico2).runs()
    assert Abi.of_board(6 | 3 << 8 | 10 << 10).runs() == ("xtensawin",)


@pytest.mark.parametrize(
    "mpy, message",
    [
        (6 | 3 << 8, "loads no native modules: flash"),
        (6 | 2 << 8 | 4 << 10, r"version 6\.2, ours have 6\.3: flash MicroPython 1\.24 or newer"),
        (7 | 4 << 10, "flash the sparsetune firmware, or an older MicroPython"),
        (6 | 3 << 8 | 1 << 10, "no module of the kernels for it .native code x86.: build it"),
        (6 | 3 << 8 | 15 << 10, "native code number 15"),
        (0, "loads no native modules"),
    ],
)
def test_a_board_that_ours_do_not_suit(mpy: int, message: str) -> None:
    with pytest.raises(SparsetuneError, match=message) as error:
        native_module(mpy, "full", "it")
    assert "\n" not in str(error.value)


def test_a_package_of_other_sources_is_not_sent(tmp_path: Path, monkeypatch) -> None:
    assert {Path(name).suffix for name in device_files(PICO_MPY)} == {".mpy"}
    assert {Path(name).suffix for name in device_files(7)} == {".py"}
    for path in (native.MODULES / native.PACKAGE).iterdir():
        (tmp_path / native.PACKAGE).mkdir(exist_ok=True)
        (tmp_path / native.PACKAGE / path.name).write_bytes(path.read_bytes())
    known = tmp_path / native.PACKAGE / native.SOURCES
    known.write_text(known.read_text().replace(" main.py", " other.py"))
    monkeypatch.setattr(native, "MODULES", tmp_path)
    assert [name for name in device_files(PICO_MPY) if name.endswith(".py")] == ["main.py"]


# On the emulated Pico ---------------------------------------------------------------------


def test_only_what_differs_is_sent(pico: EmulatedPico, capsys) -> None:
    def sent() -> str:
        return capsys.readouterr().out.partition(", ")[0]

    with Board.connect(pico.port) as board:
        make_ready(board, flavour="small")
        assert sent().endswith(f": {len(device_files(PICO_MPY)) + 1} files")
        make_ready(board)
        assert sent() == ""
        board.remove_file(f"{PACKAGE_FOLDER}/main.mpy")
        board.exec(f"open({PACKAGE_FOLDER + '/main.py'!r}, 'w').write('broken')")
        make_ready(board)
        assert sent().endswith(": 2 files")  # and the mark that all is whole
        make_ready(board, flavour="head")
        assert sent().endswith(": 2 files")
        listing = board.exec(f"import os\nprint(*os.listdir({PACKAGE_FOLDER!r}))").split()
        assert set(listing) == set(device_files(PICO_MPY))
        assert board.identify().has_kernels and not board.identify().is_frozen


def test_a_broken_off_installation_is_mended(pico: EmulatedPico, monkeypatch) -> None:
    from sparsetune import install

    write = install._write

    def lose(board: Board, path: str, data: bytes) -> None:
        if path.endswith("/main.mpy"):
            raise SparsetuneError("lost")
        write(board, path, data)

    with Board.connect(pico.port) as board:
        monkeypatch.setattr(install, "_write", lose)
        with pytest.raises(SparsetuneError, match="lost"):
            make_ready(board, flavour="head")
        assert board.identify().device_version is None or not board.identify().device_version
        monkeypatch.setattr(install, "_write", write)
        make_ready(board)
        assert board.has_file(KERNELS_FILE) and board.identify().device_version


FILL = """
import os
info = os.statvfs("/")
with open("/mine.bin", "wb") as file:
    for _ in range(info[3] - {spare}):
        file.write(bytes(4088))
print(os.statvfs("/")[3])
"""


def blocks_left(board: Board, spare: int) -> int:
    """Fills the file system but for about so many blocks; how many are left."""
    board.remove_file("/mine.bin")
    return int(board.exec(FILL.format(spare=spare), timeout=60))


def listing(board: Board) -> str:
    code = "import os\ndef st_all(path):\n for name in os.listdir(path or '/'):\n"
    code += "  full = path + '/' + name\n  info = os.stat(full)\n  print(full, info[6])\n"
    return board.exec(code + "  if info[0] & 0x4000:\n   st_all(full)\nst_all('')")


def test_a_file_system_without_room_is_left_as_it_was(pico: EmulatedPico) -> None:
    """Largest first: the kernels alone have room, all files have not."""
    sizes = [len(data) for data in device_files(PICO_MPY).values()]
    module = len(native_module(PICO_MPY, "full", "it"))
    assert module < 25 * 4096 < module + sum(sizes)
    with Board.connect(pico.port) as board:
        blocks_left(board, 25)
        before = listing(board)
        with pytest.raises(SparsetuneError, match="bytes are missing; remove what is in") as error:
            make_ready(board)
        assert "rm :/mine.bin" in error.value.more[0]
        assert listing(board) == before
        missing = str(error.value).partition(" bytes are missing")[0].rpartition(" ")[2]
        blocks_left(board, 25 + int(missing.replace(",", "")) // 4096)
        make_ready(board)  # what was said to be missing is enough
        assert not board.has_file(f"{KERNELS_FILE}.part")


def test_what_is_replaced_makes_room(pico: EmulatedPico) -> None:
    """Files of the same sizes again: each takes the place of its namesake."""
    with Board.connect(pico.port) as board:
        make_ready(board, flavour="small")
        paths = [KERNELS_FILE, *(f"{PACKAGE_FOLDER}/{name}" for name in device_files(PICO_MPY))]
        board.exec(f"for path in {paths!r}:\n with open(path, 'ab') as file: file.write(b'x')")
        assert blocks_left(board, 15) < len(paths)
        make_ready(board, flavour="small")
        assert board.identify().has_kernels


def test_no_room_in_the_middle_leaves_no_part(pico: EmulatedPico, monkeypatch) -> None:
    """As where something else writes at the same time."""
    from sparsetune import install

    with Board.connect(pico.port) as board:
        with monkeypatch.context() as patch:
            patch.setattr(install, "_check_room", lambda *_: None)
            blocks_left(board, 12)
            with pytest.raises(SparsetuneError, match="file system is full: remove files"):
                make_ready(board)
        assert ".part" not in listing(board)
        assert not board.identify().device_version
        board.remove_file("/mine.bin")
        board.exec(f"open({KERNELS_FILE + '.part'!r}, 'w').write('of one that was killed')")
        make_ready(board)
        assert board.identify().device_version and ".part" not in listing(board)


def test_a_copy_elsewhere_is_named(pico: EmulatedPico) -> None:
    """As the kernels were tried by hand before."""
    with Board.connect(pico.port) as board:
        make_ready(board, flavour="head")
        board.exec(f"import os\nos.rename({KERNELS_FILE!r}, '/sparsetune_kernels.mpy')")
        board.soft_reset()
        with pytest.raises(SparsetuneError, match="rm :/sparsetune_kernels.mpy"):
            make_ready(board)
        board.exec(f"import os\nos.rename('/sparsetune_kernels.mpy', {KERNELS_FILE!r})")
        board.exec(f"import os\nos.rename({PACKAGE_FOLDER!r}, '/sparsetune_device')")
        board.soft_reset()
        with pytest.raises(SparsetuneError, match="rm -r :/sparsetune_device"):
            make_ready(board)


def test_too_old_a_micropython(pico: EmulatedPico, monkeypatch) -> None:
    with Board.connect(pico.port) as board:
        old = replace(board.identify(), micropython="1.23.0")
        monkeypatch.setattr(Board, "identify", lambda self: old)
        with pytest.raises(SparsetuneError, match="is too old: flash MicroPython 1.24 or newer"):
            make_ready(board)
        assert not board.has_file(KERNELS_FILE)


def test_nothing_is_sent_where_the_abi_differs(pico: EmulatedPico, monkeypatch) -> None:
    """Older and newer formats, another processor, none."""
    with Board.connect(pico.port) as board:
        before, info = listing(board), board.identify()
        for mpy in (6 | 2 << 8 | 4 << 10, 7 | 4 << 10, 6 | 3 << 8 | 1 << 10, 6 | 3 << 8, 0):
            with monkeypatch.context() as patch:
                other = replace(info, mpy=mpy)
                patch.setattr(Board, "identify", lambda self, other=other: other)
                with pytest.raises(SparsetuneError, match="flash|build it"):
                    make_ready(board)
            assert listing(board) == before


def attempt(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sparsetune", *map(str, args)],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def command(*args: object) -> str:
    done = attempt(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refusal(*args: object) -> str:
    """The line that is told, and what follows it."""
    done = attempt(*args)
    assert done.returncode == 1 and done.stderr.startswith("sparsetune: error: "), done
    return done.stderr


def push_of(task: runs.Task, folder: Path) -> tuple[object, ...]:
    """The command that pushes it."""
    image, data = folder / "model.img", folder / "train.dat"
    image.write_bytes(task.image.data)
    data.write_bytes(task.samples)
    return "push", image, "--data", data


def missing_blocks(told: str) -> int:
    return int(re.findall(r"([\d,]+) bytes are missing", told)[0].replace(",", "")) // 4096


def test_image_and_samples_have_room_before_the_kernels_are_sent(
    pico: EmulatedPico, tmp_path: Path
) -> None:
    """Kernels and device package alone would have."""
    push = *push_of(runs.digits_task(steps=5), tmp_path), "--port", pico.port
    with Board.connect(pico.port) as board:
        blocks_left(board, 25)
    enough = 25 + missing_blocks(refusal(*push))
    with Board.connect(pico.port) as board:
        blocks_left(board, enough)
        before = listing(board)
    told = refusal(*push)
    assert "no room for /sparsetune/train.dat (" in told and "/sparsetune/model.img (" in told
    assert ":/mine.bin" in told
    with Board.connect(pico.port) as board:
        assert listing(board) == before
        blocks_left(board, enough + missing_blocks(told))
    assert "/sparsetune/model.img" in command(*push)


def test_an_image_without_room_in_romfs_is_refused_before_anything_is_sent(
    pico: EmulatedPico, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock firmware with a ROMFS, as some boards of MicroPython's have."""
    image, identify, room = runs.digits_task(steps=5).image, Board.identify, [0]

    def with_romfs(board: Board) -> BoardInfo:
        return replace(identify(board), romfs_bytes=room[0])

    monkeypatch.setattr(Board, "identify", with_romfs)
    with Board.connect(pico.port) as board:
        assert not board.identify().is_frozen
        before, room[0] = listing(board), len(image.data)  # too few for the headers of ROMFS
        with pytest.raises(SparsetuneError, match="the board's ROMFS partition has"):
            make_ready(board, Coming(image))
        assert listing(board) == before
        room[0] += 4096
        make_ready(board, Coming(image), "small")
        assert board.has_file(KERNELS_FILE)


FREE = "print(gc.mem_free())"
LITTLE_RAM = "with open('/boot.py', 'w') as file: file.write('kept = bytearray({size})')"


def test_an_image_without_room_in_ram_is_refused_before_anything_is_sent(
    pico: EmulatedPico, tmp_path: Path
) -> None:
    """A boot.py that keeps most of the heap makes a small board of it."""
    task = runs.digits_task(steps=5)
    push = *push_of(task, tmp_path), "--port", pico.port
    with Board.connect(pico.port) as board:
        board.exec(LITTLE_RAM.format(size=190_000))
        before = listing(board)
    told = refusal(*push)
    assert f"too little RAM for this image: {len(task.image.data):,} bytes, which it" in told
    assert "or more are missing: build it for this board (--board" in told
    with Board.connect(pico.port) as board:
        assert listing(board) == before


def test_a_run_whose_image_has_no_room_in_ram_says_what_to_do(
    pico: EmulatedPico, tmp_path: Path
) -> None:
    """As where other things on the board have come to take RAM since it was pushed."""
    task = runs.digits_task(steps=5)
    command(*push_of(task, tmp_path), "--port", pico.port)
    with Board.connect(pico.port) as board:
        board.soft_reset()
        free = int(board.exec(f"import sparsetune_device.main, gc\ngc.collect()\n{FREE}"))
        board.exec(LITTLE_RAM.format(size=free - len(task.image.data) + 2000))
    told = refusal("train", "--steps", 2, "--port", pico.port, "--log", tmp_path / "run.jsonl")
    assert "too little RAM for the image, which it reads whole: build it for this board" in told
    assert told.count("\n") == 1


def trains_as_the_twin(pico: EmulatedPico, task: runs.Task, folder: Path) -> dict[str, int]:
    """Pushed by the command that a user types; returns the figures of memory."""
    (folder / "model.img").write_bytes(task.image.data)
    (folder / "train.dat").write_bytes(task.samples)
    port = ("--port", pico.port)
    told = command("push", folder / "model.img", "--data", folder / "train.dat", *port)
    assert "sending to the board" in told and "/sparsetune/model.img" in told
    with Board.connect(pico.port) as board:
        lines = []
        options = "".join(f", {name}={value!r}" for name, value in task.options.items())
        board.stream(
            "from sparsetune_device.main import train\n"
            "train('/sparsetune/model.img', '/sparsetune/train.dat', "
            f"save_to={runs.CKPT!r}, discard=True{options})",
            lines.append,
        )
        checkpoint = board.read_file(runs.CKPT)
    twin_lines, twin_checkpoint = runs.twin_train(task)
    assert len(runs.losses(lines)) == task.options["steps"]
    assert runs.telemetry(lines) == runs.telemetry(twin_lines)
    assert checkpoint == twin_checkpoint
    return runs.events(lines, "mem")[-1]


def test_digits_train_from_stock(pico: EmulatedPico, tmp_path: Path) -> None:
    task = runs.digits_task(steps=5)
    trains_as_the_twin(pico, task, tmp_path)
    words = [w for name, value in task.options.items() for w in (f"--{name}", value)]
    log = tmp_path / "run.jsonl"
    command("train", *words, "--plain", "--log", log, "--port", pico.port)
    assert len(read_steps(log)) == 5


def check_ram(pico: EmulatedPico, task: runs.Task, told: dict[str, int]) -> None:
    """What `plan` promises for pico_stock, and what the choice of a flavour counts on."""
    use = predict(task.image, len(task.train), load_spec("pico_stock"))
    with Board.connect(pico.port) as board:
        size = int(board.exec(f"import os\nprint(os.stat({KERNELS_FILE!r})[6])"))
    free = use.free - size + len(native_module(PICO_MPY, "small", "it"))
    beside = told["heap"] - told["free"] - size - use.image - use.arena - use.state
    print(
        f"emulated: {task.name}: arena {use.arena}, state {use.state}, image {use.image}, module "
        f"{size}, all else {beside}; {told['free']} left, predicted {free}"
    )
    assert free <= told["free"] <= free + KEPT_BY_CHANCE + RAM_TOLERANCE
    assert beside <= PACKAGE_RAM


@needs_shared
@pytest.mark.parametrize("last", [2, 4])
def test_kws_trains_from_stock(pico: EmulatedPico, tmp_path: Path, last: int) -> None:
    assert SHARED is not None
    task = kws_of(SHARED, last, steps=10)
    check_ram(pico, task, trains_as_the_twin(pico, task, tmp_path))


def resnet_of(shared: Path, steps: int) -> runs.Task:
    """ResNet-8 in the RAM that stock firmware leaves."""
    task = runs.cifar_task(shared, steps)
    sets = {"x_train": task.train.x, "y_train": task.train.y}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    plan = default_plan(task.graph, 2, residual=False)
    return runs.make_task(task.model, sets, lambda g: plan, **task.options)


@needs_shared
def test_resnet_trains_from_stock(pico: EmulatedPico, tmp_path: Path) -> None:
    assert SHARED is not None
    small = resnet_of(SHARED, steps=10)
    check_ram(pico, small, trains_as_the_twin(pico, small, tmp_path))


@needs_shared
def test_two_commands_from_stock_firmware_to_a_trained_model(tmp_path: Path) -> None:
    assert SHARED is not None
    stock = firmware.build("stock").folder / "firmware.uf2"
    link, drive = tmp_path / "port", tmp_path / "RPI-RP2"
    np.savez(tmp_path / "kws.npz", **shared_tasks.kws_task(SHARED))
    model, trained = SHARED / shared_tasks.KWS_MODEL, tmp_path / "trained.tflite"
    with EmulatedPico(stock, port_link=link, bootsel=drive):
        told = command("flash", stock, "--port", link, "--drive", drive)
        print(told)
        assert f"copying to {drive}" in told and "without sparsetune kernels" in told
        told = command(
            "train", model, tmp_path / "kws.npz", "--steps", 20, "--port", link, "-o", trained,
            "--log", tmp_path / "run.jsonl", "--plain",
        )  # fmt: skip
        print(told)
    assert "stock firmware: planned for board pico_stock" in told
    assert "against LiteRT on 10 samples: 0 differing bytes" in told
    assert len(read_steps(tmp_path / "run.jsonl")) == 20
    left = int(re.findall(r"mem: .*?free ([\d,]+)", told)[-1].replace(",", ""))
    assert left > 0 and trained.is_file()
