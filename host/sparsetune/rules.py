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
    has_patches = getattr(args, "patch", None) or any(layer.patch > 1 for layer in plan.layers)
    if getattr(args, "skip", None) and not (plan.tinyprop or has_patches):
        asked = {"tinyprop": COUNT_ALONE, **asked}  # effort is to be counted
    changed = replace(plan, **asked)
    if patch := getattr(args, "patch", None):
        changed = with_patches(graph, changed, patch)
    changed = changed if changed == plan else replace(changed, rate="")
    return replace(changed, scores=_wants_scores(plan, args))


def _wants_scores(plan: UpdatePlan, args: argparse.Namespace) -> bool:
    """Whether channels get scores: they change nothing that is learnt, so that a rate is kept."""
    is_policy = getattr(args, "policy", None) == IMPORTANCE
    return plan.scores or getattr(args, "scores", False) or is_policy


def groups_of(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of the device's train() for momentum and accumulation, where they are asked for."""
    return {name: value for name, off in (("momentum", ("0", "0.0")), ("accumulate", (1,)))
            if (value := getattr(args, name, None)) is not None and value not in off}


def with_rules_of(graph: Graph, plan: UpdatePlan, other: UpdatePlan) -> UpdatePlan:
    patch = max((layer.patch for layer in other.layers), default=1)
    plan = with_patches(graph, plan, patch) if patch > 1 else plan
    return replace(plan, **{name: getattr(other, name) for name in (*FIELDS, "scores")})
