"""Watch a training run: telemetry lines in, a live view (or plain lines) and a log out.

The view shows loss curve, accuracy, steps a second, memory of the board and the time that
is left. The log is JSONL: one object a line with the host's `time` (seconds since 1970),
the `kind` of line, and its fields; a step carries its number as `step`. Lines that are not
telemetry are kept as kind "text".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sparsetune_device import telemetry

from sparsetune.errors import SparsetuneError
from sparsetune.files import write_output
from sparsetune.step_log import StepLog

_parse: Callable[[str], tuple[str, dict[str, Any]] | None] = telemetry.parse

COARSE = 0.002  # seconds a step, below which a tenth of a millisecond is a large part
SMOOTH = 25  # steps that the shown loss is averaged over (the board averages its accuracy)
NUMBERED = {"start": "first", "at": "step", "done": "steps"}  # events that tell a step's number
HELD = 16  # steps of a run that was joined, in which the board should have told a number
RATE_STEPS = 100  # that the speed is taken over: so many lie between two savings
CURVE_ROWS = 10


@dataclass
class Run:
    """What is known of a run so far."""

    port: str = ""
    total_steps: int | None = None
    asked_cores: int | None = None
    first: int = 0  # steps done before
    lost: int = 0  # steps whose lines the board dropped because nobody read them
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last of each kind
    step_times: list[tuple[int, float]] = field(default_factory=list)  # steps so far, when
    error: str | None = None
    done: bool = False

    @property
    def step(self) -> int:
        """Number of the last step; a resumed run does not begin at 1."""
        return self.first + self.steps

    @property
    def steps(self) -> int:
        """Steps of this run so far."""
        return len(self.losses) + self.lost

    def rate(self) -> float | None:
        """Steps a second by the host's clock, from line to line: what comes before the first one is
        set-up. Over the later half of the run at most, as the first steps may be slower."""
        times = self.step_times
        if len(times) < 2:
            return None
        before, then = times[-1 - min(RATE_STEPS, len(times) // 2)]
        steps, now = times[-1]
        return (steps - before) / (now - then) if now > then else None

    def seconds_a_step(self) -> float:
        """By the board's clock; where its tenths of a millisecond tell too little, by ours."""
        rate = self.rate()
        board = sum(self.step_ms) / max(1, len(self.step_ms)) / 1000
        return 1 / rate if rate and board < COARSE else board

    def seconds_left(self) -> float | None:
        """Seconds until the last step, if the number of steps is known."""
        rate = self.rate()
        if self.total_steps is None or not rate:
            return None
        return max(0, self.total_steps - self.step) / rate

    @property
    def on_cores(self) -> str:
        """ " on 2 cores", where the board tells on how many."""
        cores = self.events.get("start", {}).get("cores")
        return f" on {cores} core{'s' * (cores != 1)}" if isinstance(cores, int) else ""

    @property
    def visited(self) -> str:
        """Where a policy chooses channels, how much of what may learn has had its turn."""
        told = self.events.get("visited", {})
        weights, of = told.get("weights"), told.get("of")
        if not isinstance(weights, int) or not isinstance(of, int) or of <= 0:
            return ""
        return f"visited: {weights / of:.1%} of the trained layers' weights"

    @property
    def remark(self) -> str:
        """Where fewer cores work than were asked for, why that may be."""
        if self.asked_cores != 2 or self.events.get("start", {}).get("cores") != 1:
            return ""
        return (
            "one core works, not two: the other is taken by a thread of yours, or the chip or its "
            "firmware has none for us"
        )

    def add_step(self, fields: dict[str, Any], now: float) -> None:
        """Take the fields of a step line."""
        self.losses.append(float(fields["loss"]))
        self.step_times.append((self.steps, now))
        if "acc" in fields:
            self.accuracies.append(float(fields["acc"]))
        self.step_ms.append(float(fields["ms"]))

    def add_event(self, kind: str, fields: dict[str, Any]) -> None:
        """Take an event."""
        self.events[kind] = fields
        if kind == "start":
            if isinstance(fields.get("first"), int):
                self.first = fields["first"]
            if isinstance(fields.get("steps"), int):
                self.total_steps = fields["steps"]
        elif kind == "at" and isinstance(fields.get("step"), int):
            self.first = fields["step"] - self.steps
            self.total_steps = fields.get("steps", self.total_steps)
        elif kind == "error":
            self.error = str(fields.get("what", "unknown error"))
        elif kind == "lost" and isinstance(fields.get("steps"), int):
            self.lost += fields["steps"]
        elif kind == "done":
            self.done = True


def mean_of_last(values: Sequence[float], count: int = SMOOTH) -> float:
    """Return the mean of the last `count` values; 0 for none."""
    last = values[-count:]
    return sum(last) / len(last) if last else 0.0


