"""Methods of training against each other, on the real data of ../shared, by what `sparsetune
compare` runs: python bench/learning.py [EXPERIMENT...] [--seeds N] [--epochs N]

Finished runs are lines of bench/results/learning.jsonl and are not done again, as long as plan,
options, samples and what first steps tell and learn (probe.py) are the same; a run that is broken
off costs itself alone. Tables of the experiments that were asked for go to
bench/results/learning.json, and all that are there to learning.md. --tables makes those anew of
runs that are kept, and runs nothing. float experiments need a Python with torch (build/venvs).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from emulated import ROOT  # and the path to tests
from learning_tasks import FOLDER, TASKS
from shared_tasks import shared_folder
from sparsetune import cli
from sparsetune.comparing import study_of, table_of
from sparsetune.comparison import Study
from sparsetune.comparison_table import Fields, Table, markdown
from sparsetune.errors import SparsetuneError
from sparsetune.files import write_whole

RESULTS = ROOT / "bench" / "results"
RUNS = RESULTS / "learning.jsonl"
TABLES = RESULTS / "learning.json"
EPOCHS = 4


@dataclass(frozen=True)
class Experiment:
    """task: of learning_tasks.py. methods, floats: as the command line spells them. more: other
    arguments of `sparsetune compare`. epochs: where they are not the usual ones."""

    task: str
    title: str
    methods: tuple[str, ...]
    floats: tuple[str, ...] = ()
    more: tuple[str, ...] = field(default=("--rates", "x0.33,x1,x3"))
    epochs: int = EPOCHS

    def arguments(self, shared: Path, options: argparse.Namespace) -> list[str]:
        model, data = TASKS[self.task].files(shared)
        words = ["compare", "--model", str(model), "--data", str(data), "--test-data"]
        words += ["--seeds", str(options.seeds), "--epochs", str(options.epochs or self.epochs)]
        words += ["--folder", str(FOLDER), "--runs", str(RUNS), "--jobs", str(options.jobs)]
        words += [*self.more, "--methods", *self.methods]
        return words + (["--float", *self.floats] if self.floats else [])


SCHEME = "MCUNetV3's MbV2-99 scheme"
# The plan of the first method is what the others of an experiment vary.
OURS = ("int8=published", "residual=published:residual=1")
FOUND = "searched=int8:plan=bench/results/searched-{}.json"  # by bench/search.py --find
BY_GRADIENTS = "by gradients=int8:plan=bench/results/gradients-{}.json"  # --find gradients
# Of layers that keep codes: --find runs-codes, gradients-codes.
IN_CODES = "searched, codes=int8:plan=bench/results/searched-codes-{}.json"
IN_CODES_TOO = "by gradients, codes=int8:plan=bench/results/gradients-codes-{}.json"
BY_SEARCH = (FOUND, BY_GRADIENTS, IN_CODES, IN_CODES_TOO)
# Those of `bench/cached.py --plan later --plan latest`.
LATER = tuple(f"{name}=int8:plan=bench/results/{name}-{kb}.json"
              for name, kb in (("later", 99), ("latest", 96)))  # fmt: skip
# `plan --data ... --search runs --share 2 --ram 225000`, CIFAR-10.
SPARSE = "bench/results/sparse-cifar.json"
# The same by today's search, with --residual: two layers whole, so that no channels take turns.
ANEW = "bench/results/sparse-anew-cifar.json"
# By hand: 10 of 56 channels of the last expansion, all biases behind operator 14, the head.
DEEP = "bench/results/deep-cifar.json"
# The same biases and head; of one expansion whole the fifth (63) or the half (51, earlier and a
# third of the size) of the outputs that have a sample's largest errors.
BY_ERRORS = tuple(f"of {n}, by errors=int8:plan=bench/results/outputs-{n}-cifar.json"
                  for n in (63, 51))  # fmt: skip
SPREAD = "share=2,last=12,residual=1"
POLICIES = ("static", "magnitude", "cyclic", "random", "random-epoch", "importance")
# At the rates that were chosen for whole steps (`precision`, `clothing`). The zeros of ReLUs spare
# these 0.34 of their multiply-accumulates, so that 37 % of the steps are 25 % of full gradients.
EFFORTS = (
    "whole=published:residual=1,tinyprop=1:1:1",  # counts, as the others do, and no more
    *(f"effort {n}=published:residual=1,effort={n}" for n in (37, 25, 15)),
    # TinyProp v2's own rule: a step below so much of the largest error of late goes no further.
    *(f"skip {x}=published:residual=1,tinyprop=1:1:1,skip={x}" for x in (0.5, 0.6)),
    "0.75, skip 0.5=published:residual=1,tinyprop=0.75:1:1,skip=0.5",
)
KWS = ("--common", "last=6,ratio=0.5", "--rates", "auto", "--search-epochs", "4")
LESS_KEPT = (
    OURS[1], "2=published:residual=1,patch=2",
    *(f"kept {n}=published:residual=1,kept={n}" for n in (30, 10)),
)  # fmt: skip
# Other rules of the update, each at rates of its own. Deutel's (2407.10734) steps are of filters'
# gradients over groups of samples, standardised: by so many quantisation steps.
RULES = (
    OURS[1],
    *(f"{name}=published:residual=1,{keys}" for name, keys in (
        ("momentum", "momentum=0.9"),
        ("groups of 8", "accumulate=8"),
        ("standardised", "accumulate=8,standardise=0.1"),
        *((f"standardised {size}", f"accumulate=8,standardise={size}") for size in (0.3, 0.5, 1)),
        ("standardised, momentum", "accumulate=8,standardise=0.1,momentum=0.9"),
        ("warm-up", "warmup=1000"),
        ("constant rate", "schedule=constant"),
        ("decay", "decay=0.001"),
        ("smoothing", "smoothing=0.1"),
        ("channels of magnitude", "policy=magnitude"),
        ("random channels", "policy=random"),
    )),
)
EXPERIMENTS = {
    "precision": Experiment(
        "cifar", f"CIFAR-10, {SCHEME}: what integers cost", OURS,
        ("same:of=int8", "same:of=int8,batch=16", "same:of=int8,batch=16,rate=0.01",
         "same:of=int8,batch=4,rate=0.005"),
    ),
    "tinyprop": Experiment(
        "cifar", f"CIFAR-10, {SCHEME} with a residual: steps that go on behind their loss",
        EFFORTS, (), ("--rates", "0.0017"),
    ),
    "tinyprop-clothing": Experiment(
        "clothing", f"clothing, {SCHEME} with a residual: steps that go on behind their loss",
        EFFORTS, (), ("--rates", "0.0015"),
    ),
    "last": Experiment(
        "cifar", "CIFAR-10: the last layer alone",
        ("head", "head residual=head:residual=1"), ("last",),
    ),
    "batch1": Experiment(
        "cifar", f"CIFAR-10, {SCHEME}: float with batches of one", ("int8=published",),
        ("same:of=int8,batch=1",),
        ("--rates", "x0.33,x1,x3", "--float-rates", "0.0003,0.001,0.003"),
    ),
    "channels": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, of 12 layers: which ones",
        tuple(f"{policy}:{SPREAD}" for policy in POLICIES), (), ("--rates", "0.0017"),
    ),
    "sparse": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, by a searched plan",
        (f"sparse=random:plan={SPARSE}", f"static:plan={SPARSE}",
         "biases=head:biases=35,residual=1"),
        (), ("--rates", "0.0017"),
    ),
    "sparse-anew": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, searched anew, and by hand",
        (f"anew=static:plan={ANEW}", f"by hand=random:plan={DEEP}",
         f"by hand, static=static:plan={DEEP}", "biases=head:biases=36,residual=1"),
        (), ("--rates", "0.0017,0.0051"),
    ),
    "sparse-long": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, and full fine-tuning in float",
        (f"sparse=random:plan={DEEP}", f"static:plan={DEEP}",
         "biases=head:biases=41,residual=1", f"anew=static:plan={ANEW}"),
        ("all:batch=16,rate=0.004",), ("--rates", "0.0017"), epochs=10,
    ),
    "sparse-errors": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, of the outputs with the largest "
        "errors",
        (f"sparse=random:plan={DEEP}", BY_ERRORS[0]), (), ("--rates", "0.0017"),
    ),
    "sparse-errors-long": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, of the outputs with the largest "
        "errors, and full fine-tuning in float",
        (f"sparse=random:plan={DEEP}", f"static:plan={DEEP}", *BY_ERRORS),
        ("all:batch=16,rate=0.004",), ("--rates", "0.0017"), epochs=10,
    ),
    "sparse-longer": Experiment(
        "cifar", "CIFAR-10, 2 % of the convolution weights a step, smoothed labels, decay",
        (f"sparse=random:plan={DEEP},smoothing=0.1,decay=0.001",),
        (), ("--rates", "0.0017"), epochs=20,
    ),
    "patches": Experiment(
        "cifar", f"CIFAR-10, {SCHEME} with a residual: patches, codes of what is kept",
        LESS_KEPT,
        (), ("--rates", "0.0017"),
    ),
    "patches-clothing": Experiment(
        "clothing", f"clothing, {SCHEME} with a residual: patches, codes of what is kept",
        LESS_KEPT,
        (), ("--rates", "0.0015"),
    ),
    "blocks": Experiment(
        "cifar", "CIFAR-10: without quantisation-aware scaling, two blocks and the head whole",
        ("scaled=int8:last=7,ratio=1", "unscaled=int8:last=7,ratio=1,qas=0"),
    ),
    "scaling": Experiment(
        "cifar", "CIFAR-10: without quantisation-aware scaling",
        ("scheme=published:residual=1", "scheme unscaled=published:residual=1,qas=0",
         "biases=head:biases=29,residual=1", "biases unscaled=head:biases=29,residual=1,qas=0"),
    ),
    "errors": Experiment(
        "cifar", f"CIFAR-10, {SCHEME}: bits of error tensors",
        ("int8=published", *(f"{n} bits=published:error_bits={n}" for n in (12, 8, 6))),
    ),
    "clothing": Experiment(
        "clothing", f"clothing, {SCHEME}", ("head", *OURS),
        ("last", "same:of=int8", "same:of=int8,batch=16", "same:of=int8,batch=4"),
    ),
    "searched": Experiment(
        "cifar", f"CIFAR-10: the plans that --search finds for 100 KB, and {SCHEME}",
        # The other one's rate.
        (OURS[1], *(how.format("cifar") + ",rate=0.0017" for how in BY_SEARCH)),
    ),
    "searched-clothing": Experiment(
        "clothing", f"clothing: the plans that --search finds for 100 KB, and {SCHEME}",
        (OURS[1], *(how.format("clothing") for how in BY_SEARCH)),
    ),
    "later": Experiment(
        "cifar", f"CIFAR-10: 100 KB behind longer fronts, and {SCHEME}",
        (OURS[1], *(f"{method},rate=0.0017" for method in LATER)),  # the first one's
    ),
    "later-clothing": Experiment(
        "clothing", f"clothing: 100 KB behind longer fronts, and {SCHEME}",
        (OURS[1], *LATER),
    ),
    "whole": Experiment(
        "cifar", f"CIFAR-10: all layers whole, which no board holds, and {SCHEME}",
        (OURS[1], "whole=full:residual=1"), (), ("--rates", "0.0017"),
    ),
    "whole-clothing": Experiment(
        "clothing", f"clothing: all layers whole, which no board holds, and {SCHEME}",
        (OURS[1], "whole=full:residual=1"),
    ),
    "rules-clothing": Experiment(
        "clothing", f"clothing, {SCHEME} with a residual: rules of the update", RULES,
    ),
    "rules": Experiment(
        "cifar", f"CIFAR-10, {SCHEME} with a residual: rules of the update", RULES,
    ),
    "kws": Experiment(
        "kws", "keyword spotting, 360 samples", ("head", "int8", "residual", "static", "random"),
        ("last:batch=16", "same:of=int8,batch=16"), KWS,
    ),
}  # fmt: skip


def study(name: str, shared: Path, options: argparse.Namespace) -> Study:
    return study_of(cli.build_parser().parse_args(EXPERIMENTS[name].arguments(shared, options)))


def found_by(name: str, study: Study) -> Fields:
    """The table of an experiment. Raises SparsetuneError."""
    table = table_of(study, "test")
    title, sizes = EXPERIMENTS[name].title, {"seeds": study.seeds, "epochs": study.epochs}
    print(f"{title}\n\n{markdown(table)}", flush=True)
    return {"title": title, **sizes, **table.told()}


def kept() -> dict[str, Fields]:
    """Tables by experiment."""
    return dict(json.loads(TABLES.read_text())) if TABLES.exists() else {}


def keep(name: str, found: Fields) -> None:
    """Writes both files; other experiments' figures stay."""
    known = kept() | {name: found}
    write_whole(TABLES, (json.dumps(known, indent=1) + "\n").encode())
    write_whole(TABLES.with_suffix(".md"), as_text(known).encode())


