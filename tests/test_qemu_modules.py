"""The kernels as native modules for Cortex-M33 and M4F (RP2350) and for RISC-V (ESP32-C3), in
MicroPython's own qemu port on a Cortex-M4F and a RISC-V core, emulated by QEMU: what their methods
answer, RAM, and whole training runs of the device package."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import runs
from shared_tasks import shared_folder
from sparsetune.boardspec import load_spec
from sparsetune.memory import predict
from sparsetune.native import device_files, native_module
from sparsetune.plan import default_plan
from sparsetune_tools import natmod, qemu_port
from sparsetune_tools.device_package import compile_package
from sparsetune_tools.shell import BUILD
from test_native_module import METHODS, call_of, kws_of, twin_answer
from tool_chains import set_up

SHARED = shared_folder()
needs_shared = pytest.mark.skipif(SHARED is None, reason="SKIP: no shared models and data")
KERNELS = f"{natmod.MODULE}.mpy"
# sys.implementation._mpy of stock boards: version 6.3 and the architecture's number.
MPY = {"armv7emsp": 7 << 10 | 3 << 8 | 6, "rv32imc": 11 << 10 | 3 << 8 | 6}
MOST_RAM = {
    ("armv7emsp", "full"): 60 * 1024,
    ("rv32imc", "full"): 68 * 1024,
    ("rv32imc", "small"): 44 * 1024,
    ("rv32imc", "head"): 26 * 1024,
}
RAM = """
import gc
gc.collect()
before = gc.mem_free()
import sparsetune_kernels
gc.collect()
print(before - gc.mem_free())
"""
# The description whose RAM is held against what is left, and the flavour that it counts.
BOARDS = {"armv7emsp": ("pico2", "full"), "rv32imc": ("esp32c3", "small")}
RAM_TOLERANCE = 4096  # a run with large samples leaves more to collect
BEGIN = "import gc\ngc.collect()\nprint('#begin', gc.mem_free())\n"
CHECKPOINT = """
import binascii
with open("trained.ckpt", "rb") as file:
    while data := file.read(256):
        print("#checkpoint", binascii.hexlify(data).decode())
"""


def need(arch: str) -> None:
    set_up(lambda: qemu_port.require_emulator(arch))


@pytest.fixture(scope="module", params=list(qemu_port.MACHINES))
def arch(request: pytest.FixtureRequest) -> str:
    need(request.param)
    qemu_port.build(request.param)
    for flavour in natmod.flavours_of(request.param):
        natmod.build(request.param, flavour=flavour)
    compile_package()
    return str(request.param)


def test_the_port_has_the_number_of_stock_boards(arch: str, tmp_path: Path) -> None:
    told = qemu_port.run_script(arch, "import sys\nprint(sys.implementation._mpy)", {}, tmp_path)
    assert int(told) == MPY[arch]


def test_an_exception_is_told(arch: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ValueError: 42"):
        qemu_port.run_script(arch, "print(1)\nraise ValueError(42)", {}, tmp_path)


def module_of(arch: str, flavour: str = "full") -> bytes:
    """That which the host chooses for such a board."""
    return native_module(MPY[arch], flavour, "the board")


def test_methods_answer_as_the_twins(arch: str, tmp_path: Path) -> None:
    told = qemu_port.run_script(arch, METHODS, {KERNELS: module_of(arch)}, tmp_path)
    assert told == twin_answer()


def test_ram_of_each_flavour(arch: str, tmp_path: Path) -> None:
    for flavour in natmod.flavours_of(arch):
        ram = int(qemu_port.run_script(arch, RAM, {KERNELS: module_of(arch, flavour)}, tmp_path))
        print(f"QEMU: {arch}, {flavour}: the module takes {ram:,} bytes of RAM")
        assert ram <= MOST_RAM[arch, flavour]


def test_an_esp32_c3_has_all_instructions() -> None:
    """The compiler is told of atomic ones, too, which QEMU has and that chip has not."""
    need("rv32imc")
    natmod.build("rv32imc")
    objects = sorted((BUILD / "natmod" / "rv32imc" / "build").glob("*.o"))
    tool = str(natmod.COMPILERS["rv32imc"]).replace("gcc", "objdump")
    told = subprocess.run([tool, "-d", *objects], check=True, capture_output=True, text=True).stdout
    rows = [line.split("\t") for line in told.splitlines()]
    names = {row[2] for row in rows if len(row) > 2}
    assert {"add", "mul", "mulh", "lw"} <= names
    assert not [name for name in names if name.startswith(("amo", "lr.", "sc.", "flw", "fadd"))]


def files_of(arch: str, task: runs.Task, flavour: str) -> dict[str, bytes]:
    """What a push would put on the board."""
    package = {f"sparsetune_device/{name}": data for name, data in device_files(MPY[arch]).items()}
    assert all(name.endswith(".mpy") for name in package)
    sent = {"model.img": task.image.data, "train.dat": task.samples}
    return {**package, KERNELS: module_of(arch, flavour), **sent}


def check_training(
    arch: str, task: runs.Task, folder: Path, flavour: str = "full", before: str = ""
) -> None:
    """before: what the board does first."""
    script = before + BEGIN + call_of(task) + CHECKPOINT
    sent = files_of(arch, task, flavour)
    lines = qemu_port.run_script(arch, script, sent, folder).splitlines()
    pieces = [line.split()[1] for line in lines if line.startswith("#checkpoint")]
    (begin,) = (int(line.split()[1]) for line in lines if line.startswith("#begin"))
    told = [line for line in lines if not line.startswith(("#checkpoint", "#begin"))]
    twin_lines, twin_checkpoint = runs.twin_train(task)
    assert len(runs.losses(told)) == task.options["steps"]
    assert runs.telemetry(told) == runs.telemetry(twin_lines)
    assert bytes.fromhex("".join(pieces)) == twin_checkpoint
    check_ram(arch, task, begin - len(sent[KERNELS]), runs.events(told, "mem")[-1]["free"])


def check_ram(arch: str, task: runs.Task, begin: int, free: str) -> None:
    """What `plan` promises for such a board. begin: free bytes less the module's that ran."""
    board, counted = BOARDS[arch]
    spec = replace(load_spec(board), heap_bytes=begin + len(module_of(arch, counted)))
    use = predict(task.image, len(task.train), spec)
    print(f"QEMU: {arch}: {task.name}: {free} bytes left, {use.free} predicted for {board}")
    assert use.free <= int(free) <= use.free + RAM_TOLERANCE