def running_means(values: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Return, for each value, the mean of it and the up to `count` - 1 before it."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - count] if i >= count else 0.0)
        means.append(total / min(i + 1, count))
    return means


# The view ---------------------------------------------------------------------------

# The dots of a braille character, [row from the top][column], as bits.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def braille_curve(values: Sequence[float], width: int, height: int) -> list[str]:
    """Draw `values` as `height` rows of `width` braille characters, lowest value below."""
    columns = _shrink(values, width * 2)
    top, bottom = max(columns, default=0.0), min(columns, default=0.0)
    span = (top - bottom) or 1.0
    cells = [[0] * width for _ in range(height)]
    rows = height * 4
    previous: int | None = None
    for x, value in enumerate(columns):
        y = round((top - value) / span * (rows - 1))
        # Fill up to the neighbour's height, so that a steep curve stays one line.
        for dot in range(min(y, y if previous is None else previous), max(y, previous or 0) + 1):
            cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        previous = y
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]


def _shrink(values: Sequence[float], columns: int) -> list[float]:
    """Average `values` down to at most `columns` of them."""
    if len(values) <= columns:
        return list(values)
    edges = [len(values) * i // columns for i in range(columns + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """For people: 1.05 s, 24.1 ms, 93 µs."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} µs"


def describe_effort(event: dict[str, Any]) -> str:
    """What a run's last `effort` told, which is in 1/10000."""
    text = f"effort: {event['steps'] / 10000:.1%} of the steps went behind their loss"
    if "backward" not in event:
        return text
    return text + (
        f"; {event['backward'] / 10000:.1%} of the multiply-accumulates of full gradients, "
        f"{event['all'] / 10000:.1%} of those of whole steps"
    )


def _fields_text(kind: str, fields: dict[str, Any]) -> str:
    """Write the fields of an event for people."""
    if kind == "effort":
        return describe_effort(fields).removeprefix("effort: ")
    return "  ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in fields.items()
    )


def render(run: Run, width: int) -> Panel:
    """Return the live view of `run`, `width` columns wide."""
    title = f"sparsetune  {run.port}".rstrip()
    curve = _curve(run, max(20, width - 18))
    return Panel(Group(*curve, _figures(run), *_last_events(run)), title=title)


def _curve(run: Run, width: int) -> list[Text]:
    """Draw the loss curve with its scale on the left."""
    if not run.losses:
        return [Text("waiting for the first step ...", style="dim")]
    means = running_means(run.losses)  # one sample's loss jumps too much to read
    shown = _shrink(means, width * 2)
    rows = braille_curve(means, width, CURVE_ROWS)
    labels = {0: f"{max(shown):.4f}", len(rows) - 1: f"{min(shown):.4f}"}
    return [
        Text.assemble((f"{labels.get(i, ''):>9} ", "dim"), (row, "cyan"))
        for i, row in enumerate(rows)
    ]


def _figures(run: Run) -> Table:
    """Return the table of figures below the curve."""
    table = Table.grid(padding=(0, 2))
    rate = run.rate()
    of = f" of {run.total_steps}" if run.total_steps else ""
    table.add_row("step", f"{run.step}{of}", "time left", _clock(run.seconds_left()))
    table.add_row(
        "loss",
        f"{mean_of_last(run.losses):.4f}",
        "accuracy",
        f"{run.accuracies[-1]:.1%}" if run.accuracies else "-",
    )
    table.add_row(
        "steps/s",
        f"{rate:.2f}" if rate else "-",
        "board, step",
        f"{mean_of_last(run.step_ms):.1f} ms{run.on_cores}",
    )
    return table


def _last_events(run: Run) -> list[Text]:
    """Return a line for each event worth keeping in view."""
    lines = [
        Text(f"{kind:<9}{_fields_text(kind, run.events[kind])}")
        for kind in ("mem", "epoch", "effort", "eval", "saved", "lost")
        if kind in run.events
    ]
    lines += [Text(run.visited)] if run.visited else []
    lines += [Text(run.remark)] if run.remark else []
    return lines + ([Text(f"{'error':<9}{run.error}", style="red")] if run.error else [])


# The monitor ------------------------------------------------------------------------


