"""The plan that is worth most within a board's limits: chosen from sums (costs.py, choice.py), then
compiled; where it takes more than the sums said, they are corrected and it is chosen anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sparsetune_device.store import room_of

from ..analytic import analytic_memory
from ..compile import lean_program
from ..cycles import step_cycles
from ..errors import SparsetuneError
from ..graph import Array, Graph
from ..memory import IN_FLASH, TAKING_TURNS, VELOCITY, fixed_bytes
from ..plan import UpdatePlan
from ..room import Room
from ..share import convolution_weights, updated_share
from ..store_room import MOST_FULL
from ..task import task_of
from .choice import Choice, Problem, Row, best, least
from .costs import FINER, MOST_PAGES, RATIOS, Cost, Menu, Offer, menu_of

TRIES = 12  # at a plan that really fits
STEP_SHARE = 1e-4  # of all that can be gained: what a step's time counts among equals
HEAD = frozenset({1})  # whose weights train in any plan, unless only biases fit
INFINITE = float("inf")


@dataclass(frozen=True)
class Limits:
    """room: of the board. analytic: bytes as MCUNetV3 counts them. seconds: of a step on one core.
    writes: bytes of flash a step, on average. share: percent of the convolution weights that a step
    updates. layers: whose weights train, beside the head's."""

    room: Room
    analytic: float = INFINITE
    seconds: float = INFINITE
    writes: float = INFINITE
    share: float = INFINITE
    layers: float = INFINITE


@dataclass(frozen=True)
class Gains:
    """What training is expected to gain, in any unit. depths: biases of the last 1, 2, ... layers.
    parts: of weights, by the number of the part in the menu."""

    depths: Array
    parts: Array


@dataclass(frozen=True)
class Searched:
    """A plan, what it is expected to gain, and how many were compiled until one fitted."""

    plan: UpdatePlan
    gain: float
    compiled: int


Value = Callable[[Menu], Gains]
ALL = Offer()
Finish = Callable[[UpdatePlan], UpdatePlan]  # adds what else was asked for to a plan


def same(plan: UpdatePlan) -> UpdatePlan:
    return plan


class Search:
    """For plans within limits, of one value after another. base: a plan without layers, whose
    residual and loss all shall have. finish: adds the patches with which a plan has to keep the
    limits; what is found has none. offer: as what layers may train; ratios hang on the limits."""

    def __init__(
        self,
        graph: Graph,
        base: UpdatePlan,
        limits: Limits,
        finish: Finish = same,
        offer: Offer = ALL,
    ) -> None:
        self.graph, self.base, self.limits, self.finish = graph, base, limits, finish
        self.offer = offer
        self.bases = (base, replace(base, scratch=False)) if base.scratch else (base,)
        self.menus: list[Menu] = []

    def best(self, value: Value) -> Searched:
        """The plan that gains most. Without scratch for the faster kernels where nothing fits with
        it, without the head's weights where nothing fits with those. Raises SparsetuneError where
        nothing fits at all, with the least that is possible."""
        for number in range(len(self.bases)):
            menu = self.menu(number)
            found = self._best_that_fits(menu, value(menu), HEAD)
            if found:
                return found
        found = self._best_that_fits(self.menus[-1], value(self.menus[-1]), frozenset())
        if found:
            return found
        raise _nothing_fits(self.menus, self.limits)

    def fits(self, plan: UpdatePlan) -> bool:
        """Whether a plan with all of its weights in RAM keeps the limits."""
        limits, graph, plan = self.limits, self.graph, self.finish(plan)
        if analytic_memory(graph, plan).total > limits.analytic:
            return False
        if updated_share(graph, plan) > limits.share or not limits.room.takes(graph, plan):
            return False
        return _late(graph, plan, limits) <= 0

    def menu(self, number: int = 0) -> Menu:
        """Of one of the bases, in their order."""
        room = self.limits.room
        while len(self.menus) <= number:
            base, offer = self.bases[len(self.menus)], replace(self.offer, ratios=self._ratios)
            menu = menu_of(self.graph, base, room.spec.clock, room.store_bytes, offer)
            self.menus.append(menu)
        return self.menus[number]

    def _best_that_fits(
        self, menu: Menu, gains: Gains, needed: frozenset[int]
    ) -> Searched | None:
        """needed: layers whose weights must train, counted from the output."""
        limits = self.limits
        ram = float(limits.room.total)
        for number in range(1, TRIES + 1):
            choice = best(replace(problem_of(menu, gains, limits, ram), needed=needed))
            if choice is None:
                return None
            plan = menu.plan(choice.depth, [menu.parts[i] for i in choice.parts])
            whole = self.finish(plan)
            over = _over(menu.graph, whole, limits.room)
            late = _late(menu.graph, whole, self.limits) if whole != plan else 0
            if over <= 0 and late <= 0:
                return Searched(plan, worth(gains, choice), number)
            ram -= max(0, over)
            limits = replace(limits, seconds=limits.seconds - max(0.0, late))
        return None

    @property
    def _ratios(self) -> tuple[float, ...]:
        return RATIOS if self.limits.share == INFINITE else FINER

    def within(self, layers: float) -> Search:
        """The same, of plans that train the weights of so many layers at most."""
        limits = replace(self.limits, layers=layers)
        other = Search(self.graph, self.base, limits, self.finish, self.offer)
        other.menus = self.menus
        return other


