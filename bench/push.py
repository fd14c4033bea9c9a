"""How fast images and samples reach the emulated Pico, and come back. Run: python bench/push.py

KB (1000 bytes) a second, three ways: by the wall clock of this computer; by the board's emulated
time at 125 MHz, without waiting for the host; and by that plus what the flash chip would have taken
to erase and program (typical times of the W25Q16JV data sheet: 45 ms a sector, 150 ms a block of
64 KB, 0.4 ms a page), which is the nearest to a real board that can be had without one: the wire is
not emulated (full speed carries about 1 MB/s), nor are flash cache misses. The bar is 50 KB/s for
the whole command, by the wall clock as with flash.

All is checked by SHA-256 of what the emulated flash holds, read through another way than it came.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from conftest import FIRMWARE
from small_models import Net
from sparsetune.board import Board
from sparsetune.compile import compile_image
from sparsetune.plan import default_plan
from sparsetune.push import push_file, push_rom
from sparsetune.tflite import parse_tflite
from sparsetune_tools.emulated_pico import EmulatedPico, node_command

SIZE = 300_000
HERTZ = 125_000_000
ROUNDS = 3  # after one that warms the emulator up: it translates code as it meets it
COMMAND = "from sparsetune.cli import main; main()"
FILE = "/sparsetune/train.dat"
DIGEST = """
import hashlib
h = hashlib.sha256()
with open({path!r}, "rb") as f:
    while d := f.read(4096):
        h.update(d)
print(h.digest().hex())
"""


@dataclass
class Span:
    """Seconds by the wall clock, of emulated work, and of the flash chip beside that."""

    wall: float = 0.0
    emulated: float = 0.0
    flash: float = 0.0

    def __sub__(self, other: Span) -> Span:
        return Span(
            self.wall - other.wall, self.emulated - other.emulated, self.flash - other.flash
        )

    def rates(self, size: int) -> dict[str, float]:
        """KB a second."""
        return {
            "wall": size / 1000 / self.wall,
            "emulated": size / 1000 / self.emulated,
            "with_flash": size / 1000 / (self.emulated + self.flash),
        }


def image(seed: int) -> bytes:
    """A model image of about SIZE bytes, of random weights: nothing in it can be compressed."""
    net = Net((1, 500), seed=seed)
    net.dense(585)
    net.dense(10)
    graph = parse_tflite(net.to_bytes())
    return compile_image(graph, default_plan(graph, 1)).image


class Bench:
    """An emulated board, and a stopwatch on it."""

    def __init__(self, pico: EmulatedPico) -> None:
        self.pico = pico

    def now(self) -> Span:
        counters = self.pico.counters()
        return Span(time.monotonic(), counters.busy_cycles / HERTZ, counters.flash_seconds)

    @contextmanager
    def span(self) -> Iterator[Span]:
        span = Span()
        start = self.now()
        yield span
        vars(span).update(vars(self.now() - start))

    def check(self, path: str, data: bytes) -> None:
        """Raises AssertionError when the board does not hold `data` at `path`."""
        with Board.connect(self.pico.port) as board:
            digest = board.exec(DIGEST.format(path=path), 60)
        assert digest == hashlib.sha256(data).hexdigest(), f"{path} is not what was sent"

    def command(self, seed: int) -> tuple[Span, int]:
        """`sparsetune push` as a user types it: starts Python, identifies the board, and so on."""
        data = image(seed)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.img")
            path.write_bytes(data)
            words = [sys.executable, "-c", COMMAND, "push", str(path), "--port", self.pico.port]
            with self.span() as span:
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        self.check("/rom/model.img", data)
        return span, len(data)

    def transfer(self, seed: int) -> tuple[Span, int]:
        """Of a push, from the first byte of data sent to the last one stored."""
        data = image(seed)
        seen: list[Span] = []

        def progress(done: int, total: int) -> None:
            if done in (0, total):
                seen.append(self.now())

        with Board.connect(self.pico.port) as board:
            push_rom(board, {"model.img": data}, progress)
        self.check("/rom/model.img", data)
        return seen[-1] - seen[0], len(data)

    def samples(self, seed: int) -> tuple[Span, int]:
        """A file, into littlefs, until its hash is right."""
        data = np.random.default_rng(seed).bytes(SIZE)
        with Board.connect(self.pico.port) as board, self.span() as span:
            push_file(board, FILE, data)
        self.check(FILE, data)
        return span, len(data)

    def pull(self, seed: int) -> tuple[Span, int]:
        """The same back."""
        with Board.connect(self.pico.port) as board:
            board.identify()
            with self.span() as span:
                data = board.read_file(FILE)
        self.check(FILE, data)
        return span, len(data)

    def same(self, seed: int) -> tuple[Span, int]:
        """A push of what is there already: no byte is sent."""
        data = image(2 * ROUNDS + 1)
        with Board.connect(self.pico.port) as board:
            push_rom(board, {"model.img": data})
        with Board.connect(self.pico.port) as board, self.span() as span:
            assert not push_rom(board, {"model.img": data})
        return span, len(data)


def first(bench: Bench) -> dict[str, float]:
    """What a user of a fresh emulator meets: it has translated no code yet."""
    span, size = bench.command(1)
    return span.rates(size)


def typical(run: Callable[[int], tuple[Span, int]], first_seed: int) -> dict[str, float]:
    """Medians over the rounds; each with data of its own, as what is there is not sent again."""
    run(first_seed)
    spans = [run(first_seed + 1 + i) for i in range(ROUNDS)]
    rates = [span.rates(size) for span, size in spans]
    return {name: sorted(each[name] for each in rates)[ROUNDS // 2] for name in rates[0]}


ROWS = (
    ("first", "the first push to a fresh emulator"),
    ("push", "sparsetune push: the whole command, verified"),
    ("transfer", "  of it the transfer alone"),
    ("samples", "samples to the file system, verified"),
    ("pull", "a file back to the computer, verified"),
    ("same", "an image that is there: found to be the same"),
)


def measure() -> dict[str, float]:
    """KB a second. Names: first, push, transfer, samples, pull, same, each with _wall, _emulated,
    _with_flash. All of an emulated Pico."""
    with EmulatedPico(firmware=FIRMWARE) as pico:
        bench = Bench(pico)
        runs = {"push": bench.command, "transfer": bench.transfer, "samples": bench.samples}
        runs |= {"pull": bench.pull, "same": bench.same}
        rates = {"first": first(bench)}
        for number, (name, run) in enumerate(runs.items()):
            rates[name] = typical(run, 100 * (1 + number))
    return {f"{name}_{clock}": rates[name][clock] for name in rates for clock in rates[name]}


def versions() -> str:
    node = subprocess.run([node_command(), "--version"], capture_output=True, text=True, check=True)
    packages = ", ".join(f"{name} {version(name)}" for name in ("mpremote", "pyserial"))
    python = sys.version.split()[0]
    return f"Python {python}, {packages}, Node.js {node.stdout.strip().lstrip('v')}"


def main() -> None:
    if not FIRMWARE.exists():
        print("SKIP: no firmware is built: run make firmware")
        return
    figures = measure()
    print(f"emulated Pico, {SIZE:,} random bytes, KB a second ({versions()})")
    print(f"{'':48}{'wall':>8}{'emulated':>10}{'and flash':>11}")
    for name, title in ROWS:
        wall, emulated, flash = (
            figures[f"{name}_{clock}"] for clock in ("wall", "emulated", "with_flash")
        )
        print(f"{title:<48}{wall:>8.0f}{emulated:>10.0f}{flash:>11.0f}")


if __name__ == "__main__":
    main()
