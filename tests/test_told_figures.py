"""What README, DESIGN and TRIED tell, against the tables that the benches wrote.

README's figures of learning are held against the experiment and the row that they are told to be
of, with sign and rounding, README's and DESIGN's of speed and memory against the files that `make
bench` keeps: told_figures.toml says which. Of learning in DESIGN and TRIED each `mean ± spread`
stands somewhere in bench/results; those of runs that are not kept are written `mean +- spread`."""

from __future__ import annotations

import json
import re
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
LEARNING = json.loads((RESULTS / "learning.json").read_text())
KEPT = {path.name: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
README = (ROOT / "README.md").read_text()
KNOWN = {**LEARNING, **KEPT}
CLAIMS = tomllib.loads((Path(__file__).parent / "told_figures.toml").read_text())["claim"]
FIGURE = re.compile(r"(\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?)")
BRACES = re.compile(r"\{([^{}|]+)\|([^{}|]*)\|([^{}|]+)\}")
WORDS = dict(enumerate("one two three four five six seven eight nine ten eleven twelve".split(), 1))

Fields = dict[str, Any]


# Speed and memory, by kept file --------------------------------------------------------------

KERNELS = ("forward", "backward", "weights")
PARTS = {"kernels": KERNELS, "step": (*KERNELS, "between"), "finished": ("backward", "weights")}
CYCLES_A_MS = 125_000


def spent(row: Fields, asked: str) -> int:
    """Cycles of a step, or of a part of one."""
    if asked == "estimated":
        return int(row[asked])
    return sum(row[part]["cycles"] for part in PARTS.get(asked, (asked,)))


def of_steps(kept: Fields, name: str, asked: str) -> float:
    rows = {key: row for key, row in kept.items() if key not in ("versions", "text")}
    if name in ("least", "most"):
        ends = {"least": min, "most": max}
        return float(ends[name](spent(row, asked) for row in rows.values())) / CYCLES_A_MS
    return spent(rows[name], asked) / CYCLES_A_MS


def of_ratios(kept: Fields, name: str, asked: str) -> float:
    """Beyond a step of biases alone, by share of the channels."""
    none, whole, row = (spent(kept["steps"][share], "kernels") for share in ("0.0", "1.0", name))
    part = (row - none) / (whole - none)
    of = {"ms": (row - none) / CYCLES_A_MS, "of all": part, "times its share": part / float(name)}
    return of[asked]


def of_cores(kept: Fields, name: str, asked: str) -> float:
    row = kept[name]["all"]
    return float(row["one"] / row["both"] if asked == "gain" else row[asked] / CYCLES_A_MS)


def of_promised(kept: Fields, name: str, asked: str) -> float:
    if not name:
        return float(kept[asked])
    (row,) = (each for each in kept["each"] if each["test"] == name)
    return float(row["free"] - row["promised"] if asked == "left" else row[asked])


def of_sizes(kept: Fields, name: str, asked: str) -> float:
    return float(sum(kept["models"][name][part] for part in asked.split("+")))


def of_layers(kept: Fields, name: str, asked: str) -> float:
    if asked == "cycles":
        model, layer, part = name.split(" ", 2)
        rows = (dict(zip(kept["columns"], row, strict=True)) for row in kept["rows"])
        key = (model, int(layer), part)
        (found,) = (row for row in rows if (row["model"], row["layer"], row["part"]) == key)
        return float(found["cycles"])
    return float(kept["kinds"][name][("average", "median", "worst").index(asked)])


def of_cycles(kept: Fields, name: str, asked: str) -> float:
    """Kernels of a step as tests hold them; with a residual what the weights take then."""
    parts = {"kernels": KERNELS, "residual": (*KERNELS[:2], "weights with a residual")}[asked]
    return sum(kept["cycles"][name][f"step, {part}"][0] for part in parts) / CYCLES_A_MS


def of_push(kept: Fields, name: str, asked: str) -> float:
    """Seconds for 300 KB, at a rate or by what two of them differ."""
    whole, _, less = name.partition("-")
    return 300 / kept[whole] - (300 / kept[less] if less else 0)


def of_host(kept: Fields, name: str, asked: str) -> float:
    return float(kept[name][asked])


def of_instructions(kept: Fields, name: str, asked: str) -> float:
    """name: core, layer or kind, part; of a kind the average."""
    core, which, part = name.split(", ")
    rows = [row for row in kept[f"blocks, {core}"]
            if row["part"] == part and which in (str(row["layer"]), row["kind"])]  # fmt: skip
    return sum(row[asked] for row in rows) / sum(row["macs"] for row in rows)


FILES = {
    "xtensa.json": of_instructions, "qemu_cores.json": of_instructions,
    "steps.json": of_steps, "ratios.json": of_ratios, "cores.json": of_cores,
    "promised.json": of_promised, "sizes.json": of_sizes, "layers.json": of_layers,
    "kept_cycles.json": of_cycles, "host.json": of_host,
    "push.json": of_push, "natmods.json": of_host,
}  # fmt: skip


def of_kept(file: str, kept: Fields, name: str, asked: str) -> str:
    """A figure as it is told: `asked` may end in a comma and how many places it has, else none."""
    what, _, places = asked.partition(",")
    value = FILES[file](kept, name, what.strip())
    return f"{Decimal(rounded(value, int(places or 0))):,}"


# README, by experiment and row ----------------------------------------------------------------


def rounded(value: float, places: int = 1) -> str:
    """Halves up, and whatever its last bits say: 79.15 is 79.2."""
    exact = Decimal(str(round(value, 6)))
    return str(exact.quantize(Decimal(10) ** -places, rounding=ROUND_HALF_UP))


def of_row(row: Fields, baseline: Fields, asked: str) -> str:
    """A figure as README tells it."""
    if asked == "KB":
        return rounded(row["ram_bytes"] / 1024, 0)
    if asked.startswith("effort"):
        whole = baseline["effort"]["backward"] if asked == "effort of baseline" else 10_000
        return rounded(100 * row["effort"]["backward"] / whole, 0)
    parts = re.fullmatch(r"(held )?(accuracy|less|more)( alone)?", asked)
    assert parts, f"{asked}: no such figure"
    held, what, alone = parts.groups()
    keys = ("mean", "spread") if what == "accuracy" else ("difference", "difference_spread")
    mean, spread = (row[key] for key in keys)
    if held:
        found = row["held_out"]["accuracy" if what == "accuracy" else "against"]
        mean, spread = found["mean"], found["spread"]
    told = rounded(100 * mean * (-1 if what == "less" else 1))
    return told if alone else f"{told} ± {rounded(100 * spread)}"


def is_better(row: Fields) -> bool:
    return bool(row["difference"] > 0 and row["held_out"]["against"]["mean"] > 0)


def filled(text: str, known: Fields) -> str:
    """With the figures of `known`, learning.json's content, in place of what stands in braces."""

    def figure(match: re.Match[str]) -> str:
        names, name, asked = (part.strip() for part in match.groups())
        if names.endswith(".json"):
            return of_kept(names, known[names], name, asked)
        experiments = [known[each.strip()] for each in names.split("+")]
        if asked.startswith(("seeds", "epochs")):
            of, _, in_words = asked.partition(" ")
            (count,) = {experiment[of] for experiment in experiments}
            return WORDS[count] if in_words else str(count)
        rows = [{row["name"]: row for row in each["rows"]} for each in experiments]
        if asked == "gain":
            return "gain" if all(is_better(of[name]) for of in rows) else "no gain"
        return of_row(rows[0][name], rows[0][experiments[0]["baseline"]], asked)

    return BRACES.sub(figure, text)


def told_by(text: str, claim: Fields, known: Fields) -> str:
    """The text where the claim should stand: the second column of its row, or the claim itself
    if running text has it."""
    if "row" not in claim:
        wanted = filled(claim["says"], known)
        return wanted if wanted in " ".join(text.split()) else ""
    begin = f"| {filled(claim['row'], known)}"
    cells = [line.split(" | ")[-1] for line in text.splitlines() if line.startswith(begin)]
    return cells[0].removesuffix(" |") if len(cells) == 1 else ""


def file_of(claim: Fields) -> str:
    return str(claim.get("file", "README.md"))


def wrong(text: str, file: str = "README.md") -> list[str]:
    """What the file should say, where it does not."""
    found = []
    for claim in (claim for claim in CLAIMS if file_of(claim) == file):
        wanted, told = filled(claim["says"], KNOWN), told_by(text, claim, KNOWN)
        if told != wanted:
            row = filled(claim.get("row", "(text)"), KNOWN)
            found.append(f"{row}\n  wanted: {wanted}\n  {file}: {told or 'not found'}")
    return found


@pytest.mark.parametrize("file", sorted({file_of(claim) for claim in CLAIMS}))
def test_what_was_measured_is_told(file: str) -> None:
    found = wrong((ROOT / file).read_text(), file)
    assert not found, "\n".join(found)


NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["says"][:20])
def test_each_number_that_is_changed_is_seen(claim: Fields) -> None:
    """Each one's last digit, where the claim stands."""
    text = (ROOT / file_of(claim)).read_text()
    if "row" in claim:
        begin = f"| {filled(claim['row'], KNOWN)}"
        (said,) = (line for line in text.splitlines() if line.startswith(begin))
        at = len(said) - len(said.split(" | ")[-1])
    else:
        text, said, at = " ".join(text.split()), filled(claim["says"], KNOWN), 0
    numbers = list(NUMBER.finditer(said, at))
    assert numbers and said in text
    for number in numbers:
        last = number.end() - 1
        other = said[:last] + str((int(said[last]) + 1) % 10) + said[last + 1 :]
        assert told_by(text.replace(said, other), claim, KNOWN) != filled(claim["says"], KNOWN)


