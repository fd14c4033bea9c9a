"""What a sparse step costs over the share of channels that it trains. Run: python bench/ratios.py

MobileNetV2-w0.35@128 by MCUNetV3's scheme for 100 KB, its eight trained convolutions with the same
share of their input channels each, 1/8 to 1, and with none; kernels on the emulated Pico. Forward
pass and input gradients are the same for all shares, and so are the biases, which learn in all of
them. What should fall in proportion is the rest, "channels": what a step takes beyond that of the
plan with none. The plot goes to bench/results/ratios.svg.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from emulated import ROOT
from networks import Network, network
from schemes import MBV2_99, published
from sparsetune.graph import Graph
from sparsetune.plan import UpdatePlan
from steps import Step, measure_steps

NONE = 0.0  # of the channels: only the biases learn
SHARES = (NONE, *(i / 8 for i in range(1, 9)))
PLOT = ROOT / "bench" / "results" / "ratios.svg"


@dataclass(frozen=True)
class Line:
    """ms = intercept + slope * share, and how far the worst point is from it, in its own ms."""

    slope: float
    intercept: float
    worst: float


def with_share(graph: Graph, share: float) -> UpdatePlan:
    """The published scheme, all its trained convolutions with this share of channels."""
    return published(graph, replace(MBV2_99, shares=dict.fromkeys(MBV2_99.shares, share)))


def measure_shares(mbv2: Network) -> dict[float, Step]:
    plans = [with_share(mbv2.graph, share) for share in SHARES]
    return dict(zip(SHARES, measure_steps(mbv2, plans), strict=True))


def line_through(points: dict[float, float]) -> Line:
    """Least squares; points: ms by share."""
    x, y = np.array(list(points)), np.array(list(points.values()))
    slope, intercept = np.polyfit(x, y, 1)
    return Line(float(slope), float(intercept), float(abs(slope * x + intercept - y).max()))


def of_channels(steps: dict[float, Step]) -> dict[float, float]:
    """ms of a step that its chosen channels take, by share; none of them is left out."""
    none = steps[NONE].kernels.ms
    return {share: step.kernels.ms - none for share, step in steps.items() if share}


def lines(steps: dict[float, Step]) -> dict[str, Line]:
    some = {share: step.kernels.ms for share, step in steps.items() if share}
    return {"step": line_through(some), "channels": line_through(of_channels(steps))}


def table(steps: dict[float, Step]) -> Iterator[str]:
    channels = {NONE: 0.0, **of_channels(steps)}
    yield "share of channels   step ms   channels ms   of all   step / inference"
    for share, step in steps.items():
        yield (f"{share:>17.3f}{step.kernels.ms:>10.1f}{channels[share]:>14.1f}"
               f"{channels[share] / channels[1.0]:>9.3f}{step.ratio:>19.3f}")  # fmt: skip
    for name, line in lines(steps).items():
        yield (f"{name}: {line.intercept:.1f} ms + {line.slope:.1f} ms * share, "
               f"at most {line.worst:.1f} ms off")  # fmt: skip


def plot(steps: dict[float, Step]) -> str:
    """Draws PLOT; says where it is, or why there is none."""
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed (extra: plot)"
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "sparsetune"  # the same figures, the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: a third of the size
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    step = {share: step.kernels.ms for share, step in steps.items()}
    for points, label in ((step, "step"), (of_channels(steps), "beyond biases alone")):
        axes.plot(list(points), list(points.values()), "o-", label=label)
    axes.axhline(next(iter(steps.values())).inference.ms, ls=":", c="grey", label="forward pass")
    axes.set(xlabel="share of the input channels trained", ylabel="ms, emulated at 125 MHz",
             xlim=(0, 1.05), ylim=(0, None))  # fmt: skip
    axes.legend(fontsize=8)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})
    return f"plot: {PLOT.relative_to(ROOT)}"


def main() -> None:
    mbv2 = network("mbv2")
    if mbv2 is None:
        print("SKIP: there is no ../shared")
        return
    steps = measure_shares(mbv2)
    print(*table(steps), plot(steps), sep="\n")


if __name__ == "__main__":
    main()
