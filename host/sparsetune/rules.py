"""The update rule of a plan: how a gradient becomes a step, whichever layers train."""

from __future__ import annotations

import argparse
from dataclasses import replace

from .plan import UpdatePlan

FIELDS = ("qas", "error_bits", "smoothing")  # of UpdatePlan


def with_rules(plan: UpdatePlan, args: argparse.Namespace) -> UpdatePlan:
    """The plan with the rules that the command line asks for. A rate that was measured with others
    is not kept."""
    asked = {name: value for name in FIELDS if (value := getattr(args, name, None)) is not None}
    changed = replace(plan, **asked)
    return plan if changed == plan else replace(changed, rate="")


def with_rules_of(plan: UpdatePlan, other: UpdatePlan) -> UpdatePlan:
    return replace(plan, **{name: getattr(other, name) for name in FIELDS})
