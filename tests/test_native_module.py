"""The kernels as a native module: in the unix port, and on the stock firmware of an emulated Pico;
and what our own firmware leaves a program to work with."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import shared_tasks
import sparsetune_kernels
from sparsetune.plan import default_plan
from sparsetune_tools import firmware, natmod, unix
from sparsetune_tools.emulated_pico import EmulatedPico

DEVICE = runs.ROOT / "device"
SHARED = shared_tasks.shared_folder()
METHODS = """
import sparsetune_kernels as k
print(sorted(name for name in dir(k) if name[0] != "_" and name != "set_simd"))
print(k.abi(), [k.random(seed, n) for seed in (0, 1, 0xffffffff) for n in range(4)])
try:
    k.abi(1)
except TypeError:
    print("TypeError")
try:
    k.run(bytearray(128), bytearray(32), bytearray(8), bytearray(0), b"", 0, 1, 0)
except ValueError as error:
    print(error)
"""
MEMORY = """
import gc, sys
gc.collect()
print(gc.mem_free())
low, high = 0, 264 * 1024
while high - low > 64:
    size = (low + high) // 2
    try:
        bytearray(size)
        low = size
    except MemoryError:
        high = size
    gc.collect()
print(low)
"""
IMPORT = """
import gc, time
gc.collect()
before = gc.mem_free()
begin = time.ticks_ms()
import sparsetune_kernels
took = time.ticks_diff(time.ticks_ms(), begin)
gc.collect()
print(before - gc.mem_free(), took)
"""
MOST_RAM = {"full": 72 * 1024, "small": 32 * 1024, "head": 20 * 1024}
ROMFS = """
import gc
gc.collect()
before = gc.mem_free()
weights = memoryview(open("/rom/weights.bin", "rb"))
print(len(weights), sum(weights), before - gc.mem_free() < 500)
"""


def twin_answer():
    """What METHODS must print, from the CPython build of the same kernels."""
    out = subprocess.run([sys.executable, "-c", METHODS], check=True, capture_output=True,
                         text=True, cwd=Path(sparsetune_kernels.__file__).parent)
    return out.stdout


def mpremote(port, *words):
    done = subprocess.run([sys.executable, "-m", "mpremote", "connect", str(port), *words],
                          capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace("\r\n", "\n")


@pytest.fixture(scope="module")
def pico():
    built = firmware.build()
    with EmulatedPico(built.folder / "firmware.uf2") as board:
        yield board


def test_unix_port_loads_the_x64_module():
    module = natmod.build("x64")
    done = subprocess.run([unix.build(), "-c", METHODS], cwd=module.parent,
                          capture_output=True, text=True, check=True)
    assert done.stdout == twin_answer()


@pytest.mark.parametrize("flavour", natmod.FLAVOURS)
def test_stock_firmware_loads_the_armv6m_module(flavour):
    module = natmod.build("armv6m", flavour=flavour)
    stock = firmware.build("stock")
    with EmulatedPico(stock.folder / "firmware.uf2") as board:
        mpremote(board.port, "cp", str(module), ":")
        board.reset()  # that of mpremote returns before the board has gone down
        ram, ticks = map(int, mpremote(board.port, "exec", IMPORT).split())
        assert mpremote(board.port, "exec", METHODS) == twin_answer()
    print(f"emulated: {flavour} takes {ram:,} bytes of RAM, its import {ticks} ms")
    assert ram <= MOST_RAM[flavour]
    assert ticks <= 1000


def test_firmware_has_the_kernels_in_it(pico):
    assert mpremote(pico.port, "exec", METHODS) == twin_answer()


def test_memory_at_boot(pico):
    free, largest = map(int, mpremote(pico.port, "exec", MEMORY).split())
    print(f"emulated: {free} bytes free at boot, the largest buffer has {largest}")
    assert free >= 225 * 1024
    assert largest >= 225 * 1024


def test_a_model_in_romfs_costs_no_ram(pico, tmp_path):
    weights = bytes(range(256)) * 64
    (tmp_path / "weights.bin").write_bytes(weights)
    mpremote(pico.port, "romfs", "deploy", str(tmp_path))
    expected = f"{len(weights)} {sum(weights)} True\n"
    assert mpremote(pico.port, "exec", ROMFS) == expected


def test_natmod_refuses_another_architecture():
    done = subprocess.run([sys.executable, "-m", "sparsetune_tools.natmod", "z80"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "error: no architecture z80: choose from " \
        "armv6m, armv7emsp, x64, xtensawin, rv32imc\n"


def files_of(task, folder):
    """What a push would put on the board, in a folder."""
    folder.mkdir()
    (folder / "model.img").write_bytes(task.image.data)
    (folder / "train.dat").write_bytes(task.samples)


def call_of(task):
    options = f"save_to='trained.ckpt', **{task.options!r}"
    return f"from sparsetune_device.main import train\ntrain('model.img', 'train.dat', {options})"


def trains_as_the_twin(task, folder):
    """The device package and the native module under MicroPython's unix port."""
    files_of(task, folder)
    path = f"{DEVICE}:{natmod.build('x64').parent}"
    done = subprocess.run([unix.build(), "-c", call_of(task)], check=True, capture_output=True,
                          text=True, cwd=folder, env={"MICROPYPATH": path})
    told = done.stdout.splitlines()
    twin_lines, twin_checkpoint = runs.twin_train(task)
    assert len(runs.losses(told)) == task.options["steps"]
    assert runs.telemetry(told) == runs.telemetry(twin_lines)
    assert (folder / "trained.ckpt").read_bytes() == twin_checkpoint