def test_no_spread_of_readme_is_left_out() -> None:
    of_readme = (claim["says"] for claim in CLAIMS if file_of(claim) == "README.md")
    claimed = " ".join(filled(says, KNOWN) for says in of_readme)
    assert sorted(figures(README)) == sorted(figures(claimed))
    assert not any(figures(claim["says"]) for claim in CLAIMS)  # written out, not in braces


ROWS = [claim["row"] for claim in CLAIMS if "row" in claim]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:20])
def test_figures_that_change_places_are_seen(row: str) -> None:
    """Both of a row are in the tables, where one stands for the other."""
    begin = f"| {filled(row, KNOWN)}"
    (line,) = (each for each in README.splitlines() if each.startswith(begin))
    said = line.split(" | ")[-1]
    numbers = NUMBER.findall(said)
    assert len(set(numbers)) > 1
    turned = iter(numbers[1:] + numbers[:1])
    other = NUMBER.sub(lambda _: next(turned), said)
    assert any(f"| {each}".startswith(begin) for each in wrong(README.replace(said, other)))
    if "no gain" in said:
        found = wrong(README.replace(said, said.replace("no gain", "gain")))
        assert any(f"| {each}".startswith(begin) for each in found)


def test_figures_are_of_their_row_with_their_sign() -> None:
    def row(name: str, *of: float) -> Fields:
        mean, difference, held = of
        against = {"accuracy": {"mean": 0.5, "spread": 0.0}, "against": {"mean": held, "spread": 0}}
        return {"name": name, "mean": mean, "spread": 0.00251, "difference": difference,
                "difference_spread": 0.006, "held_out": against, "ram_bytes": 209 * 1024 - 300,
                "effort": {"backward": 10_000 * mean}}  # fmt: skip

    rows = [row("a", 0.8, 0, 0), row("b, c", 0.7915, -0.007, 0.02), row("d", 0.9, 0.01, 0.001)]
    known = {"e": {"baseline": "a", "seeds": 3, "epochs": 20, "rows": rows}}
    known["f"] = {**known["e"], "rows": [rows[0], {**rows[1], "name": "d"}]}
    for asked, told in {
        "e | b, c | accuracy": "79.2 ± 0.3", "e | b, c | accuracy alone": "79.2",
        "e | b, c | less": "0.7 ± 0.6", "e | b, c | more": "-0.7 ± 0.6",
        "e | b, c | held more": "2.0 ± 0.0", "e | d | less alone": "-1.0",
        "e | d | held accuracy": "50.0 ± 0.0", "e | b, c | gain": "no gain", "e | d | gain": "gain",
        "e + f | d | gain": "no gain", "e | d | KB": "209", "e | d | effort": "90",
        "e | d | effort of baseline": "113",
        "e + f | | seeds in words": "three", "e | | epochs": "20",
    }.items():  # fmt: skip
        assert filled(f"so {{{asked}}} it is", known) == f"so {told} it is"
    with pytest.raises(KeyError):
        filled("{e | nobody | accuracy}", known)
    with pytest.raises(AssertionError, match="no such figure"):
        filled("{e | d | mean}", known)


