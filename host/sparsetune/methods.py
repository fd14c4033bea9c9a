"""Methods to compare: a name and a bundle of what `plan` and `tune` take, spelt
NAME:KEY=VALUE,KEY=VALUE.

A key is an option of theirs (without its dashes), a field of UpdatePlan, one of LayerPlan (set for
every layer that can have it), or an argument of the device's train(): what is added there can be
compared without a change here. What a comparison would ignore is refused.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from .commands import DEFAULT_LAST, asked_for
from .errors import SparsetuneError
from .graph import Graph
from .options import OURS, TAKEN, policy_file, run_options
from .plan import LayerPlan, UpdatePlan, check_plan, default_plan
from .rules import with_rules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Keys = Mapping[str, str]

# Bundles that have a name of their own; ALL is the number of the model's layers.
ALL = "all"
NAMED: dict[str, dict[str, str]] = {
    "head": {"last": "1", "ratio": "1"},
    "bias": {"last": "1", "ratio": "1", "biases": ALL},
    "full": {"last": ALL, "ratio": "1"},
    "static": {"policy": "static"},
    "cyclic": {"policy": "cyclic"},
    "random": {"policy": "random"},
    "random-epoch": {"policy": "random-epoch"},
    "magnitude": {"policy": "magnitude"},
    "importance": {"policy": "importance"},
    "int8": {},
    "residual": {"residual": "1"},
    "published": {"scheme": "mbv2-99"},
}
# Keys that would be ignored, and why: what the comparison itself decides, for all methods alike,
# and what its runs have not.
NO_REPLAY = "runs have no earlier samples here (tune --replay has)"
REFUSED = {
    "seed": "--seeds says how many",
    "loss": "--loss is of all methods",
    "save_every": "a checkpoint is judged after each epoch",
    "cores": "the twin has none to choose",
    "ram": "the table tells what each takes",
    "no_store": "the flash for trained channels is the board's (--board)",
    "set": "arguments of train() are keys themselves, as warmup=5",
    "cache": "the frozen front runs once for all methods anyway",
    "keep": "no later run learns from samples of this one",
    "replay": NO_REPLAY,
    "replay_share": NO_REPLAY,
    "replay_samples": NO_REPLAY,
}
SEARCHED = ("search", "budget_analytic", "time", "flash_writes")
BESIDE_SEARCH = ("share", "ram")  # limits of a search, where there is one
WHAT_TRAINS = ("plan", "scheme", "last", "ratio", "share", "biases")
NOT_PLAN = ("layers", "loss", "model", "rate")
NOT_LAYER = ("operator", "channels", "patch", "outputs")  # the latter are options, too


@dataclass(frozen=True)
class Method:
    """keys: as spelt, after those of the bundle that it is named after."""

    name: str
    keys: tuple[tuple[str, str], ...]


def parse_methods(texts: Iterable[str]) -> list[Method]:
    """Of a command line: NAME, NAME:KEY=VALUE,... or MINE=NAME:KEY=VALUE,... under a name of one's
    own. Raises SparsetuneError."""
    return [_parse(text) for text in texts]


def check_names(names: Sequence[str]) -> None:
    """Raises SparsetuneError where two methods have the same: a table's rows are found by it."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SparsetuneError(f"two methods are called {twice}: leave out one")


def _parse(text: str) -> Method:
    name, colon, rest = text.partition(":")
    given, bundle = name.partition("=")[::2]
    keys = parse_keys(rest, text) if colon else {}
    return make_method(given if bundle else text, bundle or name, keys)


def parse_keys(text: str, whole: str = "") -> dict[str, str]:
    """KEY=VALUE,KEY=VALUE; a KEY alone is 1, and a value with commas of its own stands in
    parentheses. whole: to name in an error."""
    parts = re.split(r",(?![^()]*\))", text)
    return dict(_pair(whole or text, part) for part in parts)


