"""The bars of issue 4 beside what the last run of bench/speed.py measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HERTZ = 125_000_000
Parts = dict[str, Any]  # what bench/results holds, by part
# Average cycles a multiply-accumulate over all layers of a kind, gradients without a zero in dy.
# forward: of frozen layers, whose weights may be packed; trained ones are told where they differ.
OF_KINDS = (
    ("pointwise", "forward", 4.5), ("conv 3x3", "forward", 5.0), ("depthwise 3x3", "forward", 8.0),
    ("fully connected", "forward", 4.5), ("fully connected", "trained", 4.5),
    ("pointwise", "dx dense", 6.0), ("pointwise", "dw dense", 6.0),
)  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """what: in words. limit: the bar. at_least: whether more is better. figure: None where it was
    not measured. beside: what an average does not tell."""

    what: str
    figure: float | None
    limit: float
    at_least: bool = False
    beside: str = ""

    @property
    def is_met(self) -> bool:
        if self.figure is None:
            return False
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def bars(parts: Parts) -> Iterator[Bar]:
    yield from _of_kinds(parts.get("layers"))
    steps = parts.get("steps", {})
    yield Bar("ResNet-8 forward, cycles a MAC", _forward_per_mac(parts, "resnet8"), 5.5)
    yield Bar("four-layer CNN, whole step, ms", _step_ms(steps.get("cnn4")), 250)
    yield Bar("ResNet-8, between kernels, % of a step", _between(steps.get("resnet8")), 3)
    yield Bar("MobileNetV2 at 100 KB, step / forward", _ratio(steps.get("mbv2")), 1.5)
    yield _in_proportion(parts.get("ratios"))
    host = parts.get("host", {}).get("mbv2")
    yield Bar("twin forward MobileNetV2 / LiteRT", _quotient(host, "twin", "litert", "forward"), 3)
    yield Bar("twin step MobileNetV2, faster than PyTorch",
              _quotient(host, "torch", "twin", "step"), 5, True, _earlier(host))  # fmt: skip
    push = parts.get("push", {}).get("push_with_flash")
    yield Bar("push of 300 KB with flash times, KB/s", push, 50, at_least=True)


def _of_kinds(layers: Any) -> Iterator[Bar]:
    for kind, part, limit in OF_KINDS:
        figures = layers["kinds"].get(f"{kind}, {part}") if layers else None
        what = f"{kind}, {part}, cycles a MAC"
        yield (
            Bar(what, figures[0], limit, beside=_over(kind, figures, limit))
            if figures
            else Bar(what, None, limit)
        )


def _over(kind: str, figures: list[Any], limit: float) -> str:
    each, models = figures[5], figures[6]
    over = sum(figure > limit for figure in each)
    said = f"{over} of {len(each)} layers over, worst {figures[2]:.1f}; "
    said += ", ".join(f"{name} {figure:.2f}" for name, figure in models.items())
    return said + ("; of some samples, with random bytes more" if "depthwise" in kind else "")


def _forward_per_mac(parts: Parts, model: str) -> float | None:
    if model not in parts.get("steps", {}) or "layers" not in parts:
        return None
    rows = (dict(zip(parts["layers"]["columns"], r, strict=True)) for r in parts["layers"]["rows"])
    macs = sum(r["macs"] for r in rows if r["model"] == model and r["part"] == "forward")
    return float(parts["steps"][model]["inference"]["cycles"]) / macs


def _kernels(step: Any) -> int:
    return sum(int(step[part]["cycles"]) for part in ("forward", "backward", "weights"))


def _step_ms(step: Any) -> float | None:
    return 1000 * (_kernels(step) + step["between"]["cycles"]) / HERTZ if step else None


def _between(step: Any) -> float | None:
    between = step["between"]["cycles"] if step else 0
    return 100 * between / (between + _kernels(step)) if step else None


def _ratio(step: Any) -> float | None:
    return _kernels(step) / step["inference"]["cycles"] if step else None


def _in_proportion(ratios: Any) -> Bar:
    """The worst share of the channels: what it costs of what all cost, over the share."""
    what = "MobileNetV2, channels' part / their share, worst"
    if not ratios:
        return Bar(what, None, 1)
    cycles = {
        float(share): sum(step[part]["cycles"] for part in ("forward", "backward", "weights"))
        for share, step in ratios["steps"].items()
    }
    none, whole = cycles.pop(0.0), cycles.pop(1.0)
    over = {share: (few - none) / (whole - none) / share for share, few in cycles.items()}
    beside = ", ".join(f"{share:g}: {times:.2f}" for share, times in sorted(over.items()))
    return Bar(what, max(over.values()), 1, beside=f"beyond a step of biases alone; {beside}")


def _quotient(host: Any, over: str, under: str, what: str) -> float | None:
    above = host and host[f"{over}_{what}"]
    return above / host[f"{under}_{what}"] if above else None


def _earlier(host: Any) -> str:
    version = str(host.get("torch_version", "")) if host else ""
    return f"PyTorch {version}" if "earlier run" in version else ""


def table(parts: Parts) -> Iterator[str]:
    yield f"{'bar':<54}{'figure':>10}{'limit':>10}  met"
    for bar in bars(parts):
        figure = "-" if bar.figure is None else f"{bar.figure:.2f}"
        limit = f"{'>=' if bar.at_least else '<='} {bar.limit:g}"
        met = "not measured" if bar.figure is None else "yes" if bar.is_met else "NO"
        yield f"{bar.what:<54}{figure:>10}{limit:>10}  {met:<4} {bar.beside}".rstrip()