def as_text(known: dict[str, Fields]) -> str:
    """All tables, as they look today, whenever they were found."""
    parts = ["# Learning methods, measured (`python bench/learning.py`)", ""]
    for name in (name for name in EXPERIMENTS if name in known):
        sizes = f"{known[name]['epochs']} epochs, {known[name]['seeds']} seeds"
        parts += [f"## {known[name]['title']} (`{name}`; {sizes})", ""]
        parts += [markdown(Table.read(known[name]))]
    return "\n".join(parts)


def make_anew(name: str, shared: Path, options: argparse.Namespace) -> None:
    """The table, of kept runs alone; says so where some are missing."""
    before = kept().get(name, {})
    known = {key: before[key] for key in ("epochs", "seeds") if key in before}
    sizes = argparse.Namespace(**{**vars(options), **known})
    try:
        keep(name, found_by(name, replace(study(name, shared, sizes), workers=0)))
    except SparsetuneError as error:
        print(f"{name} stays as it was: {error}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="in place of an experiment's own")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="of kept runs, and run nothing")
    options = parser.parse_args()
    unknown = set(options.experiment) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"no experiment {min(unknown)}: choose among {', '.join(EXPERIMENTS)}")
    shared = shared_folder()
    if shared is None:
        print("SKIP: there is no ../shared")
        return
    for name in options.experiment or EXPERIMENTS:
        if options.tables:
            make_anew(name, shared, options)
        else:
            keep(name, found_by(name, study(name, shared, options)))


if __name__ == "__main__":
    main()
