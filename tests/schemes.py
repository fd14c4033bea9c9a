"""Plans that others have published."""

from __future__ import annotations

from sparsetune.schemes import load_scheme, scheme_plan

# At 100 KB of analytic memory: what figures of whole steps are told of.
MBV2_99 = load_scheme("mbv2-99")
published = scheme_plan