def default_log(folder: Path = Path("out"), name: str = "train") -> Path:
    """Return a path for a new log that is not taken yet."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = folder / f"{stem}.jsonl"
    count = 2
    while path.exists():
        path = folder / f"{stem}-{count}.jsonl"
        count += 1
    return path


@dataclass(frozen=True)
class Options:
    """How to show and log a run.

    log: None for a new file in out/. plain: None for plain lines unless on a terminal. joined: it
    may be under way already, so that the number of its next step is to be found out. cores: that
    were asked for.
    """

    port: str = ""
    log: Path | None = None
    plain: bool | None = None
    every: int = 10
    total_steps: int | None = None
    joined: bool = False
    cores: int | None = None
    clock: Callable[[], float] = time.time


@final
class Monitor:
    """Shows and logs one run (a context manager); feed() it line by line."""

    def __init__(self, options: Options, console: Console | None = None) -> None:
        """Create the log, over an old one. Raises SparsetuneError."""
        self.options = options
        self.run = Run(options.port, options.total_steps, options.cores)
        self.log_path = options.log or default_log()
        self._log = StepLog(self.log_path)
        self._console = console or Console(highlight=False)
        plain = not self._console.is_terminal if options.plain is None else options.plain
        self._live = None if plain else self._new_live()
        self._held: list[tuple[str, dict[str, Any], float]] | None = [] if options.joined else None

    def _new_live(self) -> Live:
        # rich draws from a thread of its own: a burst of lines costs no drawing.
        return Live(
            get_renderable=lambda: render(self.run, self._console.width),
            console=self._console,
            refresh_per_second=8,
        )

    @property
    def is_plain(self) -> bool:
        """Whether it prints lines instead of drawing."""
        return self._live is None

    def __enter__(self) -> Monitor:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Draw the last state and close the log."""
        self._release()
        if self._live:
            self._live.stop()
            self._live = None
        self._log.close()
        if self.log_path.is_file() and not self.log_path.stat().st_size:
            self.log_path.unlink()  # the run has said nothing: there is nothing to read

    def feed(self, line: str) -> None:
        """Take one line from the board: telemetry, or whatever else it says."""
        now = self.options.clock()
        parsed = _parse(line)
        if parsed is None:
            self._feed_text(line, now)
        elif self._held is not None and parsed[0] in ("step", "lost"):
            self._hold(parsed[0], parsed[1], now)
        else:
            self._feed_event(parsed[0], parsed[1], now)

    def _hold(self, kind: str, fields: dict[str, Any], now: float) -> None:
        """Keep steps until their numbers are known; at some time they will not be any more."""
        assert self._held is not None
        self._held.append((kind, fields, now))
        if len(self._held) >= HELD:
            self._release()

    def _release(self, last: int | None = None) -> None:
        """Take what was held. last: the number of the last step of it."""
        held, self._held = self._held or [], None
        if last is not None:
            lost = (fields.get("steps") for kind, fields, _ in held if kind == "lost")
            seen = sum(kind == "step" for kind, *_ in held)
            self.run.first = last - seen - sum(n for n in lost if isinstance(n, int))
        for kind, fields, now in held:
            self._feed_event(kind, fields, now)

    def _feed_step(self, fields: dict[str, Any], now: float) -> None:
        self.run.add_step(fields, now)
        self._write({"time": now, "kind": "step", "step": self.run.step, **fields})
        if self.run.step % self.options.every == 0 or self.run.step == self.run.total_steps:
            self._say(_step_text(self.run))

    def _feed_event(self, kind: str, fields: dict[str, Any], now: float) -> None:
        if kind == "step":
            self._feed_step(fields, now)
            return
        if self._held is not None and kind in NUMBERED:
            number = fields.get(NUMBERED[kind])
            self._release(number if isinstance(number, int) and kind != "start" else None)
        self.run.add_event(kind, fields)
        self._write({**fields, "time": now, "kind": kind})
        if kind != "at":
            self._say(f"{kind}: {_fields_text(kind, fields)}".rstrip(": "))
        if kind == "start" and self.run.remark:
            self._say(self.run.remark)

    def _feed_text(self, line: str, now: float) -> None:
        if not line.strip():
            return
        self._write({"time": now, "kind": "text", "text": line})
        self._say(f"board: {line.strip()}")

    def _write(self, record: dict[str, Any]) -> None:
        if not self._log.write(record):
            ends = f"warning: {self.log_path} takes no more, the run goes on without its log"
            self._console.print(Text(ends), soft_wrap=True)

    def _say(self, text: str) -> None:
        if self._live is None:
            self._console.print(Text(text), soft_wrap=True)


def _step_text(run: Run) -> str:
    """Return the plain line of the present step."""
    of = f"/{run.total_steps}" if run.total_steps else ""
    rate = run.rate()
    speed = f"  {rate:.2f} steps/s  left {_clock(run.seconds_left())}" if rate else ""
    accuracy = f"  acc {run.accuracies[-1]:.4f}" if run.accuracies else ""
    return (
        f"step {run.step}{of}  loss {mean_of_last(run.losses):.4f}"
        f"{accuracy}  {run.step_ms[-1]:.1f} ms{speed}"
    )


# The log ----------------------------------------------------------------------------


def read_steps(log: Path) -> list[dict[str, Any]]:
    """Return the step records of a JSONL log. Raises SparsetuneError."""
    try:
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [record for record in records if record["kind"] == "step"]
    except OSError as error:
        raise SparsetuneError(f"cannot read {log} ({error.strerror}): name a .jsonl log") from None
    except (ValueError, KeyError, TypeError):
        raise SparsetuneError(f"{log} is not a log of sparsetune: name a .jsonl log") from None


def plot_loss(log: Path, png: Path, title: str = "") -> bool:
    """Draw the loss curve of a log. Returns False when matplotlib is not installed."""
    steps = read_steps(log)
    if not steps:
        raise SparsetuneError(f"{log} holds no steps yet: there is nothing to draw")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    losses = [record["loss"] for record in steps]
    smooth = running_means(losses)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    numbers = [record.get("step", i + 1) for i, record in enumerate(steps)]
    axes.plot(numbers, losses, color="0.75", linewidth=1, label="each step")
    axes.plot(numbers, smooth, label=f"mean of the last {SMOOTH}")
    axes.set(xlabel="step", ylabel="loss", title=title or log.stem)
    axes.legend()
    image = BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_output(png, image.getvalue())
    return True
