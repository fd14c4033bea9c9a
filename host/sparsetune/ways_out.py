"""When a plan does not fit: what makes it so large, and what would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from .budget import all_weights, trained_weights
from .compile import build_program, compile_image, source_of
from .errors import SparsetuneError
from .graph import Graph
from .image import Layout, lay_out, parse_image
from .kept import kept_share, with_fewer_kept
from .memory import predict
from .peak import Tenant, find_peak, short_name
from .plan import UpdatePlan, default_plan, exact, with_biases, with_patches
from .room import Room, with_residual
from .rules import with_rules_of

SHOWN = 3
RATIOS = (1.0, 0.5, 0.25, 0.125)
KEPT = 30.0  # percent of what exact gradients keep
PATCH = 2  # of gradients that are filtered
FEWEST_SAMPLES = 100  # fewer are no way out

Family: TypeAlias = Callable[[int], UpdatePlan]  # how many layers -> their plan
Cut: TypeAlias = Callable[[Graph, UpdatePlan], UpdatePlan]  # in less RAM; the same if it cannot


@dataclass(frozen=True)
class Wanted:
    """What was asked for: a plan for a model, and the room that it may take on a board. is_filled:
    residuals take what is left of it. option: by which a whole plan was asked for, or none."""

    graph: Graph
    plan: UpdatePlan
    room: Room
    is_filled: bool = False
    option: str = ""


@dataclass(frozen=True)
class WayOut:
    """What to change, the RAM it then takes, and the share of the model's weights and biases that
    a step trains."""

    change: str
    ram: int
    share: float
    plan: UpdatePlan

    def __str__(self) -> str:
        return (
            f"{self.change:<34} {self.ram:>9,} bytes, trains {100 * self.share:.3g} % of the "
            "weights a step"
        )


def does_not_fit(wanted: Wanted, layout: Layout) -> SparsetuneError:
    """The error for a layout that takes more than wanted.limit."""
    use, peak = wanted.room.use(layout), find_peak(layout.program, wanted.graph)
    tensors = [tenant for tenant in peak.tenants if tenant.tensor]
    image = f", image {use.image:,}" if use.image else ""
    text = (
        f"training needs {use.used:,} bytes of RAM (arena {use.arena:,}, trained weights and state "
        f"{use.state:,}, samples {use.data:,}{image}, program {use.package:,}), "
        f"{wanted.room.total:,} are there: the arena's peak is {peak.where}, its largest tensor "
        f"{_name(tensors[0])}"
    )
    ways = ways_out(wanted)
    if not ways:
        return SparsetuneError(f"{text}; {_hopeless(wanted)}")
    instead = f"leave out {wanted.option}, and take one of " if wanted.option else ""
    ends = f"{text}; {instead}the cheapest ways out:"
    return SparsetuneError(ends, *(str(way) for way in ways))


def _name(tenant: Tenant) -> str:
    shape = "x".join(str(n) for n in tenant.shape)
    name = short_name(tenant.tensor) if tenant.tensor else tenant.buffer.name
    return (
        f"{tenant.buffer.name} ({tenant.kind.what} of {name!r}, {shape} {tenant.kind.dtype}, "
        f"{tenant.bytes:,} bytes, {tenant.why})"
    )


def _hopeless(wanted: Wanted) -> str:
    graph = wanted.graph
    layout = lay_out(build_program(graph, UpdatePlan(())), source_of(graph))
    use = wanted.room.use(layout)
    if use.used > wanted.room.total >= use.used - use.image:
        return (
            f"the forward pass alone needs {use.used:,} bytes, {use.image:,} of them for the image:"
            " flash the sparsetune firmware, which reads it from flash, or take a smaller model"
        )
    if use.used > wanted.room.total:
        return f"the forward pass alone needs {use.used:,} bytes: take a smaller model or input"
    return "no plan fits, though the forward pass alone does: take a smaller model"


def ways_out(wanted: Wanted) -> list[WayOut]:
    """At most SHOWN that fit, all of them compiled; those first that give up the least training.
    Without residuals, where they were asked for and that fits, is always one of them. Of each kind
    (a ratio of channels, with or without biases, with less kept where more layers fit so) there is
    the one with the most layers. A way that trains fewer weights in no more layers than another is
    only named for want of better ones, and where it takes less RAM."""
    ways: dict[UpdatePlan, WayOut] = {}
    for way in (*_fewer_samples(wanted), *_with_less(wanted), *_fewer_weights(wanted)):
        ways.setdefault(way.plan, way)
    ranked = sorted(ways.values(), key=lambda way: (-way.share, way.ram))
    good: list[WayOut] = []
    rest: list[WayOut] = []
    for way in ranked:
        better = [other for other in good if len(way.plan.layers) <= len(other.plan.layers)]
        if not better:
            good.append(way)
        elif way.ram < min(other.ram for other in better):
            rest.append(way)
    coarse = list(_without_residual(wanted))
    shown = sorted((good + rest)[: SHOWN - len(coarse)], key=lambda way: (-way.share, way.ram))
    return [*coarse, *(_filled(wanted, way) for way in shown)]


def _filled(wanted: Wanted, way: WayOut) -> WayOut:
    """With the RAM that it takes when it is planned, residuals where they have room."""
    graph, room = wanted.graph, wanted.room
    plan = with_residual(graph, way.plan, room) if wanted.is_filled else way.plan
    if plan == way.plan:
        return way
    return replace(way, ram=room.use(room.compile(graph, plan)).used)


def _fewer_samples(wanted: Wanted) -> Iterator[WayOut]:
    """Each sample takes a few bytes, for its label and its place in the order."""
    image = parse_image(compile_image(wanted.graph, wanted.plan).image)
    many = wanted.room.samples
    used, more = (
        predict(image, n, wanted.room.spec, wanted.room.beside).used for n in (many, many + 1)
    )
    samples = many - -(-(used - wanted.room.total) // (more - used))
    if samples >= FEWEST_SAMPLES:
        ram = used - (many - samples) * (more - used)
        yield _way(wanted, f"at most {samples:,} samples", wanted.plan, ram)


def _without_residual(wanted: Wanted) -> Iterator[WayOut]:
    """It trains what was asked for: first of all ways. Which bits a plan file asks for is not said
    by leaving out an option."""
    plan = replace(wanted.plan, residual=False)
    ram = _ram(wanted, plan) if plan != wanted.plan else None
    if ram is not None:
        yield _way(wanted, "without --residual (--no-residual)", plan, ram)


def _with_less(wanted: Wanted) -> Iterator[WayOut]:
    """What was asked for in less RAM, by what costs least accuracy."""
    for change, cut in CUTS if _is_exact(wanted) else ():
        plan = cut(wanted.graph, wanted.plan)
        ram = _ram(wanted, plan) if plan != wanted.plan else None
        if ram is not None:
            yield _way(wanted, f"the same with {change}", plan, ram)
            return


def _is_exact(wanted: Wanted) -> bool:
    """Where codes or patches were asked for, every plan has them anyway."""
    return all(layer == exact(layer) for layer in wanted.plan.layers)


def _in_codes(graph: Graph, plan: UpdatePlan) -> UpdatePlan:
    found = with_fewer_kept(graph, plan, KEPT)
    return found if kept_share(graph, found) <= KEPT else plan


def _over_patches(graph: Graph, plan: UpdatePlan) -> UpdatePlan:
    return with_patches(graph, plan, PATCH)


CUTS: tuple[tuple[str, Cut], ...] = (
    (f"--kept {KEPT:g}", _in_codes),
    (f"--patch {PATCH}", _over_patches),
)


def _fewer_weights(wanted: Wanted) -> Iterator[WayOut]:
    graph, most = wanted.graph, len(wanted.plan.layers)
    for ratio in RATIOS:
        change = f"--last {{}} --ratio {ratio:g}"
        weights = partial(default_plan, graph, ratio=ratio)
        whole = list(_most_layers(wanted, change, weights))
        yield from whole
        yield from _in_codes_too(wanted, change, weights, whole)
        both = _both(graph, weights, most)
        yield from _most_layers(wanted, f"{change} --biases {most}", both)
    yield from _most_layers(wanted, "--biases {}", partial(with_biases, graph, UpdatePlan(())))


def _in_codes_too(
    wanted: Wanted, change: str, weights: Family, whole: list[WayOut]
) -> Iterator[WayOut]:
    """More layers than fit with exact gradients."""
    if whole and _is_exact(wanted):
        coded, fewest = _coded(wanted.graph, weights), len(whole[0].plan.layers)
        yield from _most_layers(wanted, f"{change} --kept {KEPT:g}", coded, fewest)


def _coded(graph: Graph, weights: Family) -> Family:
    return lambda last: _in_codes(graph, weights(last))


def _both(graph: Graph, weights: Family, most: int) -> Family:
    """Weights of some layers, and biases of as many as were asked for."""
    return lambda last: with_biases(graph, weights(last), most)


def _most_layers(
    wanted: Wanted, change: str, family: Family, low: int = 0
) -> Iterator[WayOut]:
    """The plan of a family that trains the most layers, more than `low`, and fits; found by
    halving, as fewer layers hardly ever take more."""
    high = len(wanted.plan.layers)
    best: WayOut | None = None
    while low < high:
        last = (low + high + 1) // 2
        plan = with_rules_of(wanted.graph, family(last), wanted.plan)
        ram = _ram(wanted, plan)
        if ram is not None:
            low, best = last, _way(wanted, change.format(last), plan, ram)
        else:
            high = last - 1
    if best:
        yield best


def _ram(wanted: Wanted, plan: UpdatePlan) -> int | None:
    """None where the plan cannot be compiled or does not fit."""
    try:
        layout = wanted.room.compile(wanted.graph, plan)
    except SparsetuneError:
        return None
    return wanted.room.use(layout).used if wanted.room.holds(layout) else None


def _way(wanted: Wanted, change: str, plan: UpdatePlan, ram: int) -> WayOut:
    share = trained_weights(wanted.graph, plan) / all_weights(wanted.graph)
    return WayOut(change, ram, share, plan)
