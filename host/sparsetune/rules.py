"""The rules of a plan, whichever layers train: how a gradient is made and becomes a step."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from .errors import SparsetuneError
from .graph import Graph, output_channels
from .kept import kept_share, with_fewer_kept, with_kept
from .plan import SMALLEST_MAP, WHOLE, UpdatePlan, with_outputs, with_patches
from .tinyprop import COUNT_ALONE

FIELDS = ("qas", "error_bits", "smoothing", "residual", "velocity", "tinyprop")  # of UpdatePlan
IMPORTANCE = "importance"  # the policy that needs scores


def with_rules(
    graph: Graph, plan: UpdatePlan, args: argparse.Namespace, is_found: bool = False
) -> UpdatePlan:
    """The plan with the rules that the command line asks for. A rate that was measured with others
    is not kept. is_found: nobody spelt the plan out, so that patches go as far as its layers allow;
    else SparsetuneError is raised where they do not do."""
    asked = {name: value for name in FIELDS if (value := getattr(args, name, None)) is not None}
    if groups_of(args):
        asked["velocity"] = True
    changed = replace(plan, **asked)
    changed = _with_patches(graph, changed, args, is_found)
    if share := getattr(args, "outputs", None):
        changed = with_outputs(graph, changed, share)
    changed = changed if changed == plan else replace(changed, rate="")
    return _counted(replace(changed, scores=_wants_scores(plan, args)), args)


def _with_patches(
    graph: Graph, plan: UpdatePlan, args: argparse.Namespace, is_found: bool
) -> UpdatePlan:
    patch, kept = getattr(args, "patch", None), getattr(args, "kept", None)
    if patch and kept:
        raise SparsetuneError("--kept chooses codes and patches: leave out --patch, or --kept")
    if patch:
        return (with_patches if is_found else _with_squares)(graph, plan, patch)
    if kept is None:
        return plan
    return (with_fewer_kept if is_found else with_kept)(graph, plan, kept)


def _with_squares(graph: Graph, plan: UpdatePlan, size: int) -> UpdatePlan:
    """Raises SparsetuneError where there are layers, and none has room for patches."""
    filtered = with_patches(graph, plan, size)
    if size > 1 and plan.layers and filtered == plan:
        less = "give smaller patches, " if size > 2 else ""
        raise SparsetuneError(
            f"--patch {size}: no layer whose weights train has a map of {SMALLEST_MAP} outputs "
            f"a channel and more than {size} rows and columns: {less}train other layers, or leave "
            "it out"
        )
    return filtered


def _counted(plan: UpdatePlan, args: argparse.Namespace) -> UpdatePlan:
    """With the effort counted, where steps may be skipped: that changes nothing that is learnt."""
    has_patches = any(layer.patch > 1 for layer in plan.layers)
    is_asked = getattr(args, "tinyprop", None) is not None
    if not may_skip(args) or has_patches or plan.tinyprop or is_asked:
        return plan
    return replace(plan, tinyprop=COUNT_ALONE)


def may_skip(args: argparse.Namespace) -> bool:
    """Whether a run may leave out what is behind a step's loss."""
    return bool(getattr(args, "skip", None) or getattr(args, "effort", None))


def _wants_scores(plan: UpdatePlan, args: argparse.Namespace) -> bool:
    """Whether channels get scores: they change nothing that is learnt, so that a rate is kept."""
    is_policy = getattr(args, "policy", None) == IMPORTANCE
    return plan.scores or getattr(args, "scores", False) or is_policy


def groups_of(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of the device's train() for what needs velocities, where they are asked for."""
    none = {"momentum": ("0", "0.0"), "accumulate": (1,), "standardise": ("0", "0.0")}
    return {name: value for name, off in none.items()
            if (value := getattr(args, name, None)) is not None and value not in off}


def with_rules_of(graph: Graph, plan: UpdatePlan, other: UpdatePlan) -> UpdatePlan:
    """The plan with the rules of another one, its kind of patches and its share of outputs among
    them."""
    patch = max((layer.patch for layer in other.layers), default=1)
    if any(layer.weights_only or layer.kept_bits < WHOLE for layer in other.layers):
        plan = with_fewer_kept(graph, plan, kept_share(graph, other))
    elif patch > 1:
        plan = with_patches(graph, plan, patch)
    if share := _outputs_share(graph, other):
        plan = with_outputs(graph, plan, share)
    return replace(plan, **{name: getattr(other, name) for name in (*FIELDS, "scores")})


def _outputs_share(graph: Graph, plan: UpdatePlan) -> float:
    """The smallest share of its outputs whose weights a layer's step updates; 0 where all layers
    update those of all."""
    shares = [layer.outputs / output_channels(graph, graph.operator(layer.operator))
              for layer in plan.layers if layer.outputs]  # fmt: skip
    return min(shares, default=0.0)
