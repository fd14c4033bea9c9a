"""Whether plan search finds good plans, and knows which are. Run:

    python bench/search.py [--task cifar|clothing] [--quick]
    python bench/search.py --tables [--task cifar|clothing]
    python bench/search.py --find [runs|gradients] [--task cifar|clothing]

MobileNetV2-w0.35@128 with a new head, on enlarged CIFAR-10 and on clothes. Plans of all kinds
(found by gradients and by runs at budgets of MCUNetV3's analytic memory, its own published schemes,
simple ones, random ones) train on the twin with a residual, with two seeds, all at one rate, and
are judged on training samples that were held out: test samples are never looked at, and those that
judge are not among those of the search. What search says of a plan's gain, by one pass of gradients
or by short runs, is said before any of them trains. The table says how well it ranks them
(Spearman). What was found is kept in bench/results/search.json, with a digest of model, samples,
options and what first steps tell and learn (probe.py): what was broken off goes on, and what is of
other ones is stale, said to be, and found anew. What search says hangs on its code as well, the
runs of a plan do not: other code that finds the same plan, under any name, trains nothing. The
tables go to bench/results/search.md.

--tables: prints those of what is kept, writes the file, says what of it is stale, and finds and
trains nothing.

--find: what `sparsetune plan --search runs --budget-analytic 100K` does (or `--search gradients`),
with its time, on all training samples but those that `bench/learning.py searched` chooses rates
on; the plan goes to bench/results/searched-TASK.json (or gradients-TASK.json), from where that
takes it. RAM is no limit: a residual for that plan has no room on a Pico.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from emulated import PICO, ROOT
from learning_tasks import TASKS
from networks import MBV2_MODEL
from schemes import published
from search_table import HEAD, SAID, markdown, plans_kept, read_plan, read_worth, rows_of
from shared_tasks import shared_folder
from sparsetune import cli
from sparsetune.analytic import analytic_memory
from sparsetune.comparison import compact
from sparsetune.data import Dataset
from sparsetune.graph import Graph, input_channels
from sparsetune.head import HeadRequest, with_new_head
from sparsetune.plan import LayerPlan, UpdatePlan, default_plan, save_plan, with_biases
from sparsetune.probe import first_steps, some_of
from sparsetune.room import Room
from sparsetune.run_log import key_of
from sparsetune.schemes import load_scheme
from sparsetune.search.asked import searched_plan
from sparsetune.search.chosen import Limits, Search
from sparsetune.search.gains import Task, Worth, by_gradients, split, thinned
from sparsetune.search.learnt import learn
from sparsetune.search.runs import Run, Samples, behind_front, train_and_judge
from sparsetune.subject import Subject
from sparsetune.tflite import parse_tflite
from sparsetune.trial import choose_rate

RESULTS = ROOT / "bench" / "results" / "search.json"
CODE = (*(ROOT / "host" / "sparsetune" / "search").glob("*.py"), *(
    ROOT / "host" / "sparsetune" / name for name in ("trial.py", "analytic.py")
))  # fmt: skip
BUDGETS = {"gradients": (49, 99), "runs": (25, 49, 73, 99, 138)}  # KB
FOUND_AT = 100  # KB
CODES = ("--kept", "30")
FOUND_BY = {  # what the plans are called, and how they are asked for
    "runs": ("searched", ("--search", "runs")),
    "gradients": ("gradients", ("--search", "gradients")),
    "runs-codes": ("searched-codes", ("--search", "runs", *CODES)),
    "gradients-codes": ("gradients-codes", ("--search", "gradients", *CODES)),
}
HELD_BY_COMPARE = 0.1  # of the training samples, which choose rates
SCHEMES = ("mbv2-49", "mbv2-73", "mbv2-99", "mbv2-138")
SEEDS = (1, 2)
MUCH_RAM = 1 << 24  # analytic memory alone is the limit here


@dataclass(frozen=True)
class Kind:
    """file: of the samples. train, held: how many. epochs, rate: of each run."""

    file: str
    train: int
    held: int
    epochs: int = 2
    rate: str = "0.0017"

    @property
    def quick(self) -> Kind:
        return replace(self, train=1000, held=min(self.held, 668), epochs=1, rate="0.005")


KINDS = {
    "cifar": Kind("data/cifar10_jpeg_train_dev.npz", 3000, 2000),
    "clothing": Kind("data/clothing10_128_train_dev.npz", 2400, 668),
}


def samples_of(folder: Path, kind: Kind) -> Samples:
    """Decoded, enlarged to 128x128, int8."""
    from PIL import Image

    data = np.load(folder / kind.file)
    packed, ends = data["jpeg"], data["off"]
    chosen = np.random.default_rng(0).permutation(len(data["y"]))[: kind.train + kind.held]

    def pixels(i: int) -> Any:
        image = Image.open(io.BytesIO(packed[ends[i] : ends[i + 1]].tobytes())).convert("RGB")
        return np.asarray(image.resize((128, 128), Image.Resampling.BILINEAR)) ^ 128

    x = np.stack([pixels(i) for i in chosen]).view(np.int8)
    data = Dataset(x, data["y"][chosen].astype(np.uint8))
    return Samples(data.part(slice(kind.train)), data.part(slice(kind.train, None)))


def plans_of(graph: Graph, by: dict[str, Worth], best: UpdatePlan) -> dict[str, UpdatePlan]:
    """By name. best: that of the search by runs at FOUND_AT."""
    plans = {f"runs' best, {FOUND_AT} KB": best}
    for how, worth in by.items():
        plans |= {f"{how}, {kb} KB": searched(graph, worth, kb) for kb in BUDGETS[how]}
    plans |= {name: published(graph, load_scheme(name)) for name in SCHEMES}
    plans |= {
        "head alone": default_plan(graph, 1),
        "last 6, half": default_plan(graph, 6),
        "biases of 25": with_biases(graph, default_plan(graph, 1), 25),
    }
    plans |= {f"random {i}, 99 KB": drawn(graph, i, 99 * 1024) for i in (1, 2)}
    return plans


def search_at(graph: Graph, kilobytes: int) -> Search:
    room = Room(PICO, MUCH_RAM, 1000)
    base = UpdatePlan((), residual=True, scratch=False)
    return Search(graph, base, Limits(room, analytic=1024 * kilobytes))


def searched(graph: Graph, worth: Worth, kilobytes: int) -> UpdatePlan:
    return search_at(graph, kilobytes).best(worth.of).plan


def drawn(graph: Graph, seed: int, limit: int) -> UpdatePlan:
    """Random layers and shares, until the next one would be too much."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(16, 36))
    plan = with_biases(graph, default_plan(graph, 1), depth)
    for at in rng.permutation(np.arange(1, depth)):
        op = graph.trainable[-1 - at]
        channels = int(input_channels(graph, op) * rng.choice([1 / 8, 1 / 4, 1 / 2, 1]))
        others = [layer for layer in plan.layers if layer.operator != op.index]
        layers = sorted([*others, LayerPlan(op.index, channels)], key=lambda p: p.operator)
        larger = replace(plan, layers=tuple(layers))
        if analytic_memory(graph, larger).total <= limit:
            plan = larger
    return plan


