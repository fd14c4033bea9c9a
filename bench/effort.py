"""What TinyProp's selection of errors saves of a training step. Run: python bench/effort.py

KWS, and MobileNetV2-w0.35@128 by MCUNetV3's scheme for 100 KB; kernels on the emulated Pico, one
sample, whose errors are the largest of late, so that `most` of the channels stay. Beside the cycles
stands the effort that SELECT_ERRORS counted: multiply-accumulates of gradients over full ones. The
last lines are of runs with `--effort`: steps without errors selected, of which some end at their
loss (the loss itself is counted to what they are spared).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from networks import Network, network, plan_of
from schemes import MBV2_99, published
from sparsetune.plan import UpdatePlan
from steps import Step, measure_steps
from whole_program import machine_of

EFFORT = 36  # byte offset in the control block
COUNTED = "1:1:1"
SHARES = (0.4, 0.25, 0.16)  # of the steps that go on behind their loss
POLICIES = ("", COUNTED, "0.5:0.5:1", "0.25:0.25:1", "0.1:0.1:1", "0.1:0.1:0.9")


def effort_of(network: Network, plan: UpdatePlan) -> float:
    """Share of a full backward pass that a step on the network's sample takes."""
    machine = machine_of(network.graph, plan, network.x[:1])
    machine.run(0, len(machine.ops))
    (done,) = struct.unpack_from("<I", machine.state, EFFORT)
    full = machine.image.macs[1]
    return done / full if full else float("nan")


def table(title: str, steps: dict[str, Step], efforts: dict[str, float]) -> Iterator[str]:
    names = "".join(f"{name:>10}" for name in ("forward", "backward", "weights", "kernels"))
    yield f"{title:<24}{'effort':>8}{names}  ms"
    for policy, step in steps.items():
        parts = (step.forward, step.backward, step.weights, step.kernels)
        columns = "".join(f"{part.ms:>10.1f}" for part in parts)
        yield f"{policy or 'all errors':<24}{efforts[policy]:>8.3f}{columns}"


def skipping(step: Step) -> Iterator[str]:
    """What a step takes on average, where some end at their loss."""
    for share in SHARES:
        spared = (1 - share) * (step.kernels.ms - step.forward.ms)
        ms = step.kernels.ms - spared
        yield f"{share:.0%} of the steps whole: {ms:.1f} ms, {ms / step.kernels.ms:.1%} of a step"


def main() -> None:
    for name in ("kws", "mbv2"):
        found = network(name)
        if found is None:
            print("SKIP: there is no ../shared")
            return
        plan = published(found.graph, MBV2_99) if name == "mbv2" else plan_of(found)
        plans = [replace(plan, tinyprop=policy) for policy in POLICIES]
        steps = dict(zip(POLICIES, measure_steps(found, plans), strict=True))
        efforts = {p: effort_of(found, q) for p, q in zip(POLICIES, plans, strict=True)}
        print(*table(found.title, steps, efforts), *skipping(steps[COUNTED]), sep="\n")


if __name__ == "__main__":
    main()
