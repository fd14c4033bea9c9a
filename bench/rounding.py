"""What quantisation-aware scaling is worth where steps are rounded to nearest, as ours are not:

    python bench/rounding.py [--seeds N] [--epochs N]

Two blocks and the head of MobileNetV2-w0.35@128 train whole, int8 weights without a residual, on
CIFAR-10, with scaling and without. The kernels are built once more, from a copy in which a step's
fraction is a half and not drawn. The figures with stochastic
rounding are those of `bench/learning.py blocks`. The table goes to bench/results/rounding.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from emulated import ROOT  # and the path to tests
from learning_tasks import TASKS
from shared_tasks import shared_folder
from sparsetune.files import write_whole

FOLDER = ROOT / "build" / "rounding"
TABLE = ROOT / "bench" / "results" / "rounding.md"
HALF = "0x80000000u"
DRAWS = ("st_random", "st_random_in_row")  # of update.c alone: elsewhere chance stays
FAST = {"simd_update.c": "_mm256_set1_epi32", "simd_wide_update.c": "_mm512_set1_epi32"}
METHODS = ("scaled=int8:last=7,ratio=1", "unscaled=int8:last=7,ratio=1,qas=0")
RATES = "x0.33,x1,x3"


def put_halves(kernels: Path) -> None:
    """In place of what is drawn for a step, in the portable update and in the fast ones."""
    update = kernels / "update.c"
    head, include, rest = update.read_text().rpartition("#include")
    line, _, body = rest.partition("\n")
    halves = "".join(f"#define {name}(...) {HALF}\n" for name in DRAWS)
    update.write_text(f"{head}{include}{line}\n{halves}{body}")
    for name, same in FAST.items():
        text, count = re.subn(
            r"(INLINE st_\w+ randoms\([^)]*\) \{\n)",
            rf"\1    return {same}((int){HALF});\n",
            (kernels / name).read_text(),
        )
        assert count == 1, f"{name} draws otherwise now"
        (kernels / name).write_text(text)


def kernels_that_round_to_nearest() -> Path:
    """The folder of a module that CPython imports."""
    shutil.rmtree(FOLDER / "source", ignore_errors=True)
    source = FOLDER / "source"
    shutil.copytree(ROOT / "ulab_kernels", source / "ulab_kernels")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    put_halves(source / "ulab_kernels")
    options = ["build_ext", "--build-lib", str(FOLDER / "ext"), "--build-temp", str(FOLDER / "o")]
    subprocess.run([sys.executable, "setup.py", "-q", *options], cwd=source, check=True,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    return FOLDER / "ext"


def compare(kernels: Path, shared: Path, options: argparse.Namespace) -> str:
    """The table of the comparison with these kernels."""
    model, data = TASKS["cifar"].files(shared)
    words = ["compare", "--model", str(model), "--data", str(data), "--test-data"]
    words += ["--seeds", str(options.seeds), "--epochs", str(options.epochs), "--rates", RATES]
    words += ["--folder", str(FOLDER / "compared"), "--jobs", str(options.jobs)]
    path = os.pathsep.join([str(kernels), *sys.path])
    env = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "sparsetune", *words, "--methods", *METHODS]
    subprocess.run(command, env=env, check=True, stdout=sys.stderr)
    return (FOLDER / "compared" / "table.md").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    shared = shared_folder()
    if shared is None:
        print("SKIP: there is no ../shared")
        return
    table = compare(kernels_that_round_to_nearest(), shared, options)
    sizes = f"{options.epochs} epochs, {options.seeds} seeds"
    title = f"# CIFAR-10, steps rounded to nearest (`python bench/rounding.py`; {sizes})"
    write_whole(TABLE, f"{title}\n\n{table}".encode())
    print(table)


if __name__ == "__main__":
    main()
