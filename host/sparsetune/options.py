"""What the command line asks of the device's train(), checked before anything is pushed."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsetune_device.augment import parse_augment
from sparsetune_device.channels import make_policy
from sparsetune_device.effort import make_rule
from sparsetune_device.main import DEFAULTS, merge, train
from sparsetune_device.momentum import MOST, parse_momentum
from sparsetune_device.schedule import Schedule, parse_rate

from .errors import SparsetuneError

NAMES = ("steps", "seed", "rate", "policy", "hold", "schedule", "save_every", "cores", "keep",
         "augment", "momentum", "accumulate", "decay", "skip", "effort", "standardise")
FRONT = {"cache": "--cache", "replay": "--replay-share"}
ALL = 1 << 24  # samples of a cache that holds what has room
TAKEN = {*inspect.signature(train).parameters, *DEFAULTS} - {"settings"}  # by train()
OURS = ("image", "data", "out", "flash", "save_to", "resume")  # nobody else's to choose


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords for train(): what was asked for, and nothing else. Raises SparsetuneError for what
    train() would refuse."""
    options = {name: getattr(args, name) for name in NAMES}
    options.update(_settings(args.set))
    options.update(_front(args))
    if getattr(args, "twin", False) and args.cores:
        raise SparsetuneError("the twin has no cores to choose: leave out --cores, or --twin")
    if options["policy"]:
        options["policy"] = _policy_name(options["policy"])
    options = {name: value for name, value in options.items() if value is not None}
    _check(options)
    return options


def _front(args: argparse.Namespace) -> dict[str, Any]:
    """--cache: for as many samples as there is room for. --replay-share: as percent."""
    found = {"cache": ALL} if args.cache else {}
    share = args.replay_share
    if share is None:
        return found
    if not 0.01 <= share <= 1:
        raise SparsetuneError(f"--replay-share {share:g} is not in 0.01 to 1: try 0.25")
    return {**found, "replay": round(100 * share)}


def policy_file(policy: str | None) -> Path | None:
    """The file that a policy given as FILE.py:CLASS lies in."""
    path, colon, _ = (policy or "").rpartition(":")
    return Path(path) if colon and path.endswith(".py") else None


@contextlib.contextmanager
def blaming_policy(policy: str | None) -> Iterator[None]:
    """Names the user's own policy where a step refuses its operands: the image's were checked, so
    that channels are what may be wrong. And its line, where it raises."""
    try:
        yield
    except Exception as error:
        blamed = _blamed(policy, error)
        if blamed is error:
            raise
        raise blamed from error


def _blamed(policy: str | None, error: Exception) -> Exception:
    if ":" not in (policy or ""):
        return error
    cause = error.__cause__ or error  # twin.py makes one line of a ValueError
    module = (policy or "").partition(":")[0].rpartition("/")[2].removesuffix(".py")
    frames = traceback.extract_tb(cause.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).stem == module]
    if lines:
        text = f"{type(cause).__name__}: {cause} ({module}.py, line {lines[-1]})"
        return SparsetuneError(f"the policy {policy} stopped with {text}")
    if "impossible parameters" not in str(error):
        return error
    return SparsetuneError(
        f"the policy {policy} chose a channel that is not there ({error}): write "
        "layer.chosen channels below layer.in_channels at layer.channels_at"
    )


def _policy_name(policy: str) -> str:
    """FILE.py:CLASS as the device finds it, MODULE:CLASS; importable here as well."""
    path = policy_file(policy)
    if path is None:
        return policy
    if not path.is_file():
        raise SparsetuneError(f"{path} is missing: name the file of your policy")
    sys.path.insert(0, str(path.resolve().parent))
    return f"{path.stem}:{policy.rpartition(':')[2]}"


def _settings(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`--set` arguments as keywords of the device's train(). Raises SparsetuneError for others."""
    known = TAKEN.difference(OURS, NAMES)
    for name, value in pairs:
        if name in FRONT:
            raise SparsetuneError(f"--set {name}: it has an option, {FRONT[name]}")
        if name in NAMES:
            raise SparsetuneError(f"--set {name}: it has an option, --{name.replace('_', '-')}")
        if name not in known:
            choices = ", ".join(sorted(known))
            raise SparsetuneError(f"train() takes no {name}: choose among {choices}")
        if not isinstance(value, int) or value < 0:
            raise SparsetuneError(f"--set {name}={value}: give a whole number from 0 on")
    if len(dict(pairs)) < len(pairs):
        raise SparsetuneError("two --set have the same name: leave out one")
    return dict(pairs)


def _check_policy(policy: str) -> None:
    """One of the user's own is loaded, but not made: it may want layers to look at."""
    module, colon, name = policy.partition(":")
    if not colon:
        make_policy(policy, [], 0)
        return
    try:
        kind = getattr(importlib.import_module(module), name)
        inspect.signature(kind).bind([], 0)
        is_class = inspect.isclass(kind)  # not a function that makes one
        if is_class:
            inspect.signature(kind.choose).bind(None, 0, b"")
    except Exception as error:  # whatever the user's code raises
        why = f"{type(error).__name__}: {error}"
        raise SparsetuneError(
            f"the policy {policy} cannot be used ({why}): name a class with "
            "__init__(self, layers, seed) and choose(self, step, state)"
        ) from error


def _check(options: dict[str, Any]) -> None:
    settings = merge({name: options.get(name) for name in DEFAULTS}, "")
    try:
        rate = parse_rate(settings["rate"] or "0")
        make_rule(settings["skip"], settings["effort"])
        Schedule(settings["schedule"], rate, settings["steps"], settings["warmup"])
        _check_policy(settings["policy"])
        if settings["augment"]:
            parse_augment(settings["augment"])
            if settings["cache"]:
                raise ValueError("augmented samples are other ones in each epoch: leave out "
                                 "--augment, or --cache")
        parse_momentum(settings["momentum"])
        for name in ("decay", "standardise"):
            parse_rate(settings[name], name)
    except ValueError as error:
        raise SparsetuneError(str(error)) from error
    if 0 < options.get("steps", 0) <= settings["warmup"]:
        raise SparsetuneError("all steps would be warm-up: give a smaller warmup")
    _check_groups(settings["accumulate"], options.get("steps"))
    if settings["rate"] and not rate[0]:
        raise SparsetuneError("a learning rate of 0 learns nothing: try 0.005")


def _check_groups(size: int, steps: int | None) -> None:
    """size: samples that make a step together. steps: of the run, where they are given."""
    if size > MOST:
        raise SparsetuneError(f"--accumulate {size}: choose 1 to {MOST}")
    if steps is not None and size > steps:
        raise SparsetuneError(
            f"--accumulate {size}: no group of so many samples ends within {steps} steps, so that "
            "nothing would be learnt: ask for more steps, or smaller groups"
        )
