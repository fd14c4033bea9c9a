"""`sparsetune compare`: methods over seeds on the twin, and a float baseline beside them.

Every run learns on the training samples but for those held out to choose on. Rates are chosen on
those, by runs of seed 0; the test samples only judge what was chosen. Finished runs are lines of a
file (run_log.py) and are not done again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from . import float_methods
from .boardspec import BoardSpec
from .compile import compile_image
from .cores import core_count
from .data import Dataset
from .errors import SparsetuneError
from .float_methods import FloatMethod
from .front import outputs, split_front
from .front_cache import LIMIT, FrontCache
from .graph import Graph
from .jobs import Job, run_jobs
from .methods import Bundle
from .plan import LayerPlan, UpdatePlan
from .probe import first_steps, some_of
from .rate import two_digits
from .run_log import Record, RunLog, key_of
from .subject import Subject
from .task import Task, task_of
from .trial import FACTOR, choose_rate

SEARCH_SEED = 0
MOST_RATES = 9  # of a method that are tried


@dataclass(frozen=True)
class Study:
    """What is compared. rates: decimal texts, `auto` (tried out as `tune` does) or `xFACTOR` of
    that; of several the best on held-out samples is taken, after search_epochs (best_rate), and
    where that one alone is best, at an end, others beyond it are tried (rates_beyond). float_rates:
    the same for the float baseline. torch: a Python that has it, or empty. folder: for what is made
    on the way; log: of finished runs. workers: runs at a time; with 0, what is not in the log is an
    error."""

    subject: Subject
    spec: BoardSpec
    methods: tuple[Bundle, ...]
    floats: tuple[FloatMethod, ...] = ()
    seeds: int = 3
    epochs: int = 4
    rates: tuple[str, ...] = ("auto",)
    float_rates: tuple[str, ...] = float_methods.RATES
    search_epochs: int = 1
    torch: str = ""
    folder: Path = Path("out/compare")
    log: Path = Path("out/compare/runs.jsonl")
    cache_bytes: int = LIMIT
    workers: int = field(default_factory=core_count)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def probe(self) -> Path:
        """What _Counts keeps."""
        return self.cache / f"probe-{self.subject.origin}.json"


@dataclass(frozen=True)
class Entry:
    """A method, ready to run. plan: of the whole model. settings: what decides about its numbers
    beside rate, steps and seed. job: makes the one of (key, label, rate, epochs, seed)."""

    name: str
    plan: UpdatePlan
    is_float: bool
    settings: dict[str, Any]
    job: Callable[[str, str, str, int, int], Job]
    steps: Callable[[int], int]
    candidates: Callable[[], list[str]]


@dataclass(frozen=True)
class Outcome:
    """Of a method: the rate that was taken, and a record for each seed."""

    entry: Entry
    rate: str
    records: tuple[Record, ...]


def compare(study: Study) -> list[Outcome]:
    """Runs all that is not in the log yet. Raises SparsetuneError."""
    log = RunLog(study.log)
    with tempfile.TemporaryDirectory(prefix="sparsetune-compare-") as folder:
        bench = _Bench(study, Path(folder), log)
        twins = [bench.twin(bundle) for bundle in study.methods]
        entries = [*twins, *(bench.float(method, twins) for method in study.floats)]
        rates = _chosen(study, log, entries)
        wanted = [(entry, rates[entry.name], seed) for entry in entries
                  for seed in range(1, study.seeds + 1)]  # fmt: skip
        _run(study, log, [(e, rate, study.epochs, seed) for e, rate, seed in wanted])
    return [
        Outcome(e, rates[e.name], tuple(
            log.records[_key(e, rates[e.name], study.epochs, seed)]
            for seed in range(1, study.seeds + 1)
        ))
        for e in entries
    ]  # fmt: skip


def sizes_of(study: Study) -> dict[str, int]:
    """Samples of each part."""
    return _Counts(study.probe, study.subject).sizes


def _chosen(study: Study, log: RunLog, entries: list[Entry]) -> dict[str, str]:
    """The rate of each: of several candidates that with the best accuracy on held-out samples."""
    candidates = {entry.name: entry.candidates() for entry in entries}
    study.subject.forget()  # from here on runs read what is in the cache
    searching = [entry for entry in entries if len(candidates[entry.name]) > 1]
    found: dict[str, dict[str, float]] = {}
    while searching:
        epochs = study.search_epochs
        wanted = [(e, rate, epochs, SEARCH_SEED) for e in searching for rate in candidates[e.name]]
        _run(study, log, wanted)
        for entry in searching:
            keys = {r: _key(entry, r, epochs, SEARCH_SEED) for r in candidates[entry.name]}
            known = {r: float(log.records[key]["curve"][-1][1]) for r, key in keys.items()}
            found[entry.name] = known
            candidates[entry.name] = [*known, *rates_beyond(known)]
        searching = [e for e in searching if len(candidates[e.name]) > len(found[e.name])]
    best = {name: best_rate(known) for name, known in found.items()}
    return {name: best.get(name, rates[0]) for name, rates in candidates.items()}


def best_rate(found: Mapping[str, float]) -> str:
    """That with the best accuracy. Where several tie, that in the middle of them, and of two in the
    middle the larger: rates lie factors apart, so this is as far as can be from those that crawl
    and from those that ruin. Few held-out samples tie often. found: accuracies by rate, one or
    more."""
    tied = _tied(found)
    return tied[len(tied) // 2]


def rates_beyond(found: Mapping[str, float]) -> list[str]:
    """Where the smallest or the largest of the rates is better than every other one, the next one
    on that side; where others are as good as it is, none: what lies beyond has nothing to show.
    found: accuracies by rate, one or more."""
    rates, tied = sorted(found, key=float), _tied(found)
    best = tied[0]
    if len(tied) > 1 or best not in (rates[0], rates[-1]) or len(rates) >= MOST_RATES:
        return []
    return [two_digits(float(best) * (FACTOR if best == rates[-1] else 1 / FACTOR))]


def _tied(found: Mapping[str, float]) -> list[str]:
    """The rates with the best accuracy, the smallest first."""
    most = max(found.values())
    return sorted((rate for rate, right in found.items() if right == most), key=float)


def _run(study: Study, log: RunLog, wanted: Sequence[tuple[Entry, str, int, int]]) -> None:
    jobs, heads = {}, {}
    for entry, rate, epochs, seed in wanted:
        key = _key(entry, rate, epochs, seed)
        if log.get(key) is None and key not in jobs:
            label = f"{entry.name}, rate {rate}, seed {seed}"
            jobs[key] = entry.job(key, label, rate, epochs, seed)
            head = {"method": entry.name, "rate": rate, "seed": seed, "epochs": epochs}
            heads[key] = {"key": key, **head, "settings": entry.settings}

    def found(job: Job, result: dict[str, Any]) -> None:
        log.add({**heads[job.key], **result})

    if jobs and not study.workers:
        raise _missing(study, next(iter(jobs.values())).label)
    run_jobs(list(jobs.values()), study.workers, found)


def _missing(study: Study, what: str) -> SparsetuneError:
    return SparsetuneError(f"{study.log} has no run of {what}: run it")


def _key(entry: Entry, rate: str, epochs: int, seed: int) -> str:
    return key_of([entry.settings, rate, entry.steps(epochs), seed])


class _Bench:
    """Makes entries. folder: for images and requests, while the comparison runs."""

    def __init__(self, study: Study, folder: Path, log: RunLog) -> None:
        self.study, self.folder, self.log = study, folder, log
        self.subject = study.subject
        self.cache = FrontCache(study.cache, self.subject.origin, study.cache_bytes)
        self.counts = _Counts(study.probe, self.subject)

    def twin(self, bundle: Bundle) -> Entry:
        graph, plan, options = self.subject.graph, bundle.plan(self.subject.graph), bundle.options()
        front, rest, probed = self._probed(graph, plan, options)
        image = compile_image(rest, plan).image
        samples = self._samples(front, task_of(rest))
        settings = {"origin": self.subject.origin, "plan": compact(plan), "options": options,
                    "probe": probed}  # fmt: skip
        policy = bundle.policy_file()
        folders = [str(policy.resolve().parent)] if policy else []
        path = self._written(f"{len(list(self.folder.iterdir()))}.img", image)

        def steps(epochs: int) -> int:
            return int(options.get("steps", 0)) or epochs * self.counts.train

        def job(key: str, label: str, rate: str, epochs: int, seed: int) -> Job:
            chosen = {**options, "steps": steps(epochs), "rate": rate, "seed": seed}
            request = {
                "image": str(path), "samples": str(samples.resolve()), "options": chosen,
                "epoch": self.counts.train, "store_bytes": self.study.spec.store_bytes,
                "counts_right": self.subject.task.counts_right, "folders": folders,
            }  # fmt: skip
            where = self._written(f"{key}.json", json.dumps(request).encode())
            command = (sys.executable, "-m", "sparsetune.twin_run", str(where))
            return Job(key, label, command, steps(epochs), self._environment())

        def candidates() -> list[str]:
            if bundle.rate:
                return [bundle.rate]
            tried = options if front is not None else {}
            return [self._rate(bundle, text, settings, plan, tried) for text in self.study.rates]

        return Entry(bundle.name, plan, False, settings, job, steps, candidates)

    def _probed(
        self, graph: Graph, plan: UpdatePlan, options: dict[str, Any]
    ) -> tuple[Graph | None, Graph, str]:
        """(front, rest, digest of the first steps: probe.py). What looks at the sample itself, as
        augmentation does, needs the whole model: then the first steps are other ones."""
        front, rest = split_front(graph, plan)
        some = self.counts.some()
        whole = first_steps(graph, plan, some, options)
        if front is None:
            return None, graph, whole
        try:
            behind = Dataset(outputs(front, some.x), some.y)
            same = first_steps(rest, plan, behind, options) == whole
        except SparsetuneError:
            same = False
        return (front, rest, whole) if same else (None, graph, whole)

    def _rate(
        self, bundle: Bundle, text: str, settings: dict[str, Any], plan: UpdatePlan,
        options: dict[str, Any],
    ) -> str:  # fmt: skip
        """A candidate as decimal text."""
        if text != "auto" and not text.startswith("x"):
            return text
        key = key_of(["rate", settings])
        record = self.log.get(key)
        if record is None:
            if not self.study.workers:
                raise _missing(self.study, f"a measured learning rate for {bundle.name}")
            what = f"{bundle.name}: measuring a learning rate"
            print(f"{what}: short runs on this computer ...", flush=True)
            subject = self.subject
            usual = {k: v for k, v in options.items() if k not in ("steps", "warmup")}
            train = subject.parts["train"]
            rate = choose_rate(subject.graph, plan, subject.model, train, usual)
            record = {"key": key, "rate": rate, "settings": settings}
            self.log.add(record)
        factor = "1" if text == "auto" else text[1:]
        return two_digits(float(Decimal(record["rate"]) * Decimal(factor)))

    def float(self, method: FloatMethod, twins: list[Entry]) -> Entry:
        graph = self.subject.graph
        wanted = method.of or (twins[0].name if twins else "")
        plan = method.plan(graph, next((e.plan for e in twins if e.name == wanted), None))
        front, rest = (None, graph) if method.augment else split_front(graph, plan)
        samples = self._samples(None, self.subject.task)
        features = self._samples(front, task_of(rest))
        settings = {"origin": self.subject.origin, "plan": compact(plan), **method.settings()}
        python = self.study.torch

        def job(key: str, label: str, rate: str, epochs: int, seed: int) -> Job:
            request = {
                "front": front, "graph": rest, "samples": str(samples.resolve()),
                "features": str(features.resolve()), "layers": float_methods.layers_of(plan),
                "epochs": epochs, "rate": float(rate or 0), "batch": method.batch,
                "momentum": method.momentum, "seed": seed, "augment": method.moves(),
                "smoothing": method.smoothing,
            }  # fmt: skip
            command = float_methods.command(python, request, self.folder / f"{key}.pickle")
            return Job(key, label, command, steps(epochs), self._environment())

        def steps(epochs: int) -> int:
            return epochs * self.counts.train

        def candidates() -> list[str]:
            is_wanted = self.study.workers and front is not None
            if is_wanted and not (features / "train.npy").exists():
                making = job("features", f"{method.name}: features", "", 0, 0)
                run_jobs([replace(making, steps=1)], 1, lambda job, result: None)
            return [method.rate] if method.rate else list(self.study.float_rates)

        return Entry(method.name, plan, True, settings, job, steps, candidates)

    def _samples(self, front: Graph | None, task: Task) -> Path:
        """The folder of what runs learn from; none where there will be no run."""
        if not self.study.workers:
            return Path()
        return self.cache.entry(front, task, lambda: self.subject.parts)

    def _environment(self) -> tuple[tuple[str, str], ...]:
        """Of a run: what one that is killed leaves behind goes with our folder."""
        return (*float_methods.environment(), ("TMPDIR", str(self.folder)))

    def _written(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


class _Counts:
    """What has to be known of the samples before any run, kept beside the cache, so that those
    need not be read again: how many of each part there are, and some that are trained on."""

    def __init__(self, path: Path, subject: Subject) -> None:
        self.path, self.subject = path, subject
        self.samples = path.with_suffix(".npy")
        known = self._known() or self._make()
        self.sizes: dict[str, int] = known["sizes"]
        self.labels = known["labels"]
        self.train = int(self.sizes["train"])

    def _known(self) -> Any:
        """None where nothing is kept, or what an older version kept."""
        if not (self.path.exists() and self.samples.exists()):
            return None
        known = json.loads(self.path.read_text())
        return known if "sizes" in known else None

    def _make(self) -> Any:
        import numpy as np

        train = self.subject.parts["train"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        some = some_of(train)
        np.save(self.samples, some.x)
        labels = None if some.y is None else np.asarray(some.y).tolist()
        known = {"sizes": self.subject.sizes, "labels": labels}
        self.path.write_text(json.dumps(known))
        return known

    def some(self) -> Dataset:
        import numpy as np

        labels = None if self.labels is None else np.array(self.labels)
        return Dataset(np.load(self.samples), labels)


def compact(plan: UpdatePlan) -> dict[str, Any]:
    """A plan without what is as usual: fields that are added later change no key."""
    usual = {f.name: f.default for f in fields(UpdatePlan)}
    told = {k: v for k, v in asdict(plan).items() if k != "layers" and v != usual[k]}
    return told | {"layers": [_compact_layer(layer) for layer in plan.layers]}


def _compact_layer(layer: LayerPlan) -> dict[str, Any]:
    usual = {f.name: f.default for f in fields(LayerPlan)}
    return {k: v for k, v in asdict(layer).items() if v != usual[k]}