class Kept:
    """What was found before, in a file, beside a digest of what it hangs on."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        self.asked: set[str] = set()
        self._by_digest = {v["of"]: v["found"] for v in self.found.values() if isinstance(v, dict)
                           and "of" in v}  # fmt: skip

    def get(self, name: str, settings: Any, make: Callable[[], Any]) -> Any:
        """settings: of JSON's types, all that decides about what is made. What was made with them
        under another name is taken from there."""
        self.asked.add(name)
        known, of = self.found.get(name), key_of(settings)
        if not isinstance(known, dict) or known.get("of") != of:
            if of not in self._by_digest:
                if known is not None:
                    print(f"{name}: what is kept is stale (other samples, options or code): "
                          "found anew")  # fmt: skip
                # As it will be read: settings of others hang on it.
                self._by_digest[of] = json.loads(json.dumps(make()))
            self.found[name] = {"of": of, "found": self._by_digest[of]}
            self._write()
        return self.found[name]["found"]

    def of_title(self, title: str) -> dict[str, Any]:
        """What was found, by name."""
        begin = f"{title}: "
        return {name.removeprefix(begin): value["found"] for name, value in self.found.items()
                if name.startswith(begin)}  # fmt: skip

    def is_stale(self, name: str, settings: Any) -> bool:
        return bool(self.found[name]["of"] != key_of(settings))

    def drop_others(self, title: str) -> None:
        """Of a title, what nobody asks for any more."""
        others = {name for name in self.found if name.startswith(f"{title}: ")} - self.asked
        self.found = {name: v for name, v in self.found.items() if name not in others}
        if others:
            self._write()

    def _write(self) -> None:
        RESULTS.write_text(json.dumps(self.found, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Case:
    """A kind on its model and samples. origin: digest of both."""

    title: str
    kind: Kind
    graph: Graph
    samples: Samples
    origin: str

    @staticmethod
    def read(title: str, kind: Kind, folder: Path) -> tuple[Case, bytes]:
        """And the model with its new head."""
        samples = samples_of(folder, kind)
        head = HeadRequest(10, x=samples.train.x)
        model = with_new_head((folder / MBV2_MODEL).read_bytes(), head)
        return Case.of(title, kind, model, samples), model

    @staticmethod
    def of(title: str, kind: Kind, model: bytes, samples: Samples) -> Case:
        found = hashlib.sha256(model)
        for data in (samples.train, samples.held):
            for array in (data.x, data.y):
                found.update(repr((array.dtype, array.shape)).encode() + array.tobytes())
        return Case(title, kind, parse_tflite(model), samples, found.hexdigest())

    def settings(self, plan: UpdatePlan, *more: Any) -> Any:
        """What figures of a plan hang on."""
        probed = first_steps(self.graph, plan, some_of(self.samples.train), {})
        return [self.origin, asdict(self.kind), SEEDS, compact(plan), probed, *more]

    def of_search(self, *more: Any) -> Any:
        """What the search says hangs on its own code, too."""
        return self.settings(default_plan(self.graph, 1), code_digest(CODE), *more)

    def of_gradients(self, rate: str) -> Any:
        return self.of_search(rate)

    def of_runs(self, rate: str, first: Worth) -> Any:
        return self.of_search(rate, FOUND_AT, repr(first))


def code_digest(paths: Iterable[Path]) -> str:
    """Of Python files without comments and docstrings: those change no figure."""
    found = hashlib.sha256()
    for path in sorted(paths):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                del body[0]
        found.update(ast.unparse(tree).encode())
    return found.hexdigest()


def _is_text(node: ast.AST) -> bool:
    value = getattr(node, "value", None) if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def worth_of(kept: Kept, case: Case, task: Task) -> Worth:
    def measure() -> Any:
        begin = time.process_time()
        found = asdict(by_gradients(task))
        return found | {"cpu_seconds": round(time.process_time() - begin, 1)}

    return read_worth(kept.get(f"{case.title}: gradients", case.of_gradients(task.rate), measure))


def learnt_of(kept: Kept, case: Case, task: Task, first: Worth) -> tuple[Worth, UpdatePlan]:
    """What short runs say, and the plan that is best by them."""

    def measure() -> Any:
        begin = time.process_time()
        found = learn(search_at(task.graph, FOUND_AT), task, first, print)
        said = {"plan": json.loads(save_plan(found.plan)), "tried": found.tried}
        said |= {"name": found.name, "count": found.count}
        return asdict(found.worth) | said | {"cpu_seconds": round(time.process_time() - begin, 1)}

    found = kept.get(f"{case.title}: runs", case.of_runs(task.rate, first), measure)
    return read_worth(found), read_plan(found["plan"])


def train(graph: Graph, plan: UpdatePlan, samples: Samples, kind: Kind) -> Any:
    """{plan, loss and accuracy of each seed}."""
    rest, behind = behind_front(graph, plan, samples)
    runs = (Run(kind.epochs * len(samples.train), kind.rate, seed) for seed in SEEDS)
    with ThreadPoolExecutor(len(SEEDS)) as threads:
        found = list(threads.map(lambda run: train_and_judge(rest, plan, behind, run), runs))
    right, loss = [j.right for j in found], [round(j.loss, 4) for j in found]
    return {"plan": json.loads(save_plan(plan)), "right": right, "loss": loss}


def bench(case: Case, model: bytes, kept: Kept) -> None:
    """Finds what is not kept."""
    head = default_plan(case.graph, 1)
    rate = kept.get(f"{case.title}: {HEAD}", case.of_search(),
                    lambda: choose_rate(case.graph, head, model, case.samples.train))  # fmt: skip
    task = Task(case.graph, rate, split(case.samples.train), model)
    first = worth_of(kept, case, task)
    learnt, best = learnt_of(kept, case, task, first)
    by = {"gradients": thinned(case.graph, first), "runs": learnt}
    for name, plan in plans_of(case.graph, by, best).items():
        reached(kept, case, name, replace(plan, residual=True))
    kept.drop_others(case.title)


def reached(kept: Kept, case: Case, name: str, plan: UpdatePlan) -> None:
    found = kept.get(
        f"{case.title}: {name}", case.settings(plan),
        lambda: train(case.graph, plan, case.samples, case.kind),
    )  # fmt: skip
    print(f"{name:<20} {100 * np.mean(found['right']):.2f} %", flush=True)


# Tables ---------------------------------------------------------------------------------------


def titles() -> dict[str, Kind]:
    return {title + " (quick)" * quick: kind.quick if quick else kind
            for quick in (False, True) for title, kind in KINDS.items()}  # fmt: skip


def is_whole(found: dict[str, Any]) -> bool:
    """Whether all was found that a table wants."""
    return {HEAD, *SAID} < found.keys()


def section(title: str, kind: Kind, graph: Graph, kept: Kept) -> str:
    sizes = (f"{kind.train:,} samples, {kind.held:,} held out, epochs: {kind.epochs}, rate "
             f"{kind.rate}, {len(SEEDS)} seeds")  # fmt: skip
    return f"## {title} ({sizes})\n\n{markdown(rows_of(graph, kept.of_title(title)))}"


TITLE = "# How well plans are ranked (`python bench/search.py`; --tables tells what is stale)"
NOTE = """\
KB: analytic, as MCUNetV3 counts them. What is said is of a plan's gain, in units of its own. Right
and loss: on samples held out, means of the seeds. A plan that is another's, but for scratch, which
changes no figure, is told and counts once. Plain ones: the head, the last six layers, biases.
"""


def write_tables(graph: Graph, kept: Kept) -> None:
    """Of all tasks: what a table tells hangs on none of their samples."""
    parts = [section(title, kind, graph, kept) for title, kind in titles().items()
             if is_whole(kept.of_title(title))]  # fmt: skip
    RESULTS.with_suffix(".md").write_text("\n".join([f"{TITLE}\n", *parts, NOTE]))


def stale(case: Case, kept: Kept) -> list[str]:
    """Names of what is kept and would be found anew."""
    found = kept.of_title(case.title)
    rate = found[HEAD]
    wanted = {HEAD: case.of_search(), "gradients": case.of_gradients(rate),
              "runs": case.of_runs(rate, read_worth(found["gradients"]))}  # fmt: skip
    wanted |= {name: case.settings(plan) for name, plan in plans_kept(found).items()}
    return [name for name, of in wanted.items() if kept.is_stale(f"{case.title}: {name}", of)]


def tell_kept(tasks: Iterable[str], folder: Path, kept: Kept) -> None:
    """Finds and trains nothing, but for the first steps that say what is stale."""
    for title, kind in titles().items():
        if title.split(" (")[0] not in tasks:
            continue
        if not is_whole(kept.of_title(title)):
            print(f"{title}: nothing is kept, or not all: run without --tables\n")
            continue
        case, _ = Case.read(title, kind, folder)
        print(section(title, kind, case.graph, kept))
        print(f"Stale: {', '.join(stale(case, kept)) or 'nothing'}.\n", flush=True)
        write_tables(case.graph, kept)


def find(name: str, shared: Path, how: str) -> None:
    """As the command does, with its time, on a board whose RAM is no limit."""
    model, data = TASKS[name].files(shared)
    title, asked = FOUND_BY[how]
    words = ["plan", str(model), "--data", str(data), *asked]
    args = cli.build_parser().parse_args([*words, "--budget-analytic", f"{FOUND_AT}K"])
    subject = Subject(model, data, HELD_BY_COMPARE)
    samples, base = subject.parts["train"], UpdatePlan((), residual=True, scratch=False)
    begin, used = time.perf_counter(), time.process_time()
    room = Room(PICO, MUCH_RAM, len(samples))
    plan = searched_plan(subject.graph, args, room, base, samples)
    path = RESULTS.with_name(f"{title}-{name}.json")
    path.write_bytes(save_plan(replace(plan, scratch=True)))
    print(f"{name}: {len(samples)} samples, {time.perf_counter() - begin:.0f} s by the clock, "
          f"{time.process_time() - used:.0f} s of processor time")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=KINDS, action="append")
    parser.add_argument("--tables", action="store_true", help="of what is kept, and run nothing")
    parser.add_argument("--quick", action="store_true", help="1,000 samples, one epoch")
    parser.add_argument("--find", nargs="?", const="runs", choices=FOUND_BY,
                        help="on all samples, by the command")
    args = parser.parse_args()
    folder = shared_folder()
    if folder is None:
        print("SKIP: there is no ../shared")
        return
    kept = Kept()
    if args.tables:
        tell_kept(args.task or KINDS, folder, kept)
        return
    for name in args.task or KINDS:
        if args.find:
            find(name, folder, args.find)
            continue
        title = name + " (quick)" * args.quick
        kind = titles()[title]
        case, model = Case.read(title, kind, folder)
        bench(case, model, kept)
        print("\n" + section(title, kind, case.graph, kept))
        write_tables(case.graph, kept)


if __name__ == "__main__":
    main()
