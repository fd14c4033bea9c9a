"""What the words of the command line are read as. Each raises argparse.ArgumentTypeError, whose
text says what is wrong with the word and what to try."""

from __future__ import annotations

import argparse
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sparsetune_device.channels import EPOCH

FEWEST_BYTES = 1000  # fewer are KB without their letter


def natural(text: str, smallest: int = 0) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number, give one from {smallest} on"
        ) from None
    if value < smallest:
        raise argparse.ArgumentTypeError(f"{text!r} is too small, give {smallest} or more")
    return value


def count(text: str) -> int:
    return natural(text, 1)


def hold(text: str) -> int | str:
    if text == EPOCH or text.isdecimal():
        return text if text == EPOCH else count(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of steps (try 8), nor: {EPOCH}")


def percent(text: str) -> int:
    """Of what is above 99 the device's own reader says the same."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 1 to 99 (try 25)")
    return int(text)


def share_of_outputs(text: str) -> float:
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not in (0, 1] (try 0.2)")
    return value


def rate(text: str) -> str:
    """A rate in scientific notation as the decimal text that the device reads; others as they
    are, which the device's own reader judges."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return text
    is_meant = value.is_finite() and "e" in text.lower() and -9 <= value.adjusted() <= 4
    return f"{value:f}" if is_meant else text


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 (try 0.5)")
    return value


def png(text: str) -> Path:
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} is drawn as PNG: call it {text}.png")
    return Path(text)


def size(text: str) -> int:
    """Read a number of bytes: 120000, 120K, 120KB."""
    units = {"K": 1024, "M": 1024 * 1024}
    short = text.upper().removesuffix("B")
    unit = units.get(short[-1:], 1)
    try:
        value = int(short if unit == 1 else short[:-1]) * unit
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes (try 120K)")
    return value


def ram(text: str) -> int:
    """Read a number of bytes that a model may run in."""
    value = size(text)
    if value < FEWEST_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} are {value} bytes: did you mean {value}K?")
    return value


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a VALUE that is an integer becomes one."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE (try warmup=20)")
    try:
        return name, int(value)
    except ValueError:
        return name, value
