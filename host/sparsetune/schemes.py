"""Update schemes that others have published, as plans (schemes.toml)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SparsetuneError
from .graph import Graph, input_channels
from .plan import LayerPlan, UpdatePlan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).with_name("schemes.toml")


@dataclass(frozen=True)
class Scheme:
    """biases: of so many convolutions, the last ones. shares: of the input channels, by number of
    the convolution, counted from 0 without the head. convolutions: of the network that it was made
    for, 0 where we have no file of it. kilobytes: of 1,024 bytes, as its makers count them
    (analytic.py)."""

    name: str
    biases: int
    shares: Mapping[int, float]
    convolutions: int = 0
    kilobytes: int = 0


def scheme_names() -> list[str]:
    return list(_table())


def load_scheme(name: str) -> Scheme:
    """Raises SparsetuneError for a name that is not in the file."""
    table = _table()
    if name not in table:
        raise SparsetuneError(f"there is no scheme {name}: choose {', '.join(table)}")
    values = table[name]
    shares = {int(number): float(share) for number, share in values["shares"].items()}
    return Scheme(name, **{**values, "shares": shares})


def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def scheme_plan(graph: Graph, scheme: Scheme) -> UpdatePlan:
    """The scheme on a model with another head than its own, maybe; the head trains whole. Raises
    SparsetuneError where it was made for another network."""
    *convolutions, head = graph.trainable or (None,)
    _check(scheme, len(convolutions))
    first = len(convolutions) - scheme.biases
    layers = []
    for i, op in enumerate(convolutions):
        assert op is not None
        channels = int(input_channels(graph, op) * scheme.shares.get(i, 0))
        if i >= first or channels:
            has_bias = i >= first and graph.bias_of(op) is not None
            layers.append(LayerPlan(op.index, channels, has_bias))
    assert head is not None
    whole = LayerPlan(head.index, input_channels(graph, head), graph.bias_of(head) is not None)
    return UpdatePlan((*layers, whole))


def _check(scheme: Scheme, convolutions: int) -> None:
    wanted = scheme.convolutions or 1 + max(scheme.shares)
    fits = convolutions == wanted if scheme.convolutions else convolutions >= wanted
    if not fits or scheme.biases > convolutions:
        many = f"{wanted}" if scheme.convolutions else f"at least {wanted}"
        raise SparsetuneError(
            f"the scheme {scheme.name} is for a network of {many} convolutions and a head, this "
            f"one has {convolutions}: take --search, or --last"
        )