def test_training_on_the_x64_module_equals_the_twin(tmp_path):
    trains_as_the_twin(runs.digits_task(steps=20), tmp_path / "board")


def stock_output(task, flavour, folder):
    """What an emulated Pico without our kernels prints: device package, armv6m module and image as
    files."""
    files_of(task, folder)
    shutil.copytree(DEVICE / "sparsetune_device", folder / "sparsetune_device",
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(natmod.build("armv6m", flavour=flavour), folder)
    with EmulatedPico(firmware.build("stock").folder / "firmware.uf2") as board:
        mpremote(board.port, "cp", "-r", *map(str, folder.iterdir()), ":")
        board.reset()
        return subprocess.run([sys.executable, "-m", "mpremote", "connect", str(board.port), "exec",
                               call_of(task)], capture_output=True, text=True, check=False,
                              timeout=300)


def equals_twin(task, flavour, folder):
    lines = stock_output(task, flavour, folder).stdout.replace("\r\n", "\n").splitlines()
    times = [float(line.partition(",ms:")[2]) for line in lines if ",ms:" in line]
    print(f"emulated: {flavour}: {sum(times) / max(len(times), 1):.0f} ms a step")
    return runs.telemetry(lines) == runs.telemetry(runs.twin_train(task)[0])


def kws_of(shared, last, steps):
    """Keyword spotting in the RAM that stock firmware leaves, where the image takes some too."""
    task = runs.kws_task(shared, steps)
    sets = {"x_train": task.train.x, "y_train": task.train.y}
    sets |= {"x_test": task.test.x, "y_test": task.test.y}
    return runs.make_task(task.model, sets, lambda g: default_plan(g, last), **task.options)


@pytest.mark.parametrize("flavour", ["full", "small"])
def test_training_on_stock_firmware_equals_the_twin(flavour, tmp_path):
    assert equals_twin(runs.digits_task(steps=5), flavour, tmp_path / "board")


needs_shared = pytest.mark.skipif(SHARED is None, reason="the folder with shared data is missing")


@needs_shared
def test_kws_and_resnet_on_the_x64_module_equal_the_twin(tmp_path):
    trains_as_the_twin(runs.kws_task(SHARED, steps=100), tmp_path / "kws")
    trains_as_the_twin(runs.cifar_task(SHARED, steps=10), tmp_path / "resnet")


@needs_shared
@pytest.mark.parametrize("flavour, last", [("full", 2), ("small", 2), ("head", 1)])
def test_kws_on_stock_firmware_equals_the_twin(flavour, last, tmp_path):
    assert equals_twin(kws_of(SHARED, last, steps=20), flavour, tmp_path / "board")


@needs_shared
def test_head_says_what_to_do_where_it_lacks_an_operator(tmp_path):
    done = stock_output(kws_of(SHARED, 2, steps=5), "head", tmp_path / "board")
    assert done.returncode != 0
    assert "not in kernels of flavour head: push flavour small or full" in done.stdout + done.stderr
