"""The rules of a plan, whichever layers train: how a gradient is made and becomes a step."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from .graph import Graph
from .plan import UpdatePlan, with_patches
from .tinyprop import COUNT_ALONE

FIELDS = ("qas", "error_bits", "smoothing", "residual", "velocity", "tinyprop")  # of UpdatePlan
IMPORTANCE = "importance"  # the policy that needs scores


def with_rules(graph: Graph, plan: UpdatePlan, args: argparse.Namespace) -> UpdatePlan:
    """The plan with the rules that the command line asks for. A rate that was measured with others
    is not kept."""
    asked = {name: value for name in FIELDS if (value := getattr(args, name, None)) is not None}
    if groups_of(args):
        asked["velocity"] = True
    changed = replace(plan, **asked)
    if patch := getattr(args, "patch", None):
        changed = with_patches(graph, changed, patch)
    changed = changed if changed == plan else replace(changed, rate="")
    return _counted(replace(changed, scores=_wants_scores(plan, args)), args)


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
    patch = max((layer.patch for layer in other.layers), default=1)
    plan = with_patches(graph, plan, patch) if patch > 1 else plan
    return replace(plan, **{name: getattr(other, name) for name in (*FIELDS, "scores")})