def _pair(text: str, part: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if value.startswith("(") and value.endswith(")"):
        value = value[1:-1]
    if not key or (equals and not value):
        raise SparsetuneError(f"the method {text} has {part!r}: spell it NAME:KEY=VALUE,KEY=VALUE")
    return key.replace("-", "_"), value if equals else "1"


def make_method(name: str, bundle: str, keys: Keys) -> Method:
    if bundle not in NAMED:
        known = ", ".join(NAMED)
        raise SparsetuneError(f"there is no method {bundle}: choose {known}, and add :KEY=VALUE")
    return Method(name, tuple({**NAMED[bundle], **keys}.items()))


def load_methods(path: Path) -> list[Method]:
    """Of a TOML or JSON file: a table of keys for each name; its key `method` names the bundle that
    it begins with (int8)."""
    try:
        text = path.read_text(encoding="utf-8")
        tables = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return [_from_table(name, dict(table)) for name, table in dict(tables).items()]
    except OSError as error:
        raise SparsetuneError(f"cannot read {path} ({error.strerror}): name another") from None
    except (ValueError, TypeError) as error:
        raise SparsetuneError(
            f"{path} holds no methods ({error}): write a table [NAME] of KEY = VALUE each"
        ) from error


def _from_table(name: str, table: dict[str, Any]) -> Method:
    bundle = str(table.pop("method", name if name in NAMED else "int8"))
    keys = {k.replace("-", "_"): str(int(v) if v in (True, False) else v) for k, v in table.items()}
    return make_method(name, bundle, keys)


# What they come to -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    """A method on a model. args: as `tune` would have them. fields, of_layers: of the plan. rate:
    decimal text, empty where it is to be found."""

    name: str
    args: argparse.Namespace
    fields: dict[str, Any]
    of_layers: dict[str, Any]

    @property
    def rate(self) -> str:
        return self.args.rate or ""

    def options(self) -> dict[str, Any]:
        """Keywords of the device's train(), but for rate and seed. Raises SparsetuneError."""
        return {k: v for k, v in run_options(self.args).items() if k not in ("rate", "seed")}

    def policy_file(self) -> Path | None:
        """The user's own policy, where there is one."""
        return policy_file(self.args.policy)

    def plan(self, graph: Graph) -> UpdatePlan:
        """Raises SparsetuneError where the model cannot be trained so."""
        last = min(DEFAULT_LAST, len(graph.trainable))
        plan = asked_for(graph, self.args) or default_plan(graph, last)
        if plan.loss and not graph.loss and plan.loss != graph.loss_name:
            raise SparsetuneError(
                f"the plan of {self.name} is made for another loss than the model's own: say "
                f"--loss {plan.loss}"
            )
        plan = replace(with_rules(graph, plan, self.args), loss=graph.loss, rate="", **self.fields)
        for name, value in self.of_layers.items():
            plan = _with_layers(graph, plan, name, value)
        check_plan(graph, plan)
        return plan


def _with_layers(graph: Graph, plan: UpdatePlan, name: str, value: Any) -> UpdatePlan:
    """The plan with a field set in all layers that can have it."""
    layers, last_error = [], None
    for layer in plan.layers:
        changed = replace(layer, **{name: value})
        try:
            check_plan(graph, replace(plan, layers=(changed,)))
            layers.append(changed)
        except SparsetuneError as error:
            layers.append(layer)
            last_error = error
    if last_error and layers == list(plan.layers):
        raise last_error
    return replace(plan, layers=tuple(layers))


class Reader:
    """parser: of what `plan` and `tune` take, whose errors are exceptions. common: keys of all
    methods that do not name them."""

    def __init__(self, parser: argparse.ArgumentParser, common: Keys) -> None:
        self.parser = parser
        self.common = common
        self.actions = {action.dest: action for action in parser._actions}
        self.plan_types = _types(UpdatePlan, NOT_PLAN)
        self.layer_types = _types(LayerPlan, NOT_LAYER)
        self.of_train = TAKEN - {*OURS, *REFUSED, "steps", "discard"} - set(self.actions)

    @property
    def known(self) -> list[str]:
        """All keys."""
        options = set(self.actions) - {*REFUSED, *SEARCHED}
        return sorted(options | set(self.plan_types) | set(self.layer_types) | self.of_train)

    def read(self, method: Method, layers: int) -> Bundle:
        """layers: of the model that have weights. Raises SparsetuneError for unknown keys, those
        that would be ignored, and values that they cannot have."""
        words: list[str] = []
        in_plan: dict[str, Any] = {}
        in_layers: dict[str, Any] = {}
        keys = self._merged(method)
        _refuse_ignored(method, keys)
        for key, text in keys.items():
            value = str(layers) if text == ALL else text
            if key in self.plan_types:  # first: an option may stand for the opposite, as --no-qas
                in_plan[key] = _typed(method, key, value, self.plan_types[key])
            elif key in self.layer_types:
                in_layers[key] = _typed(method, key, value, self.layer_types[key])
            elif key in self.actions:
                words += self._words(key, value)
            elif key in self.of_train:
                words += ["--set", f"{key}={value}"]
            else:
                known = ", ".join(self.known)
                raise SparsetuneError(f"the method {method.name} has {key}: choose among {known}")
        return Bundle(method.name, self._parsed(method, words), in_plan, in_layers)

    def _merged(self, method: Method) -> dict[str, str]:
        """With the common keys. Where a method says what trains, the common ones do not."""
        own = dict(method.keys)
        without = WHAT_TRAINS if set(own) & set(WHAT_TRAINS) else ()
        return {k: v for k, v in self.common.items() if k not in without} | own

    def _words(self, key: str, value: str) -> list[str]:
        action = self.actions[key]
        option = action.option_strings[-1]
        if action.nargs == 0:
            return [option] if value not in ("0", "false") else []
        return [f"{option}={value}"]

    def _parsed(self, method: Method, words: list[str]) -> argparse.Namespace:
        try:
            return self.parser.parse_args(words)
        except argparse.ArgumentError as error:
            raise SparsetuneError(f"the method {method.name}: {error}") from None


def _refuse_ignored(method: Method, keys: Keys) -> None:
    if any(key in keys for key in SEARCHED):
        limits = [key for key in (*SEARCHED[1:], *BESIDE_SEARCH) if key in keys]
        how = keys.get("search", "1")
        words = ["--search", *([] if how == "1" else [how])]
        words += [word for key in limits for word in (f"--{key.replace('_', '-')}", keys[key])]
        raise SparsetuneError(
            f"the method {method.name} asks for a search, and compare makes none: run `sparsetune "
            f"plan model.tflite --data samples.npz {' '.join(words)} -o FILE` first, and compare "
            "int8:plan=FILE"
        )
    for key in keys:
        if key in REFUSED:
            raise SparsetuneError(
                f"the method {method.name} has {key}: {REFUSED[key]}: leave it out"
            )


def _types(kind: type[Any], without: tuple[str, ...]) -> dict[str, type[Any]]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind) if f.name not in without}


def _typed(method: Method, key: str, text: str, kind: type[Any]) -> Any:
    try:
        if kind is bool:
            return {"0": False, "1": True, "false": False, "true": True}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
    except (KeyError, ValueError):
        pass
    raise SparsetuneError(f"the method {method.name} has {key}={text}: give {kind.__name__}")