def search_plan(
    graph: Graph, base: UpdatePlan, limits: Limits, value: Value, finish: Finish = same
) -> Searched:
    """The plan that gains most: see Search. Raises SparsetuneError where none fits."""
    return Search(graph, base, limits, finish).best(value)


def worth(gains: Gains, choice: Choice) -> float:
    """What a choice is expected to gain."""
    return float(gains.depths[choice.depth - 1] + gains.parts[list(choice.parts)].sum())


def _over(graph: Graph, plan: UpdatePlan, room: Room) -> int:
    """Bytes by which a plan takes more RAM than is there; 0 or less where it fits. One that cannot
    be compiled is over by as much as the sums know steps of."""
    try:
        layout = room.compile(graph, plan)
    except SparsetuneError:
        return 64
    return 0 if room.holds(layout) else max(64, room.short(layout))


def _late(graph: Graph, plan: UpdatePlan, limits: Limits) -> float:
    """Seconds by which a step takes longer than it may; 0 or less where it does not."""
    clock = limits.room.spec.clock
    if limits.seconds == INFINITE or clock is None:
        return 0.0
    cycles = sum(step_cycles(lean_program(graph, plan), graph, clock))
    return (cycles - cycles_left(limits)) / clock.hertz


# The integer program --------------------------------------------------------------------------


def problem_of(menu: Menu, gains: Gains, limits: Limits, ram: float) -> Problem:
    """ram: bytes for all that training takes."""
    rows = [*_ram_rows(menu, limits.room, ram), *_other_rows(menu, limits)]
    layers = tuple(part.layer for part in menu.parts)
    depths, parts = _less_time(menu, gains)
    return Problem(depths, parts, layers, tuple(rows), HEAD)


def _less_time(menu: Menu, gains: Gains) -> tuple[Array, Array]:
    """Gains, less a little for the time of a step: among plans that gain the same the fastest."""
    depths, parts = (_of(costs, "cycles") for costs in _costs(menu))
    all_of_it = np.abs(gains.depths).max() + np.abs(gains.parts).sum()
    unit = STEP_SHARE * (all_of_it or 1.0) / max(1.0, depths.max() + np.abs(parts).sum())
    return gains.depths - unit * depths, gains.parts - unit * parts


def _costs(menu: Menu) -> tuple[list[Cost], list[Cost]]:
    return list(menu.depths), [part.cost for part in menu.parts]


def _of(costs: list[Cost], *names: str) -> Array:
    return np.array([sum(getattr(cost, name) for name in names) for cost in costs], float)


def _ram_rows(menu: Menu, room: Room, ram: float) -> list[Row]:
    """One for each place of the program at which no other takes more, whatever is chosen."""
    depths, parts = _costs(menu)
    live = np.array([cost.live for cost in (*depths, *parts)]).T
    left = ram - _beside(menu, room)
    lasting = [_of(costs, "state", "objects") for costs in (depths, parts)]
    once = _once(menu)
    return [
        Row(
            lasting[0] + line[: len(depths)], lasting[1] + line[len(depths) :], left, once
        )
        for line in _busiest(live)
    ]


