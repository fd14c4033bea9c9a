"""What a plan's patches and codes do not bring."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from .compile import compile_image
from .graph import Graph
from .kept import kept_share
from .plan import WHOLE, UpdatePlan, exact
from .room import Room


def patch_doubts(
    graph: Graph, plan: UpdatePlan, args: argparse.Namespace, room: Room
) -> Iterator[str]:
    """A line for each doubt."""
    patch, kept = getattr(args, "patch", None), getattr(args, "kept", None)
    if (patch or 1) > 1 and all(layer.patch == 1 for layer in plan.layers):
        yield f"--patch {patch}: no layer of the plan that was found has a map for such patches"
    if kept is not None and (share := kept_share(graph, plan)) > kept:
        yield (
            f"--kept {kept:g}: codes and patches leave {share:.3g} % of what is kept for the "
            "weights' gradients of the plan that was found"
        )
    more = ram_of_patches(graph, plan, room)
    if more > 0:
        yield (
            f"{_names(plan)} take {more:,} bytes of RAM more than exact gradients: too few "
            "channels train for what they save (plan without them, or with more channels)"
        )


def _names(plan: UpdatePlan) -> str:
    has_patches = any(layer.patch > 1 for layer in plan.layers)
    has_codes = any(layer.kept_bits < WHOLE for layer in plan.layers)
    return "codes and patches" if has_patches and has_codes else ("codes", "patches")[has_patches]


def ram_of_patches(graph: Graph, plan: UpdatePlan, room: Room) -> int:
    """Bytes that the plan takes more than with exact gradients; below 0 where patches save RAM.
    Few channels are kept in few bytes, and errors over patches are tensors of their own."""
    if all(layer == exact(layer) for layer in plan.layers):
        return 0
    layers = tuple(exact(layer) for layer in plan.layers if layer.trains)
    plans = plan, replace(plan, layers=layers)
    filtered, whole = (room.use(compile_image(graph, each)).used for each in plans)
    return filtered - whole