def test_training_equals_the_twin(arch: str, tmp_path: Path) -> None:
    check_training(arch, runs.digits_task(steps=20), tmp_path)


def test_small_flavours_train_as_the_twin(arch: str, tmp_path: Path) -> None:
    task = runs.digits_task(steps=10)
    for flavour in natmod.flavours_of(arch)[1:]:
        if flavour == "head":
            task = head_of(task)
        check_training(arch, task, tmp_path, flavour)


def keep_but(heap: int) -> str:
    """A script after which so many bytes are free, as good as in one piece: that of the largest
    free one is left, all others are taken."""
    return f"""
import gc
gc.collect()
low, high = 0, gc.mem_free()
while high - low > 64:
    size = (low + high) // 2
    try:
        bytearray(size)
        low = size
    except MemoryError:
        high = size
    gc.collect()
held = [bytearray(low - {heap} - 64)]
for size in 16384, 4096, 1024, 256, 64, 16:
    while gc.mem_free() > {heap} + size:
        held.append(bytearray(size))
"""


def test_the_digits_train_in_an_esp32_c3s_heap(tmp_path: Path) -> None:
    need("rv32imc")
    natmod.build("rv32imc", flavour="small")
    compile_package()
    hold = keep_but(load_spec("esp32c3").heap_bytes)
    check_training("rv32imc", runs.digits_task(steps=10), tmp_path, "small", hold)


@needs_shared
def test_the_head_of_kws_trains_in_an_esp32_c3s_heap(tmp_path: Path) -> None:
    need("rv32imc")
    natmod.build("rv32imc", flavour="head")
    compile_package()
    hold = keep_but(load_spec("esp32c3").heap_bytes)
    check_training("rv32imc", kws_of(SHARED, 1, steps=10), tmp_path, "head", hold)


def head_of(task: runs.Task) -> runs.Task:
    """The same with the last layer alone."""
    sets = {"x_train": task.train.x, "y_train": task.train.y}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    return runs.make_task(task.model, sets, lambda g: default_plan(g, 1), **task.options)


@needs_shared
def test_training_kws_equals_the_twin(arch: str, tmp_path: Path) -> None:
    check_training(arch, runs.kws_task(SHARED, steps=100), tmp_path)


@needs_shared
def test_training_resnet_equals_the_twin(arch: str, tmp_path: Path) -> None:
    check_training(arch, runs.cifar_task(SHARED, steps=10), tmp_path)