def _beside(menu: Menu, room: Room) -> int:
    """Bytes of RAM that any plan takes beside arena, state and its layers' objects."""
    fixed = fixed_bytes(task_of(menu.graph), room.samples, room.spec, room.beside)
    return fixed + VELOCITY * menu.base.velocity


def _busiest(live: Array) -> Array:
    """Lines that are not, in every column, at most another."""
    lines = np.unique(live, axis=0)
    kept = [
        line
        for i, line in enumerate(lines)
        if not any(j != i and (line <= other).all() for j, other in enumerate(lines))
    ]
    return np.array(kept)


def _once(menu: Menu) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Python code that any layer in flash needs."""
    parts = list(enumerate(menu.parts))
    in_flash = tuple(i for i, part in parts if part.cost.in_flash)
    turns = tuple(i for i, part in parts if part.cost.takes_turns)
    both = ((in_flash, float(IN_FLASH)), (turns, float(TAKING_TURNS)))
    return tuple((numbers, amount) for numbers, amount in both if numbers)


def _other_rows(menu: Menu, limits: Limits) -> list[Row]:
    depths, parts = _costs(menu)
    amounts = {
        "analytic": limits.analytic,
        "cycles": cycles_left(limits),
        "writes": limits.writes,
        "pages": store_pages(limits.room.store_bytes),
        "updated": limits.share / 100 * convolution_weights(menu.graph),
        "layers": limits.layers,
    }
    return [
        Row(_of(depths, name), _of(parts, name), limit, name=name)
        for name, limit in amounts.items()
        if limit < INFINITE
    ]


def store_pages(store_bytes: int) -> float:
    """Of trained channels, with records of any length that is allowed."""
    sizes = [*range(1, MOST_PAGES + 1)]
    return float(MOST_FULL * room_of(store_bytes, sizes)) if store_bytes else 0.0


def cycles_left(limits: Limits) -> float:
    """For the kernels of a step."""
    clock = limits.room.spec.clock
    if limits.seconds == INFINITE:
        return INFINITE
    if clock is None:
        raise SparsetuneError(
            f"nobody has measured the cycles of {limits.room.spec.title}: leave out --time"
        )
    return limits.seconds * clock.hertz - clock.step


# Where nothing fits ---------------------------------------------------------------------------


def _nothing_fits(menus: list[Menu], limits: Limits) -> SparsetuneError:
    """What stands in the way, and the least that is possible."""
    needs = [_least_of_each(menu, limits) for menu in menus]
    for name, (_, limit) in needs[0].items():
        need = min(each[name][0] for each in needs)
        if need > limit:
            return SparsetuneError(
                f"no plan trains this model within {_told(name, limits)}: the least is about "
                f"{_amount(name, need, limits)}"
            )
    return SparsetuneError("no plan fits all of these limits at once: give more of one of them")


def _least_of_each(menu: Menu, limits: Limits) -> dict[str, tuple[float, float]]:
    """Of all that is limited: what a plan takes at the least, and the limit."""
    zero = Gains(np.zeros(len(menu.depths)), np.zeros(len(menu.parts)))
    ram = float(limits.room.total)
    free = replace(problem_of(menu, zero, limits, ram), rows=(), needed=frozenset())
    room = limits.room
    beside = _beside(menu, room)
    of_ram = least(free, tuple(_ram_rows(menu, limits.room, ram)))
    assert of_ram
    found = {"RAM": (of_ram.value + beside, ram)}
    for row in _other_rows(menu, limits):
        choice = least(free, (row,))
        assert choice
        found[row.name] = choice.value, row.limit
    return found


def _told(name: str, limits: Limits) -> str:
    wanted = {
        "RAM": f"{limits.room.total:,} bytes of RAM",
        "analytic": f"{limits.analytic:,.0f} bytes of analytic memory",
        "cycles": f"{limits.seconds:g} s a step",
        "updated": f"{limits.share:g} % of the convolution weights a step",
    }
    return wanted.get(name, f"{limits.writes:g} bytes of flash a step")


def _amount(name: str, value: float, limits: Limits) -> str:
    clock = limits.room.spec.clock
    if name == "cycles" and clock:
        return f"{(value + clock.step) / clock.hertz:.3g} s"
    unit = "weights" if name == "updated" else "bytes"
    return f"{math.ceil(value):,} {unit}"