# DESIGN and TRIED, anywhere -------------------------------------------------------------------

def figures(text: str) -> list[tuple[str, str]]:
    return FIGURE.findall(text)


def measured() -> set[tuple[str, str]]:
    return {pair for path in RESULTS.glob("*.md") for pair in figures(path.read_text())}


def is_rounded(told: str, exact: str) -> bool:
    """Whether `told` is `exact`, which has two places, with the places it has."""
    places = len(told.partition(".")[2])
    return abs(float(told) - float(exact)) <= 0.5 * 10**-places + (0.005001 if places < 2 else 1e-9)


def test_the_check_finds_what_it_is_for() -> None:
    assert is_rounded("2.6", "2.59") and is_rounded("2.59", "2.59") and is_rounded("3", "2.59")
    assert not is_rounded("2.5", "2.59") and not is_rounded("2.58", "2.59")
    assert figures("-0.37 ± 0.86 (+0.00 ± 1)") == [("0.37", "0.86"), ("0.00", "1")]
    assert len(measured()) > 100


@pytest.mark.parametrize("name", ["docs/DESIGN.md", "docs/TRIED.md"])
def test_told_figures_were_measured(name: str) -> None:
    """A figure that nobody ever measured is seen, one that was made a typing error of mostly too.
    What is not: a figure of another row or experiment, a sign, words such as "less" and "gain", and
    figures without a spread."""
    known, unknown = measured(), []
    for line in (ROOT / name).read_text().splitlines():
        unknown += [
            f"{mean} ± {spread}"
            for mean, spread in figures(line)
            if not any(is_rounded(mean, m) and is_rounded(spread, s) for m, s in known)
        ]
    assert not unknown
